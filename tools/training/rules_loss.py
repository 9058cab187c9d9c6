"""Rules on the loss: it is no number, it rises, the held-out one rises, it does not fall."""

from __future__ import annotations

import math
from statistics import pvariance

from posttrain_crew.entries import MetricEvidence
from posttrain_crew.tools.training.course import Course, evidence, mean, noise
from posttrain_crew.tools.training.finding import Finding

__all__ = ["loss_rises", "not_a_number", "overfitting", "plateau"]


def not_a_number(course: Course) -> Finding | None:
    """A metric that has to be finite is not: the weights are lost."""
    for name in ("loss", "grad_norm", "entropy", "reward"):
        if name == "grad_norm" and course.config.get("fp16"):
            continue  # the loss scaler skips such steps
        points = course.raw(name)
        at = next((index for index, (_, value) in enumerate(points) if not math.isfinite(value)), None)
        if at is None:
            continue
        step, value = points[at]
        before = [evidence(name, points[at - 1], math.inf)] if at else []
        # NaN cannot be written to the blackboard: -1 stands for it, a value that none of these can have
        shown = [MetricEvidence(metric=f"{name} is NaN", step=step, value=-1.0, threshold=0.0), *before]
        message = f"{name} is {value} at step {step}: the weights are lost from there on"
        return Finding("divergence", message, 1.0, "stop", shown)
    return None


def loss_rises(course: Course) -> Finding | None:
    """SFT and DPO: the loss went far above where it began and stayed there; or, less surely, far above its best.

    The first counts wherever it was: a loss that falls again, as the learning rate does, falls towards the frequencies
    of tokens, and what the model knew is gone.
    """
    loss, limits = course.of("loss"), course.limits
    if course.method == "grpo" or len(loss) < limits.window:
        return None
    start = loss[0][1]
    limit = limits.loss_factor * start + limits.loss_margin
    for at in range(2, len(loss)):
        if all(value > limit for _, value in loss[at - 2 : at + 1]):
            message = f"the loss rose from {start:.2f} to {loss[at][1]:.2f} and stayed there"
            shown = [evidence("loss", loss[at], limit), *course.newest("grad_norm")]
            return Finding("divergence", message, 0.9, "stop", shown)
    earlier, recent = loss[: -limits.window], loss[-limits.window :]
    if len(earlier) < limits.window:
        return None
    best = min(mean(earlier[at : at + 3]) for at in range(len(earlier) - 2))
    limit = best + max(limits.loss_margin, limits.loss_noise * noise(loss))
    if any(value <= limit for _, value in recent):
        return None
    message = f"the loss was {best:.2f} and has risen to {mean(recent):.2f}"
    return Finding("divergence", message, 0.6, "warn", [evidence("loss", loss[-1], limit)])


def overfitting(course: Course) -> Finding | None:
    """SFT and DPO: the held-out loss passed its best and rises while the training loss falls."""
    held_out, limits = course.of("eval_loss"), course.limits
    if course.method == "grpo" or len(held_out) < 3:
        return None  # the loss of GRPO says nothing of the answers
    best_step, best = min(held_out, key=lambda point: point[1])
    step, last = held_out[-1]
    limit = limits.overfit_warn * best
    above = [value > limit for _, value in held_out]
    train = course.of("loss")
    falls = len(train) < 2 or train[-1][1] <= train[0][1]
    if not (above[-1] and held_out[-2][1] > best and step > best_step and falls):
        return None
    lasts = len(above) >= limits.overfit_evals and all(above[-limits.overfit_evals :])
    stop = last > limits.overfit_stop * best or lasts
    message = (
        f"the held-out loss was best at step {best_step} ({best:.3f}) and is {last:.3f} now, while the training loss "
        "falls"
    )
    shown = [evidence("eval_loss", (step, last), limit), evidence("eval_loss", (best_step, best), best)]
    return Finding("overfitting", message, 0.9, "stop" if stop else "warn", shown)


def plateau(course: Course) -> Finding | None:
    """A long run whose last third is no better than its first: the reward of GRPO, the loss of SFT and DPO."""
    name = "reward" if course.method == "grpo" else "loss"
    points, limits = course.of(name), course.limits
    if len(points) < limits.plateau_logs:
        return None
    third = len(points) // 3
    first, last = points[:third], points[-third:]
    gain = (mean(last) - mean(first)) * (1 if course.method == "grpo" else -1)
    # standard error of the difference, from the scatter between logs
    error = math.sqrt((pvariance([v for _, v in first]) + pvariance([v for _, v in last])) / third)
    moved = _moved(course)
    if gain > (limits.plateau_errors_moved if moved else limits.plateau_errors) * error or _better_held_out(course):
        return None
    word = "rise" if course.method == "grpo" else "fall"
    message = f"the {name} did not {word}: {mean(first):.3g} in the first third, {mean(last):.3g} in the last"
    if not moved:
        message += ", and nothing else moved"
    shown = [evidence(name, (points[-1][0], mean(last)), mean(first)), *course.newest("entropy")]
    if moved:
        return Finding("plateau", message, 0.6, "warn", shown)
    stop = course.share_done >= limits.plateau_done
    return Finding("plateau", message, 0.8, "stop" if stop else "warn", shown)


def _moved(course: Course) -> bool:
    """Whether entropy or length of the answers is elsewhere than in the first third; true where neither is logged."""
    known = [points for name in ("entropy", "completions/mean_length") if len(points := course.of(name)) >= 3]
    if not known:
        return True
    for points in known:
        third = len(points) // 3
        first, last = mean(points[:third]), mean(points[-third:])
        if abs(last - first) > course.limits.plateau_moved * abs(first):
            return True
    return False


def _better_held_out(course: Course) -> bool:
    least = course.limits.plateau_held_out
    loss, reward = course.of("eval_loss"), course.of("eval_reward")
    if course.method == "grpo":
        return len(reward) >= 3 and mean(reward[-2:]) > reward[0][1] + least
    return len(loss) >= 2 and loss[-1][1] < (1 - least) * loss[0][1]
