"""One piece of work in a thread beside the loop, so that running jobs are watched while an agent thinks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

ResultT = TypeVar("ResultT")


class Background(Generic[ResultT]):
    """Runs `work` at once in a daemon thread.

    A daemon thread does not hold the process at exit: after Ctrl-C an agent's answer is not waited for, and what it
    had not posted yet is done again by the resume.
    """

    def __init__(self, work: Callable[[], ResultT]) -> None:
        self._work = work
        self._result: list[ResultT] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result.append(self._work())
        except BaseException as error:  # noqa: BLE001 - re-raised in the loop's own thread by `result`
            self._error = error
        finally:
            self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait at most so long, or until the end; returns whether the work has ended."""
        return self._ended.wait(seconds)

    def result(self) -> ResultT:
        """What the work returned. Raises what it raised."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result[0]
