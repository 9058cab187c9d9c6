"""How a training job says how it ended: `outcome.json`, with an error class that chooses what happens next."""

from __future__ import annotations

import errno
import resource
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import ConfigError, DatasetError, ModelError
from posttrain_crew.files import atomic_write_json
from posttrain_crew.redact import redact

__all__ = ["OUTCOME_FILE", "Cancelled", "DiskFull", "Diverged", "Outcome", "classify", "disk_is_full"]

OUTCOME_FILE = "outcome.json"


class Cancelled(BaseException):
    """Somebody asked the job to end before training began."""


class DiskFull(Exception):  # noqa: N818 - reads as the fact that it is
    """A save did not fit on the disk; what was there before it is as it was."""

    def __init__(self, what: str, folder: Path) -> None:
        try:
            free = (
                f"{shutil.disk_usage(folder).free / 2**30:.2f} GiB are free now that what was written of it is removed"
            )
        except OSError as error:
            free = f"how much is free cannot be read: {error}"
        super().__init__(
            f"{what}: {free}. Free some, then start the job again with `resume: true`: it goes on from the last whole "
            "checkpoint. `save_seconds: null`, or a smaller `trainer.save_total_limit`, needs less."
        )


class Diverged(Exception):  # noqa: N818 - reads as the fact that it is
    """Loss, gradient or weights are no numbers any more."""


@dataclass
class Outcome:
    """The content of outcome.json."""

    ok: bool
    error_class: ErrorClass | None = None
    message: str = ""
    steps: int = 0
    checkpoint: str | None = None
    """Relative to the job's directory."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Times in seconds, memory in GiB, first and last values of loss and reward."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know although the job went on: settings without effect, checkpoints that were passed
    over."""

    def write(self, directory: Path, started: float) -> None:
        """Write it as the job's last act; `started` is the process's start in `time.time()`. Raises OSError."""
        atomic_write_json(
            directory / OUTCOME_FILE,
            {
                "ok": self.ok,
                "error_class": self.error_class,
                "message": redact(self.message)[:2000],
                "wall_s": round(time.time() - started, 3),
                "steps": self.steps,
                "checkpoint": self.checkpoint,
                "metrics": {name: value for name, value in self.metrics.items() if abs(value) < float("inf")},
                "notes": [redact(note)[:500] for note in self.notes[:20]],
            },
        )


def classify(error: BaseException) -> tuple[ErrorClass, str]:
    """The class of a failure, with a message for people. Looks at types first, then at what libraries only say."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return "cancelled", "ended on request before it was complete; there is no model of it"
    if isinstance(error, ConfigError):
        return "config", str(error)
    if isinstance(error, DatasetError):
        return "data", str(error)
    if isinstance(error, ModelError):
        return "model", str(error)
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, DiskFull):
        return "disk_full", str(error)
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "out_of_memory", text
    if disk_is_full(error):
        return "disk_full", f"{text}. Free disk space and start the job again with `resume: true`."
    if type(error).__module__.split(".")[0] == "jinja2":
        return "data", f"the chat template of the model does not take the rows' messages: {error}"
    if isinstance(error, RuntimeError):
        lower = text.lower()
        if "can't allocate memory" in lower or "out of memory" in lower or "not enough memory" in lower:
            return "out_of_memory", text
        if "cuda error" in lower or "nccl" in lower:
            return "crashed", f"{text[:1500]}. The device or the link to it failed; start again with `resume: true`."
        # what sampling says when the logits have become NaN
        if "probability tensor contains" in lower:
            return "diverged", text
    return "crashed", text


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ROOM_TEXTS = ("no space left", "storagefull", "quota exceeded", "file too large", "filetoolarge")
_WRITE_FAILED_TEXTS = ("pytorchstreamwriter failed", "file write failed", "unexpected pos")
LEAST_FREE = 64 * 2**20
"""Bytes under which a write that failed without a reason is taken to have failed for want of room."""


def disk_is_full(error: BaseException, folder: Path | None = None) -> bool:
    """Whether an exception of a save says that there was no room: torch and safetensors raise no OSError for it.

    Args:
        folder: where it was written to; torch says of a failed write not why, and then the room that is left decides.
    """
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return True
    text = str(error).lower()
    if any(part in text for part in _NO_ROOM_TEXTS):
        return True
    if not any(part in text for part in _WRITE_FAILED_TEXTS):
        return any(disk_is_full(cause, folder) for cause in (error.__cause__, error.__context__) if cause is not None)
    if folder is None:
        return True
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return shutil.disk_usage(folder).free < LEAST_FREE or limit != resource.RLIM_INFINITY
