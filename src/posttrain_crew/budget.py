"""Budgets that hold in every mode: reserved before, settled after, on the blackboard.

Wall-clock time is a deadline and not a sum, since jobs run side by side: a reservation fits if the work would end
before the deadline, from which `FINAL_SHARE` is kept for the final evaluation and saving. Device time, US dollars and
tokens add up. A price that is not known is refused as soon as a dollar limit is set, since it could be any.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from posttrain_crew.blackboard import Blackboard, Entry
from posttrain_crew.entries import BudgetReserved, BudgetSettled, EntryBody, SessionStarted
from posttrain_crew.errors import BudgetError

__all__ = ["FINAL_SHARE", "Budget", "Limits", "Usage"]

FINAL_SHARE = 0.10
"""Share of the time that is kept for the final evaluation and for saving the model."""


@dataclass(frozen=True)
class Limits:
    """What a run may use. None means that there is no limit of this kind."""

    hours: float
    """Wall-clock hours, all sessions of the run together."""
    device_hours: float | None = None
    """Accelerator (or CPU job) hours, summed over jobs."""
    usd: float | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Usage:
    """What a run has used, seconds / USD / tokens."""

    wall_s: float
    device_s: float
    usd: float
    tokens: int


class Budget:
    """The ledger of one run; all of its state is on the blackboard, so a resumed run goes on where it was.

    Args:
        clock: seconds that only grow; replaced in tests.
        at_least: seconds that earlier sessions took by another record, where that is more than the board shows (a
            session that was killed in the middle of a long job has no entry of its end).
    """

    def __init__(
        self,
        board: Blackboard,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        at_least: float = 0.0,
    ) -> None:
        self._lock = threading.RLock()
        self._live: dict[str, tuple[int, float]] = {}
        self._board = board
        self.limits = limits
        self._clock = clock
        self._started = clock()
        self._earlier = max(at_least, _seconds_of_earlier_sessions(board))

    @property
    def elapsed(self) -> float:
        """Seconds of work of all sessions so far; the time between a kill and its resume does not count."""
        return self._earlier + self._clock() - self._started

    @property
    def remaining(self) -> float:
        """Seconds to the deadline, never below 0."""
        return max(0.0, self.limits.hours * 3600 - self.elapsed)

    @property
    def for_experiments(self) -> float:
        """Seconds that experiments may still use: what remains, less the share kept for the end."""
        return max(0.0, self.limits.hours * 3600 * (1 - FINAL_SHARE) - self.elapsed)

    def usage(self) -> Usage:
        """Settled use, plus what is reserved or already used and not yet settled."""
        with self._lock:
            live = dict(self._live)
        settled = self._board.of(BudgetSettled)
        done = {entry.body.label for entry in settled}
        bodies: list[BudgetReserved | BudgetSettled] = [entry.body for entry in settled]
        bodies += [entry.body for entry in self._board.of(BudgetReserved) if entry.body.label not in done]
        reserved = {body.label: body for body in bodies if isinstance(body, BudgetReserved)}
        over_tokens = sum(max(0, n - (reserved[k].tokens if k in reserved else 0)) for k, (n, _) in live.items())
        over_usd = sum(max(0.0, usd - (reserved[k].usd if k in reserved else 0.0)) for k, (_, usd) in live.items())
        return Usage(
            wall_s=self.elapsed,
            device_s=sum(body.device_s for body in bodies),
            usd=sum(body.usd for body in bodies) + over_usd,
            tokens=sum(body.tokens for body in bodies) + over_tokens,
        )

    def note(self, label: str, *, tokens: int, usd: float) -> None:
        """Tell what work under this label has used so far, so that work beside it sees it before it is settled."""
        with self._lock:
            self._live[label] = (tokens, usd)

    def reserve(
        self,
        label: str,
        *,
        wall_s: float,
        device_s: float = 0.0,
        usd: float | None = 0.0,
        tokens: int = 0,
        final: bool = False,
        refs: tuple[str, ...] = (),
    ) -> Entry[EntryBody]:
        """Set a part aside. The same label again returns the first reservation, so a resumed step pays once.

        Args:
            wall_s: seconds from now until the work would end.
            usd: its price; None means that the price is not known.
            final: the work belongs to the end of the run and may use the share kept for it.

        Raises:
            BudgetError: it does not fit, with what is left and what was asked.
        """
        key = f"reserve:{label}"
        if (entry := self._board.by_key(key)) is not None:
            return entry
        with self._lock:  # check and post are one step: two orders may not both take the last of it
            left = self.remaining if final else self.for_experiments
            if wall_s > left:
                raise BudgetError(
                    f"`{label}` needs about {wall_s:.0f} s, but {left:.0f} s of the {self.limits.hours:g} h are left"
                    f"{'' if final else f' for experiments ({FINAL_SHARE:.0%} is kept for the final evaluation)'}. "
                    "Choose something shorter, or give the run more `--hours`."
                )
            used = self.usage()
            if usd is None and self.limits.usd is not None:
                raise BudgetError(
                    f"the price of `{label}` is not known, and the run has a limit of {self.limits.usd:g} USD: unknown "
                    "prices are refused. Set the price (price_in, price_out per token) or lift the limit."
                )
            for name, limit, spent, asked in (
                ("USD", self.limits.usd, used.usd, usd or 0.0),
                ("tokens", self.limits.tokens, float(used.tokens), float(tokens)),
                (
                    "device seconds",
                    None if self.limits.device_hours is None else self.limits.device_hours * 3600,
                    used.device_s,
                    device_s,
                ),
            ):
                if limit is not None and spent + asked > limit:
                    raise BudgetError(f"`{label}` needs {asked:g} {name}, but {max(0.0, limit - spent):g} are left.")
            return self._board.post(
                BudgetReserved(label=label, wall_s=wall_s, device_s=device_s, usd=usd or 0.0, tokens=tokens),
                author="crew",
                refs=refs,
                status="decision",
                key=key,
            )

    def settle(
        self, label: str, *, wall_s: float = 0.0, device_s: float = 0.0, usd: float = 0.0, tokens: int = 0
    ) -> None:
        """Record what the reserved work cost. Raises BudgetError when nothing was reserved under this label."""
        reservation = self._board.by_key(f"reserve:{label}")
        if reservation is None:
            raise BudgetError(f"nothing was reserved under `{label}`, so nothing can be settled: reserve first.")
        with self._lock:
            self._live.pop(label, None)
        self._board.post(
            BudgetSettled(label=label, wall_s=wall_s, device_s=device_s, usd=usd, tokens=tokens),
            author="crew",
            refs=(reservation.id,),
            key=f"settle:{label}",
        )


def _seconds_of_earlier_sessions(board: Blackboard) -> float:
    """Sum over finished sessions of (last entry - first entry), from the entries' own times."""
    starts = [entry.seq for entry in board.of(SessionStarted)]
    if not starts:
        return 0.0
    total = 0.0
    for start, end in zip(starts, [*starts[1:], board.last_seq() + 1], strict=True):
        entries = board.since(start - 1, limit=1), board.since(end - 2, limit=1)
        first, last = entries[0][0], entries[1][0]
        total += (datetime.fromisoformat(last.created_at) - datetime.fromisoformat(first.created_at)).total_seconds()
    return total
