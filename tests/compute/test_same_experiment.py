"""One experiment on every backend: the same data, config and seed give the same numbers, wherever the job ran."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.blackboard import Blackboard, Entry
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.crews import cli_jobs, jobs_view
from posttrain_crew.entries import ContaminationVerdict, JobStarted, RunStarted, SourceShare, TrainingSet
from posttrain_crew.events import Events
from posttrain_crew.files import sha256_file
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.target import Target
from posttrain_crew.tools.compute.backend_settings import HfJobsSettings, RaySettings, SlurmSettings
from posttrain_crew.tools.compute.base import Compute
from posttrain_crew.tools.compute.hf_jobs import HfJobsCompute
from posttrain_crew.tools.compute.jobs import JobRequest, launch, poll, post_outcome
from posttrain_crew.tools.compute.local import LocalCompute
from posttrain_crew.tools.compute.names import tag_of
from posttrain_crew.tools.compute.orphans import sweep
from posttrain_crew.tools.compute.ray_jobs import RayCompute
from posttrain_crew.tools.compute.slurm import SlurmCompute
from posttrain_crew.tools.training.desk import TrainingDesk
from posttrain_crew.tools.training.metrics import read_metrics
from posttrain_crew.tools.workspace import Workspace
from tests.compute.slurm_cluster import SlurmCluster
from tests.training.jobs import made_rows, make_model

from .conftest import until

if TYPE_CHECKING:
    from tests.loopback.world import Loopback

TOKEN = "hf_" + "t" * 34
STEPS = 4
TOLERANCE = 1e-6
"""One machine, one thread, one seed: what differs is the road that the files took."""


def workspace_on(compute: Compute, root: Path, target: Target, base: Path) -> Workspace:
    run = RunDirectory.create(root)
    board = Blackboard(run.blackboard, create=True)
    started = RunStarted(
        run=run.id, target=target.name, base_model=str(base), base_model_path=str(base), llm="playbook", seed=3,
        hours=1.0, usd=5.0, compute=compute.name,
    )  # fmt: skip
    board.post(started, author="crew", key="run")
    return Workspace(board, run, target, Budget(board, Limits(hours=1.0, usd=5.0)), compute, Events(run.events))


def launched(workspace: Workspace, config: dict[str, Any]) -> Entry[JobStarted]:
    directory = workspace.run.experiments / "exp-1"
    module = "posttrain_crew.tools.training.sft"
    return launch(workspace, JobRequest("exp-1", "train", "exp-1", module, directory, config, 120.0, timeout_s=300.0))


@pytest.mark.slow
def test_the_same_experiment_on_every_backend(
    slurm_settings: SlurmSettings, ray_settings: RaySettings, hf_settings: HfJobsSettings, world: Loopback,
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model, data = make_model(tmp_path / "base", steps=2), tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in made_rows("sft")))
    config = {
        "method": "sft", "model": str(model), "data": str(data), "data_sha256": sha256_file(data), "seed": 3,
        "trainer": {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_steps": STEPS},
    }  # fmt: skip
    free = {"usd_per_hour": 0.0}
    backends: list[Compute] = [
        LocalCompute(slots=1, threads_per_job=1),
        SlurmCompute(settings=slurm_settings.model_copy(update=free)),
        RayCompute(settings=ray_settings.model_copy(update=free)),
        HfJobsCompute(settings=hf_settings, token=TOKEN),
    ]
    runs = {
        compute.name: workspace_on(compute, tmp_path / "runs" / compute.name, target, model) for compute in backends
    }
    jobs = {name: launched(workspace, config) for name, workspace in runs.items()}
    losses, finals = {}, {}
    for name, workspace in runs.items():
        until(lambda w=workspace, n=name: poll(w, jobs[n]) == "ended", 300)  # type: ignore[misc]
        outcome = post_outcome(workspace, jobs[name]).body
        directory = workspace.run.experiments / "exp-1"
        assert outcome.ok, f"{name}: {outcome.message}\n{(directory / 'log.txt').read_text()[-2000:]}"
        assert outcome.checkpoint is not None
        assert (workspace.run.absolute(outcome.checkpoint) / "model.safetensors").is_file()
        losses[name] = [row["loss"] for row in read_metrics(directory / "metrics.jsonl") if "loss" in row]
        finals[name] = {key: value for key, value in outcome.metrics.items() if "loss" in key or "accuracy" in key}
    assert len(losses["local"]) == STEPS
    for name in runs:
        assert losses[name] == pytest.approx(losses["local"], rel=TOLERANCE), name
        assert finals[name] == pytest.approx(finals["local"], rel=TOLERANCE), name
    assert [run.budget.usage().usd > 0 for run in runs.values()] == [False, False, False, True]
    assert len(world.jobs.run) == 1
    _no_orphan(tmp_path / "runs", slurm_settings, ray_settings, hf_settings, monkeypatch)


@pytest.mark.slow
def test_an_order_for_two_machines_trains_as_one_on_one(
    slurm_settings: SlurmSettings, cluster: SlurmCluster, target: Target, tmp_path: Path
) -> None:
    """Through the trainer's own tools on a real Slurm: preflight, smoke run, torchrun on two nodes, fetch, sweep."""
    model, data = make_model(tmp_path / "base", steps=2), tmp_path / "run" / "data" / "train.jsonl"
    start = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_steps": STEPS}
    quick = target.model_copy(update={"training": target.training.model_copy(update={"sft": start})})
    settings = slurm_settings.model_copy(update={"usd_per_hour": 0.0, "device_memory_gib": 2.0})
    workspace = workspace_on(SlurmCompute(settings=settings), tmp_path / "run", quick, model)
    data.parent.mkdir(exist_ok=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in made_rows("sft")))
    run_id = workspace.board.of(RunStarted)[0].id
    entry = workspace.board.post(_training_set(workspace, data), author="data", refs=(run_id,))
    desk, courses = TrainingDesk(workspace), []
    for changes in ({}, {"nodes": 2}):
        answer = desk.launch_training("sft", entry.id, "base", "the shape changes nothing", changes)
        assert answer["launched"], answer
        job = workspace.board.typed(answer["job"], JobStarted)
        until(lambda job=job: poll(workspace, job) == "ended", 300)  # type: ignore[misc]
        outcome = post_outcome(workspace, job).body
        directory = workspace.run.absolute(job.body.directory)
        assert outcome.ok, f"{outcome.message}\n{(directory / 'log.txt').read_text()[-2000:]}"
        rows = [row for row in read_metrics(directory / "metrics.jsonl") if "loss" in row]
        courses.append([value for row in rows for value in (row["loss"], row["grad_norm"])])
    assert (job.body.nodes, job.body.processes) == (2, 1)
    assert "data parallel on 2 processes" in json.loads((directory / "outcome.json").read_text())["notes"]
    assert len(courses[0]) == 2 * STEPS
    assert courses[1] == pytest.approx(courses[0], rel=1e-5)  # gradients are summed in another order
    assert sweep(workspace, at_the_end=True) == []
    states = cluster.command("squeue", "--states=all", "--noheader", "--format=%T %j").splitlines()
    tag = tag_of(workspace.run.root)
    assert {line.split()[0] for line in states if tag in line} == {"COMPLETED"}, "the last job was leaving by itself"


def _training_set(workspace: Workspace, data: Path) -> TrainingSet:
    digest, rows = sha256_file(data), len(data.read_text().splitlines())
    verdict = ContaminationVerdict(
        sha256=digest, passed=True, rows_checked=rows, rows_matched=0, benchmark_items=1, by_check={}
    )
    return TrainingSet(
        sha256=digest, path=workspace.run.relative(data), rows=rows, method="sft", style="worked",
        sources=[SourceShare(dataset="d", rows_in=rows, rows_out=rows)], contamination=verdict, mean_tokens=30.0,
        max_tokens=60, seed=0,
    )  # fmt: skip


def _no_orphan(
    runs: Path, slurm: SlurmSettings, ray: RaySettings, hf: HfJobsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user sees, who has the same backends in the environment."""
    for name, value in {
        "CREW_SLURM_POLL_SECONDS": str(slurm.poll_seconds),
        "CREW_RAY_ADDRESS": ray.address,
        "CREW_HF_JOBS_ENDPOINT": str(hf.endpoint),
        "CREW_HF_JOBS_PYTHON": sys.executable,
        "HF_TOKEN": TOKEN,
    }.items():
        monkeypatch.setenv(name, value)
    jobs_view._backend.cache_clear()
    app = typer.Typer()
    cli_jobs.register(app)
    done = CliRunner().invoke(app, ["jobs", "list", "--runs-dir", str(runs), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == {"jobs": [], "problems": []}
    for name in ("slurm", "ray", "hf-jobs", "local"):
        done = CliRunner().invoke(
            app, ["jobs", "list", "--runs-dir", str(runs), "--run", name, "--json"], catch_exceptions=False
        )
        (row,) = json.loads(done.stdout)["jobs"]
        assert (row["label"], row["state"], row["ending"], row["orphan"]) == ("exp-1", "ended", "ok", False)
