"""From a finished job to a diagnosis: the cause, the numbers that show it, and what to change.

A remedy is a set of trainer fields for the next attempt. The factors are the usual first steps, none of them tuned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from posttrain_crew.entries import Cause, Diagnosis, JobOutcome, MetricEvidence
from posttrain_crew.tools.training.config import trainer_value
from posttrain_crew.tools.training.metrics import series
from posttrain_crew.tools.training.watch import Finding, findings

__all__ = ["diagnose"]

Remedy = dict[str, float | int | str | bool]


def diagnose(
    history: Sequence[Mapping[str, Any]],
    outcome: JobOutcome | None,
    method: Literal["sft", "grpo"],
    config: Mapping[str, Any],
) -> Diagnosis:
    """Why a job went as it went.

    Args:
        outcome: None while the job runs.
        config: trainer fields of the job.
    """
    found = findings(history, method, config)
    if found and (
        found[0].stop or outcome is None or outcome.ok or outcome.error_class in ("diverged", "stopped_by_rule")
    ):
        return _of_finding(found[0], found[1:], method, dict(config))
    if outcome is not None and not outcome.ok:
        return _of_failure(outcome, method, dict(config), history)
    if method == "grpo" and (flat := _plateau(history, config)) is not None:
        return _of_finding(flat, [], method, dict(config))
    return Diagnosis(
        cause="healthy",
        evidence=_course(history, method),
        confidence=0.8,
        advice="Nothing in the metrics speaks against it.",
    )


def _of_finding(
    finding: Finding, others: Sequence[Finding], method: Literal["sft", "grpo"], config: dict[str, Any]
) -> Diagnosis:
    remedy, advice = _remedy(finding, method, config)
    beside = f" Beside it: {'; '.join(other.message for other in others[:2])}." if others else ""
    return Diagnosis(
        cause=finding.cause,
        evidence=finding.evidence,
        confidence=finding.confidence,
        remedy=remedy,
        advice=f"{finding.message[0].upper()}{finding.message[1:]}. {advice}{beside}",
    )


def _remedy(finding: Finding, method: Literal["sft", "grpo"], config: dict[str, Any]) -> tuple[Remedy, str]:
    rate = float(trainer_value(method, config, "learning_rate"))
    cause: Cause = finding.cause
    if cause == "divergence":
        return {
            "learning_rate": _rounded(rate / 10),
            "max_grad_norm": 1.0,
        }, "Lower the learning rate tenfold and clip gradients."
    if cause == "reward_collapse":
        return {
            "learning_rate": _rounded(rate / 10)
        }, "The steps were too large for the policy: a tenth of the learning rate."
    if cause == "kl_explosion":
        return {
            "learning_rate": _rounded(rate / 3)
        }, "Take smaller steps, or hold the policy nearer to its reference (beta)."
    if cause in ("length_explosion", "reward_hacking"):
        return (
            {"mask_truncated_completions": True, "learning_rate": _rounded(rate / 3)},
            "Do not learn from completions that were cut off, and check that the reward pays for the answer alone.",
        )
    if cause == "never_ends":
        limit = int(trainer_value("grpo", config, "max_completion_length") or 256)
        return {"max_completion_length": 2 * limit}, "Allow longer completions, and check the end tokens of the parent."
    if cause == "entropy_collapse":
        return {"learning_rate": _rounded(rate / 3), "temperature": 1.2}, "Take smaller steps and sample more widely."
    if cause == "zero_variance":
        if finding.stop:
            return {}, (
                "No setting helps a reward that never fires: teach the answer format with SFT first, choose easier "
                "prompts, or check the reward against this model's own completions."
            )
        group = int(trainer_value("grpo", config, "num_generations") or 8)
        batch = int(trainer_value("grpo", config, "per_device_train_batch_size") or 8)
        return (
            {"num_generations": 2 * group, "per_device_train_batch_size": math.lcm(batch, 2 * group)},
            "Larger groups contain more answers that differ; prompts of medium difficulty help more.",
        )
    if cause == "overfitting":
        best = next((e for e in finding.evidence if e.value == e.threshold), None)
        if best is not None and best.step > 0:
            return {"max_steps": best.step}, f"Stop at step {best.step}, where the held-out loss was best, or add data."
        return {"num_train_epochs": 1}, "Train for fewer epochs, or add data."
    return {}, "Further steps of the same kind will not help: change the data or the method."


def _of_failure(
    outcome: JobOutcome, method: Literal["sft", "grpo"], config: dict[str, Any], history: Sequence[Mapping[str, Any]]
) -> Diagnosis:
    remedy: Remedy = {}
    error = outcome.error_class
    batch = int(trainer_value(method, config, "per_device_train_batch_size") or 8)
    cause: Cause = "infrastructure"
    if error == "out_of_memory":
        accumulation = int(trainer_value(method, config, "gradient_accumulation_steps") or 1)
        if batch > 1:
            remedy = {"per_device_train_batch_size": batch // 2, "gradient_accumulation_steps": 2 * accumulation}
        else:
            remedy = {"gradient_checkpointing": True}
        advice = "Out of memory: the same step in smaller pieces."
    elif error == "timeout":
        if outcome.steps > 1:
            remedy = {"max_steps": max(1, outcome.steps * 3 // 4)}
        advice = "It took longer than its limit: fewer steps, or a larger budget."
    elif error == "diverged":
        cause = "divergence"
        rate = float(trainer_value(method, config, "learning_rate"))
        remedy, advice = (
            {"learning_rate": _rounded(rate / 10), "max_grad_norm": 1.0},
            "Lower the learning rate tenfold.",
        )
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
            *_course(history, method),
        ],
        confidence=0.5 if cause == "unknown" else 0.9,
        remedy=remedy,
        advice=f"{advice} ({error}: {outcome.message[:400]})",
    )


def _plateau(history: Sequence[Mapping[str, Any]], config: Mapping[str, Any]) -> Finding | None:
    """A long GRPO run whose last third is no better than its first."""
    reward = [value for _, value in series(history, "reward")]
    if len(reward) < 30:
        return None
    third = len(reward) // 3
    first, last = reward[:third], reward[-third:]
    gain = fmean(last) - fmean(first)
    # standard error of the difference, from the scatter between logs
    error = math.sqrt((_variance(first) + _variance(last)) / third)
    if gain > 2 * error:
        return None
    evidence = [
        MetricEvidence(metric="reward", step=len(reward), value=round(fmean(last), 4), threshold=round(fmean(first), 4))
    ]
    return Finding(
        "plateau",
        f"the reward did not rise: {fmean(first):.2f} in the first third, {fmean(last):.2f} in the last",
        0.6,
        False,
        evidence,
    )


def _course(history: Sequence[Mapping[str, Any]], method: Literal["sft", "grpo"]) -> list[MetricEvidence]:
    """Where the main metric ended, against where it began."""
    name = "reward" if method == "grpo" else "loss"
    points = [(step, value) for step, value in series(history, name) if math.isfinite(value)]
    if not points:
        return []
    return [
        MetricEvidence(metric=name, step=points[-1][0], value=round(points[-1][1], 6), threshold=round(points[0][1], 6))
    ]


def _variance(values: Sequence[float]) -> float:
    mean = fmean(values)
    return fmean((value - mean) ** 2 for value in values)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
