"""Jobs as a run sees them: launched once by label, their outcome read from a file, their cost settled.

Order of effects in a launch: reserve the budget, write the config, post the job on the blackboard, submit. A kill
between any two of these is repaired by calling `launch` again: each step finds what it did before.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import ErrorClass, Incident, JobOutcome, JobStarted
from posttrain_crew.errors import BudgetError, JobError, SlotsBusyError
from posttrain_crew.files import atomic_write_json, atomic_write_text, sha256_text
from posttrain_crew.tools.compute.base import OUTCOME_FILE, Capacity, JobHandle, JobSpec, JobState
from posttrain_crew.tools.compute.record import load_record
from posttrain_crew.tools.workspace import Workspace

__all__ = [
    "CANCEL_FILE",
    "ENVIRONMENT_FILE",
    "OUTCOME_FILE",
    "JobRequest",
    "handle_of",
    "held_slots",
    "kept_environment",
    "launch",
    "launch_again",
    "launch_many",
    "poll",
    "post_outcome",
    "relaunch",
    "wait",
]

CANCEL_FILE = "cancel.requested"
"""In the directory of a job that the user has ended: it is not started again."""
ENVIRONMENT_FILE = "environment.json"
"""In the directory of a job that is started with variables of its own: kept for every later start of it. No secrets."""
MAX_ATTEMPTS = 12
"""Starts of one job before it counts as failed. Only killed and cancelled jobs start again, a user's interrupts among
them, so the number is generous; it ends the case of a job that kills its machine each time."""
_at_launch: set[tuple[Path, str]] = set()
"""Directory and label of the jobs that a thread of this process is launching now."""
TIMEOUT_FACTOR = 5.0
MINIMUM_TIMEOUT_S = 420.0


@dataclass(frozen=True)
class JobRequest:
    """A job to be."""

    label: str
    """Unique within the run, for example `exp-3` or `exp-3-dev`."""
    role: Literal["train", "evaluate", "smoke", "probe"]
    subject: str
    module: str
    directory: Path
    """Absolute, inside the run directory."""
    config: Mapping[str, Any]
    """Written as config.yaml into the directory."""
    estimate_seconds: float
    refs: tuple[str, ...] = ()
    attempt: int = 1
    timeout_s: float | None = None
    """Hard limit, for a job that ends itself well before it; None: some times the estimate."""
    final: bool = False
    """Belongs to the end of the run and may use the time kept for it."""
    nodes: int = 1
    """Machines; several only on a cluster."""
    processes: int = 1
    """Processes on each machine, one per accelerator."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of the job, for example of a sharding profile (launcher.py). They are written beside the config: a
    later attempt gets them again. They must not be secrets."""


def launch(workspace: Workspace, request: JobRequest, *, waited: bool = False) -> Entry[JobStarted]:
    """Start a job, or return the one that carries this label already. Where every slot is taken, it waits for one.

    Args:
        waited: it has been told already that the job waits, and it is not told again.

    Raises:
        BudgetError: its estimate does not fit what is left. JobError: the backend refused it.
    """
    return launch_many(workspace, [request], waited=waited)[0]


def launch_many(
    workspace: Workspace, requests: Sequence[JobRequest], *, waited: bool = False
) -> list[Entry[JobStarted]]:
    """Start jobs that belong together, for example one experiment with several seeds: as one array where the backend
    has such. As `launch`; where not all of them find a slot at once, each waits for its own."""
    entries = [_posted(workspace, request) for request in requests]
    waiting = [
        (request, entry)
        for request, entry in zip(requests, entries, strict=True)
        if not (request.directory / OUTCOME_FILE).exists()
    ]
    keys = {(request.directory, request.label) for request, _ in waiting}
    if waited and keys & _at_launch:
        return entries  # an agent's thread is just about it: a second call would only wait for the first
    specs = [_spec(workspace, request) for request, _ in waiting]
    _at_launch.update(keys)
    try:
        if len(specs) == 1:
            workspace.compute.submit(specs[0])
        elif specs:
            workspace.compute.submit_many(specs)
    except SlotsBusyError as error:  # they are posted: the loop submits each when a slot is free
        for request, _ in [] if waited else waiting:
            workspace.events.emit(
                "job_queued", label=request.label, role=request.role, subject=request.subject, reason=str(error)
            )
        return entries
    except (BudgetError, JobError) as error:
        for request, entry in waiting:
            if workspace.compute.find(request.label, request.directory) is None:
                post_outcome(workspace, entry, stopped=("crashed", str(error)))
        raise
    finally:
        _at_launch.difference_update(keys)
    for request, _ in waiting:
        workspace.events.emit("job_started", label=request.label, role=request.role, subject=request.subject)
    return entries


def _posted(workspace: Workspace, request: JobRequest) -> Entry[JobStarted]:
    """Reserve the budget, write the config, and put the job on the board; what is there already stays."""
    price = workspace.compute.price()
    workspace.budget.reserve(
        f"job:{request.label}",
        wall_s=request.estimate_seconds,
        device_s=request.estimate_seconds * request.nodes * request.processes,
        usd=None if price is None else price * request.estimate_seconds * request.nodes / 3600,
        final=request.final,
        refs=request.refs,
    )
    config = request.directory / "config.yaml"
    if not config.exists():
        if request.environment:  # before the config: where that is, this is too
            atomic_write_json(request.directory / ENVIRONMENT_FILE, dict(request.environment))
        atomic_write_text(config, yaml.safe_dump(dict(request.config), sort_keys=False, allow_unicode=True))
    return workspace.board.post(
        JobStarted(
            label=request.label,
            role=request.role,
            subject=request.subject,
            backend=workspace.compute.name,
            module=request.module,
            directory=workspace.run.relative(request.directory),
            attempt=request.attempt,
            final=request.final,
            nodes=request.nodes,
            processes=request.processes,
            estimate_seconds=request.estimate_seconds,
        ),
        author="crew",
        refs=request.refs,
        key=f"job:{request.label}",
    )


def _spec(workspace: Workspace, request: JobRequest) -> JobSpec:
    left = workspace.budget.remaining if request.final else workspace.budget.for_experiments
    usual = max(MINIMUM_TIMEOUT_S, TIMEOUT_FACTOR * request.estimate_seconds)
    timeout = request.timeout_s or min(usual, max(left, 30.0))
    return JobSpec(
        request.label,
        request.module,
        request.directory / "config.yaml",
        timeout,
        kept_environment(request.directory),
        nodes=request.nodes,
        processes=request.processes,
    )


def kept_environment(directory: Path) -> dict[str, str]:
    """The variables that the job was first launched with; {} where it has none. Raises JobError where they cannot be
    read."""
    path = directory / ENVIRONMENT_FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be read ({error}): the job cannot be started as it was launched.") from error
    if not isinstance(kept, dict) or not all(isinstance(value, str) for value in kept.values()):
        raise JobError(f"{path} must hold a JSON object of strings: the job cannot be started as it was launched.")
    return kept


def launch_again(workspace: Workspace, job: Entry[JobStarted]) -> Entry[JobStarted]:
    """Submit a job that is on the board but was never started: it waits for a slot, or a kill came between the two."""
    return launch(workspace, _request_of(workspace, job, job.body.label, job.body.attempt, job.refs), waited=True)


def relaunch(workspace: Workspace, job: Entry[JobStarted]) -> Entry[JobStarted]:
    """Start a job again that was killed or cancelled: same config and directory, next attempt.

    The files of the earlier attempt are kept with its number. A training job goes on from its last checkpoint.
    """
    directory = workspace.run.absolute(job.body.directory)
    for name in (OUTCOME_FILE, "job.json"):
        if (directory / name).exists():
            (directory / name).replace(directory / f"{name}.{job.body.attempt}")
    attempt = job.body.attempt + 1
    root = job.body.label if job.body.attempt == 1 else job.body.label.rsplit(".", 1)[0]
    return launch(workspace, _request_of(workspace, job, f"{root}.{attempt}", attempt, (job.id,)))


def _request_of(
    workspace: Workspace, job: Entry[JobStarted], label: str, attempt: int, refs: tuple[str, ...]
) -> JobRequest:
    return JobRequest(
        label=label,
        role=job.body.role,
        subject=job.body.subject,
        module=job.body.module,
        directory=workspace.run.absolute(job.body.directory),
        config={},  # config.yaml of the first launch is there
        estimate_seconds=job.body.estimate_seconds,
        refs=refs,
        attempt=attempt,
        final=job.body.final,
        nodes=job.body.nodes,
        processes=job.body.processes,
    )


def handle_of(workspace: Workspace, job: Entry[JobStarted]) -> JobHandle | None:
    """The backend's handle of a job on the board, or None where the backend does not know it."""
    return workspace.compute.find(job.body.label, workspace.run.absolute(job.body.directory))


def held_slots(capacity: Capacity, jobs: Sequence[Entry[JobStarted]]) -> int:
    """Slots that jobs hold: one for each where a scheduler counts their devices, else one for each process."""
    return len(jobs) if capacity.job_is_slot else sum(job.body.nodes * job.body.processes for job in jobs)


def poll(workspace: Workspace, job: Entry[JobStarted]) -> JobState:
    """Where a job stands; `lost` where the backend does not know it (it was never submitted, or its node is gone)."""
    if (workspace.run.absolute(job.body.directory) / OUTCOME_FILE).exists():
        return "ended"
    handle = handle_of(workspace, job)
    state: JobState = "lost" if handle is None else workspace.compute.status(handle)
    if trouble := workspace.compute.trouble:
        _report(workspace, job, trouble)
    return state


def _report(workspace: Workspace, job: Entry[JobStarted], trouble: str) -> None:
    """Say once for a job and a trouble that the backend does not answer."""
    where, instead = f"backend {workspace.compute.name}", "its jobs count as they were last seen, and it is asked again"
    key = f"incident:{job.id}:trouble:{sha256_text(trouble)[:12]}"
    if workspace.board.by_key(key) is None:
        workspace.board.post(
            Incident(where=where, what=trouble[:1000], instead=instead), author="crew", refs=(job.id,), key=key
        )
        workspace.events.emit("incident", where=where, what=trouble, instead=instead)


def wait(workspace: Workspace, job: Entry[JobStarted], interval_s: float = 0.2) -> Entry[JobOutcome]:
    """Block until a short job (a smoke run, a probe) has ended, then post its outcome."""
    while (state := poll(workspace, job)) != "ended":
        if state == "lost":
            launch_again(workspace, job)
        time.sleep(interval_s)  # polling interval: a process of an earlier session is not our child to wait for
    return post_outcome(workspace, job)


def post_outcome(
    workspace: Workspace, job: Entry[JobStarted], *, stopped: tuple[ErrorClass, str] | None = None
) -> Entry[JobOutcome]:
    """Read how a job ended, post it and settle its cost. The same job again returns the first outcome.

    Args:
        stopped: class and message where crew itself ended the job (a watch rule, a cancel), which its file cannot say.
    """
    directory = workspace.run.absolute(job.body.directory)
    if (handle := handle_of(workspace, job)) is not None:
        workspace.compute.fetch(handle)
    raw = _read_outcome(directory / OUTCOME_FILE)
    started = _age_of(directory)
    if raw is None:
        raw = {"ok": False, "error_class": "killed", "message": _last_words(workspace, job), "wall_s": started}
    if stopped is None and (directory / CANCEL_FILE).exists():
        stopped = "stopped_by_user", "the user ended it with `crew jobs cancel`"
    if stopped is not None and not raw.get("ok"):
        raw = {**raw, "error_class": stopped[0], "message": stopped[1]}
    checkpoint = raw.get("checkpoint")
    outcome = JobOutcome(
        label=job.body.label,
        ok=bool(raw.get("ok")),
        error_class=cast("ErrorClass | None", raw.get("error_class")),
        message=str(raw.get("message", ""))[:2000],
        wall_s=float(raw.get("wall_s", 0.0)),
        steps=int(raw.get("steps", 0)),
        checkpoint=workspace.run.relative(directory / checkpoint) if checkpoint else None,
        metrics={
            name: float(value)
            for name, value in dict(raw.get("metrics", {})).items()
            if isinstance(value, int | float) and math.isfinite(value)
        },
    )
    billed_s = max(outcome.wall_s, _billed_seconds(directory, job.body.label))
    usd = (workspace.compute.price() or 0.0) * billed_s * job.body.nodes / 3600
    device_s = outcome.wall_s * job.body.nodes * job.body.processes
    workspace.budget.settle(f"job:{job.body.label}", wall_s=outcome.wall_s, device_s=device_s, usd=usd)
    entry = workspace.board.post(outcome, author="crew", refs=(job.id,), key=f"outcome:{job.body.label}")
    workspace.events.emit(
        "job_ended",
        label=job.body.label,
        role=job.body.role,
        subject=job.body.subject,
        ok=outcome.ok,
        error_class=outcome.error_class,
        wall_s=outcome.wall_s,
    )
    return entry


def _billed_seconds(directory: Path, label: str) -> float:
    """What the backend counted, where it says so: a rented machine costs while files come and go, too."""
    record = load_record(directory, {"label"}) or {}
    return float(record.get("billed_s") or 0.0) if record.get("label") == label else 0.0


def _read_outcome(path: Path) -> dict[str, Any] | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise JobError(
            f"the outcome file {path} cannot be read ({error}): it is not the work of a crew job."
        ) from error
    if not isinstance(raw, dict):
        raise JobError(f"the outcome file {path} must hold a JSON object.")
    return raw


def _age_of(directory: Path) -> float:
    """Seconds between the writing of the config and the last sign of life of a job that left no outcome."""
    times = [path.stat().st_mtime for path in directory.iterdir() if path.is_file()]
    config = directory / "config.yaml"
    return max(0.0, max(times) - config.stat().st_mtime) if times and config.exists() else 0.0


def _last_words(workspace: Workspace, job: Entry[JobStarted]) -> str:
    handle = handle_of(workspace, job)
    tail = workspace.compute.logs(handle, tail=5).strip() if handle is not None else ""
    return f"the process is gone and left no outcome. Last output: {tail or '(none)'}"
