"""Not more requests than a service wants: a minimum interval between them, patience for one question, and a circuit
breaker when it is down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from posttrain_crew.errors import ServiceUnavailableError

__all__ = ["CircuitBreaker", "Pace", "Patience"]


class Pace:
    """At least `interval_s` between the starts of two requests, over all threads of this process."""

    def __init__(
        self,
        interval_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval, self._clock, self._sleep = interval_s, clock, sleep
        self._next = self._held_until = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when the next request may start."""
        with self._lock:
            start = max(self._clock(), self._next)
            self._next = start + self._interval
        if (pause := start - self._clock()) > 0:
            self._sleep(pause)

    def unused(self) -> None:
        """The last request never left this machine: the next one need not keep the interval."""
        with self._lock:
            self._next = max(self._held_until, self._next - self._interval)

    def hold(self, seconds: float) -> None:
        """No request of any thread for so long: what a Retry-After asks for."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)
            self._next = max(self._next, self._held_until)

    def held(self) -> float:
        """Seconds that are left of what `hold` was told, without the queue of the interval."""
        with self._lock:
            return max(0.0, self._held_until - self._clock())


class Patience:
    """What one question may still cost, in seconds of pauses and failed tries."""

    def __init__(self, seconds: float) -> None:
        self._seconds = self.left = seconds

    def spend(self, seconds: float) -> None:
        """Some of it is used up."""
        self.left -= seconds

    def renew(self) -> None:
        """All of it is there again."""
        self.left = self._seconds


class CircuitBreaker:
    """After `failures` in a row a service is left alone for `rest_s`; then one request tries whether it is back.

    (Nygard, Release It!, "Circuit Breaker": closed, open, half open.)
    """

    def __init__(
        self, name: str, failures: int = 5, rest_s: float = 60.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._limit, self._rest, self._clock = name, failures, rest_s, clock
        self._failed = 0
        self._closed_at = 0.0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises ServiceUnavailableError while the service is left alone."""
        with self._lock:
            left = self._closed_at - self._clock()
            if self._failed >= self._limit and left > 0:
                raise ServiceUnavailableError(
                    f"{self._name} failed {self._failed} times in a row and is not asked again for {left:.0f} s.",
                    service=self._name,
                    retry_after=left,
                )

    def succeeded(self) -> None:
        """An answer came, be it "not found": the service works."""
        with self._lock:
            self._failed = 0

    def failed(self) -> None:
        """The service gave no answer, after all tries."""
        with self._lock:
            self._failed += 1
            if self._failed >= self._limit:
                self._closed_at = self._clock() + self._rest
