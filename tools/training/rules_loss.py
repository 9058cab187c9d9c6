"""Rules on the loss: it is no number, it rises, the held-out one rises, it does not fall."""

from __future__ import annotations

import math
from statistics import median, pvariance

from posttrain_crew.entries import MetricEvidence
from posttrain_crew.tools.training.course import Course, Points, evidence, mean, noise
from posttrain_crew.tools.training.finding import Finding
from posttrain_crew.tools.training.rules_reward import reward_error

__all__ = ["loss_rises", "not_a_number", "overfitting", "plateau"]

SETTLED = 8
"""Logs whose median is a start that chance hardly moves."""


def not_a_number(course: Course) -> Finding | None:
    """A metric that has to be finite is not: the weights are lost."""
    for name in ("loss", "grad_norm", "entropy", "reward"):
        if name == "grad_norm" and course.config.get("fp16"):
            continue  # the loss scaler skips such steps
        points = course.raw(name)
        at = next((index for index, (_, value) in enumerate(points) if not math.isfinite(value)), None)
        if at is None:
            continue
        if len(points) > at + course.limits.window and all(
            math.isfinite(v) for _, v in points[-course.limits.window :]
        ):
            continue  # a batch without a single token to learn has no mean loss; lost weights never give a number again
        step, value = points[at]
        before = [evidence(name, points[at - 1], points[0][1])] if at else []
        # NaN cannot be written to the blackboard: -1 stands for it, and the name says what it was
        shown = [MetricEvidence(metric=f"{name} is {value}", step=step, value=-1.0, threshold=0.0), *before]
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
    far = _stays_above(course, limits.loss_far, 3.0) or _stays_above(
        course, limits.loss_factor, limits.loss_steps / course.step_of_log
    )
    if far is not None:
        start, last, limit = far
        message = f"the loss rose from {start:.2f} to {last[1]:.2f} and stayed there"
        return Finding("divergence", message, 0.9, "stop", [evidence("loss", last, limit), *course.newest("grad_norm")])
    earlier, recent = loss[: -limits.window], loss[-limits.window :]
    if len(earlier) < limits.window:
        return None
    best = min(mean(earlier[at : at + 3]) for at in range(len(earlier) - 2))
    limit = best + max(limits.loss_margin, limits.loss_noise * noise(loss))
    if any(value <= limit for _, value in recent):
        return None
    message = f"the loss was {best:.2f} and has risen to {mean(recent):.2f}"
    return Finding("divergence", message, 0.6, "warn", [evidence("loss", loss[-1], limit)])


def _stays_above(course: Course, factor: float, logs: float) -> tuple[float, tuple[int, float], float] | None:
    """(start, log, limit) of the first log that ends so long a stretch far above the start; None without one."""
    loss, limits = course.of("loss"), course.limits
    needed = max(3, math.ceil(logs), math.ceil(limits.loss_rows / course.rows))
    # a first log of few rows may be low by chance; of a run that goes away at once, it is all there is
    later = max(loss[0][1], median(value for _, value in loss[:SETTLED]))
    above = 0
    for at, (_, value) in enumerate(loss):
        start = loss[0][1] if at - above < SETTLED else later
        limit = factor * start + limits.loss_margin
        above = above + 1 if value > limit else 0
        if above >= needed:
            return start, loss[at], limit
    return None


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
    worse = _answers_worse(course, best_step)
    stop = last > limits.overfit_alone * best and (worse is None or course.method == "sft")
    if worse:
        stop = last > limits.overfit_stop * best or lasts
    message = (
        f"the held-out loss was best at step {best_step} ({best:.3f}) and is {last:.3f} now, while the training loss "
        "falls"
    )
    if worse is False:
        message += "; held-out answers have not got worse"
    shown = [evidence("eval_loss", (step, last), limit), evidence("eval_loss", (best_step, best), best)]
    return Finding("overfitting", message, 0.9, "stop" if stop else "warn", shown)


def _answers_worse(course: Course, best_step: int) -> bool | None:
    """Whether held-out answers are worse than where the held-out loss was best; None where none are logged."""
    for name in ("eval_rewards/accuracies", "eval_mean_token_accuracy"):
        points = course.of(name)
        at_best = next((value for step, value in points if step == best_step), None)
        if at_best is not None:
            return all(value < (1 - course.limits.overfit_answers) * at_best for _, value in points[-2:])
    return None


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
    if fell := _declined(course, first, last, error):
        return fell
    word = "rise" if course.method == "grpo" else "fall"
    message = f"the {name} did not {word}: {mean(first):.3g} in the first third, {mean(last):.3g} in the last"
    shown = [evidence(name, (points[-1][0], mean(last)), mean(first))]
    if course.now is not None and course.share_done < limits.plateau_done:
        return None  # too early to say of a job that runs
    # SFT learns most in its first steps: a held-out loss that was not read before them says nothing
    held_out = course.of("eval_loss")
    readable = course.method == "grpo" or (len(held_out) >= 2 and held_out[0][0] <= points[1][0])
    still = readable and not moved and gain > -error
    if not still:
        return Finding("plateau", message, 0.6, "warn", shown)
    message += ", and nothing else moved"
    stop = course.share_done >= limits.plateau_done
    return Finding("plateau", message, 0.8, "stop" if stop else "warn", shown + course.newest("entropy"))


def _declined(course: Course, first: Points, last: Points, error: float) -> Finding | None:
    """A reward that ebbs away is no plateau. Prompts that come in an order may get harder: that proves nothing."""
    if course.method != "grpo" or course.config.get("shuffle_dataset") is False:
        return None
    limits, start, now = course.limits, mean(first), mean(last)
    error = max(error, reward_error(course, course.of("reward")) * math.sqrt(2 / len(last)))
    limit = min(limits.declined * start, start - limits.declined_errors * error)
    if now >= limit:
        return None
    message = f"the reward fell from {start:.3g} in the first third to {now:.3g} in the last"
    shown = [evidence("reward", (last[-1][0], now), limit)]
    return Finding("reward_collapse", message, 0.75, "warn", shown + course.newest("entropy", "frac_reward_zero_std"))


def _moved(course: Course) -> bool:
    """Whether entropy, length of the answers or KL is elsewhere than in the first third, by a share that matters or by
    more than chance, or the share of groups that score the same by more than chance; true where none is logged."""
    limits = course.limits
    wide = [p for name in ("entropy", "completions/mean_length", "kl") if len(p := course.of(name)) >= 3]
    if not wide:
        return True
    for points in [*wide, course.of("frac_reward_zero_std")]:
        if (third := len(points) // 3) == 0:
            continue
        first, last = points[:third], points[-third:]
        away = abs(mean(last) - mean(first))
        error = math.sqrt((pvariance([v for _, v in first]) + pvariance([v for _, v in last])) / third)
        matters = points in wide and away > limits.plateau_moved * abs(mean(first))
        if matters or (error > 0 and away > limits.plateau_moved_errors * error):
            return True
    return False


def _better_held_out(course: Course) -> bool:
    least = course.limits.plateau_held_out
    loss, reward = course.of("eval_loss"), course.of("eval_reward")
    if course.method == "grpo":
        return len(reward) >= 3 and mean(reward[-2:]) > reward[0][1] + least
    return len(loss) >= 2 and loss[-1][1] < (1 - course.limits.plateau_held_out_loss) * loss[0][1]
