"""Rules on the reward of GRPO: it falls, it is the same for all, it rises for the wrong reason."""

from __future__ import annotations

import math

from posttrain_crew.tools.training.course import Course, Points, evidence, mean, noise
from posttrain_crew.tools.training.finding import Finding
from posttrain_crew.tools.training.rewards import columns_of

__all__ = ["reward_collapse", "reward_error", "reward_hacking", "rose", "zero_variance"]

FIRST = 3
"""Logs that stand for the start."""
LEAST_HELD_OUT = 32
"""Questions behind one evaluation, where the config tells fewer or nothing."""


def reward_error(course: Course) -> float:
    """Standard error of the mean reward of one log, the larger of two estimates: of completions that are independent
    (0.5 is the deviation of a coin), and of how much neighbouring logs differ. Completions of one prompt are much
    alike, so that a log of few prompts is far noisier than its number of completions says."""
    spread = max((value for _, value in course.of("reward_std")), default=0.5)
    return max(spread / math.sqrt(course.completions), noise(course.of("reward")))


def rose(course: Course, least: float, errors: float = 2.0) -> bool:
    """Whether the reward is above its start by more than `least` and than so many standard errors."""
    reward, window = course.of("reward"), course.limits.window
    if len(reward) < FIRST + window:
        return False
    error = reward_error(course) * math.sqrt(1 / FIRST + 1 / window)
    return mean(reward[-window:]) - mean(reward[:FIRST]) > max(least, errors * error)


def reward_collapse(course: Course) -> Finding | None:
    """The reward fell far below its own best, further than chance takes it, and stays there."""
    reward, limits = course.of("reward"), course.limits
    window = limits.window
    if len(reward) < 1 + window:
        return None
    earlier, recent = reward[:-window], reward[-window:]
    error = reward_error(course)
    for width in range(1, FIRST + 1):
        if len(earlier) < width:
            break
        best = max(mean(earlier[at : at + width]) for at in range(len(earlier) - width + 1))
        sure = limits.collapse_errors * error * math.sqrt(1 / width + 1 / window)
        limit = limits.collapse_ratio * best
        if best > 0 and max(value for _, value in recent) < limit and best - mean(recent) > sure:
            message = f"the reward fell from {best:.2f} to {mean(recent):.2f} and stayed there for {window} logs"
            shown = [evidence("reward", reward[-1], limit)]
            shown += course.newest("entropy", "kl", "completions/clipped_ratio")
            return Finding("reward_collapse", message, 0.97, "stop", shown)
    return None


def zero_variance(course: Course) -> Finding | None:
    """Groups whose completions all score the same give no gradient: a reward that never fires, or always does."""
    same, reward, limits = course.of("frac_reward_zero_std"), course.of("reward"), course.limits
    needed = limits.window + 1
    if len(same) < needed or len(reward) < needed:
        return None
    share, level = mean(same[-needed:]), mean(reward[-needed:])
    ever = max(abs(value) for _, value in reward)
    shown = [evidence("frac_reward_zero_std", same[-1], limits.same_all), evidence("reward", reward[-1], level)]
    if share >= limits.same_all and ever <= limits.never_fires:
        return Finding(
            "zero_variance", "the reward has never fired: there is nothing to learn from", 0.95, "stop", shown
        )
    if len(same) >= limits.lasting and mean(same) >= limits.same_most and not rose(course, limits.hack_rise):
        every = mean(same) >= limits.same_sure
        message = (
            f"{mean(same):.0%} of the groups have scored the same from the start (mean reward {level:.2f}): there is "
            "nothing to choose between"
        )
        return Finding("zero_variance", message, 0.9, "stop" if every else "warn", shown)
    if share >= limits.same_all and level >= 0.95 * max(ever, 1e-9):
        message = f"all groups score the same ({level:.2f}): nothing is left to learn here"
        return Finding("plateau", message, 0.8, "warn", shown)
    if share >= limits.same_all:
        message = f"{share:.0%} of the groups score the same (mean reward {level:.2f}), so nothing is learnt any more"
        return Finding("zero_variance", message, 0.7, "warn", shown)
    return None


def reward_hacking(course: Course) -> Finding | None:
    """The reward rises while right answers get fewer, in a reward that knows them: on held-out questions, or on the
    training prompts as another reward of the job (a weight of 0 makes one that only looks on)."""
    if not rose(course, course.limits.hack_rise):
        return None
    names = {name for record in course.records for name in record if "rewards/" in name and name.endswith("/mean")}
    reward = course.of("reward")
    for name in sorted(names):  # eval_rewards/... before rewards/...
        if not columns_of(name.split("/")[1]):
            continue
        answers = course.of(name)
        fell = _fell(course, name, answers)
        if fell is None:
            continue
        start, now, limit = fell
        where = "held-out" if name.startswith("eval_") else "right"
        message = (
            f"the reward rose from {mean(reward[:FIRST]):.2f} to {reward[-1][1]:.2f} while {where} answers fell from "
            f"{start:.0%} to {now:.0%}: it pays for something that is not the answer"
        )
        shown = [evidence(name, (answers[-1][0], now), limit), evidence("reward", reward[-1], mean(reward[:FIRST]))]
        return Finding("reward_hacking", message, 0.96, "stop", shown)
    return None


def _fell(course: Course, name: str, answers: Points) -> tuple[float, float, float] | None:
    """(start, now, limit) of a share of right answers that fell further than chance takes it."""
    held_out, limits = name.startswith("eval_"), course.limits
    first, last = (1, 2) if held_out else (FIRST, limits.window)
    if len(answers) < first + last:
        return None
    count = course.completions
    if held_out:
        count = max(LEAST_HELD_OUT, int(course.number("per_device_eval_batch_size", 0)))
    start, now = mean(answers[:first]), mean(answers[-last:])
    one = math.sqrt(start * (1 - start) / count) if 0 < start < 1 else 0.0
    if not held_out:
        one = max(one, noise(answers))
    error = one * math.sqrt(1 / first + 1 / last)
    limit = start - max(limits.hack_drop, limits.hack_errors * error)
    return (start, now, limit) if now < limit else None
