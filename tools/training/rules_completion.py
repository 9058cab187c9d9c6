"""Rules on the completions of GRPO: they grow, they do not end."""

from __future__ import annotations

from itertools import pairwise
from statistics import correlation, pvariance

from posttrain_crew.entries import Cause
from posttrain_crew.tools.training.course import Course, Points, evidence, mean
from posttrain_crew.tools.training.finding import Finding
from posttrain_crew.tools.training.rules_reward import FIRST, rose

__all__ = ["length_explosion", "never_ends"]


def length_explosion(course: Course) -> Finding | None:
    """Completions grew several times over, and many run into the limit."""
    length, cut = course.of("completions/mean_length"), course.of("completions/clipped_ratio")
    limits, window = course.limits, course.limits.window
    if min(len(length), len(cut)) < FIRST + window:
        return None
    window = course.span(length)
    start, now = mean(length[:FIRST]), mean(length[-window:])
    now_cut = mean(cut[-window:])
    if (
        mean(cut[:FIRST]) >= limits.length_start_cut
        or now < limits.length_factor * start
        or now_cut < limits.length_cut
    ):
        return None
    told = f"completions grew from {start:.0f} to {now:.0f} tokens and {now_cut:.0%} run into the {course.limit_told}"
    shown = [
        evidence("completions/mean_length", (length[-1][0], now), limits.length_factor * start),
        evidence("completions/clipped_ratio", (cut[-1][0], now_cut), limits.length_cut),
    ]
    cause: Cause = "length_explosion"
    confidence, stop = 0.9, now_cut >= limits.length_cut_stop
    reward = course.of("reward")
    if len(reward) >= FIRST + window:
        before, after = mean(reward[: max(FIRST, len(reward) // 10)]), mean(reward[-window:])
        if after - before > limits.length_gain or rose(course, 0.0):
            shown.append(evidence("reward", (reward[-1][0], after), before))
            told += f", while the reward rose by {after - before:.2f}: "
            # a completion that is cut holds no answer, so that a true reward is earned by those that end
            earned = (1 - now_cut) * max(1.0, max(value for _, value in reward))
            if _explained(length, reward) >= limits.length_paid:
                told += "it pays for length"
            elif after > earned + limits.length_unearned:
                cause, confidence = "reward_hacking", 0.6
                told += f"completions that end can have earned {earned:.2f}, so it pays for something else"
            else:
                confidence, stop = 0.6, False
                told += "what is learnt may need the length, and the limit holds it back"
    return Finding(cause, told, confidence, "stop" if stop else "warn", shown)


def _explained(length: Points, reward: Points) -> float:
    """Share of the variance of the reward's changes that the changes of length explain, R squared."""
    count = min(len(length), len(reward))
    longer, better = ([after - before for (_, before), (_, after) in pairwise(p[-count:])] for p in (length, reward))
    if pvariance(longer) == 0 or pvariance(better) == 0:
        return 0.0
    return correlation(longer, better) ** 2


def never_ends(course: Course) -> Finding | None:
    """From the start, completions do not come to an end within the limit."""
    cut, limits = course.of("completions/clipped_ratio"), course.limits
    if len(cut) < limits.window + 1 or min(value for _, value in cut) < limits.unended:
        return None
    recent = mean(cut[-limits.window :])
    told = (
        f"{recent:.0%} of the completions do not end within the {course.limit_told}, "
        "and did not from the start: the limit is too short, or the model does not know its end token"
    )
    fires = max((value for _, value in course.of("reward")), default=0.0) > limits.never_fires
    none_ends = min(value for _, value in cut) >= 1 and course.rows * len(cut) >= limits.unended_completions
    # rewards that come all the same can teach the model to end, but only if it ever does: what is sampled is learnt
    stop = none_ends if fires else recent >= limits.unended_stop
    shown = [evidence("completions/clipped_ratio", (cut[-1][0], recent), limits.unended)]
    return Finding("never_ends", told, 0.98, "stop" if stop else "warn", shown)
