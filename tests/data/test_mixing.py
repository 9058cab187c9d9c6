"""Mixtures: shares, bounds, order, provenance, and the same bytes again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from posttrain_crew.errors import ConfigError, DatasetError
from posttrain_crew.files import sha256_file
from posttrain_crew.tools.data.mixing import Mixture, Row, Source, allocate, mix


def source(name: str, rows: int, **settings: object) -> Source:
    made = [Row({"id": f"{name}{i}"}, length=(i * 7) % rows, pass_rate=(i % 5) / 4) for i in range(rows)]
    return Source(name, made, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sources", "mixture", "counts"),
    [
        ([source("a", 10), source("b", 100)], Mixture(), [10, 100]),
        ([source("a", 10), source("b", 100)], Mixture(max_rows=40), [10, 30]),
        ([source("a", 100, weight=3), source("b", 100, weight=1)], Mixture(max_rows=80), [60, 20]),
        ([source("a", 10, weight=1), source("b", 100, weight=1)], Mixture(), [40, 70]),  # 4 epochs bound it
        ([source("a", 10, weight=1), source("b", 100, weight=1)], Mixture(max_repeats=1), [10, 100]),
        ([source("a", 10, weight=1), source("b", 100, weight=1)], Mixture(max_rows=10_000), [40, 400]),
        ([source("a", 100, weight=1, cap=5), source("b", 100, weight=1)], Mixture(max_rows=50), [5, 45]),
        ([source("a", 100, weight=1), source("b", 100, weight=9)], Mixture(max_rows=50), [5, 45]),
        ([source("a", 100, weight=1, min_share=0.3), source("b", 100, weight=9)], Mixture(max_rows=50), [15, 35]),
        ([source("a", 10, weight=1, min_share=0.5), source("b", 100, weight=9)], Mixture(), [40, 40]),  # smaller
        ([source("a", 10, weight=1), source("b", 100, weight=0)], Mixture(), [10, 0]),
        ([source("a", 50, min_share=0.2), source("b", 50)], Mixture(max_rows=10), [5, 5]),
    ],
)
def test_rows_per_source(sources: list[Source], mixture: Mixture, counts: list[int]) -> None:
    assert allocate(sources, mixture) == counts
    made = mix(sources, mixture)
    assert Counter(made.origins) == Counter({i: n for i, n in enumerate(counts) if n})
    drawn = Counter(str(row.record["id"]) for row in made.rows)
    for each, count in zip(sources, counts, strict=True):
        repeats = [drawn[str(row.record["id"])] for row in each.rows]
        assert max(repeats, default=0) - min(repeats, default=0) <= 1  # whole epochs, then a sample
        assert max(repeats, default=0) <= mixture.max_repeats and sum(repeats) == count


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    sources = [source("a", 30, weight=1, licence="mit", revision="abc", rows_in=50, dropped={"duplicate": 20}),
               source("b", 200, weight=2)]  # fmt: skip
    path, sha = mix(sources, Mixture(max_rows=200, seed=3)).write(tmp_path)
    before = path.read_bytes()
    assert sha256_file(path) == sha == path.parent.name
    assert mix(sources, Mixture(max_rows=200, seed=3)).write(tmp_path) == (path, sha) and path.read_bytes() == before
    assert mix(sources, Mixture(max_rows=200, seed=4)).text != path.read_text()
    card = json.loads((path.parent / "card.json").read_text())
    assert card["sha256"] == sha and card["rows"] == 200 and card["seed"] == 3
    assert card["sources"][0] == {
        "name": "a", "revision": "abc", "licence": "mit", "rows_in": 50, "rows_out": 67, "different_rows": 30,
        "epochs": 2.2333, "weight": 1, "dropped": {"duplicate": 20},
    }  # fmt: skip
    assert card["sources"][1]["dropped"] == {"not_drawn": 67}


def test_orders() -> None:
    sources = [source("a", 40), source("b", 80)]
    spread = mix(sources, Mixture()).origins
    assert all(3 <= spread[i : i + 12].count(0) <= 5 for i in range(0, 108, 12))
    lengths = [row.length for row in mix(sources, Mixture(order="length")).rows]
    assert lengths == sorted(lengths)
    rates = [row.pass_rate for row in mix(sources, Mixture(order="difficulty")).rows]
    assert rates == sorted(rates, reverse=True, key=lambda rate: rate or 0)  # the easy ones first
    unmeasured = Source("c", [Row({"id": i}, 1) for i in range(3)])
    placed = [row.pass_rate for row in mix([*sources, unmeasured], Mixture(order="difficulty")).rows]
    assert 20 < placed.index(None) < 100
    with pytest.raises(ConfigError, match="pass_rate"):
        mix([unmeasured], Mixture(order="difficulty"))


@pytest.mark.parametrize(
    ("sources", "mixture", "message"),
    [
        ([source("a", 5, weight=1), source("b", 5)], Mixture(), "b lack"),
        ([source("a", 5, weight=-1.0)], Mixture(), "weight of a"),
        ([source("a", 5, weight=float("nan"))], Mixture(), "weight of a"),
        ([source("a", 5, cap=-1)], Mixture(), "cap of a"),
        ([source("a", 5, min_share=0.6), source("b", 5, min_share=0.6)], Mixture(), "more than 1"),
        ([Source("a", [], weight=1, min_share=0.2)], Mixture(), "nothing to fill"),
        ([source("a", 5), source("a", 5)], Mixture(), "same name"),
        ([source("a", 5)], Mixture(max_repeats=0.5), "max_repeats"),
        ([source("a", 5)], Mixture(max_rows=0), "max_rows"),
    ],
)
def test_contradictions(sources: list[Source], mixture: Mixture, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mix(sources, mixture)


def test_nothing_to_mix() -> None:
    with pytest.raises(DatasetError, match="no rows"):
        mix([Source("a", [])], Mixture())
