"""Rules on the policy of GRPO: how widely it samples, how far it is from its reference."""

from __future__ import annotations

from statistics import median

from posttrain_crew.tools.training.course import Course, evidence, mean
from posttrain_crew.tools.training.finding import Finding
from posttrain_crew.tools.training.rules_reward import FIRST, may_pay_for_answers, rose

__all__ = ["entropy_collapse", "kl_explosion"]


def entropy_collapse(course: Course) -> Finding | None:
    """Sampling has become nearly deterministic while the reward does not get better."""
    entropy, limits = course.of("entropy"), course.limits
    window = limits.window
    if course.method != "grpo" or len(entropy) < FIRST + window or rose(course, limits.entropy_gain):
        return None  # SFT and DPO log an entropy too, that of the data's own tokens: it is to fall
    start, now = mean(entropy[:FIRST]), mean(entropy[-window:])
    limit = limits.entropy_share * start
    if start <= limits.entropy_floor or now >= limit:
        return None
    lasting = max(limits.entropy_lasting, course.span(entropy))
    dead = [value < min(limit, limits.entropy_dead) for _, value in entropy[-lasting:]]
    stop = len(dead) == lasting and all(dead) and not rose(course, 0.0, 1.0)
    message = f"the entropy fell from {start:.3f} to {now:.3f} without a better reward"
    shown = [evidence("entropy", entropy[-1], limit), *course.newest("reward")]
    return Finding("entropy_collapse", message, 0.8, "stop" if stop else "warn", shown)


def kl_explosion(course: Course) -> Finding | None:
    """The policy is far from its reference. `kl` is logged only where beta is above 0."""
    kl, limits = course.of("kl"), course.limits
    if len(kl) < limits.window:
        return None
    # the median, as the estimator of KL has single values of any size
    now = median(value for _, value in kl[-max(3, course.span(kl)) :])
    if now < limits.kl:
        return None
    lasting = max(limits.kl_lasting, course.span(kl))
    far = [value > limits.kl for _, value in kl[-lasting:]]
    stop = len(far) == lasting and all(far) and not _falls(course)
    if may_pay_for_answers(course) and rose(course, 0.0, 1.0):
        stop = False  # far away, but at something better
    message = f"the KL divergence from the reference is {now:.1f} nats per token"
    shown = [evidence("kl", (kl[-1][0], now), limits.kl), *course.newest("reward", "entropy")]
    return Finding("kl_explosion", message, 0.85, "stop" if stop else "warn", shown)


def _falls(course: Course) -> bool:
    """Whether the reward is clearly below its best of some logs."""
    reward, window = course.of("reward"), course.limits.window
    if len(reward) < FIRST + window:
        return False
    best = max(mean(reward[at : at + FIRST]) for at in range(len(reward) - window - FIRST + 1))
    return best > 0 and mean(reward[-window:]) < course.limits.kl_reward * best
