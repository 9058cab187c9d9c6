"""Rules on the policy of GRPO: how widely it samples, how far it is from its reference."""

from __future__ import annotations

from posttrain_crew.tools.training.course import Course, evidence, mean
from posttrain_crew.tools.training.finding import Finding
from posttrain_crew.tools.training.rules_reward import FIRST, rose

__all__ = ["entropy_collapse", "kl_explosion"]


def entropy_collapse(course: Course) -> Finding | None:
    """Sampling has become nearly deterministic while the reward does not get better."""
    entropy, limits = course.of("entropy"), course.limits
    window = limits.window
    if course.method != "grpo" or len(entropy) < FIRST + window or rose(course, limits.entropy_gain, 1.0):
        return None  # SFT and DPO log an entropy too, that of the data's own tokens: it is to fall
    start, now = mean(entropy[:FIRST]), mean(entropy[-window:])
    limit = limits.entropy_share * start
    if start <= limits.entropy_floor or now >= limit:
        return None
    low = [value < limit for _, value in entropy[-limits.entropy_lasting :]]
    stop = len(low) == limits.entropy_lasting and all(low)
    message = f"the entropy fell from {start:.3f} to {now:.3f} without a better reward"
    shown = [evidence("entropy", entropy[-1], limit), *course.newest("reward")]
    return Finding("entropy_collapse", message, 0.8, "stop" if stop else "warn", shown)


def kl_explosion(course: Course) -> Finding | None:
    """The policy is far from its reference. `kl` is logged only where beta is above 0."""
    kl, limits = course.of("kl"), course.limits
    if len(kl) < limits.window or mean(kl[-3:]) < limits.kl:
        return None
    far = [value > limits.kl for _, value in kl[-limits.kl_lasting :]]
    stop = len(far) == limits.kl_lasting and all(far) and not _falls(course)
    message = f"the KL divergence from the reference is {kl[-1][1]:.1f} nats per token"
    shown = [evidence("kl", kl[-1], limits.kl), *course.newest("reward", "entropy")]
    return Finding("kl_explosion", message, 0.85, "stop" if stop else "warn", shown)


def _falls(course: Course) -> bool:
    """Whether the reward is clearly below its best of some logs."""
    reward, window = course.of("reward"), course.limits.window
    if len(reward) < FIRST + window:
        return False
    best = max(mean(reward[at : at + FIRST]) for at in range(len(reward) - window - FIRST + 1))
    return best > 0 and mean(reward[-window:]) < course.limits.kl_reward * best
