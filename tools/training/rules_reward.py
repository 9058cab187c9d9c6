"""Rules on the reward of GRPO: it falls, it is the same for all, it rises for the wrong reason."""

from __future__ import annotations

import math

from posttrain_crew.entries import MetricEvidence
from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.training.course import Course, Points, deviation, evidence, looks, mean
from posttrain_crew.tools.training.finding import Finding
from posttrain_crew.tools.training.rewards import columns_of, resolve

__all__ = ["FIRST", "may_pay_for_answers", "reward_collapse", "reward_hacking", "rose", "zero_variance"]

FIRST = 3
"""Logs that stand for the start."""
LEAST_HELD_OUT = 32
"""Questions behind one evaluation, where the config tells fewer or nothing."""
SETTLED = 8
"""Logs from which on their scatter is known; before it, the worst that the prompts allow is taken."""


def reward_error(course: Course, reward: Points) -> float:
    """Standard error of the mean reward of one log: the scatter of the logs, and no less than that of completions that
    are independent. Where logs are few, and a fall is half of their scatter, that of prompts whose completions are all
    alike, which is the largest that chance has."""
    spread = max((value for _, value in course.of("reward_std")), default=0.5)
    if len(reward) < SETTLED:
        return spread / math.sqrt(course.groups)
    independent = course.rows if course.config else course.groups  # which is known to be no more
    return max(spread / math.sqrt(independent), deviation(reward))


def rose(course: Course, least: float, errors: float = 2.0) -> bool:
    """Whether the reward is above its start by more than `least` and than so many standard errors."""
    reward = course.of("reward")
    window = course.span(reward)
    first = max(FIRST, len(reward) // 10)
    if len(reward) < first + window:
        return False
    error = deviation(reward) * math.sqrt(1 / first + 1 / window)
    return mean(reward[-window:]) - mean(reward[:first]) > max(least, errors * error)


def reward_collapse(course: Course) -> Finding | None:
    """The reward fell far below its own best, further than chance takes it, and stays there; or it died: it was alive
    at first, and now all completions of every prompt score the same, and low."""
    return _fell_by_far(course) or _died(course)


def _fell_by_far(course: Course) -> Finding | None:
    reward, limits = course.of("reward"), course.limits
    window = course.span(reward)
    if len(reward) < FIRST + window:
        return None
    earlier, recent = reward[:-window], reward[-window:]
    now, error = mean(recent), reward_error(course, earlier)
    # the best three logs of hundreds are far from a normal deviate
    for width in (FIRST, window) if len(earlier) < 2 * SETTLED else (window,):
        places = len(earlier) - width + 1
        if places < 1:
            continue
        best = max(mean(earlier[at : at + width]) for at in range(places))
        # both the best and the moment are the most striking of many
        errors = looks(limits.collapse_errors, places * len(reward) / window)
        limit = limits.collapse_ratio * best
        if best > 0 and now < limit and best - now > errors * error * math.sqrt(1 / width + 1 / window):
            message = f"the reward fell from {best:.2f} to {now:.2f} and stayed there for {window} logs"
            shown = [evidence("reward", (recent[-1][0], now), limit)]
            return Finding("reward_collapse", message, 0.97, "stop", shown + _beside(course))
    return None


def _died(course: Course) -> Finding | None:
    """The policy settled: groups whose completions differed at first have long scored the same, at a lower reward."""
    reward, same, limits = course.of("reward"), course.of("frac_reward_zero_std"), course.limits
    if len(reward) != len(same) or len(reward) < FIRST + limits.window:
        return None
    dead = 0
    while dead < len(reward) - FIRST and same[-1 - dead][1] >= limits.same_most:
        dead += 1
    if dead < limits.window or mean(same[-dead:]) < limits.same_sure:
        return None
    if mean(reward[:-dead]) <= limits.never_fires or mean(same[:FIRST]) >= limits.same_most:
        return None  # there was little to lose
    # a policy that settled on one answer of few is right by chance, which may be more than half of what it was
    spread = max((value for _, value in course.of("reward_std")), default=0.5)
    errors, now = looks(limits.died_errors, len(reward) / dead), mean(reward[-dead:])
    for first in (FIRST, len(reward) - dead):  # it settled slowly, or at once
        start = mean(reward[:first])
        error = spread * math.sqrt((1 / first + 1 / dead) / course.groups)
        limit = max(limits.collapse_ratio * start, start - errors * error)
        if now < limit:
            break
    else:
        return None
    # how likely so many groups without a difference are, if they come as often as at the start
    alike = max(0.5, (mean(same[:FIRST]) * FIRST * course.groups + 1) / (FIRST * course.groups + 2))
    share = mean(same[-dead:])
    surprise = _unlikely(share, alike) * dead * course.groups
    if surprise < limits.died_warn:
        return None
    message = (
        f"the reward was {start:.2f} at first and is {now:.2f} now; for {dead} logs all completions of "
        f"{share:.0%} of the prompts have scored the same, so that there is little to learn from"
    )
    shown = [evidence("reward", (reward[-1][0], now), limit), evidence("frac_reward_zero_std", same[-1], alike)]
    stop = surprise > limits.died_stop + math.log(len(reward))
    return Finding(
        "reward_collapse", message, 0.95 if stop else 0.85, "stop" if stop else "warn", shown + _beside(course)
    )


def _unlikely(share: float, usual: float) -> float:
    """-ln p per group, at least, of so great a share where it is `usual`: Chernoff's bound for a binomial."""
    if share <= usual:
        return 0.0
    rest = (1 - share) * math.log((1 - share) / (1 - usual)) if share < 1 else 0.0
    return share * math.log(share / usual) + rest


def _beside(course: Course) -> list[MetricEvidence]:
    return course.newest("entropy", "kl", "completions/clipped_ratio")


def zero_variance(course: Course) -> Finding | None:
    """Groups whose completions all score the same give no gradient: a reward that never fires, or always does."""
    same, reward, limits = course.of("frac_reward_zero_std"), course.of("reward"), course.limits
    needed = limits.window + 1
    if course.config:
        needed = max(needed, math.ceil(limits.same_least / course.groups))
    if len(same) < needed or len(reward) < needed or reward_collapse(course) is not None:
        return None
    share, level = mean(same[-needed:]), mean(reward[-needed:])
    ever = max(abs(value) for _, value in reward)
    prompts = course.groups * len(same)
    seen = f"for none of {prompts} prompts" if course.config else f"in {len(same)} logs"
    shown = [evidence("frac_reward_zero_std", same[-1], limits.same_all), evidence("reward", reward[-1], level)]
    if share >= limits.same_all and ever <= limits.never_fires:
        message = f"the reward has never fired, {seen}: there is nothing to learn from"
        stop = prompts >= limits.never_prompts
        return Finding("zero_variance", message, 0.95, "stop" if stop else "warn", shown)
    if len(same) >= limits.lasting and mean(same) >= limits.same_most and not rose(course, limits.hack_rise):
        cold = course.number("temperature", 1.0) < limits.cold and mean(same) >= limits.same_sure
        # prompts that are too hard so far may give way, a reward that is the same for all and is not 0 does not
        needed = limits.never_prompts if ever <= limits.never_fires else limits.same_prompts
        every = min(value for _, value in same) >= limits.same_all and prompts >= needed
        message = (
            f"{mean(same):.0%} of the groups have scored the same from the start (mean reward {level:.2f}): there is "
            f"{'nothing' if every else 'little'} to choose between"
        )
        return Finding("zero_variance", message, 0.9, "stop" if every or cold else "warn", shown)
    if share >= limits.same_all and level >= 0.95 * max(ever, 1e-9):
        message = f"all groups score the same ({level:.2f}): nothing is left to learn here"
        return Finding("plateau", message, 0.8, "warn", shown)
    if share >= limits.same_all:
        message = f"{share:.0%} of the groups score the same (mean reward {level:.2f}), so nothing is learnt any more"
        return Finding("zero_variance", message, 0.7, "warn", shown)
    return None


def knows_the_answer(metric: str) -> bool | None:
    """Whether the reward of a metric like `rewards/NAME/mean` reads the right answer; None for one that is not known
    here, as from a file of another machine."""
    name = metric.removeprefix("eval_").split("/")[1]
    if columns_of(name):
        return True
    try:
        resolve(name)
    except ConfigError:
        return None
    return False


def reward_means(course: Course) -> list[str]:
    """The metrics that hold the mean of one reward of the job, on training prompts and held-out ones."""
    names = {name for record in course.records for name in record if "rewards/" in name and name.endswith("/mean")}
    return sorted(names)  # eval_rewards/... before rewards/...


def may_pay_for_answers(course: Course) -> bool:
    """Whether a reward of the job reads the right answer, as far as the metrics tell: true where none is named."""
    names = [name for name in reward_means(course) if not name.startswith("eval_")]
    return not names or any(knows_the_answer(name) for name in names)


def reward_hacking(course: Course) -> Finding | None:
    """The reward rises while right answers get fewer, in a reward that knows them: on held-out questions, or on the
    training prompts as another reward of the job (a weight of 0 makes one that only looks on)."""
    if not rose(course, course.limits.hack_rise):
        return None
    reward = course.of("reward")
    for name in reward_means(course):
        if not knows_the_answer(name):
            continue
        answers = course.of(name)
        fell = _fell(course, name, answers)
        if fell is None:
            continue
        start, now, limit = fell
        risen = mean(reward[-course.span(reward) :])
        where = "held-out" if name.startswith("eval_") else "right"
        message = (
            f"the reward rose from {mean(reward[:FIRST]):.2f} to {risen:.2f} while {where} answers fell from "
            f"{start:.0%} to {now:.0%}: it pays for something that is not the answer"
        )
        shown = [
            evidence(name, (answers[-1][0], now), limit),
            evidence("reward", (reward[-1][0], risen), mean(reward[:FIRST])),
        ]
        return Finding("reward_hacking", message, 0.96, "stop", shown)
    return None


def _fell(course: Course, name: str, answers: Points) -> tuple[float, float, float] | None:
    """(start, now, limit) of a share of right answers that fell further than chance takes it."""
    held_out, limits, count = name.startswith("eval_"), course.limits, len(answers)
    if held_out:
        # now, and over all looks before a fall and since: the same questions each time, so that only sampling differs
        spans = [(1, 2, 1.0), *((at, count - at, count / 2) for at in range(1, count - 2))]
        rows = max(LEAST_HELD_OUT, int(course.number("per_device_eval_batch_size", 0)))
    else:
        last = course.span(answers)
        # a sudden fall, and a slow one; means of so large parts of the run are few independent looks
        spans = [(max(FIRST, count // 10), last, count / last)]
        if count >= 2 * SETTLED:
            spans.append((count // 4, count // 2, math.log2(count / SETTLED)))
        rows = course.rows if course.config else 0  # not known: the scatter of the logs has to do
    if held_out:
        sure = limits.hack_errors_both if _training_agrees(course, name) else limits.hack_errors
    else:
        sure = limits.hack_errors if _held_out_agrees(course, name) else limits.hack_errors_alone
    for first, last, seen in spans:
        if count < first + last:
            continue
        start, now = mean(answers[:first]), mean(answers[-last:])
        if held_out:
            now = max(now, mean(answers[-2:]))  # they may have come back
        one = math.sqrt(start * (1 - start) / rows) if 0 < start < 1 and rows else 0.0
        if not held_out:
            one = max(one, deviation(answers))
        errors = looks(sure, seen) * one * math.sqrt(1 / first + 1 / last)
        limit = start - max(limits.hack_drop, errors)
        if now < limit:
            return start, now, limit
    return None


def _held_out_agrees(course: Course, name: str) -> bool:
    """Whether the same reward has fallen on held-out prompts, if by less than would tell by itself."""
    answers = course.of(f"eval_{name}")
    return len(answers) >= 3 and mean(answers[-2:]) < answers[0][1] - course.limits.hack_agrees


def _training_agrees(course: Course, name: str) -> bool:
    """Whether a held-out reward has fallen on the training prompts too, from the first quarter to the last half."""
    answers = course.of(name.removeprefix("eval_"))
    if len(answers) < 2 * SETTLED:
        return False
    first, last = answers[: len(answers) // 4], answers[-(len(answers) // 2) :]
    error = deviation(answers) * math.sqrt(1 / len(first) + 1 / len(last))
    return mean(first) - mean(last) > max(course.limits.hack_agrees, course.limits.hack_errors_agree * error)
