"""What to change after a failure: the config of the next attempt, in the trainer's own field names.

The factors are the usual first steps, none of them tuned. A remedy changes what the cause is about and nothing else,
so that the next attempt shows whether the diagnosis was right.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from posttrain_crew.entries import Method
from posttrain_crew.tools.training.config import trainer_value
from posttrain_crew.tools.training.finding import Finding, Remedy
from posttrain_crew.tools.training.thresholds import THRESHOLDS
from posttrain_crew.tools.training.trainer_fields import trainer_fields

__all__ = ["divergence_remedy", "rounded", "with_remedy"]

REFERENCE_BETA = 0.04
"""DeepSeekMath's KL weight (arXiv:2402.03300), where the job has next to none."""
ENTROPY_BONUS = 0.01
WIDER_TEMPERATURE = 1.2
LONGEST_DEFAULT = 512
"""TRL's `max_completion_length` where the config leaves it out."""


def with_remedy(finding: Finding, method: Method, config: Mapping[str, Any]) -> Finding:
    """The finding with what to change, and a sentence on why."""
    remedy, advice = _remedy(finding, method, dict(config))
    return dataclasses.replace(finding, remedy=remedy, advice=advice)


def divergence_remedy(method: Method, config: Mapping[str, Any]) -> Remedy:
    """A tenth of the learning rate, and clipped gradients."""
    return {"learning_rate": rounded(_rate(method, dict(config)) / 10), "max_grad_norm": 1.0}


def rounded(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def _rate(method: Method, config: dict[str, Any]) -> float:
    return float(trainer_value(method, config, "learning_rate"))


def _remedy(finding: Finding, method: Method, config: dict[str, Any]) -> tuple[Remedy, str]:
    rate, cause = _rate(method, config), finding.cause
    if cause == "divergence":
        return divergence_remedy(method, config), "Lower the learning rate tenfold and clip gradients."
    if cause == "reward_collapse":
        lower: Remedy = {"learning_rate": rounded(rate / 10)}
        return lower, "The steps were too large for the policy: a tenth of the learning rate."
    if cause == "kl_explosion":
        beta = max(REFERENCE_BETA, 4 * float(trainer_value(method, config, "beta") or 0.0))
        return (
            {"learning_rate": rounded(rate / 3), "beta": rounded(beta)},
            "Take smaller steps, hold the policy nearer to its reference, and let the reward pay for the answer alone.",
        )
    if cause == "length_explosion" and not finding.stop:
        limit = int(trainer_value("grpo", config, "max_completion_length") or LONGEST_DEFAULT)
        return {"max_completion_length": 2 * limit}, "Allow longer completions, as long as the answers get better."
    if cause in ("length_explosion", "reward_hacking"):
        return (
            {"mask_truncated_completions": True, "learning_rate": rounded(rate / 3)},
            "Do not learn from completions that were cut off; above all, let the reward pay for the answer alone.",
        )
    if cause == "never_ends":
        limit = int(trainer_value("grpo", config, "max_completion_length") or LONGEST_DEFAULT)
        return {"max_completion_length": 2 * limit}, "Allow longer completions, and check the end tokens of the parent."
    if cause == "entropy_collapse":
        return _more_entropy(method, config, rate)
    if cause == "zero_variance":
        return _more_variance(finding, config)
    if cause == "overfitting":
        best = next((e for e in finding.evidence if e.value == e.threshold), None)
        if best is not None and best.step > 0:
            return {"max_steps": best.step}, f"Stop at step {best.step}, where the held-out loss was best, or add data."
        return {"num_train_epochs": 1}, "Train for fewer epochs, or add data."
    if cause == "stalled_data":
        return _other_loader(method, config)
    if cause == "plateau" and _unmoved(finding):
        faster: Remedy = {"learning_rate": rounded(10 * rate)}
        return faster, "Nothing in the policy has moved: ten times the learning rate."
    return {}, "Further steps of the same kind will not help: change the data or the method."


def _more_entropy(method: Method, config: dict[str, Any], rate: float) -> tuple[Remedy, str]:
    remedy: Remedy = {"learning_rate": rounded(rate / 3)}
    if "entropy_coef" in trainer_fields(method):
        bonus = float(trainer_value(method, config, "entropy_coef") or 0.0)
        remedy["entropy_coef"] = rounded(max(ENTROPY_BONUS, 2 * bonus))
        return remedy, "Take smaller steps, and pay a little for sampling widely."
    remedy["temperature"] = WIDER_TEMPERATURE
    return remedy, "Take smaller steps and sample more widely."


def _more_variance(finding: Finding, config: dict[str, Any]) -> tuple[Remedy, str]:
    temperature = float(trainer_value("grpo", config, "temperature") or 1.0)
    level = finding.evidence[-1].value
    if temperature < 1.0 and 0.01 < level < 0.99:
        return {"temperature": 1.0}, "Sample at temperature 1, so that the completions of a group differ."
    if finding.stop or level <= THRESHOLDS.never_fires:
        return {}, (
            "No setting helps a reward that never fires, or always does: teach the answer format with SFT first, "
            "choose prompts of medium difficulty, or check the reward against this model's own completions."
        )
    group = int(trainer_value("grpo", config, "num_generations") or 8)
    batch = int(trainer_value("grpo", config, "per_device_train_batch_size") or 8)
    return (
        {"num_generations": 2 * group, "per_device_train_batch_size": math.lcm(batch, 2 * group)},
        "Larger groups contain more answers that differ; prompts of medium difficulty help more.",
    )


def _other_loader(method: Method, config: dict[str, Any]) -> tuple[Remedy, str]:
    workers = int(trainer_value(method, config, "dataloader_num_workers") or 0)
    if workers:
        return {"dataloader_num_workers": 0}, "Read the data in the training process: a worker may have died or locked."
    return {"dataloader_num_workers": 2}, "Read ahead in workers, and check where the data lies: the step waits for it."


def _unmoved(finding: Finding) -> bool:
    """Whether the entropy, which every update moves, is where it began."""
    entropy = next((e for e in finding.evidence if e.metric == "entropy"), None)
    return entropy is not None and abs(entropy.value - entropy.threshold) <= 0.2 * abs(entropy.threshold)
