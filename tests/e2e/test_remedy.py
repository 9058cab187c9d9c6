"""A run whose training goes wrong by itself: stopped, diagnosed, tried again with the remedy, it ends improved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import Diagnosis, Experiment, JobOutcome
from posttrain_crew.state import RunState
from tests.e2e.conftest import crew

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_cache")]

TOO_HIGH = 0.15
"""Learning rate, 75 times the target's: the loss of the base rises from 2 to 10 within five steps."""


def test_a_job_that_diverges_is_stopped_diagnosed_and_repaired(small_target: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load(small_target.read_text())
    raw["training"]["sft"] |= {"learning_rate": TOO_HIGH}
    raw["goal"] = 0.2  # enough for a search that ends with the remedy and an ablation of it
    small_target.write_text(yaml.safe_dump(raw))
    runs = tmp_path / "runs"
    done = crew("run", "posttrain", "--target", str(small_target), "--runs-dir", str(runs), "--json")
    assert done.code == 0, done.stderr[-3000:]
    result = done.last
    assert result["verdict"] == "improved"

    board = Blackboard(runs / result["run"] / "blackboard.db")
    state = RunState.of(board)
    diagnoses = {ref: entry for entry in board.of(Diagnosis) for ref in entry.refs}
    outcomes = {entry.body.label: entry.body for entry in board.of(JobOutcome)}
    first = next(e for e in board.of(Experiment) if e.body.config["learning_rate"] == TOO_HIGH)
    assert outcomes[first.id].error_class in ("stopped_by_rule", "diverged"), outcomes[first.id]
    told = diagnoses[first.id].body
    assert told.cause == "divergence"
    assert told.evidence[0].metric.startswith(("loss", "grad_norm"))
    assert told.remedy["learning_rate"] == pytest.approx(TOO_HIGH / 10)

    repaired = [e for e in board.of(Experiment) if e.body.purpose == "remedy" and e.seq > diagnoses[first.id].seq]
    assert repaired
    assert repaired[0].body.config["learning_rate"] == pytest.approx(TOO_HIGH / 10)
    decided = {e.id: state.experiments[e.id].decision for e in repaired}
    assert any(d is not None and d.body.action == "promote" for d in decided.values()), decided
    assert state.best in {node.id for node in repaired} or result["final"]["score"] > result["base"]["score"]

    shown = crew("diagnose", result["run"], "--runs-dir", str(runs), "--json")
    assert shown.code == 0, shown.stderr
    assert {d["experiment"]: d["cause"] for d in json.loads(shown.stdout.splitlines()[-1])["diagnoses"]}[
        first.id
    ] == "divergence"
