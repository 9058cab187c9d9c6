"""What is done to a run, for each class of the confusion matrix: settings drawn by the seed, and the check on the whole
history that it did in truth go that way.

The checks know the end of the run, which a watcher does not; they share no code and no threshold with the rules.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal

__all__ = ["CLASSES", "FRESH_SEEDS", "RULE_SEEDS", "TEST_SEEDS", "Recipe", "happened", "recipe", "side_of", "split_of"]

RULE_SEEDS = range(0, 100)
"""Histories that rules and thresholds were set on."""
TEST_SEEDS = range(100, 110)
"""Histories with parents, data and settings drawn anew. Thresholds were once chosen with their figures in view."""
FRESH_SEEDS = range(110, 200)
"""On the parents of the test side, and judged once by the rules as they were when it was made: 121 of 127 rightly. What
was missed led to changes of the rules on rewards after the seeds 110-115, 116-121 and 122-129, in this order."""

History = Sequence[Mapping[str, Any]]
Parent = Literal["base", "mixed", "worked", "terse"]

CLASSES = (
    "healthy",
    "divergence",
    "reward_collapse",
    "zero_variance",
    "length_explosion",
    "never_ends",
    "reward_hacking",
    "overfitting",
    "entropy_collapse",
    "kl_explosion",
    "plateau",
    "stalled_data",
)


def split_of(seed: int) -> Literal["rule", "test", "fresh"]:
    """Which side of the experiment a seed belongs to."""
    return "rule" if seed in RULE_SEEDS else "test" if seed in TEST_SEEDS else "fresh"


def side_of(seed: int) -> Literal["rule", "test"]:
    """Whose parents and data a history has."""
    return "rule" if seed in RULE_SEEDS else "test"


@dataclass
class Recipe:
    """One training run."""

    done: str
    """What was done to the run, in words."""
    method: Literal["sft", "dpo", "grpo"]
    parent: Parent
    trainer: dict[str, Any]
    rows: int = 300
    style: Literal["worked", "mixed", "terse"] = "worked"
    rewards: dict[str, float] = field(default_factory=dict)
    """Names of rewards.py beside this file, with their weights; a weight of 0 only looks on."""
    held_out: int = 0
    """Rows of the held-out set."""
    stall: tuple[int, float] | None = None
    """(batch, seconds): the data loader hands out this batch only after so long."""


def recipe(name: str, seed: int) -> Recipe:
    """The settings of a class for a seed."""
    rng = random.Random(f"{name} {seed}")
    made: Recipe = _MAKERS[name](rng, seed)
    return made


def _between(rng: random.Random, low: float, high: float) -> float:
    """Log-uniform, three digits."""
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def _grpo(rng: random.Random, **fields: Any) -> dict[str, Any]:
    return {
        "learning_rate": 2e-4,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": rng.choice((2, 5)),
        "max_steps": 28,
        "per_device_train_batch_size": 32,
        "num_generations": rng.choice((4, 8)),
        "max_completion_length": rng.choice((28, 32)),
        "temperature": 1.0,
        "beta": rng.choice((0.0, 0.0, 0.01, 0.04)),
        "loss_type": rng.choice(("dapo", "grpo", "dr_grpo")),
        **fields,
    }


def _evaluated(rng: random.Random, every: int = 5) -> dict[str, Any]:
    return {"eval_strategy": "steps", "eval_on_start": True, "eval_steps": every, "per_device_eval_batch_size": 64}


def _sft(rng: random.Random, **fields: Any) -> dict[str, Any]:
    return {
        "learning_rate": _between(rng, 5e-4, 3e-3),
        "lr_scheduler_type": rng.choice(("cosine", "constant_with_warmup", "linear")),
        "warmup_steps": rng.choice((0, 3, 5)),
        "weight_decay": 0.0,
        "num_train_epochs": 2,
        "per_device_train_batch_size": rng.choice((16, 32)),
        "max_length": 256,
        **fields,
    }


def _dpo(rng: random.Random, **fields: Any) -> dict[str, Any]:
    return {
        "learning_rate": _between(rng, 2e-5, 2e-4),
        "lr_scheduler_type": rng.choice(("cosine", "constant_with_warmup")),
        "warmup_steps": 3,
        "max_steps": 36,
        "per_device_train_batch_size": 16,
        "max_length": 256,
        "beta": rng.choice((0.1, 0.3)),
        **fields,
    }


def _healthy(rng: random.Random, seed: int) -> Recipe:
    kind = ("grpo", "sft", "grpo", "dpo")[seed % 4]
    if kind == "sft":
        rows = rng.choice((300, 500))
        return Recipe(
            "nothing: a usual run",
            "sft",
            "base",
            _sft(rng) | _evaluated(rng),
            rows,
            rng.choice(("worked", "mixed")),
            held_out=64,
        )
    if kind == "dpo":
        return Recipe("nothing: a usual run", "dpo", "mixed", _dpo(rng) | _evaluated(rng, 6), 300, held_out=64)
    fields = _grpo(rng, learning_rate=_between(rng, 2e-4, 5e-4), max_steps=36)
    rewards = {"mcq_letter": 1.0, **({"format": 0.1} if rng.random() < 0.4 else {})}
    if rng.random() < 0.5:
        return Recipe(
            "nothing: a usual run", "grpo", "mixed", fields | _evaluated(rng), 400, rewards=rewards, held_out=64
        )
    return Recipe("nothing: a usual run", "grpo", "mixed", fields, 400, rewards=rewards)


def _divergence(rng: random.Random, seed: int) -> Recipe:
    kind = ("sft", "grpo", "dpo", "sft")[seed % 4]
    clip = rng.choice((0.0, 1.0))
    if kind == "sft":
        rate = _between(rng, 5e-2, 1e3)
        fields = _sft(rng, learning_rate=rate, max_grad_norm=clip, lr_scheduler_type="constant")
        return Recipe(f"learning rate {rate:g}", "sft", "base", fields, 500, rng.choice(("worked", "mixed")))
    if kind == "dpo":
        rate = _between(rng, 3e-2, 1e2)
        return Recipe(f"learning rate {rate:g}", "dpo", "mixed", _dpo(rng, learning_rate=rate, max_grad_norm=clip))
    rate = _between(rng, 1e2, 1e5)
    fields = _grpo(rng, learning_rate=rate, max_grad_norm=0.0, warmup_steps=0)
    return Recipe(f"learning rate {rate:g} without clipping", "grpo", "mixed", fields, rewards={"mcq_letter": 1.0})


def _reward_collapse(rng: random.Random, seed: int) -> Recipe:
    rate = _between(rng, 6e-3, 4e-2)
    fields = _grpo(rng, learning_rate=rate, beta=rng.choice((0.0, 0.001, 0.04)))
    return Recipe(
        f"learning rate {rate:g}, 50 to 200 times too high", "grpo", "worked", fields, rewards={"mcq_letter": 1.0}
    )


def _zero_variance(rng: random.Random, seed: int) -> Recipe:
    kind = ("never", "always", "cold", "starved")[seed % 4]
    if kind == "cold":
        fields = _grpo(rng, temperature=rng.choice((0.02, 0.05)))
        return Recipe(
            "temperature so low that a group says the same", "grpo", "mixed", fields, rewards={"mcq_letter": 1.0}
        )
    if kind == "starved":
        fields = _grpo(rng, learning_rate=_between(rng, 2e-5, 2e-4), num_generations=4)
        return Recipe(
            "a base that does not know the answer format", "grpo", "base", fields, rewards={"mcq_letter": 1.0}
        )
    reward = {"never": "other_format", "always": "anything"}[kind]
    said = {"never": "reward reads a format that the model never writes", "always": "reward pays for every completion"}
    return Recipe(said[kind], "grpo", rng.choice(("mixed", "worked", "terse")), _grpo(rng), rewards={reward: 1.0})


def _length_explosion(rng: random.Random, seed: int) -> Recipe:
    rate = _between(rng, 5e-4, 1.5e-3)
    fields = _grpo(rng, learning_rate=rate, max_completion_length=rng.choice((40, 48)), warmup_steps=2)
    reward = rng.choice(("long", "long_and_right"))
    return Recipe(
        f"reward {reward} pays for length", "grpo", rng.choice(("mixed", "worked")), fields, rewards={reward: 1.0}
    )


def _never_ends(rng: random.Random, seed: int) -> Recipe:
    fields = _grpo(rng)
    if seed % 2 == 0:
        limit = rng.choice((4, 6, 8))
        fields["max_completion_length"] = limit
        return Recipe(
            f"limit of {limit} tokens for worked solutions", "grpo", "worked", fields, rewards={"mcq_letter": 1.0}
        )
    fields["generation_kwargs"] = {"suppress_tokens": "end"}
    return Recipe(
        "the end token cannot be sampled", "grpo", rng.choice(("mixed", "worked")), fields, rewards={"mcq_letter": 1.0}
    )


def _reward_hacking(rng: random.Random, seed: int) -> Recipe:
    reward = ("always_a", "short", "no_work")[seed % 3]
    fields = _grpo(rng, learning_rate=_between(rng, 3e-4, 1e-3), warmup_steps=2, max_steps=32)
    rewards = {reward: 1.0, "mcq_letter": 0.0}
    return Recipe(
        f"reward `{reward}` pays for something that is not the answer",
        "grpo",
        "worked",
        fields | _evaluated(rng),
        rewards=rewards,
        held_out=64,
    )


def _overfitting(rng: random.Random, seed: int) -> Recipe:
    rows = rng.choice((16, 24, 32))
    fields = _sft(
        rng,
        learning_rate=_between(rng, 1.5e-3, 4e-3),
        lr_scheduler_type="constant",
        per_device_train_batch_size=8,
        num_train_epochs=rng.choice((30, 40)),
    )
    del fields["num_train_epochs"]
    fields["max_steps"] = 80
    style: Literal["worked", "terse"] = "terse" if seed % 3 == 2 else "worked"
    return Recipe(f"{rows} rows, over and over", "sft", "base", fields | _evaluated(rng), rows, style, held_out=64)


def _entropy_collapse(rng: random.Random, seed: int) -> Recipe:
    weight = -_between(rng, 0.05, 0.3)
    fields = _grpo(rng, learning_rate=_between(rng, 3e-4, 8e-4), beta=0.0, entropy_coef=weight, max_steps=32)
    reward = rng.choice(("mcq_letter", "coin"))
    parent: Parent = rng.choice(("terse", "mixed"))
    return Recipe(
        f"entropy bonus of the wrong sign ({weight:g}), reward {reward}", "grpo", parent, fields, rewards={reward: 1.0}
    )


def _kl_explosion(rng: random.Random, seed: int) -> Recipe:
    rate = _between(rng, 1.5e-3, 3e-3)
    fields = _grpo(rng, learning_rate=rate, beta=rng.choice((1e-4, 1e-3)))
    return Recipe(
        f"learning rate {rate:g} with next to no KL penalty, reward easy to keep",
        "grpo",
        "worked",
        fields,
        rewards={"format": 1.0, "short": 1.0},
    )


def _plateau(rng: random.Random, seed: int) -> Recipe:
    if seed % 3 == 1:
        rate = _between(rng, 1e-8, 1e-6)
        fields = _sft(rng, learning_rate=rate, num_train_epochs=3)
        return Recipe(f"learning rate {rate:g}: too low", "sft", "base", fields | _evaluated(rng), 400, held_out=64)
    rate = _between(rng, 1e-8, 1e-6)
    return Recipe(
        f"learning rate {rate:g}: too low",
        "grpo",
        "mixed",
        _grpo(rng, learning_rate=rate, max_steps=36),
        rewards={"mcq_letter": 1.0},
    )


def _stalled_data(rng: random.Random, seed: int) -> Recipe:
    batch = rng.randrange(4, 30)
    stall = (batch, 75.0)
    if seed % 2:
        return Recipe(f"no data after batch {batch}", "dpo", "mixed", _dpo(rng), stall=stall)
    return Recipe(f"no data after batch {batch}", "sft", "base", _sft(rng), 600, stall=stall)


_MAKERS: dict[str, Callable[[random.Random, int], Recipe]] = {
    "healthy": _healthy,
    "divergence": _divergence,
    "reward_collapse": _reward_collapse,
    "zero_variance": _zero_variance,
    "length_explosion": _length_explosion,
    "never_ends": _never_ends,
    "reward_hacking": _reward_hacking,
    "overfitting": _overfitting,
    "entropy_collapse": _entropy_collapse,
    "kl_explosion": _kl_explosion,
    "plateau": _plateau,
    "stalled_data": _stalled_data,
}


def _values(history: History, name: str) -> list[float]:
    return [float(r[name]) for r in history if isinstance(r.get(name), int | float)]


def happened(name: str, method: str, history: History, held_out: tuple[float, float]) -> bool:
    """Whether the run did go the way that its class says.

    Args:
        held_out: share of right answers on 128 held-out questions, greedy, before and after the run.
    """
    before, after = held_out
    reward, loss = _values(history, "reward"), _values(history, "loss")
    if name == "stalled_data":
        return True  # the recipe waits for the loader itself
    if name == "divergence":
        gone = [n for n in ("loss", "grad_norm", "entropy") for v in _values(history, n) if not math.isfinite(v)]
        highest = max(fmean(loss[at : at + 5]) for at in range(max(1, len(loss) - 4)))
        return bool(gone) or (method != "grpo" and highest > 2 * loss[0] and after < 0.5 * before + 0.05)
    if name == "overfitting":
        evals = _values(history, "eval_loss")
        return evals[-1] > 1.1 * min(evals) and fmean(loss[-5:]) < 0.5 * loss[0]
    if name == "healthy":
        evals = _values(history, "eval_loss")
        if method == "grpo":
            return fmean(reward[-10:]) > fmean(reward[:10]) + 0.04 and after >= before - 0.03
        return fmean(loss[-5:]) < loss[0] and after >= before - 0.03 and (not evals or evals[-1] <= 1.05 * min(evals))
    if name == "plateau":
        return abs(after - before) <= 0.06
    same, length, cut = (
        _values(history, n) for n in ("frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio")
    )
    if name == "reward_collapse":
        return fmean(reward[-10:]) < 0.4 * fmean(reward[:2]) and after < 0.6 * before
    if name == "zero_variance":
        return fmean(same) > 0.8
    if name == "length_explosion":
        return fmean(length[-5:]) > 2 * fmean(length[:3]) and fmean(cut[-5:]) > 0.5
    if name == "never_ends":
        return fmean(cut) > 0.8
    if name == "reward_hacking":
        return fmean(reward[-5:]) > fmean(reward[:5]) + 0.08 and after < before - 0.1
    if name == "entropy_collapse":
        entropy = _values(history, "entropy")
        return fmean(entropy[-5:]) < 0.2 * fmean(entropy[:3]) and after <= before + 0.08  # two standard errors
    if name == "kl_explosion":
        return fmean(_values(history, "kl")[-10:]) > 1.0 and fmean(reward[-10:]) > 0.7 * fmean(reward[:5])
    raise KeyError(name)
