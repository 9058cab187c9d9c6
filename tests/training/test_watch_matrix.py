"""The watch rules over real histories, on other seeds than they were set on: recall, false alarms, steps saved."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.training.histories.large import KINDS, noticed, simulate
from tests.training.histories.matrix import Verdict, histories, judge, judge_bare, recall, saved_share, table
from tests.training.histories.recipes import CLASSES, happened, recipe


@pytest.fixture(scope="module")
def verdicts() -> list[Verdict]:
    found = [judge(history) for history in histories("test")]
    print(table(found))
    return found


def test_there_are_enough_real_histories_of_each_class_on_both_sides() -> None:
    every = histories()
    assert len(every) >= 60
    for side in ("rule", "test"):
        counts = Counter(h.failure for h in every if h.label["split"] == side)
        assert set(counts) == set(CLASSES)
        assert counts["healthy"] >= 3
    assert {h.label["method"] for h in every} == {"sft", "dpo", "grpo"}


def test_every_history_went_the_way_that_its_label_says() -> None:
    for history in histories():
        label = history.label
        made = recipe(label["class"], label["seed"])
        assert (made.method, made.trainer, made.rewards) == (label["method"], label["trainer"], label["rewards"])
        held_out = (label["accuracy_before"], label["accuracy_after"])
        assert happened(history.failure, label["method"], history.records, held_out), history.name


@pytest.mark.parametrize("failure", CLASSES)
def test_recall_on_the_test_seeds(verdicts: list[Verdict], failure: str) -> None:
    own = [verdict for verdict in verdicts if verdict.history.failure == failure]
    missed = [(v.history.name, v.history.label["done"], v.cause) for v in own if not v.right]
    assert recall(own) >= 0.95, missed


def test_no_false_alarm_at_any_moment_of_a_healthy_run(verdicts: list[Verdict]) -> None:
    healthy = [verdict for verdict in verdicts if verdict.history.failure == "healthy"]
    assert [(v.history.name, v.alarms) for v in healthy if v.alarms] == []


def test_early_stops_save_half_of_the_steps_of_failing_jobs(verdicts: list[Verdict]) -> None:
    assert saved_share([verdict for verdict in verdicts if verdict.history.failure != "healthy"]) >= 0.5


def test_seeds_that_nobody_had_seen() -> None:
    """Six were missed when they were made (121 of 127 right): five hacked rewards, as their harm hardly shows on 64
    held-out questions, and a stall of 75 s on a machine so loaded that a step took up to 7 s."""
    fresh = [judge(history) for history in histories("fresh")]
    print(table(fresh))
    assert len(fresh) >= 60
    assert recall(fresh) >= 0.95, [(v.history.name, v.cause) for v in fresh if not v.right]
    healthy = [v for v in fresh if v.history.failure == "healthy"]
    assert [v.history.name for v in healthy if v.stopped_at is not None or not v.right] == []
    assert len([v for v in healthy if v.alarms]) <= 0.05 * len(healthy), "warnings that passed"


def test_a_verdict_shows_its_numbers_and_a_stop_comes_with_a_step(verdicts: list[Verdict]) -> None:
    stopped = [verdict for verdict in verdicts if verdict.stopped_at is not None]
    assert {v.cause for v in stopped} >= {"divergence", "reward_collapse", "length_explosion", "reward_hacking"}
    assert all(v.finding is not None and v.finding.evidence for v in stopped)


@pytest.mark.parametrize("failure", CLASSES)
def test_recall_where_the_config_is_gone(failure: str) -> None:
    own = [judge_bare(history) for history in histories("test") if history.failure == failure]
    missed = [(v.history.name, v.cause) for v in own if not v.right]
    assert recall(own) >= 0.95, missed


@pytest.mark.parametrize("kind", KINDS)
def test_no_healthy_run_of_a_large_model_is_stopped(kind: str) -> None:
    run = simulate(kind, 0)
    stops = [(count, f.cause, f.message) for count, f in noticed(run, every=5) if f.stop]
    assert stops == []
