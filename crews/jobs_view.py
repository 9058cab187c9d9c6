"""The jobs of one run: what its blackboard says of them, beside what its backend says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import JobOutcome, JobStarted, RunStarted
from posttrain_crew.errors import CrewError, RunError
from posttrain_crew.files import atomic_write_text
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.settings import Settings
from posttrain_crew.tools.compute.base import LOG_FILE, OUTCOME_FILE, Compute, JobHandle
from posttrain_crew.tools.compute.choose import make_backend
from posttrain_crew.tools.compute.jobs import CANCEL_FILE
from posttrain_crew.tools.compute.record import load_record

__all__ = ["JobRow", "backend_of", "mark_cancelled", "rows_of"]


@dataclass(frozen=True)
class JobRow:
    """One job."""

    run: str
    label: str
    role: str
    subject: str
    backend: str
    state: str
    """queued, running, ended, or `not submitted`; `unknown` where the backend does not answer."""
    ending: str
    """`ok` or the class of the failure; "" before the end."""
    orphan: bool
    """Alive, and not at work by the blackboard."""
    handle: JobHandle | None

    @property
    def id(self) -> str:
        """The backend's own."""
        return "" if self.handle is None else self.handle.id

    @property
    def alive(self) -> bool:
        return self.state in ("queued", "running", "unknown")

    def as_json(self) -> dict[str, Any]:
        """Without the handle."""
        names = ("run", "label", "role", "subject", "backend", "state", "ending", "orphan", "id")
        return {name: getattr(self, name) for name in names}


@cache
def _backend(name: str) -> Compute:
    return make_backend(name, Settings().slots if name == "local" else 0)


def backend_of(row: JobRow) -> Compute:
    """The backend of a job. Raises CrewError: it cannot be made here."""
    return _backend(row.backend)


def mark_cancelled(row: JobRow) -> None:
    """Say in the job's directory that the user ended it, so that the run does not take it for a kill."""
    if row.handle is not None:
        atomic_write_text(row.handle.directory / CANCEL_FILE, "`crew jobs cancel`\n")


def rows_of(run: RunDirectory, backend: str | None, silent: dict[str, str] | None = None) -> tuple[list[JobRow], str]:
    """The run's jobs in their order, orphans last, and what the backend could not say.

    Args:
        backend: only jobs of this one; None: whichever the run has.
        silent: backends that do not answer, with what they said: they are not asked again, which may take half a
            minute each time. One that is found silent here is added.

    Raises:
        BlackboardError, RunError: the run cannot be read. CrewError: its backend cannot be made here.
    """
    board = Blackboard(run.blackboard)
    try:
        started = board.latest(RunStarted)
        jobs = [entry.body for entry in board.of(JobStarted)]
        outcomes = {entry.body.label: entry.body for entry in board.of(JobOutcome)}
    finally:
        board.close()
    if started is None:
        raise RunError(f"the run {run.id} was killed before its first entry.")
    name = started.body.compute
    if backend not in (None, name):
        return [], ""
    silent = {} if silent is None else silent
    compute = _backend(name)
    rows = []
    trouble = silent.get(name, "")
    alive: list[JobHandle] = []
    if not trouble:
        try:
            alive = compute.alive(run.root)
        except CrewError as error:
            trouble = silent[name] = str(error)
    ids = {handle.label: handle for handle in alive}
    directories = {job.label: run.absolute(job.directory) for job in jobs}
    for job in jobs:
        outcome = outcomes.get(job.label)
        directory = run.absolute(job.directory)
        if outcome is not None:
            handle, state = _of_record(name, job.label, directory), "ended"
        else:
            handle = _of_record(name, job.label, directory) if trouble else compute.find(job.label, directory)
            state = _state(compute, handle, trouble)
        ending = "" if outcome is None else "ok" if outcome.ok else str(outcome.error_class)
        rows.append(JobRow(run.id, job.label, job.role, job.subject, name, state, ending, False, handle))
    at_work = {job.label for job in jobs} - outcomes.keys()
    for label, handle in ids.items():
        leaving = (directories.get(label, handle.directory) / OUTCOME_FILE).exists()
        if label not in at_work and not leaving:
            rows.append(JobRow(run.id, label, "?", "?", name, "running", "", True, handle))
    return rows, trouble or compute.trouble


def _state(compute: Compute, handle: JobHandle | None, trouble: str) -> str:
    if trouble:
        return "unknown"
    return "not submitted" if handle is None else compute.status(handle)


def _of_record(backend: str, label: str, directory: Path) -> JobHandle | None:
    """The handle of a job by what its directory holds, without asking the backend; its id is "" for an attempt that a
    later one followed in the same directory, whose log goes on in the same file."""
    record = load_record(directory, {"label"}) or {}
    if record.get("label") != label:
        return JobHandle(label, backend, directory, "") if (directory / LOG_FILE).exists() else None
    local = f"{record['pid']}@{record['create_time']}" if "pid" in record else None
    return JobHandle(label, backend, directory, str(record.get("id") or local or ""))
