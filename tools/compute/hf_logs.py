"""Follows the log of a Hugging Face job into its directory: log.txt, and the rows of metrics.jsonl as they come.

The stream starts again from the beginning whenever it is opened, so the number of lines that are in log.txt says how
many to leave out: each line is written once, whatever broke in between, a kill of crew included.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from posttrain_crew.tools.compute.base import LOG_FILE
from posttrain_crew.tools.compute.hf_remote import METRICS, RESTART

__all__ = ["LogFollower", "complete_lines"]

METRICS_FILE = "metrics.jsonl"
_log = logging.getLogger(__name__)


def complete_lines(path: Path) -> int:
    """Lines with their end; a last one that a kill cut off is taken away."""
    if not path.exists():
        return 0
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) != len(raw):
        with path.open("r+b") as stream:
            stream.truncate(len(whole))
    return whole.count(b"\n")


class LogFollower:
    """One thread for one job.

    Args:
        lines: opens the job's log from its beginning and follows it to its end; called again after an error.
        ended: whether the job is over, so that nothing more can come.
        before: lines of log.txt that are from earlier attempts.
        errors: what `lines` raises when the connection breaks.
    """

    def __init__(
        self,
        directory: Path,
        lines: Callable[[], Iterable[str]],
        ended: Callable[[], bool],
        before: int,
        errors: tuple[type[Exception], ...],
        pause_s: float = 2.0,
    ) -> None:
        self._directory, self._lines, self._ended, self._before = directory, lines, ended, before
        self._errors, self._pause = errors, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log of {directory.name}", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait until everything is written, at most so long, and follow no more."""
        self._thread.join(seconds)
        self._stop.set()

    def _run(self) -> None:
        log, metrics = self._directory / LOG_FILE, self._directory / METRICS_FILE
        have = complete_lines(log) - self._before
        if have > 0:
            self._project(log, metrics)
        while not self._stop.is_set():
            over = self._ended()
            try:
                with log.open("a", encoding="utf-8") as writing:
                    for index, line in enumerate(self._lines()):
                        if self._stop.is_set():
                            return
                        if index >= have:
                            writing.write(line.replace("\n", " ") + "\n")
                            writing.flush()
                            have += 1
                            _apply(line, metrics)
            except self._errors as error:
                _log.info("the log of %s broke off and is opened again: %s", self._directory.name, error)
            except OSError as error:
                _log.warning("the log of %s cannot be written: %s", self._directory.name, error)
            if over:
                return
            self._stop.wait(self._pause)

    def _project(self, log: Path, metrics: Path) -> None:
        """Make metrics.jsonl again from the lines of this attempt: a kill may have come between the two writes."""
        lines = log.read_text(encoding="utf-8").splitlines()[self._before :]
        if any(line.startswith(METRICS) for line in lines):
            metrics.unlink(missing_ok=True)
            for line in lines:
                _apply(line, metrics)


def _apply(line: str, metrics: Path) -> None:
    if line.startswith(RESTART):
        metrics.unlink(missing_ok=True)
    elif line.startswith(METRICS):
        with metrics.open("a", encoding="utf-8") as stream:
            stream.write(line[len(METRICS) :] + "\n")
