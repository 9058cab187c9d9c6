"""Rules that read a training history and say what is going wrong, with the numbers that show it.

Pure functions over the records of metrics.jsonl, so they serve a running job (should it be stopped?) and a finished one
(why did it go so?) alike. Thresholds were set on the runs under tests/training/histories, one of each kind: every
failing run is stopped there, and nothing is said that would stop a healthy one. A stop throws the job's model away, so
a rule stops only what cannot end well; the rest is a finding to read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

from posttrain_crew.entries import Cause, MetricEvidence
from posttrain_crew.tools.training.metrics import series

__all__ = ["Finding", "findings"]

History = Sequence[Mapping[str, Any]]
Series = list[tuple[int, float]]
"""(step, value)."""

WINDOW = 4
"""Logs that have to agree before a noisy metric counts."""


@dataclass(frozen=True)
class Finding:
    """One thing that a history shows."""

    cause: Cause
    message: str
    confidence: float
    """0-1, a judgement and no measured rate."""
    stop: bool = False
    """The job cannot end well: end it."""
    evidence: list[MetricEvidence] = field(default_factory=list)


def findings(history: History, method: Literal["sft", "dpo", "grpo"], config: Mapping[str, Any]) -> list[Finding]:
    """What the history shows so far, the surest and most serious first; [] when nothing is wrong.

    Args:
        history: records of metrics.jsonl in order, NaN as a float.
        config: trainer fields of the job; batch size, group size and length limit are read from it.
    """
    rules = [_not_a_number, _overfitting]
    rules += (
        [_no_entropy, _kl, _reward_collapse, _zero_variance, _length, _never_ends]
        if method == "grpo"
        else [_loss_rises]
    )
    found = [finding for rule in rules if (finding := rule(history, config)) is not None]
    return sorted(found, key=lambda finding: (not finding.stop, -finding.confidence))


def _not_a_number(history: History, config: Mapping[str, Any]) -> Finding | None:
    for name in ("loss", "grad_norm", "entropy", "reward"):
        if name == "grad_norm" and config.get("fp16"):
            continue  # the loss scaler skips such steps
        for step, value in series(history, name):
            if not math.isfinite(value):
                before = [(at, seen) for at, seen in series(history, name) if at < step]
                evidence = [_evidence(name, *before[-1], math.inf)] if before else []
                return Finding(
                    "divergence",
                    f"{name} is {value} at step {step}: the weights are lost from there on",
                    1.0,
                    True,
                    # NaN cannot be written to the blackboard: -1 stands for it, a value that none of these can have
                    [MetricEvidence(metric=f"{name} is NaN", step=step, value=-1.0, threshold=0.0), *evidence],
                )
    return None


def _loss_rises(history: History, config: Mapping[str, Any]) -> Finding | None:
    """SFT: the loss is far above where it began, and stays there."""
    loss = series(history, "loss")
    if len(loss) < WINDOW:
        return None
    start = loss[0][1]
    limit = 1.5 * start + 0.5
    if all(value > limit for _, value in loss[-3:]):
        return Finding(
            "divergence",
            f"the loss rose from {start:.2f} to {loss[-1][1]:.2f} and stays there",
            0.9,
            True,
            [_evidence("loss", *loss[-1], limit)],
        )
    return None


def _overfitting(history: History, config: Mapping[str, Any]) -> Finding | None:
    """The held-out loss passed its best and rises while the training loss does not."""
    held_out = series(history, "eval_loss")
    if len(held_out) < 3:
        return None
    best_step, best = min(held_out, key=lambda point: point[1])
    step, last = held_out[-1]
    rising = held_out[-1][1] > held_out[-2][1] > best
    train = series(history, "loss")
    falling = len(train) < 2 or train[-1][1] <= train[0][1]
    if not (rising and falling and last > 1.15 * best):
        return None
    return Finding(
        "overfitting",
        f"the held-out loss was best at step {best_step} ({best:.3f}) and is {last:.3f} now, while the training "
        "loss falls",
        0.9,
        last > 1.5 * best,
        [_evidence("eval_loss", step, last, 1.15 * best), _evidence("eval_loss", best_step, best, best)],
    )


def _reward_collapse(history: History, config: Mapping[str, Any]) -> Finding | None:
    """The reward fell far below its own best, further than chance takes it, and stays there."""
    reward = series(history, "reward")
    if len(reward) < 3 + WINDOW:
        return None
    earlier, recent = reward[:-WINDOW], [value for _, value in reward[-WINDOW:]]
    best = max(fmean(value for _, value in earlier[at : at + 3]) for at in range(len(earlier) - 2))
    if best <= 0:
        return None
    spread = max((value for _, value in series(history, "reward_std") if math.isfinite(value)), default=0.5)
    error = spread / math.sqrt(_completions(config)) * math.sqrt(1 / 3 + 1 / WINDOW)
    if max(recent) >= 0.5 * best or best - fmean(recent) <= 4 * error:
        return None
    return Finding(
        "reward_collapse",
        f"the reward fell from {best:.2f} to {fmean(recent):.2f} and stayed there for {WINDOW} logs",
        0.95,
        True,
        [_evidence("reward", *reward[-1], 0.5 * best), *_newest(history, "entropy", "kl", "completions/clipped_ratio")],
    )


def _zero_variance(history: History, config: Mapping[str, Any]) -> Finding | None:
    """Groups whose completions all score the same give no gradient: a reward that never fires, or always does."""
    same, reward = series(history, "frac_reward_zero_std"), series(history, "reward")
    if len(same) < WINDOW + 1 or len(reward) < WINDOW + 1:
        return None
    share = fmean(value for _, value in same[-WINDOW - 1 :])
    level = fmean(value for _, value in reward[-WINDOW - 1 :])
    evidence = [_evidence("frac_reward_zero_std", *same[-1], 0.9), _evidence("reward", *reward[-1], level)]
    ever = max(abs(value) for _, value in reward)
    if share >= 0.99 and ever <= 0.01:
        return Finding(
            "zero_variance", "the reward has never fired: there is nothing to learn from", 0.95, True, evidence
        )
    if share >= 0.98 and level >= 0.95 * max(ever, 1e-9):
        return Finding(
            "plateau", f"all groups score the same ({level:.2f}): nothing is left to learn here", 0.8, False, evidence
        )
    if share >= 0.88:
        return Finding(
            "zero_variance",
            f"{share:.0%} of the groups score the same (mean reward {level:.2f}), so almost nothing is learnt",
            0.7,
            False,
            evidence,
        )
    return None


def _length(history: History, config: Mapping[str, Any]) -> Finding | None:
    """Completions grew several times over, and many run into the limit."""
    length, cut = series(history, "completions/mean_length"), series(history, "completions/clipped_ratio")
    if len(length) < 3 + WINDOW or len(cut) < 3 + WINDOW:
        return None
    start, start_cut = fmean(v for _, v in length[:3]), fmean(v for _, v in cut[:3])
    now, now_cut = fmean(v for _, v in length[-WINDOW:]), fmean(v for _, v in cut[-WINDOW:])
    if start_cut >= 0.2 or now < 2 * start or now_cut < 0.4:
        return None
    reward = series(history, "reward")
    gained = fmean(v for _, v in reward[-WINDOW:]) - fmean(v for _, v in reward[:3]) if len(reward) >= 7 else 0.0
    limit = config.get("max_completion_length", 512)
    told = f"completions grew from {start:.0f} to {now:.0f} tokens and {now_cut:.0%} run into the limit of {limit}"
    evidence = [
        _evidence("completions/mean_length", *length[-1], 2 * start),
        _evidence("completions/clipped_ratio", *cut[-1], 0.4),
    ]
    if gained > 0.1:
        told += f", while the reward rose by {gained:.2f}: it may pay for something that is not the answer"
        evidence.append(_evidence("reward", *reward[-1], reward[0][1]))
    stop = now_cut >= 0.5
    # with cut completions a true answer reward falls; one that rises most likely pays for length or for mentions
    hacked = gained > 0.1 and reward[0][1] > 0.3
    return Finding("reward_hacking" if hacked else "length_explosion", told, 0.6 if hacked else 0.9, stop, evidence)


def _never_ends(history: History, config: Mapping[str, Any]) -> Finding | None:
    """From the start, completions do not come to an end within the limit."""
    cut = series(history, "completions/clipped_ratio")
    if len(cut) < WINDOW + 1 or min(value for _, value in cut[: WINDOW + 1]) < 0.8:
        return None
    recent = [value for _, value in cut[-WINDOW:]]
    if min(recent) < 0.8:
        return None
    return Finding(
        "never_ends",
        f"{fmean(recent):.0%} of the completions do not end within {config.get('max_completion_length', 512)} tokens, "
        "and did not from the start: the limit is too short, or the model does not know its end token",
        0.9,
        fmean(recent) >= 0.95,
        [_evidence("completions/clipped_ratio", *cut[-1], 0.8)],
    )


def _no_entropy(history: History, config: Mapping[str, Any]) -> Finding | None:
    """Sampling has become nearly deterministic while the reward does not get better."""
    entropy, reward = series(history, "entropy"), series(history, "reward")
    if len(entropy) < 3 + WINDOW or len(reward) < 3 + WINDOW:
        return None
    start, now = fmean(v for _, v in entropy[:3]), fmean(v for _, v in entropy[-WINDOW:])
    better = fmean(v for _, v in reward[-WINDOW:]) > fmean(v for _, v in reward[:3]) + 0.05
    if start > 0.02 and now < 0.1 * start and not better:
        return Finding(
            "entropy_collapse",
            f"the entropy fell from {start:.3f} to {now:.3f} without a better reward",
            0.8,
            False,
            [_evidence("entropy", *entropy[-1], 0.1 * start)],
        )
    return None


def _kl(history: History, config: Mapping[str, Any]) -> Finding | None:
    """The policy is far from its reference. `kl` is logged only where beta is above 0."""
    kl = series(history, "kl")
    if len(kl) < WINDOW or fmean(value for _, value in kl[-3:]) < 1.0:
        return None
    return Finding(
        "kl_explosion",
        f"the KL divergence from the reference is {kl[-1][1]:.1f} nats per token",
        0.7,
        False,
        [_evidence("kl", *kl[-1], 1.0)],
    )


def _completions(config: Mapping[str, Any]) -> int:
    """Completions behind one log, on one process."""
    batch = int(config.get("per_device_train_batch_size", 8)) * int(config.get("gradient_accumulation_steps", 1))
    return max(1, batch * max(1, int(config.get("logging_steps", 1))))


def _evidence(metric: str, step: int, value: float, threshold: float) -> MetricEvidence:
    return MetricEvidence(
        metric=metric,
        step=step,
        value=round(value, 6),
        threshold=round(threshold, 6) if math.isfinite(threshold) else 0.0,
    )


def _newest(history: History, *names: str) -> list[MetricEvidence]:
    found = [(name, series(history, name)) for name in names]
    return [_evidence(name, *points[-1], points[0][1]) for name, points in found if points]
