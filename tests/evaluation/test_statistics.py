"""The numbers that gates rest on, against hand calculation and scipy."""

from __future__ import annotations

import math
import random
import time

import pytest
from scipy.stats import binomtest

from posttrain_crew.errors import InputError
from posttrain_crew.tools.evaluation.statistics import (
    mcnemar_exact,
    minimum_detectable_effect,
    paired_bootstrap,
    paired_cells,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (78, 600), (300, 600), (599, 600), (600, 600)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(k: int, n: int, confidence: float) -> None:
    ours, theirs = wilson(k, n, confidence), binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_at_the_edges() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)
    assert wilson(0, 5).low == 0
    assert wilson(5, 5).high == 1
    for bad in ((-1, 5), (6, 5)):
        with pytest.raises(InputError):
            wilson(*bad)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar_exact(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar_exact(2, 8) == pytest.approx(mcnemar_exact(8, 2))
    assert mcnemar_exact(4, 4) == pytest.approx(1)


def test_cells_and_delta() -> None:
    cells = paired_cells([True, True, False, False, True], [True, False, True, False, False])
    assert (cells.both, cells.gained, cells.lost, cells.neither) == (1, 2, 1, 1)
    assert cells.delta == pytest.approx(0.2)
    for bad in (([], []), ([True], [])):
        with pytest.raises(InputError):
            paired_cells(*bad)


def test_bootstrap_is_the_one_that_draws_items() -> None:
    rng = random.Random(1)
    a = [rng.random() < 0.6 for _ in range(200)]
    b = [rng.random() < 0.5 for _ in range(200)]
    deltas = []
    for _ in range(4000):
        drawn = [rng.randrange(200) for _ in range(200)]
        deltas.append(sum(a[i] - b[i] for i in drawn) / 200)
    deltas.sort()
    interval = paired_bootstrap(a, b, seed=0)
    assert interval.low == pytest.approx(deltas[100], abs=0.015)
    assert interval.high == pytest.approx(deltas[3899], abs=0.015)


def test_bootstrap_repeats_itself_and_is_fast() -> None:
    a, b = [True] * 300 + [False] * 300, [False] * 300 + [True] * 300
    paired_bootstrap(a, b, seed=3)
    started = time.perf_counter()
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert time.perf_counter() - started < 0.5
    same = paired_bootstrap(a, a, seed=3)
    assert (same.low, same.high) == (0, 0)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    rng, covered = random.Random(5), 0
    for trial in range(200):
        a = [rng.random() < 0.55 for _ in range(150)]
        b = [rng.random() < 0.45 for _ in range(150)]
        interval = paired_bootstrap(a, b, seed=trial, n_resamples=1000)
        covered += interval.low <= 0.1 <= interval.high
    assert covered >= 180


def test_detectable_effect_solves_connors_formula() -> None:
    d = minimum_detectable_effect(600, discordant=0.3)
    needed = (1.959964 * math.sqrt(0.3) + 0.841621 * math.sqrt(0.3 - d * d)) ** 2 / d**2
    assert needed == pytest.approx(600, rel=1e-3)
    assert minimum_detectable_effect(98) > minimum_detectable_effect(600)
    assert minimum_detectable_effect(3, discordant=0.1) == 0.1
    with pytest.raises(InputError):
        minimum_detectable_effect(0)
