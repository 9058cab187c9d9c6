"""Shows 3 of issue 3: recipes of the fixture papers, field by field, against what the papers truly say."""

from __future__ import annotations

import pytest

from tests.literature.extraction.table import HELD_BACK, Count, compare, count, papers, table


@pytest.fixture(scope="module")
def counts() -> dict[str, Count]:
    return count(papers())


def test_at_least_95_of_100_fields_are_right_and_70_are_found(counts: dict[str, Count]) -> None:
    print("\n" + table(counts))
    total = sum(counts.values(), Count())
    assert len(counts) >= 12
    assert total.right >= 200
    assert total.precision >= 0.95
    assert total.recall >= 0.7


def test_papers_that_the_rules_were_not_made_on_are_read_as_reliably(counts: dict[str, Count]) -> None:
    held = sum((counts[name] for name in HELD_BACK), Count())
    assert held.precision >= 0.95
    assert held.recall >= 0.7


def test_a_paper_that_trains_nothing_has_no_recipe(counts: dict[str, Count]) -> None:
    assert counts["2609.90007"] == Count()


def test_the_yardstick_itself_counts_what_is_wrong_and_what_is_missing() -> None:
    true = [{("method", "sft"), ("learning_rate", "1e-05"), ("beta", "0.1")}, {("method", "dpo")}]
    read = [{("method", "dpo"), ("beta", "0.2")}, {("method", "sft"), ("learning_rate", "1e-05")}]
    found = compare(read, true)
    assert (found.right, found.wrong, found.missed) == (3, ["beta=0.2"], ["beta=0.1"])
    assert compare([], true).missed and compare(read, []).wrong
