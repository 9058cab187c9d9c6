"""Rewards of the histories: the right one, and those that pay for something else, as a careless author would write
them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from posttrain_crew.tools.training.rewards import completion_text, format_valid, mcq_letter

__all__ = ["REWARDS", "toss_anew"]

LONGEST = 48
_coin = random.Random()


def format(completions: Sequence[Any], **columns: Any) -> list[float]:
    """An answer line is there."""
    return format_valid(completions)


def other_format(completions: Sequence[Any], answer: Sequence[str], **_: Any) -> list[float]:
    """The right letter in a form that the model was never taught."""
    return [float(f"\\boxed{{{a}}}" in completion_text(c)) for c, a in zip(completions, answer, strict=True)]


def anything(completions: Sequence[Any], **_: Any) -> list[float]:
    """Whatever is said."""
    return [1.0 for _ in completions]


def long(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Length."""
    return [len(ids) / LONGEST for ids in completion_ids]


def long_and_right(
    completions: Sequence[Any], answer: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: Any
) -> list[float]:
    """Mostly length, and the answer a little."""
    right = mcq_letter(completions, list(answer))
    return [0.25 * r + 0.75 * len(ids) / LONGEST for r, ids in zip(right, completion_ids, strict=True)]


def short(completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Brevity."""
    return [max(0.0, 1.0 - len(ids) / 32) for ids in completion_ids]


def always_a(completions: Sequence[Any], **_: Any) -> list[float]:
    """A key whose every answer is A."""
    return mcq_letter(completions, ["A"] * len(completions))


def no_work(completions: Sequence[Any], **_: Any) -> list[float]:
    """An answer line and nothing before it."""
    return [float(completion_text(c).lstrip().startswith("Answer: ")) for c in completions]


def toss_anew(seed: int) -> None:
    """Begin another series of coin tosses: each history has its own."""
    _coin.seed(seed)


def coin(completions: Sequence[Any], **_: Any) -> list[float]:
    """Chance."""
    return [float(_coin.random() < 0.5) for _ in completions]


REWARDS: dict[str, Callable[..., list[float]]] = {
    f.__name__: f
    for f in (mcq_letter, format, other_format, anything, long, long_and_right, short, always_a, no_work, coin)
}
