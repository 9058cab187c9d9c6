"""Checkpoints on disk: which are whole, which one to go on from, which may go.

A checkpoint is written straight into its folder, and a marker with the size of each of its files comes last. One
without its marker, or with a file of another size, was cut off by a kill or a full disk and is never resumed from.
Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from posttrain_crew.files import atomic_write_json

__all__ = ["MARKER", "Found", "SaveClock", "fault_of", "last_checkpoint", "look", "prune", "remove", "seal", "step_of"]

MARKER = "complete.json"
MAX_SHARE = 0.02
"""Of the wall time that saving by the clock may take."""


@dataclass(frozen=True)
class Found:
    """What a folder of checkpoints holds."""

    newest: Path | None
    """The newest one that is whole."""
    passed_over: tuple[str, ...]
    """One line for each newer one that is not, with what is wrong with it."""


class SaveClock:
    """When the next checkpoint is due: every `seconds`, later where a save takes long.

    After a save that took `c` seconds the next one waits for at least `49 c`, so that saving takes at most 2 % of the
    time however large the model is.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._next: float | None = None
        self.count = 0
        self.cost_s = 0.0
        """Wall seconds in all saves so far."""

    @property
    def timed(self) -> bool:
        """Whether it ever saves."""
        return self._seconds is not None

    def start(self, now: float) -> None:
        """Training begins at `now` (`time.monotonic()`)."""
        self._next = None if self._seconds is None else now + self._seconds

    def due(self, now: float) -> bool:
        """Whether to save after the step that ends at `now`."""
        return self._next is not None and now >= self._next

    def saved(self, began: float, ended: float) -> None:
        """A checkpoint was written, by the clock or because the trainer's `save_strategy` asked for it."""
        self.count += 1
        self.cost_s += ended - began
        if self._seconds is not None:
            self._next = ended + max(self._seconds, (ended - began) * (1 - MAX_SHARE) / MAX_SHARE)


def step_of(checkpoint: Path) -> int | None:
    """The step of `checkpoint-STEP`; None for a folder of another name."""
    name, _, step = checkpoint.name.rpartition("-")
    return int(step) if name == "checkpoint" and step.isdigit() else None


def seal(checkpoint: Path) -> None:
    """Flush every file to the disk, then write the marker: from here on the checkpoint counts. Raises OSError."""
    files = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name != MARKER:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
            files[path.relative_to(checkpoint).as_posix()] = path.stat().st_size
    atomic_write_json(checkpoint / MARKER, {"step": step_of(checkpoint), "files": files})


def fault_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None for one that is whole."""
    try:
        marker = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        files = dict(marker["files"])
    except FileNotFoundError:
        return f"it has no {MARKER}, so its writing was cut off"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MARKER} cannot be read ({error})"
    if not files:
        return f"its {MARKER} names no file"
    for name, size in files.items():
        try:
            found = (checkpoint / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} of its {size} bytes"
    return None


def look(folder: Path) -> Found:
    """The newest whole checkpoint under `folder`, and what was passed over to find it."""
    faults: list[str] = []
    for path in _newest_first(folder):
        fault = fault_of(path)
        if fault is None:
            return Found(path, tuple(faults))
        faults.append(f"{path.name} was not resumed from: {fault}")
    return Found(None, tuple(faults))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint under `folder` that is whole."""
    return look(folder).newest


def prune(folder: Path, keep: int, best: Path | None = None) -> None:
    """Remove whole checkpoints but the newest `keep` and the best one. Those that are not whole are left for a
    person."""
    whole = [path for path in _newest_first(folder) if fault_of(path) is None]
    for path in whole[max(1, keep) :]:
        if best is None or path.resolve() != best.resolve():
            remove(path)


def remove(checkpoint: Path) -> None:
    """Remove one; the marker goes first, so that a kill in between leaves none that looks whole."""
    (checkpoint / MARKER).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    found = [(step, path) for path in folder.glob("checkpoint-*") if (step := step_of(path)) is not None]
    return [path for _, path in sorted(found, reverse=True)]
