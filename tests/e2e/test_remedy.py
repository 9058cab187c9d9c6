"""A run whose training goes wrong by itself: stopped, diagnosed, tried again with the remedy, it ends improved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import Diagnosis, Experiment, JobOutcome
from posttrain_crew.state import RunState
from tests.e2e.conftest import SHIPPED, crew

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.usefixtures("shared_cache")]

TOO_HIGH = 4e-3
"""Learning rate of GRPO, 40 times the target's: the reward fell from 0.4 to 0.2 within 13 to 24 steps on each of the
seeds 0 to 2 (benchmarks/reward_collapse.py)."""


@pytest.fixture
def collapsing_target(tmp_path: Path) -> Path:
    """gpqa-mini with supervised training that leaves reinforcement something to gain, and a rate that is too high."""
    raw = yaml.safe_load(SHIPPED.read_text())
    raw |= {"name": "collapsing", "goal": 0.69}
    raw["evaluation"] |= {"limit": 300, "few_shot_reference": 0}
    raw["training"]["sft"] |= {"num_train_epochs": 1, "max_steps": 16}
    raw["training"]["grpo"] |= {"learning_rate": TOO_HIGH, "max_steps": 30, "num_generations": 4, "temperature": 0.8}
    path = tmp_path / "collapsing.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_reward_that_collapses_is_stopped_diagnosed_and_repaired(collapsing_target: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    order = ["run", "posttrain", "--target", str(collapsing_target), "--hours", "0.15", "--runs-dir", str(runs)]
    done = crew(*order, "--json")
    assert done.code == 0, done.stderr[-3000:]
    result = done.last
    assert result["verdict"] == "improved"
    assert result["final"]["score"] > result["base"]["score"]

    board = Blackboard(runs / result["run"] / "blackboard.db")
    state = RunState.of(board)
    diagnoses = {ref: entry for entry in board.of(Diagnosis) for ref in entry.refs}
    outcomes = {entry.body.label: entry.body for entry in board.of(JobOutcome)}
    collapsed = next(e for e in board.of(Experiment) if e.body.config["learning_rate"] == TOO_HIGH)
    ended = outcomes[collapsed.id]
    assert ended.error_class == "stopped_by_rule"
    assert ended.steps < 30, "the watch spared nothing"
    told = diagnoses[collapsed.id].body
    assert told.cause == "reward_collapse"
    assert told.evidence[0].metric.startswith("reward")
    assert told.remedy["learning_rate"] == pytest.approx(TOO_HIGH / 10)
    decision = state.experiments[collapsed.id].decision
    assert decision is not None
    assert decision.body.action == "abandon"

    remedied = next(
        e for e in board.of(Experiment) if e.body.purpose == "remedy" and e.seq > diagnoses[collapsed.id].seq
    )
    assert remedied.body.config["learning_rate"] == pytest.approx(TOO_HIGH / 10)
    assert remedied.body.parent == collapsed.body.parent, "the remedy starts where the collapsed job started"
    assert outcomes[remedied.id].ok, outcomes[remedied.id]
    assert outcomes[remedied.id].metrics["reward_last"] > told.evidence[0].value
    assert state.experiments[remedied.id].decision is not None, "whether the remedy helped was not judged"

    shown = crew("diagnose", result["run"], "--runs-dir", str(runs), "--json")
    assert shown.code == 0, shown.stderr
    assert {d["experiment"]: d["cause"] for d in json.loads(shown.stdout.splitlines()[-1])["diagnoses"]}[
        collapsed.id
    ] == "reward_collapse"
