"""Reward functions for GRPO, with TRL's signature: `(completions, **columns) -> list[float]`, one number a completion.

A reward is what the model will learn to please, so each is calibrated before a launch: it has to score every known good
completion above every known bad one. A reward that pays for a form and not for the answer separates nothing that
matters; `format` is therefore refused as the only reward.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from posttrain_crew.errors import ConfigError

__all__ = [
    "BUILTIN_REWARDS",
    "CALIBRATION",
    "Calibration",
    "Reward",
    "calibrate",
    "check_rewards",
    "exact",
    "format_valid",
    "mcq_letter",
    "resolve",
]

Reward = Callable[..., list[float]]

DEFAULT_TEMPLATE = "Answer: {answer}"
DEFAULT_LABELS = "ABCD"


def completion_text(completion: str | Sequence[dict[str, Any]]) -> str:
    """The text of a completion, which in a chat is a list of messages."""
    if isinstance(completion, str):
        return completion
    return "".join(str(message.get("content") or "") for message in completion)


@cache
def _letter_pattern(template: str, labels: str) -> re.Pattern[str]:
    before, after = template.split("{answer}")
    end = re.escape(after) if after else r"\b"
    return re.compile(f"{re.escape(before)}([{re.escape(labels)}]){end}")


@cache
def _line_pattern(template: str) -> re.Pattern[str]:
    before, after = template.split("{answer}")
    return re.compile(f"{re.escape(before)}[ \\t]*(\\S[^\\n]*?)[ \\t]*{re.escape(after)}[ \\t]*(?=\\n|$)")


def _last(pattern: re.Pattern[str], completion: str | Sequence[dict[str, Any]]) -> str | None:
    found: list[str] = pattern.findall(completion_text(completion))
    return found[-1] if found else None


def mcq_letter(
    completions: Sequence[Any],
    answer: Sequence[str],
    answer_template: str = DEFAULT_TEMPLATE,
    answer_labels: str = DEFAULT_LABELS,
    **_columns: Any,
) -> list[float]:
    """1.0 where the letter in the last answer line is the column `answer`, else 0.0. The last one counts, as in the
    benchmark's strict score, so that naming every letter pays nothing."""
    pattern = _letter_pattern(answer_template, answer_labels)
    return [float(_last(pattern, text) == right) for text, right in zip(completions, answer, strict=True)]


def exact(
    completions: Sequence[Any], answer: Sequence[Any], answer_template: str = DEFAULT_TEMPLATE, **_columns: Any
) -> list[float]:
    """1.0 where the rest of the last answer line equals the column `answer` up to case, outer space and a final dot."""
    pattern = _line_pattern(answer_template)

    def plain(text: Any) -> str:
        return str(text).strip().rstrip(".").strip().casefold()

    found = [_last(pattern, text) for text in completions]
    return [float(said is not None and plain(said) == plain(right)) for said, right in zip(found, answer, strict=True)]


def format_valid(completions: Sequence[Any], answer_template: str = DEFAULT_TEMPLATE, **_columns: Any) -> list[float]:
    """1.0 where an answer line is there at all, right or wrong. Only beside a reward for the answer itself."""
    pattern = _line_pattern(answer_template)
    return [float(_last(pattern, text) is not None) for text in completions]


BUILTIN_REWARDS: dict[str, Reward] = {"mcq_letter": mcq_letter, "exact": exact, "format": format_valid}


@dataclass(frozen=True)
class Calibration:
    """Completions of which a reward must tell the good from the bad. `{line:X}` is the answer line with X."""

    answer: str
    good: tuple[str, ...]
    bad: tuple[str, ...]


_CHOICE = Calibration(
    answer="B",
    good=("{line:B}", "6 * 7 = 42\n{line:B}", "{line:A} was my first thought, but 42 is right.\n{line:B}"),
    bad=("", "B", "6 * 7 = 42", "{line:C}", "{line:B}\nNo: {line:D}", "{line:A} {line:B} {line:C} {line:D}"),
)
_TEXT = Calibration(
    answer="42",
    good=("{line:42}", "6 * 7 = 42\n{line:42}", "{line:41}\nThat was wrong.\n{line:42.}"),
    bad=("", "42", "6 * 7 = 42", "{line:24}", "{line:42}\nNo.\n{line:420}"),
)
CALIBRATION: dict[str, Calibration] = {
    "mcq_letter": _CHOICE,
    "exact": _TEXT,
    "format": Calibration(answer="B", good=("{line:B}", "6 * 7 = 42\n{line:D}"), bad=("", "B", "I do not know.")),
}


def resolve(name: str) -> Reward:
    """A reward by name: built in, or registered by a plugin. Raises ConfigError for an unknown one."""
    if name in BUILTIN_REWARDS:
        return BUILTIN_REWARDS[name]
    from posttrain_crew.plugins import hooks, merged

    registered: dict[str, Reward] = merged(hooks().register_rewards())
    if name not in registered:
        raise ConfigError(f"there is no reward `{name}`. Known: {', '.join(sorted(registered))}.")
    return registered[name]


def calibrate(
    name: str,
    reward: Reward,
    calibration: Calibration,
    template: str = DEFAULT_TEMPLATE,
    labels: str = DEFAULT_LABELS,
) -> tuple[float, float]:
    """(lowest score of a good completion, highest score of a bad one).

    Raises:
        ConfigError: the reward does not separate them, naming the pair.
    """

    def rendered(text: str) -> str:
        return re.sub(r"\{line:([^}]*)\}", lambda found: template.replace("{answer}", found[1]), text)

    texts = [rendered(text) for text in (*calibration.good, *calibration.bad)]
    scores = reward(
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        prompts=[""] * len(texts),
        answer=[calibration.answer] * len(texts),
        answer_template=template,
        answer_labels=labels,
    )
    count = len(calibration.good)
    low, high = min(scores[:count]), max(scores[count:])
    if not low > high:
        good, bad = texts[scores[:count].index(low)], texts[count + scores[count:].index(high)]
        raise ConfigError(
            f"the reward `{name}` does not separate good from bad: it gives {low:g} to {good!r} and {high:g} to "
            f"{bad!r} (right answer: {calibration.answer}). A model would learn to please it and not to answer."
        )
    return low, high


def check_rewards(names: Sequence[str], template: str = DEFAULT_TEMPLATE, labels: str = DEFAULT_LABELS) -> list[str]:
    """Refuse rewards that cannot teach the task; returns one line for each that was checked.

    A plugin's reward is held against the choice or the text completions, whichever it separates.

    Raises:
        ConfigError: none is given, one is unknown, does not separate, or all of them pay for format alone.
    """
    if not names:
        raise ConfigError("GRPO needs a reward: set `reward`, for example `[{name: mcq_letter}]`.")
    if all(name == "format" for name in names):
        raise ConfigError(
            "`format` cannot be the only reward: a model that always answers in the right form and never right would "
            "have all of it. Put `mcq_letter` or `exact` beside it."
        )
    lines = []
    for name in names:
        reward = resolve(name)
        if name in CALIBRATION:
            low, high = calibrate(name, reward, CALIBRATION[name], template, labels)
        else:
            try:
                low, high = calibrate(name, reward, _CHOICE, template, labels)
            except ConfigError:
                low, high = calibrate(name, reward, _TEXT, template, labels)
        lines.append(f"{name}: good >= {low:g}, bad <= {high:g}")
    return lines
