"""Which backend is chosen, what is swept up, and what `crew jobs` shows; on this machine's own processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.crews import cli_jobs, jobs_view
from posttrain_crew.entries import Incident, JobStarted
from posttrain_crew.errors import (
    BudgetError,
    ConfigError,
    CrewError,
    InputError,
    JobError,
    ServiceUnavailableError,
    TargetError,
)
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.tools.compute.backend_settings import SlurmSettings, read_settings
from posttrain_crew.tools.compute.base import Backend, Capacity, JobHandle, JobSpec
from posttrain_crew.tools.compute.choose import choose_backend, make_backend
from posttrain_crew.tools.compute.jobs import JobRequest, launch, launch_again, poll, post_outcome, relaunch
from posttrain_crew.tools.compute.local import LocalCompute
from posttrain_crew.tools.compute.names import cluster_name, tag_of
from posttrain_crew.tools.compute.orphans import sweep
from posttrain_crew.tools.workspace import Workspace

from .conftest import until


class Priced(Backend):
    """A machine of some size and price."""

    def __init__(
        self, name: str, memory_gib: float, usd_per_hour: float | None = 0.0, trouble: str = "", slots: int = 1
    ) -> None:
        self.name, self._memory, self._price = name, memory_gib, usd_per_hour
        self._trouble, self._slots = trouble, slots

    def capacity(self) -> Capacity:
        if self._trouble:
            raise JobError(self._trouble)
        return Capacity(self._slots, "gpu", self._memory, 1, self.name)

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


@pytest.mark.parametrize(
    ("backend", "usd", "error", "word"),
    [
        (Priced("slurm", 0.0, slots=0), None, ServiceUnavailableError, "nothing to run on at present: slurm"),
        (Priced("slurm", 80.0, trouble="sinfo is silent"), None, ServiceUnavailableError, "sinfo is silent"),
        (Priced("slurm", 80.0, None), 5.0, BudgetError, "CREW_SLURM_USD_PER_HOUR"),
        (Priced("hf-jobs", 80.0, None), 5.0, BudgetError, "CREW_HF_JOBS_FLAVOR"),
    ],
)
def test_a_named_backend_that_cannot_take_a_job_is_refused_before_a_run_is_made(
    backend: Priced, usd: float | None, error: type[CrewError], word: str
) -> None:
    with pytest.raises(error, match=word) as told:
        choose_backend(backend.name, needs_40_gib, hours=1.0, usd=usd, make=lambda name, slots: backend)  # type: ignore[arg-type,return-value]
    assert told.value.exit_code == (4 if error is BudgetError else 5)


def test_a_price_that_nobody_knows_is_no_obstacle_without_a_limit() -> None:
    backend = Priced("slurm", 80.0, None)
    made, _ = choose_backend("slurm", needs_40_gib, hours=1.0, usd=None, make=lambda name, slots: backend)  # type: ignore[arg-type,return-value]
    assert made is backend


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


def test_a_job_that_has_told_its_end_leaves_by_itself(run: Workspace, code: Path) -> None:
    """A cluster would show it as failed, were it ended a moment before."""
    (code / "job_that_takes_its_leave.py").write_text(
        "import pathlib, time\n"
        "pathlib.Path('outcome.json').write_text('{\"ok\": true}')\n"
        "time.sleep(1.0)\n"
        "pathlib.Path('left').touch()\n"
    )
    leaving = started(run, "exp-1", "takes_its_leave")
    until((leaving.directory / "outcome.json").exists)
    assert sweep(run, at_the_end=True) == []
    assert (leaving.directory / "left").exists()
    assert not alive(leaving)
    assert run.board.of(Incident) == []


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


def test_a_job_that_waits_for_a_slot_cannot_be_cancelled_and_that_is_said(run: Workspace) -> None:
    small = Workspace(run.board, run.run, run.target, run.budget, LocalCompute(slots=1), run.events)
    for label in ("exp-1", "exp-2"):
        directory = run.run.experiments / label
        directory.mkdir(parents=True)
        launch(small, JobRequest(label, "train", label, "job_that_naps", directory, {}, 60.0))
    with pytest.raises(JobError, match=r"has not been submitted.*crew stop"):
        crew_jobs("cancel", "exp-2", "--runs-dir", str(run.run.root.parent))


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


def test_a_job_that_waits_is_told_once_and_why(run: Workspace) -> None:
    narrow = Workspace(run.board, run.run, run.target, run.budget, LocalCompute(slots=1), run.events)
    started(narrow, "exp-1")
    directory = run.run.experiments / "exp-2"
    directory.mkdir(parents=True)
    waiting = launch(narrow, JobRequest("exp-2", "train", "exp-2", "job_that_naps", directory, {}, 60.0))
    for _ in range(3):
        launch_again(narrow, waiting)
    told = [json.loads(line) for line in run.run.events.read_text().splitlines()]
    (queued,) = [event for event in told if event["event"] == "job_queued"]
    assert "busy with exp-1" in queued["reason"]


def test_a_backend_that_is_away_is_asked_once_for_all_runs(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, tools = tmp_path / "calls.txt", tmp_path / "bin"
    tools.mkdir()
    (tools / "squeue").write_text(
        f"#!/bin/sh\necho x >>{calls}\necho 'Unable to contact slurm controller' >&2\nexit 1\n"
    )
    (tools / "squeue").chmod(0o755)
    monkeypatch.setenv("CREW_SLURM_BIN", str(tools))
    jobs_view._backend.cache_clear()
    runs = tmp_path / "several"
    for number in range(5):
        made = RunDirectory.create(runs / f"run-{number}")
        board = Blackboard(made.blackboard, create=True)
        body = workspace.started.model_copy(update={"run": made.id, "compute": "slurm"})
        board.post(body, author="crew", key="run")
        directory = made.experiments / "exp-1"
        directory.mkdir(parents=True)
        (directory / "job.json").write_text(json.dumps({"label": "exp-1", "backend": "slurm", "id": "7"}))
        board.post(
            JobStarted(
                label="exp-1", role="train", subject="exp-1", backend="slurm", module="m", estimate_seconds=1.0,
                directory=made.relative(directory), attempt=1,
            ),
            author="crew", refs=("run-1",), key="job:exp-1",
        )  # fmt: skip
        board.close()
    _, text = crew_jobs("list", "--runs-dir", str(runs), "--json")
    told = json.loads(text)
    assert [(row["state"], row["id"]) for row in told["jobs"]] == [("unknown", "7")] * 5
    assert len(told["problems"]) == 1
    assert len(calls.read_text().splitlines()) == 1
    one = ["--run", str(runs / "run-0")]
    assert crew_jobs("list", *one)[0] == 5
    with pytest.raises(JobError, match="could not be cancelled"):
        crew_jobs("cancel", "exp-1", *one)
    (runs / "run-0" / "experiments" / "exp-1" / "job.json").unlink()
    with pytest.raises(ServiceUnavailableError, match="was not cancelled: the backend slurm does not answer"):
        crew_jobs("cancel", "exp-1", *one)
    with pytest.raises(InputError, match="Did you mean `slurm`"):
        crew_jobs("list", "--runs-dir", str(runs), "--compute", "slurn")


def test_an_attempt_that_was_started_again_still_shows_its_output(run: Workspace) -> None:
    started(run, "exp-1", "exits_with_3")
    job = run.board.of(JobStarted)[0]
    until(lambda: poll(run, job) == "ended")
    post_outcome(run, job)
    again = relaunch(run, job)
    until(lambda: poll(run, again) == "ended")
    post_outcome(run, again)
    _, text = crew_jobs("logs", "exp-1", "--runs-dir", str(run.run.root.parent))
    assert "no such thing" in text
