"""`crew diagnose`: a run, one of its jobs, a job's directory, a metrics file of anywhere; text, JSON, and bad files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.blackboard import Entry
from posttrain_crew.crews import cli_diagnose
from posttrain_crew.entries import JobOutcome, TrainingSet
from posttrain_crew.errors import InputError
from posttrain_crew.files import atomic_write_json
from posttrain_crew.tools.compute.jobs import post_outcome
from posttrain_crew.tools.training.desk import TrainingDesk
from posttrain_crew.tools.training.diagnose import diagnose
from posttrain_crew.tools.training.job_folder import JobFolder
from posttrain_crew.tools.training.metrics import append_metrics
from posttrain_crew.tools.workspace import Workspace

DIVERGED = [2.0, 2.1, 7.0, 8.0, 9.0, 9.5]


@pytest.fixture
def call() -> Callable[..., Any]:
    app = typer.Typer()
    cli_diagnose.register(app)

    @app.callback()
    def _root() -> None:
        """A second command, so that typer keeps the name of the first."""

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["diagnose", *arguments])

    return invoke


def write_metrics(path: Path, losses: list[float]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    for step, loss in enumerate(losses, 1):
        append_metrics(path, {"step": step, "time": float(step), "loss": loss})
    return path


def test_a_metrics_file_alone_is_enough(tmp_path: Path, call: Callable[..., Any]) -> None:
    path = write_metrics(tmp_path / "somewhere" / "history.jsonl", DIVERGED)
    done = call(str(path), "--json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["diagnoses"]
    assert (found["experiment"], found["state"], found["cause"]) == ("history.jsonl", "unknown", "divergence")
    assert found["evidence"][0] == {"metric": "loss", "step": 5, "value": 9.0, "threshold": 6.5}
    assert found["remedy"] == {"learning_rate": 2e-06, "max_grad_norm": 1.0}  # a tenth of TRL's default
    text = call(str(path)).stdout
    assert "divergence" in text
    assert "loss = 9 at step 5 (compared with 6.5)" in text
    assert "try learning_rate: 2e-06, max_grad_norm: 1.0" in text


def test_what_only_the_metrics_tell_of_is_what_the_remedy_starts_from(tmp_path: Path, call: Callable[..., Any]) -> None:
    path = tmp_path / "metrics.jsonl"
    told = {"reward": 0.0, "completions/clipped_ratio": 1.0, "completions/mean_length": 64.0}
    for step in range(1, 7):
        append_metrics(path, {"step": step, "learning_rate": 2e-5 * step} | told)
    text = call(str(path)).stdout
    assert "do not end within the limit of 64 tokens" in text
    assert "try max_completion_length: 128" in text
    other = tmp_path / "other.jsonl"
    for step, loss in enumerate(DIVERGED, 1):
        append_metrics(other, {"step": step, "loss": loss, "learning_rate": 0.5})
    assert "try learning_rate: 0.05" in call(str(other)).stdout


def test_lost_weights_are_shown_in_words(tmp_path: Path, call: Callable[..., Any]) -> None:
    text = call(str(write_metrics(tmp_path / "metrics.jsonl", [2.0, 1.9, math.inf]))).stdout
    assert "loss is inf at step 3\n" in text
    assert "loss = 1.9 at step 2 (compared with 2)" in text
    assert "-1" not in text


def test_a_healthy_job_exits_with_0_too(tmp_path: Path, call: Callable[..., Any]) -> None:
    write_metrics(tmp_path / "exp-7" / "metrics.jsonl", [2.0, 1.5, 1.2, 1.0, 0.9])
    done = call(str(tmp_path / "exp-7"), "--json")
    (found,) = json.loads(done.stdout)["diagnoses"]
    assert (done.exit_code, found["experiment"], found["cause"], found["remedy"]) == (0, "exp-7", "healthy", {})


def test_what_lies_beside_the_metrics_counts(tmp_path: Path, call: Callable[..., Any]) -> None:
    path = write_metrics(tmp_path / "job" / "metrics.jsonl", [2.0, 1.5])
    (path.parent / "config.yaml").write_text("method: dpo\ntrainer: {per_device_train_batch_size: 8}\n")
    out_of_memory = {"ok": False, "error_class": "out_of_memory", "message": "CUDA", "wall_s": 9.0, "steps": 2}
    atomic_write_json(path.parent / "outcome.json", out_of_memory)
    (found,) = json.loads(call(str(path), "--json").stdout)["diagnoses"]
    assert (found["state"], found["cause"]) == ("failed", "infrastructure")
    assert found["remedy"] == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    (path.parent / "outcome.json").write_text('{"ok": fal')  # the disk was full
    assert JobFolder.read(path).outcome is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("hello\nworld\n", "holds no metrics"),
        ("[1, 2]\n{}\n", "holds no metrics"),
        ('{"prompt": "x", "answer": "B"}\n', "holds no metrics"),
        ('{"step": "NaN", "loss": 1.0}\n', "'nan'"),
        ('{"step": "first", "loss": 1.0}\n', "'first'"),
        ("[" * 100_000 + '\n{"step": 1, "loss": 1.0}\n', "nested too deep"),
    ],
)
def test_a_file_that_is_no_metrics_file(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=why):
        JobFolder.read(path)


def test_bad_neighbours_and_bad_names(tmp_path: Path, call: Callable[..., Any]) -> None:
    path = write_metrics(tmp_path / "job" / "metrics.jsonl", [1.0])
    (path.parent / "config.yaml").write_text("method: [")
    with pytest.raises(InputError, match=r"config\.yaml"):
        JobFolder.read(path)
    for name in ("no-such-run", "no-such-run/exp-1", str(tmp_path / "gone.jsonl"), str(tmp_path)):
        done = call(name, "--runs-dir", str(tmp_path / "runs"))
        assert isinstance(done.exception, InputError), name
        assert "neither a run, nor a job, nor a metrics file" in str(done.exception)


def test_numbers_without_end_do_not_break_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for record in (
        {"step": 1, "loss": 2.0, "grad_norm": math.inf},
        {"step": 2, "loss": math.nan, "entropy": math.nan, "reward": True, "kl": None, "rewards/": 1.0},
        {"loss": 1e308},
        {"step": 10**400, "loss": 0.1},
        {},
    ):
        append_metrics(path, record)
    with pytest.raises(InputError, match="step"):
        JobFolder.read(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    job = JobFolder.read(path)
    assert diagnose(job.history, None, job.method, job.trainer).cause == "divergence"


def test_a_run_and_a_job_of_it(
    workspace: Workspace, training_set: Callable[..., Entry[TrainingSet]], call: Callable[..., Any]
) -> None:
    runs = str(workspace.run.root.parent)
    assert json.loads(call("run-1", "--runs-dir", runs, "--json").stdout) == {"source": "run-1", "diagnoses": []}
    ts = training_set()
    made = [
        TrainingDesk(workspace).launch_training("sft", ts.id, "base", "It helps.", {"learning_rate": rate})
        for rate in (1e-3, 0.5)
    ]
    jobs = {made[0]["experiment"]: [2.0, 1.5, 1.2, 1.0], made[1]["experiment"]: DIVERGED}
    for experiment, losses in jobs.items():
        write_metrics(workspace.run.experiments / experiment / "metrics.jsonl", losses)
    from posttrain_crew.state import RunState

    for job in RunState.of(workspace.board).running:
        post_outcome(workspace, job)
    assert len(workspace.board.of(JobOutcome)) >= 2
    told = json.loads(call("run-1", "--runs-dir", runs, "--json").stdout)["diagnoses"]
    assert [(row["experiment"], row["cause"]) for row in told] == [("exp-1", "healthy"), ("exp-2", "divergence")]
    assert told[1]["remedy"]["learning_rate"] == pytest.approx(0.05)
    for name in ("run-1/exp-2", "exp-2", f"{workspace.run.root}/exp-2"):
        (only,) = json.loads(call(name, "--runs-dir", runs, "--json").stdout)["diagnoses"]
        assert only == told[1], name
    # what the run itself posts when a job ends is the same
    posted = TrainingDesk(workspace).diagnose_experiment("exp-2")
    assert posted == {"id": posted["id"]} | {k: v for k, v in told[1].items() if k not in ("experiment", "state")}
    missing = call("run-1/exp-9", "--runs-dir", runs)
    assert isinstance(missing.exception, InputError)
