"""Recall on planted rows and false alarms on clean ones, over the whole catalogue."""

from __future__ import annotations

import random

from posttrain_crew.files import sha256_file
from posttrain_crew.target import Target
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.formats import LABELS, Example
from posttrain_crew.tools.embedded.benchmark import items, make_item
from posttrain_crew.tools.embedded.families import FAMILIES
from posttrain_crew.tools.sources import BenchmarkItem, benchmark_items

from .conftest import Catalogue


def as_example(item: BenchmarkItem) -> Example:
    return Example(item.question, item.choices, item.answer, None, None)


def key(question: str) -> tuple[str, ...]:
    """What identifies an instance: every wording of it, as the families write them."""
    return KNOWN.get(question, ())


KNOWN: dict[str, tuple[str, ...]] = {}
for _split in ("dev", "test"):
    for _item in items(_split):  # type: ignore[arg-type]
        _family = FAMILIES[_item.family]
        _params = tuple(map(int, _item.id.partition("/")[2].split("-")))
        for _wording in range(len(_family.wordings)):
            KNOWN[_family.question(_params, _wording)] = (_item.id,)


def test_table(auditor: Auditor, catalogue: Catalogue) -> None:
    for name, examined in catalogue.examined.items():
        planted = {i for i in examined.readable if key(examined.example(i).question)}
        found = set(examined.contaminated)
        false = len(found - planted) / (len(examined.readable) - len(planted))
        print(f"{name:28} planted {len(planted):4} found {len(found & planted):4} false {false:.2%}", end=" ")
        print(examined.matches.by_check)
        assert false <= 0.01
        if planted:
            assert len(found & planted) >= 0.9 * len(planted)
    assert sum(len(each.contaminated) for each in catalogue.examined.values()) >= 175


def test_copies_are_found_in_any_dress(auditor: Auditor, target: Target) -> None:
    rng = random.Random(0)
    every = [as_example(item) for split in ("dev", "test") for item in benchmark_items(target, split)]  # type: ignore[arg-type]
    exact = auditor.index.check(every)
    assert exact.rate == 1 and exact.by_check["exact"] == len(every)

    def dressed(row: Example, dress: str) -> Example:
        if dress == "loud":
            return Example(row.question.upper().replace(" ", "  ") + "!", row.choices, row.answer, None, None)
        if dress == "mislabelled":
            return Example(row.question, row.choices, rng.choice(LABELS[:4]), None, None)
        if dress == "no choices":
            return Example(row.question, (), None, None, None)
        return Example(
            f"Exam 7, task 3, for class 9. {row.question} Think well and be brief.", row.choices, row.answer, None, None
        )

    for dress, least in (("loud", 0.99), ("mislabelled", 0.99), ("no choices", 0.99), ("embedded", 0.8)):
        rate = auditor.index.check(dressed(row, dress) for row in every).rate
        print(f"{dress:12} {rate:.1%}")
        assert rate >= least, dress


def test_every_wording_of_every_item_is_found(auditor: Auditor) -> None:
    rng = random.Random(1)
    rows = []
    for split in ("dev", "test"):
        for item in items(split):  # type: ignore[arg-type]
            params = tuple(map(int, item.id.partition("/")[2].split("-")))
            for wording in range(len(FAMILIES[item.family].wordings)):
                again = make_item(FAMILIES[item.family], params, rng, wording)  # new wrong choices
                if again.question != item.question:
                    rows.append(Example(again.question, again.choices, again.answer, None, None))
    rate = auditor.index.check(rows).rate
    print(f"reworded, new wrong choices: {rate:.1%} of {len(rows)}")
    assert rate >= 0.9


def test_a_template_with_other_numbers_is_another_question() -> None:
    item = BenchmarkItem(
        "1", "A train of 30 cars covers 40 km in 5 hours on a rainy day in June. How fast?", ("8", "9"), "A"
    )
    index = ContaminationIndex([item])
    other = Example(item.question.replace("40", "35"), ("7", "9"), "A", None, None)
    assert not index.check([other]).rows and index.check([as_example(item)]).rows == (0,)


def test_questions_without_numbers() -> None:
    item = BenchmarkItem(
        "1",
        "Which organelle of a eukaryotic cell carries out oxidative phosphorylation to produce most of its ATP?",
        ("Mitochondrion", "Ribosome", "Golgi apparatus", "Lysosome"),
        "A",
    )
    index = ContaminationIndex([item])
    reworded = Example(
        "Most ATP of a eukaryotic cell is produced by oxidative phosphorylation. Name the organelle that does so.",
        ("Lysosome", "Ribosome", "Mitochondrion", "Golgi apparatus"),
        "C",
        None,
        None,
    )
    neighbour = Example(
        "Which organelle of a eukaryotic cell modifies and packs proteins?",
        ("Mitochondrion", "Ribosome", "Golgi apparatus", "Lysosome"),
        "C",
        None,
        None,
    )
    assert index.check([reworded]).by_check["reworded"] == 1
    assert not index.check([neighbour]).rows


def test_verdict_is_bound_to_the_bytes(auditor: Auditor, catalogue: Catalogue) -> None:
    path = catalogue.root / "dialogs" / "tutor-science" / "data" / "train.jsonl"
    verdict = auditor.index.verdict(path)
    assert verdict.sha256 == sha256_file(path) and verdict.benchmark_items == 1200
    assert "question" not in verdict.model_dump_json()
