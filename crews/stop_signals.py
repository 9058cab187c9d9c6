"""The signals that ask a command to end, noted rather than raised: what it has begun is then ended in good order.

Ctrl-C in a terminal (SIGINT), `kill` and a machine that shuts down (SIGTERM), a terminal that is closed (SIGHUP). A
signal that is ignored stays so, as `nohup` and a shell's `&` want it.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["StopSignals", "stop_signals"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class StopSignals:
    """What has come so far."""

    def __init__(self) -> None:
        self.number: int | None = None
        """Of the first one."""
        self.urgent = False
        """Set it where the next Ctrl-C shall be a KeyboardInterrupt, which ends a wait at once. Only Ctrl-C: `timeout`
        and a closed terminal send their signal twice."""

    @property
    def name(self) -> str:
        """`SIGTERM`, say; "" for none."""
        return "" if self.number is None else signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """As a shell reports a command that this signal ended."""
        return 0 if self.number is None else 128 + self.number

    def note(self, number: int, _frame: FrameType | None) -> None:
        """The signals' handler."""
        if self.number is None:
            self.number = number
        elif self.urgent and number == signal.SIGINT:
            self.urgent = False
            raise KeyboardInterrupt


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Note these signals instead of ending the process, until the context is left."""
    stop = StopSignals()
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]  # Windows has no SIGHUP
    previous = {n: signal.signal(n, stop.note) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
