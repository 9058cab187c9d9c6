"""`crew run posttrain --compute slurm` from the command line, on a real cluster that loses crew and controller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import Evaluation, Incident, JobOutcome, JobStarted
from posttrain_crew.tools.embedded.catalogue import write_catalogue
from tests.e2e.conftest import SHIPPED, crew

from .conftest import until
from .slurm_cluster import SlurmCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_cache")]

KEPT = "openlab/science-steps"


@pytest.fixture
def quick_target(tmp_path: Path) -> Path:
    """gpqa-mini with one candidate, few items and few steps: what the cluster sees is of the same kind."""
    catalogue = tmp_path / "catalogue"
    for name in write_catalogue(catalogue, seed=0):
        if name != KEPT:
            (catalogue / name).rename(tmp_path / name.replace("/", "-"))
    raw = yaml.safe_load(SHIPPED.read_text())
    raw |= {"name": "quick", "goal": 0.2, "candidates": [str(catalogue)]}
    raw["evaluation"] |= {"limit": 60, "few_shot_reference": 0}
    raw["training"]["sft"] |= {"max_steps": 25}
    raw["training"]["grpo"] |= {"max_steps": 2}
    path = tmp_path / "quick.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_run_on_slurm_outlives_its_own_kill_and_the_controllers(
    cluster: SlurmCluster, quick_target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREW_SLURM_POLL_SECONDS", "0.2")
    monkeypatch.setenv("CREW_SLURM_COMMAND_SECONDS", "3")
    root = tmp_path / "runs" / "r"
    arguments = ["--target", str(quick_target), "--compute", "slurm", "--hours", "0.08", "--out", str(root)]
    first = subprocess.Popen(
        [sys.executable, "-m", "posttrain_crew.crews.cli", "run", "posttrain", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, env=dict(os.environ),
    )  # fmt: skip
    metrics = root / "experiments" / "exp-1" / "metrics.jsonl"
    until(lambda: metrics.exists() or first.poll() is not None, 200)
    assert first.poll() is None, first.stderr.read().decode()[-2000:] if first.stderr else ""
    first.send_signal(signal.SIGKILL)
    first.wait()
    cluster.stop_controller()
    again = subprocess.Popen(
        [sys.executable, "-m", "posttrain_crew.crews.cli", "resume", "r", "--runs-dir", str(root.parent), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        board = Blackboard(root / "blackboard.db")
        until(lambda: any(e.body.where == "backend slurm" for e in board.of(Incident)) or again.poll() is not None)
        cluster.start_controller()
        _, told = again.communicate(timeout=300)
    finally:
        again.kill()
    assert again.returncode in (0, 3), told[-3000:]

    names = cluster.command("squeue", "--noheader", "--states=all", "--format=%j").split()
    labels = [job.body.label for job in board.of(JobStarted)]
    tag = (root / ".compute-tag").read_text().strip()
    ours = Counter(name.removeprefix(f"crew-{tag}-") for name in names if name.startswith(f"crew-{tag}-"))
    assert set(ours) == set(labels)
    assert set(ours.values()) == {1}, "a job was launched twice"
    failed = {e.body.label: e.body.error_class for e in board.of(JobOutcome) if not e.body.ok}
    assert set(failed.values()) <= {"stopped_by_rule"}, failed
    assert "exp-1" in labels
    assert {(e.body.subject, e.body.split) for e in board.of(Evaluation)} >= {("base", "dev"), ("exp-1", "dev")}
    listed = crew("jobs", "list", "--runs-dir", str(root.parent), "--json")
    assert listed.last == {"jobs": [], "problems": []}
