"""The protocol of compute backends: submit, status, logs, cancel, find, capacity.

A job is a Python module of crew run with one config file in one directory. It writes `outcome.json` itself when it can;
whoever reads a job without one knows that it was killed. Submitting is idempotent by label: a backend must be able to
find a job that an earlier process of crew started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

__all__ = ["Capacity", "Compute", "JobHandle", "JobSpec", "JobState"]

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


@runtime_checkable
class Compute(Protocol):
    """One backend. All calls return at once; none waits for a job."""

    name: str

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start a job, or return the handle of the one that already carries this label.

        Raises:
            SlotsBusyError: no slot is free. JobError: the backend refused it or is down.
        """
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

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        """End it and everything it started; returns when it is gone. Ending an ended job does nothing."""
        ...

    def capacity(self) -> Capacity:
        """What there is to run on."""
        ...
