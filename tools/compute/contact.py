"""What a backend does while the service behind it does not answer: say so, and ask again only after a pause."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from posttrain_crew.errors import JobError, SlotsBusyError

__all__ = ["BackendDownError", "Contact"]

_log = logging.getLogger(__name__)


class BackendDownError(SlotsBusyError):
    """The backend does not answer; the job is submitted when it does."""


class Contact:
    """Whether a backend can be reached.

    Args:
        backend: its name, for messages.
        pause_s: seconds after a failure in which it is not asked again.
        give_up_s: seconds of silence after which a submission is an error and no longer a wait.
    """

    def __init__(
        self, backend: str, pause_s: float = 5.0, give_up_s: float = 1800.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backend, self._pause, self._give_up, self._clock = backend, pause_s, give_up_s, clock
        self._since: float | None = None
        self._ask_after = 0.0
        self.trouble = ""

    @property
    def may_ask(self) -> bool:
        """False for a moment after a failure."""
        return self._since is None or self._clock() >= self._ask_after

    def lost(self, why: str) -> None:
        """It did not answer."""
        now = self._clock()
        if self._since is None:
            self._since = now
            _log.warning("the backend %s does not answer: %s", self._backend, why)
        self._ask_after = now + self._pause
        self.trouble = why

    def made(self) -> None:
        """It answered."""
        self._since, self.trouble = None, ""

    def refuse(self, label: str) -> SlotsBusyError | JobError:
        """What to raise for a submission that cannot be made now."""
        silent = 0.0 if self._since is None else self._clock() - self._since
        text = f"`{label}` cannot be submitted: the backend {self._backend} does not answer ({self.trouble})."
        if silent > self._give_up:
            return JobError(f"{text} It has been silent for {silent:.0f} s: check it, then `crew resume` the run.")
        return BackendDownError(f"{text} It is tried again.")
