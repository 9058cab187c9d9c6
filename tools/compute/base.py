"""The protocol of compute backends: submit, status, logs, cancel, fetch, find, alive, price, capacity.

A job is a Python module of crew run with one config file in one directory. It writes `outcome.json` itself when it can;
whoever reads a job without one knows that it was killed. Submitting is idempotent by label: a backend must be able to
find a job that an earlier process of crew started, or whose submission was answered by nothing.

`Backend` is where a backend starts: it has the answers that a backend with a shared directory and no price needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from posttrain_crew.redact import redact

__all__ = ["LOG_FILE", "OUTCOME_FILE", "Backend", "Capacity", "Compute", "JobHandle", "JobSpec", "JobState", "LogPage"]

LOG_FILE = "log.txt"
"""stdout and stderr of the job, in its directory."""
OUTCOME_FILE = "outcome.json"
"""Written by the job itself, atomically, as its last act: {ok, error_class, message, wall_s, steps, checkpoint,
metrics}; `checkpoint` is relative to the job's directory."""
LABEL_VARIABLE = "CREW_JOB_LABEL"
DIRECTORY_VARIABLE = "CREW_JOB_DIRECTORY"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_LOG_TAIL_BYTES = 64 * 1024
_LOG_PAGE_BYTES = 256 * 1024

JobState = Literal["queued", "running", "ended", "lost"]
"""`ended`: the process is gone, its outcome file says how; `lost`: the backend does not know the job."""


@dataclass(frozen=True)
class JobSpec:
    """What to run."""

    label: str
    """Unique within the run."""
    module: str
    """For example posttrain_crew.tools.training.sft."""
    config: Path
    """YAML that the module reads; the job's directory is its parent."""
    timeout_s: float
    """Hard limit; the backend ends the job then."""
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: int = 1
    """Machines; with more than one, or more than one process, the module is started by torchrun."""
    processes: int = 1
    """Processes on each machine, one per accelerator."""


@dataclass(frozen=True)
class JobHandle:
    """How to find a submitted job again."""

    label: str
    backend: str
    directory: Path
    id: str
    """The backend's own id: a pid with its start time, a Slurm job id, ..."""


@dataclass(frozen=True)
class Capacity:
    """What a backend has."""

    slots: int
    """Jobs that can run side by side."""
    device: str
    """`cpu`, or the accelerator's name."""
    device_memory_gib: float
    """Memory that one job can use, GiB."""
    threads_per_job: int
    description: str
    devices_per_job: int = 1
    """Most devices of one machine, each with that memory, on which one job can run with several processes."""
    nodes_per_job: int = 1
    """Most machines on which one job can run."""
    job_is_slot: bool = False
    """A job takes one slot whatever its devices, which a cluster's scheduler counts; elsewhere one for each process."""


@dataclass(frozen=True)
class LogPage:
    """A piece of a job's output."""

    text: str
    """Complete lines; secrets redacted."""
    cursor: int
    """Give it back to get what comes after."""


@runtime_checkable
class Compute(Protocol):
    """One backend. No call waits for a job, except `cancel` for the end of what it ends."""

    name: str

    @property
    def trouble(self) -> str:
        """Why the backend cannot be asked at present, or "". States are then the last known ones."""
        ...

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start a job, or return the handle of the one that already carries this label.

        Raises:
            SlotsBusyError: no slot is free, or the backend is down: try again later. BudgetError: it costs more than
            may be spent. JobError: the backend refused it.
        """
        ...

    def submit_many(self, specs: Sequence[JobSpec]) -> list[JobHandle]:
        """Start jobs that belong together (seeds, a sweep), as one array where the backend has such. As `submit`."""
        ...

    def find(self, label: str, directory: Path) -> JobHandle | None:
        """The job of an earlier process that carries this label, or None."""
        ...

    def status(self, handle: JobHandle) -> JobState:
        """Where the job stands."""
        ...

    def logs(self, handle: JobHandle, tail: int = 100) -> str:
        """The last lines of its output."""
        ...

    def stream(self, handle: JobHandle, cursor: int = 0) -> LogPage:
        """What it wrote since `cursor` (0: the beginning). Each line comes once, whatever broke in between."""
        ...

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        """End it and everything it started; returns when it is gone. Ending an ended job does nothing."""
        ...

    def fetch(self, handle: JobHandle) -> None:
        """Bring what an ended job has written into its directory, and add to `outcome.json` what only the backend knows
        (a node that failed, a time limit). Again does nothing. Raises JobError when it cannot be had."""
        ...

    def alive(self, root: Path) -> list[JobHandle]:
        """The jobs of the run at `root` that wait or run, whoever submitted them."""
        ...

    def price(self) -> float | None:
        """USD for one hour of one job on one machine; 0.0 is free, None is not known."""
        ...

    def capacity(self) -> Capacity:
        """What there is to run on."""
        ...


class Backend:
    """What a backend has by default: a directory that it shares with its jobs, and no price that it knows of."""

    name = "backend"

    @property
    def trouble(self) -> str:
        return ""

    def submit(self, spec: JobSpec) -> JobHandle:
        raise NotImplementedError

    def submit_many(self, specs: Sequence[JobSpec]) -> list[JobHandle]:
        return [self.submit(spec) for spec in specs]

    def logs(self, handle: JobHandle, tail: int = 100) -> str:
        """The last `tail` lines of stdout and stderr together, at most 64 KiB, secrets redacted; "" before any."""
        path = handle.directory / LOG_FILE
        try:
            with path.open("rb") as stream:
                stream.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
                text = stream.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return redact("\n".join(text.splitlines()[-tail:]))

    def stream(self, handle: JobHandle, cursor: int = 0) -> LogPage:
        """At most 256 KiB from byte `cursor` of the log, up to its last complete line."""
        try:
            with (handle.directory / LOG_FILE).open("rb") as stream:
                stream.seek(cursor)
                block = stream.read(_LOG_PAGE_BYTES)
        except FileNotFoundError:
            return LogPage("", cursor)
        if len(block) < _LOG_PAGE_BYTES or b"\n" in block:  # a line longer than a page comes in pieces
            block = block[: block.rfind(b"\n") + 1]
        return LogPage(redact(block.decode("utf-8", errors="replace")), cursor + len(block))

    def fetch(self, handle: JobHandle) -> None:
        """Nothing: the job wrote into the directory itself."""

    def alive(self, root: Path) -> list[JobHandle]:
        return []

    def price(self) -> float | None:
        return None
