"""The rule on time: nothing comes any more, though the job runs."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

from posttrain_crew.tools.training.course import Course, evidence
from posttrain_crew.tools.training.finding import Finding

__all__ = ["stalled_data"]

FIRST_EVALUATION = 20.0
"""Patience, times the usual, of a job that has evaluations to come and has shown none yet."""


def stalled_data(course: Course) -> Finding | None:
    """No step for far longer than steps have taken: the data loader waits, or a file system or a peer hangs."""
    limits = course.limits
    times = [float(record["time"]) for record in course.records if isinstance(record.get("time"), int | float)]
    if course.now is None or len(times) < limits.window:
        return None
    gaps = [later - earlier for earlier, later in pairwise(times)]
    if course.share_done >= 1:
        return None  # it merges, saves or uploads, which is logged by nobody
    waited = course.now - (times[-1] if course.waits_since is None else course.waits_since)
    patience = max(limits.stall_seconds, limits.stall_steps * median(gaps), limits.stall_gaps * max(gaps))
    evaluates = course.config.get("eval_strategy", "no") != "no"
    if evaluates and not any(name.startswith("eval_") for record in course.records for name in record):
        patience *= FIRST_EVALUATION
    if waited <= patience:
        return None
    step = int(course.records[-1].get("step", len(times)))
    message = (
        f"no step for {waited:.0f} s after step {step}, where a step takes {median(gaps):.2g} s: the data loader (or a "
        "file system, or another process) hangs"
    )
    stop = waited > max(limits.stall_stop_seconds, patience)
    shown = [evidence("seconds since the last log", (step, waited), patience)]
    return Finding("stalled_data", message, 0.9, "stop" if stop else "warn", shown)
