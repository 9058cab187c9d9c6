"""From a job to a diagnosis: the cause, the numbers that show it, and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain_crew.entries import Cause, Diagnosis, JobOutcome, Method, MetricEvidence
from posttrain_crew.tools.training.course import Course
from posttrain_crew.tools.training.finding import Finding, Remedy
from posttrain_crew.tools.training.ladder import Refusal, Room, Settings, next_config
from posttrain_crew.tools.training.remedies import divergence_remedy
from posttrain_crew.tools.training.watch import findings

__all__ = ["diagnose"]


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
        now: Unix time, for a job that runs (see `findings`).
        room: what the next attempt may use, for a job that ran out of memory.
    """
    found = findings(history, method, config, now=now)
    course = Course(history, method, config)
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
