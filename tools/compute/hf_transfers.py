"""Files that come and go beside their caller: minutes of upload must not keep an agent, or the loop, from its work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Transfers"]


class _Transfer:
    """One piece of work in a thread that does not hold the process at its exit: the next crew does it again."""

    def __init__(self, key: str, work: Callable[[], Any]) -> None:
        self.over = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._work = work
        threading.Thread(target=self._run, name=key, daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised to whoever asks for the result
            self.error = error
        finally:
            self.over.set()


class Transfers:
    """Pieces of work by key, each done once however often and from how many threads it is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: dict[str, _Transfer] = {}

    def ask(self, key: str, work: Callable[[], Any], patience_s: float | None) -> tuple[bool, Any]:
        """Whether it is done, and its result; started where it is not at work.

        Args:
            patience_s: seconds to wait for it; None waits for its end.

        Raises:
            What the work raised, to each that waited for it; it starts anew when it is asked for again.
        """
        with self._lock:
            transfer = self._at_work.get(key)
            if transfer is None:
                transfer = self._at_work[key] = _Transfer(key, work)
        if not transfer.over.wait(patience_s):
            return False, None
        if transfer.error is not None:
            with self._lock:
                if self._at_work.get(key) is transfer:
                    del self._at_work[key]
            raise transfer.error
        return True, transfer.result

    def forget(self, key: str) -> None:
        """Let go of a result that nobody asks for any more."""
        with self._lock:
            self._at_work.pop(key, None)
