"""Rules on the completions of GRPO: they grow, they do not end."""

from __future__ import annotations

from statistics import correlation, pvariance

from posttrain_crew.entries import Cause
from posttrain_crew.tools.training.course import Course, evidence, mean
from posttrain_crew.tools.training.finding import Finding
from posttrain_crew.tools.training.rules_reward import FIRST

__all__ = ["length_explosion", "never_ends"]


def length_explosion(course: Course) -> Finding | None:
    """Completions grew several times over, and many run into the limit."""
    length, cut = course.of("completions/mean_length"), course.of("completions/clipped_ratio")
    limits, window = course.limits, course.limits.window
    if min(len(length), len(cut)) < FIRST + window:
        return None
    start, now = mean(length[:FIRST]), mean(length[-window:])
    now_cut = mean(cut[-window:])
    if (
        mean(cut[:FIRST]) >= limits.length_start_cut
        or now < limits.length_factor * start
        or now_cut < limits.length_cut
    ):
        return None
    told = (
        f"completions grew from {start:.0f} to {now:.0f} tokens and {now_cut:.0%} run into the limit of "
        f"{course.number('max_completion_length', 512):.0f}"
    )
    shown = [
        evidence("completions/mean_length", length[-1], limits.length_factor * start),
        evidence("completions/clipped_ratio", cut[-1], limits.length_cut),
    ]
    cause: Cause = "length_explosion"
    reward = course.of("reward")
    if len(reward) >= FIRST + window:
        before, after = mean(reward[:FIRST]), mean(reward[-window:])
        if after - before > limits.length_gain:
            shown.append(evidence("reward", reward[-1], before))
            # cut completions hold no answer, so a true reward falls; one that rises pays for length, or is deceived
            paid = _explained([v for _, v in length], [v for _, v in reward]) >= limits.length_paid
            cause = "length_explosion" if paid else "reward_hacking"
            told += f", while the reward rose by {after - before:.2f}: it " + (
                "pays for length" if paid else "may pay for something that is not the answer"
            )
    stop = now_cut >= limits.length_cut_stop
    return Finding(cause, told, 0.6 if cause == "reward_hacking" else 0.9, "stop" if stop else "warn", shown)


def _explained(length: list[float], reward: list[float]) -> float:
    """Share of the reward's variance that length explains, R squared."""
    count = min(len(length), len(reward))
    length, reward = length[-count:], reward[-count:]
    if pvariance(length) == 0 or pvariance(reward) == 0:
        return 0.0
    return correlation(length, reward) ** 2


def never_ends(course: Course) -> Finding | None:
    """From the start, completions do not come to an end within the limit."""
    cut, limits = course.of("completions/clipped_ratio"), course.limits
    if len(cut) < limits.window + 1 or min(value for _, value in cut) < limits.unended:
        return None
    recent = mean(cut[-limits.window :])
    told = (
        f"{recent:.0%} of the completions do not end within {course.number('max_completion_length', 512):.0f} tokens, "
        "and did not from the start: the limit is too short, or the model does not know its end token"
    )
    stop = recent >= limits.unended_stop
    shown = [evidence("completions/clipped_ratio", cut[-1], limits.unended)]
    return Finding("never_ends", told, 0.98, "stop" if stop else "warn", shown)
