"""Which backend is chosen, what is swept up, and what `crew jobs` shows; on this machine's own processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.crews import cli_jobs
from posttrain_crew.entries import Incident, JobStarted
from posttrain_crew.errors import BudgetError, ConfigError, InputError, JobError, TargetError
from posttrain_crew.tools.compute.backend_settings import SlurmSettings, read_settings
from posttrain_crew.tools.compute.base import Backend, Capacity, JobHandle, JobSpec
from posttrain_crew.tools.compute.choose import choose_backend, make_backend
from posttrain_crew.tools.compute.jobs import JobRequest, launch, poll, post_outcome
from posttrain_crew.tools.compute.local import LocalCompute
from posttrain_crew.tools.compute.names import cluster_name, tag_of
from posttrain_crew.tools.compute.orphans import sweep
from posttrain_crew.tools.workspace import Workspace

from .conftest import until


class Priced(Backend):
    """A machine of some size and price."""

    def __init__(self, name: str, memory_gib: float, usd_per_hour: float | None = 0.0, trouble: str = "") -> None:
        self.name, self._memory, self._price = name, memory_gib, usd_per_hour
        self._trouble = trouble

    def capacity(self) -> Capacity:
        if self._trouble:
            raise JobError(self._trouble)
        return Capacity(1, "gpu", self._memory, 1, self.name)

    def price(self) -> float | None:
        return self._price


def needs_40_gib(capacity: Capacity) -> list[str]:
    return (
        [] if capacity.device_memory_gib >= 40 else [f"It needs 40 GiB, and {capacity.device_memory_gib:g} are there."]
    )


def chosen(wanted: str | None, local: float, rented: Priced, usd: float | None) -> tuple[str, str]:
    backends = {"local": Priced("local", local), "hf-jobs": rented}
    compute, why = choose_backend(
        wanted,
        needs_40_gib,
        hours=10.0,
        usd=usd,
        make=lambda name, slots: backends[name],  # type: ignore[return-value]
    )
    return compute.name, why


def test_this_machine_first_and_rented_ones_only_within_the_limit() -> None:
    big = Priced("hf-jobs", 80.0, 2.5)
    assert chosen(None, 80.0, big, None) == ("local", "")
    name, why = chosen(None, 8.0, big, 30.0)
    assert name == "hf-jobs"
    assert "8 are there" in why
    assert "2.50 USD/h" in why
    with pytest.raises(TargetError, match="--usd"):
        chosen(None, 8.0, big, None)
    with pytest.raises(BudgetError, match=r"25\.00 USD, and the limit is 20"):
        chosen(None, 8.0, big, 20.0)
    with pytest.raises(BudgetError, match="unknown prices are refused"):
        chosen(None, 8.0, Priced("hf-jobs", 80.0, None), 1000.0)
    with pytest.raises(TargetError, match="Nor on Hugging Face"):
        chosen(None, 8.0, Priced("hf-jobs", 16.0, 1.0), 1000.0)
    with pytest.raises(TargetError, match="the Hub is away"):
        chosen(None, 8.0, Priced("hf-jobs", 80.0, 1.0, "the Hub is away"), 1000.0)
    with pytest.raises(TargetError, match="on `local`"):
        chosen("local", 8.0, big, 1000.0)
    with pytest.raises(InputError, match="Did you mean `slurm`"):
        make_backend("slurn")


def test_settings_come_from_the_file_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "compute.yaml"
    path.write_text("slurm:\n  partition: gpu\n  gres: gpu:h100:1\n")
    assert read_settings(SlurmSettings, path).partition == "gpu"
    monkeypatch.setenv("CREW_SLURM_PARTITION", "long")
    settings = read_settings(SlurmSettings, path)
    assert (settings.partition, settings.gres, settings.usd_per_hour) == ("long", "gpu:h100:1", None)
    path.write_text("slurm:\n  partitoin: gpu\n")
    with pytest.raises(ConfigError, match="partitoin"):
        read_settings(SlurmSettings, path)


def test_names_are_safe_bounded_and_different(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "experiments" / "a").mkdir(parents=True)
    tag = tag_of(run)
    labels = ["exp-3", "exp-3.2", "exp-3_2", "exp 3/2", "x" * 200, "x" * 201]
    names = [cluster_name(run / "experiments" / "a", label) for label in labels]
    assert names[0] == f"crew-{tag}-exp-3"
    assert len(set(names)) == len(labels)
    assert all(len(name) <= 100 and name.replace("-", "").replace("_", "").isalnum() for name in names)
    assert tag_of(tmp_path) != tag


@pytest.fixture
def run(workspace: Workspace, code: Path) -> Iterator[Workspace]:
    compute = LocalCompute(slots=3, threads_per_job=1)
    yield Workspace(workspace.board, workspace.run, workspace.target, workspace.budget, compute, workspace.events)
    for handle in compute.alive(workspace.run.root):
        compute.cancel(handle, grace_s=0)


def started(run: Workspace, label: str, kind: str = "naps") -> JobHandle:
    directory = run.run.experiments / label
    directory.mkdir(parents=True)
    launch(run, JobRequest(label, "train", label, f"job_that_{kind}", directory, {}, 60.0))
    handle = run.compute.find(label, directory)
    assert handle is not None
    return handle


def stray(run: Workspace, label: str) -> JobHandle:
    """A job of the run that its blackboard does not know: crew died between the two."""
    directory = run.run.experiments / label
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("{}")
    return run.compute.submit(JobSpec(label, "job_that_naps", directory / "config.yaml", 60.0))


def alive(handle: JobHandle) -> bool:
    pid = int(handle.id.split("@")[0])
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_what_nobody_waits_for_is_cancelled_and_reported(run: Workspace) -> None:
    wanted, unknown = started(run, "exp-1"), stray(run, "exp-2")
    fresh = Workspace(run.board, run.run, run.target, run.budget, LocalCompute(slots=2), run.events)
    assert [handle.label for handle in sweep(fresh)] == ["exp-2"]
    assert alive(wanted)
    assert not alive(unknown)
    (incident,) = [entry.body for entry in run.board.of(Incident)]
    assert "exp-2" in incident.what
    assert sweep(fresh) == []
    assert [handle.label for handle in sweep(fresh, at_the_end=True)] == ["exp-1"]
    assert not alive(wanted)


def test_a_backend_that_cannot_list_is_reported_and_does_not_end_the_run(run: Workspace) -> None:
    class Silent(Backend):
        name = "silent"

        def alive(self, root: Path) -> list[JobHandle]:
            raise JobError("the controller is away")

    silent = Workspace(run.board, run.run, run.target, run.budget, Silent(), run.events)  # type: ignore[arg-type]
    assert sweep(silent) == []
    assert "away" in run.board.of(Incident)[0].body.what


def crew_jobs(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    cli_jobs.register(app)
    done = CliRunner().invoke(app, ["jobs", *arguments], catch_exceptions=False)
    return done.exit_code, done.stdout


def listed(run: Workspace, *arguments: str) -> list[dict[str, object]]:
    _, text = crew_jobs("list", "--runs-dir", str(run.run.root.parent), "--json", *arguments)
    rows: list[dict[str, object]] = json.loads(text)["jobs"]
    return rows


def test_crew_jobs_lists_shows_and_ends_jobs(run: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ["--runs-dir", str(run.run.root.parent)]
    handle, done, orphan = started(run, "exp-1"), started(run, "exp-2", "counts"), stray(run, "exp-3")
    until(lambda: "awake" in run.compute.logs(handle))
    code, text = crew_jobs("logs", "exp-2", "--follow", *where)
    assert text.splitlines() == [f"line {n}" for n in range(12)]
    job = next(entry for entry in run.board.of(JobStarted) if entry.body.label == "exp-2")
    until(lambda: poll(run, job) == "ended" and not alive(done))
    post_outcome(run, job)
    rows = {row["label"]: (row["state"], row["ending"], row["orphan"]) for row in listed(run, "--run", run.run.id)}
    assert rows == {"exp-1": ("running", "", False), "exp-2": ("ended", "ok", False), "exp-3": ("running", "", True)}
    assert {row["label"] for row in listed(run)} == {"exp-1", "exp-3"}
    assert listed(run, "--compute", "slurm") == []
    code, text = crew_jobs("cancel", "exp-1", *where)
    assert (code, alive(handle)) == (0, False)
    assert "was cancelled" in text
    ended = next(entry for entry in run.board.of(JobStarted) if entry.body.label == "exp-1")
    assert poll(run, ended) == "ended"
    assert post_outcome(run, ended).body.error_class == "stopped_by_user", "killed or cancelled jobs are started again"
    crew_jobs("cancel", "exp-3", *where)
    assert not alive(orphan)
    assert listed(run) == []
    assert "no jobs wait or run" in crew_jobs("list", *where)[1]


def test_a_backend_that_is_silent_for_a_while_is_told_once(run: Workspace) -> None:
    class Silent(LocalCompute):
        @property
        def trouble(self) -> str:
            return "connection refused"

    started(run, "exp-1")
    job = run.board.of(JobStarted)[0]
    silent = Workspace(run.board, run.run, run.target, run.budget, Silent(slots=2), run.events)
    assert [poll(silent, job) for _ in range(3)] == ["running"] * 3
    (incident,) = [entry.body for entry in run.board.of(Incident)]
    assert incident.what == "connection refused"
