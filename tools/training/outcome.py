"""How a training job says how it ended: `outcome.json`, with an error class that chooses what happens next."""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass, field
from pathlib import Path

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import ConfigError, DatasetError, ModelError
from posttrain_crew.files import atomic_write_json
from posttrain_crew.redact import redact

__all__ = ["OUTCOME_FILE", "Cancelled", "Diverged", "Outcome", "classify"]

OUTCOME_FILE = "outcome.json"


class Cancelled(BaseException):
    """Somebody asked the job to end before training began."""


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
            },
        )


def classify(error: BaseException) -> tuple[ErrorClass, str]:
    """The class of a failure, with a message for people. Looks at types first, then at what libraries only say."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return "cancelled", "ended on request before it was complete; nothing was saved"
    if isinstance(error, ConfigError):
        return "config", str(error)
    if isinstance(error, DatasetError):
        return "data", str(error)
    if isinstance(error, ModelError):
        return "model", str(error)
    if isinstance(error, Diverged):
        return "diverged", str(error)
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "out_of_memory", text
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full", f"{text}. Free disk space and resume."
    if isinstance(error, RuntimeError):
        lower = text.lower()
        if "can't allocate memory" in lower or "out of memory" in lower or "not enough memory" in lower:
            return "out_of_memory", text
        if "no space left" in lower:
            return "disk_full", f"{text}. Free disk space and resume."
        # what sampling says when the logits have become NaN
        if "probability tensor contains" in lower:
            return "diverged", text
    return "crashed", text
