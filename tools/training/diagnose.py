"""From a job to a diagnosis: the cause, the numbers that show it, and what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from posttrain_crew.entries import Cause, Diagnosis, JobOutcome, Method, MetricEvidence
from posttrain_crew.tools.training.course import Course
from posttrain_crew.tools.training.finding import Finding, Remedy
from posttrain_crew.tools.training.ladder import Refusal, Room, Settings, next_config
from posttrain_crew.tools.training.remedies import divergence_remedy, with_remedy
from posttrain_crew.tools.training.watch import findings

__all__ = ["diagnose"]

MOMENTS = 64
"""Looks back at a run that nobody watched."""


def diagnose(
    history: Sequence[Mapping[str, Any]],
    outcome: JobOutcome | None,
    method: Method,
    config: Mapping[str, Any],
    now: float | None = None,
    room: Room | None = None,
) -> Diagnosis:
    """Why a job went as it went.

    Args:
        history: records of metrics.jsonl in order, NaN as a float.
        outcome: None while the job runs, or where nothing is known of its end.
        config: trainer fields of the job.
        now: Unix time, for a job that runs (see `findings`). With neither this nor an outcome the metrics are all there
            is, and the first thing that a watcher would have ended the job for is taken for the cause of the rest.
        room: what the next attempt may use, for a job that ran out of memory.
    """
    found = findings(history, method, config, now=now)
    if outcome is None and now is None:
        found = _first_stop(history, method, config) or found
    course = Course(history, method, config)
    if outcome is not None and outcome.error_class == "stopped_by_rule":
        found = _with_what_stopped(found, outcome.message, course)
    if found and (
        found[0].stop or outcome is None or outcome.ok or outcome.error_class in ("diverged", "stopped_by_rule")
    ):
        return _of_finding(found[0], found[1:])
    if outcome is not None and not outcome.ok:
        return _of_failure(outcome, method, dict(config), course, room)
    return Diagnosis(
        cause="healthy",
        evidence=_main(course),
        confidence=0.8 if history else 0.0,
        advice="Nothing in the metrics speaks against it." if history else "There are no metrics yet.",
    )


def _first_stop(history: Sequence[Mapping[str, Any]], method: Method, config: Mapping[str, Any]) -> list[Finding]:
    """The findings at the first of some moments of the run at which one is a `stop`; [] where there is none."""
    for part in range(1, MOMENTS + 1):
        found = findings(history[: math.ceil(len(history) * part / MOMENTS)], method, config)
        if found and found[0].stop:
            return found
    return []


def _with_what_stopped(found: list[Finding], message: str, course: Course) -> list[Finding]:
    """The findings with that first which ended the job, of which the outcome's message tells, as `CAUSE: why`.

    A look at the end need not show it: a job that hung is not waited for any more, and one that wrote further logs
    while it was being ended may look like something else.
    """
    named, _, why = message.partition(": ")
    cause = next((known for known in get_args(Cause) if known == named), None)
    if cause is None:
        return found
    own = [finding for finding in found if finding.cause == cause]
    if not own:
        what = Finding(cause, why, 0.9, "stop", _main(course))
        own = [with_remedy(what, course.method, course.fields)]
    return own + [finding for finding in found if finding.cause != cause]


def _of_finding(finding: Finding, others: Sequence[Finding]) -> Diagnosis:
    beside = f" Beside it: {'; '.join(other.message for other in others[:2])}." if others else ""
    return Diagnosis(
        cause=finding.cause,
        evidence=finding.evidence,
        confidence=finding.confidence,
        remedy=finding.remedy,
        advice=f"{finding.message[0].upper()}{finding.message[1:]}. {finding.advice}{beside}",
    )


def _of_failure(
    outcome: JobOutcome, method: Method, config: dict[str, Any], course: Course, room: Room | None
) -> Diagnosis:
    remedy: Remedy = {}
    error = outcome.error_class
    cause: Cause = "infrastructure"
    if error == "out_of_memory":
        rung = next_config(Settings(method, config), room or Room(on_cpu=bool(config.get("use_cpu"))))
        remedy = {} if isinstance(rung, Refusal) else dict(rung.changes)
        advice = f"Out of memory: {rung.reason}."
    elif error == "timeout":
        if outcome.steps > 1:
            remedy = {"max_steps": max(1, outcome.steps * 3 // 4)}
        advice = "It took longer than its limit: fewer steps, or a larger budget."
    elif error == "diverged":
        cause = "divergence"
        remedy, advice = divergence_remedy(method, config), "Lower the learning rate tenfold."
    elif error in ("killed", "cancelled"):
        advice = "It was ended from outside and says nothing about the idea: launch it again."
    elif error == "disk_full":
        advice = "Free disk space; the idea itself was not tried."
    elif error in ("config", "data", "model"):
        advice = f"The job never trained: correct its {error}."
    else:
        cause, advice = "unknown", "Read the end of log.txt in the experiment's directory."
    return Diagnosis(
        cause=cause,
        evidence=[
            MetricEvidence(metric="steps", step=outcome.steps, value=float(outcome.steps), threshold=1.0),
            *_main(course),
        ],
        confidence=0.5 if cause == "unknown" else 0.9,
        remedy=remedy,
        advice=f"{advice} ({error}: {outcome.message[:400]})",
    )


def _main(course: Course) -> list[MetricEvidence]:
    """Where the main metric ended, against where it began."""
    return course.newest("reward" if course.method == "grpo" else "loss")
