"""Where the time of a run went: who was at work at each moment, from the blackboard's and the events' own times."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import JobOutcome, JobStarted, SessionStarted, WorkOrder, WorkResult

__all__ = ["Span", "time_spent"]

Activity = Literal["train", "evaluate", "check", "agents"]
ORDER: tuple[Activity, ...] = ("train", "evaluate", "check", "agents")
"""Where two activities go on at once, the moment counts for the first of these."""


@dataclass(frozen=True)
class Span:
    """One stretch of work, in seconds since 1970."""

    start: float
    end: float
    activity: Activity
    label: str


def time_spent(board: Blackboard, root: Path) -> dict[str, Any]:
    """Seconds and shares per activity, and the spans on the run's own clock (time between sessions cut out)."""
    entries = board.since()
    if not entries:
        return {"wall_s": 0.0, "seconds": {}, "shares": {}, "spans": [], "sessions": 0}
    stamps = [_seconds(entry.created_at) for entry in entries]
    events = list(_events(root / "events.jsonl"))
    sessions = _sessions(board, stamps, [moment for moment, _event in events])
    found = [*_jobs(board, root, stamps[-1]), *(_turns(events) or _orders(board))]
    spans = [piece for span in found for piece in _within(span, sessions)]
    wall = sum(end - start for start, end in sessions)
    seconds = _partition(spans, sessions)
    outside = wall - seconds["train"] - seconds["evaluate"]
    return {
        "wall_s": round(wall, 3),
        "sessions": len(sessions),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "shares": {name: round(value / wall, 5) if wall else 0.0 for name, value in seconds.items()},
        "outside_jobs_share": round(outside / wall, 5) if wall else 0.0,
        "spans": [
            {
                "activity": span.activity,
                "label": span.label,
                "start_s": round(_on_clock(span.start, sessions), 3),
                "end_s": round(_on_clock(span.end, sessions), 3),
            }
            for span in sorted(spans, key=lambda span: span.start)
        ],
    }


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _events(path: Path) -> Iterable[tuple[float, dict[str, Any]]]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                event = json.loads(line)
                yield float(event["time"]), event
            except (ValueError, KeyError, TypeError):
                continue  # a kill can leave half a line at the end


def _sessions(board: Blackboard, stamps: list[float], events: list[float]) -> list[tuple[float, float]]:
    """Start and end of each process that worked on the run."""
    starts = [_seconds(entry.created_at) for entry in board.of(SessionStarted)] or [stamps[0]]
    starts[0] = min(starts[0], stamps[0], *(events[:1] or stamps[:1]))
    marks = sorted([*stamps, *events])
    found = []
    for start, following in zip(starts, [*starts[1:], float("inf")], strict=True):
        inside = [mark for mark in marks if start <= mark < following]
        found.append((start, max(inside, default=start)))
    return found


def _jobs(board: Blackboard, root: Path, last: float) -> Iterable[Span]:
    outcomes = {entry.body.label: entry for entry in board.of(JobOutcome)}
    for job in board.of(JobStarted):
        start, outcome = _seconds(job.created_at), outcomes.get(job.body.label)
        end = last if outcome is None else _seconds(outcome.created_at)
        written = root / job.body.directory / "outcome.json"
        if written.is_file() and start < written.stat().st_mtime < end:
            end = written.stat().st_mtime  # crew may have been busy when the job ended
        role = job.body.role
        activity: Activity = "train" if role == "train" else "evaluate" if role == "evaluate" else "check"
        yield Span(start, max(start, end), activity, job.body.label)


def _turns(events: list[tuple[float, dict[str, Any]]]) -> list[Span]:
    """Agents at work, the coordinator among them, from the events; one that was killed has no end and no span."""
    begun: dict[tuple[str, str], float] = {}
    spans = []
    for moment, event in events:
        key = (str(event.get("specialist")), str(event.get("order") or ""))
        if event.get("event") == "order_started":
            begun[key] = moment
        elif event.get("event") == "order_ended" and key in begun:
            spans.append(Span(begun.pop(key), moment, "agents", " ".join(key).strip()))
    return spans


def _orders(board: Blackboard) -> Iterable[Span]:
    """Agents at work, from the blackboard: for a run whose events are lost."""
    done = {ref: entry for entry in board.of(WorkResult) for ref in entry.refs}
    for order in board.of(WorkOrder):
        result = done.get(order.id)
        start = _seconds(order.created_at)
        # an order without a result belongs to a process that was killed
        if result is not None:
            yield Span(start, _seconds(result.created_at), "agents", f"{order.body.specialist} {order.id}")


def _within(span: Span, sessions: list[tuple[float, float]]) -> Iterable[Span]:
    for start, end in sessions:
        low, high = max(span.start, start), min(span.end, end)
        if low < high:
            yield Span(low, high, span.activity, span.label)


def _partition(spans: list[Span], sessions: list[tuple[float, float]]) -> dict[str, float]:
    """Each moment once: seconds per activity, and `other` for what nobody claims."""
    totals: dict[str, float] = dict.fromkeys((*ORDER, "other"), 0.0)
    for start, end in sessions:
        cuts = sorted({start, end, *(t for s in spans for t in (s.start, s.end) if start < t < end)})
        for low, high in itertools.pairwise(cuts):
            active = {span.activity for span in spans if span.start <= low and span.end >= high}
            name = next((activity for activity in ORDER if activity in active), "other")
            totals[name] += high - low
    return totals


def _on_clock(moment: float, sessions: list[tuple[float, float]]) -> float:
    """Seconds of work until a moment."""
    return sum(max(0.0, min(moment, end) - start) for start, end in sessions if moment > start)
