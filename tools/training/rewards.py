"""Reward functions for GRPO, with TRL's signature: `(completions, **columns) -> list[float]`, one number a completion.

A reward is what the model will learn to please, so each is calibrated before a launch: it has to score every known good
completion above every known bad one. A reward that pays for a form and not for the answer (`format`, `length`)
separates nothing that matters, so at least one of a job's rewards has to know a right answer from a wrong one, and with
their weights all of them together have to.

A plugin's reward may carry its own completions as an attribute, `reward.calibration = Calibration(...)`, and the
columns that it reads beside `prompt`, `reward.columns = ("answer",)`.

Code that a model wrote runs in the sandbox alone (tools/sandbox); where there is none, `code_tests` is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from posttrain_crew.errors import ConfigError, CrewError, DatasetError
from posttrain_crew.tools.sandbox.bwrap import require_sandbox
from posttrain_crew.tools.sandbox.tests import Verdict, last_block, plan, run_many

__all__ = [
    "BUILTIN_REWARDS",
    "CALIBRATION",
    "Calibration",
    "Reward",
    "calibrate",
    "check_rewards",
    "check_rows",
    "code_tests",
    "code_tests_all",
    "columns_of",
    "exact",
    "format_valid",
    "mcq_letter",
    "not_too_long",
    "number",
    "resolve",
    "scored",
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


def number(
    completions: Sequence[Any], answer: Sequence[Any], answer_template: str = DEFAULT_TEMPLATE, **_columns: Any
) -> list[float]:
    """1.0 where the first number of the last answer line equals that of the column `answer` within 0.1 ‰; commas
    between digits and units after the number do not count."""
    pattern = _line_pattern(answer_template)
    pairs = [(_number(_last(pattern, text)), _number(right)) for text, right in zip(completions, answer, strict=True)]
    return [
        float(said is not None and right is not None and math.isclose(said, right, rel_tol=1e-4))
        for said, right in pairs
    ]


_NUMBER_PATTERN = re.compile(r"[-+]?(?:\d+(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:[eE][-+]?\d+)?")


def _number(text: Any) -> float | None:
    found = _NUMBER_PATTERN.search(str(text)) if text is not None else None
    return float(found[0].replace(",", "")) if found else None


def not_too_long(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[Any]],
    max_completion_length: int = 256,
    **_columns: Any,
) -> list[float]:
    """1 for completions of up to three quarters of the length limit, from there falling to 0 at the limit: the shape of
    Yu et al. 2025 (arXiv:2503.14476, eq. 13), raised by 1, which no advantage of a group shows. Only beside a reward
    for the answer itself."""
    free = 0.75 * max_completion_length
    return [1.0 - max(0.0, min(1.0, (len(ids) - free) / (max_completion_length - free))) for ids in completion_ids]


def code_tests(completions: Sequence[Any], tests: Sequence[Any], **_columns: Any) -> list[Any]:
    """Share of the row's tests (column `tests`, see tools/sandbox/tests.py) that pass with the last fenced Python block
    of the completion, run in the sandbox; 0 without such a block, None where the row has no tests."""
    return [None if verdict is None else verdict.share for verdict in _verdicts(completions, tests)]


def code_tests_all(completions: Sequence[Any], tests: Sequence[Any], **_columns: Any) -> list[Any]:
    """As `code_tests`, but 1.0 where all tests pass and else 0.0: for tests of which some pass by chance."""
    verdicts = _verdicts(completions, tests)
    return [None if verdict is None else float(verdict.passed == verdict.total) for verdict in verdicts]


def _verdicts(completions: Sequence[Any], tests: Sequence[Any]) -> list[Verdict | None]:
    pairs = [(last_block(completion_text(text)), row) for text, row in zip(completions, tests, strict=True)]
    verdicts = iter(run_many([pair for pair in pairs if pair[1] is not None]))
    return [None if row is None else next(verdicts) for _, row in pairs]


BUILTIN_REWARDS: dict[str, Reward] = {
    "mcq_letter": mcq_letter,
    "exact": exact,
    "number": number,
    "format": format_valid,
    "length": not_too_long,
    "code_tests": code_tests,
    "code_tests_all": code_tests_all,
}
_COLUMNS: dict[str, tuple[str, ...]] = {
    "mcq_letter": ("answer",),
    "exact": ("answer",),
    "number": ("answer",),
    "code_tests": ("tests",),
    "code_tests_all": ("tests",),
}


@dataclass(frozen=True)
class Calibration:
    """Completions of which a reward must tell the good from the bad. `{line:X}` is the answer line with X."""

    answer: str
    good: tuple[str, ...]
    bad: tuple[str, ...]
    tests: tuple[str, ...] = ("assert double(3) == 6", "assert double(-4) == -8")
    """The column `tests`, for rewards that run code."""


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
_NUMBER = Calibration(
    answer="1200",
    good=("{line:1200}", "3 * 400 = 1200\n{line:1,200 m}", "{line:41}\nThat was wrong.\n{line:1.2e3}"),
    bad=("", "1200", "{line:12}", "{line:-1200}", "{line:1200}\nNo.\n{line:120}", "{line:many}"),
)
_CODE = Calibration(
    answer="def double(x): return 2 * x",
    good=(
        "```python\ndef double(x):\n    return 2 * x\n```",
        "```python\ndef double(x):\n    return x\n```\nNo:\n```py\ndef double(x):\n    return x + x\n```",
    ),
    bad=(
        "",
        "def double(x): return 2 * x",
        "```python\ndef double(x):\n    return x * x\n```",
        "```python\ndef double(x):\n    return 2 * x\n```\nNo:\n```python\ndef double(x):\n    return x\n```",
        "```python\nimport sys\nsys.exit(0)\n```",
        "```python\nimport os\nos._exit(0)\n```",
        "```python\nprint('2 passed')\ndef double(x):\n    print('ok')\n```",
        "```python\nclass Any:\n    __eq__ = lambda *_: True\ndouble = lambda x: Any()\n```",
    ),
)
"""The bad ones include what a model does that wants the tests to pass and not the code to work."""
_LIMIT = 32
"""Length limit, in words for tokens, that rewards are calibrated with."""
CALIBRATION: dict[str, Calibration] = {
    "mcq_letter": _CHOICE,
    "exact": _TEXT,
    "number": _NUMBER,
    "format": Calibration(answer="B", good=("{line:B}", "6 * 7 = 42\n{line:D}"), bad=("", "B", "I do not know.")),
    "length": Calibration(answer="B", good=("{line:B}", "6 * 7 = 42\n{line:D}"), bad=("well " * 30 + "{line:B}",)),
    "code_tests": _CODE,
    "code_tests_all": replace(_CODE, bad=(*_CODE.bad, "```python\ndef double(x):\n    return abs(2 * x)\n```")),
}
_ANSWERS = {"choice": _CHOICE, "text": _TEXT, "number": _NUMBER}
_PROGRAMS = {"code": _CODE}
"""Completions that only a reward which knows right from wrong can tell apart: the bad ones include wrong answers in the
right form."""


def resolve(name: str) -> Reward:
    """A reward by name: built in, or registered by a plugin. Raises ConfigError for an unknown one."""
    if name in BUILTIN_REWARDS:
        return BUILTIN_REWARDS[name]
    from posttrain_crew.plugins import hooks, merged

    registered: dict[str, Reward] = merged(hooks().register_rewards())
    if name not in registered:
        raise ConfigError(f"there is no reward `{name}`. Known: {', '.join(sorted(registered))}.")
    return registered[name]


def columns_of(name: str) -> set[str]:
    """The columns that a reward reads beside `prompt`; none for an unknown one, which is told elsewhere."""
    if name in _COLUMNS or name in BUILTIN_REWARDS:
        return set(_COLUMNS.get(name, ()))
    try:
        return {str(column) for column in getattr(resolve(name), "columns", ())}
    except ConfigError:
        return set()


def scored(name: str, reward: Reward, **columns: Any) -> list[float]:
    """The scores of a reward, checked.

    Raises:
        ConfigError: the reward raised, or did not give one finite number (None: not applicable) for each completion.
        DatasetError: the reward says that a row cannot be used.
    """
    completions = columns["completions"]
    try:
        scores = list(reward(**columns))
    except DatasetError:
        raise
    except CrewError as error:
        raise ConfigError(f"the reward `{name}` cannot be used: {error}") from error
    except Exception as error:
        raise ConfigError(
            f"the reward `{name}` raised {type(error).__name__}: {error}. Repair it, or name another under `reward`; "
            f"it is called with {len(completions)} completions and the columns {', '.join(sorted(columns))}."
        ) from error
    if len(scores) != len(completions):
        raise ConfigError(f"the reward `{name}` gave {len(scores)} scores for {len(completions)} completions.")
    for score in scores:
        if score is not None and not (isinstance(score, int | float) and math.isfinite(score)):
            raise ConfigError(f"the reward `{name}` gave {score!r} for a completion, which is no finite number.")
    return [score if score is None else float(score) for score in scores]


def check_rows(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows that a reward cannot judge, before any training.

    Raises:
        DatasetError: the tests of a row cannot be used. ConfigError: a reward runs code, and there is no sandbox.
    """
    if not any("tests" in columns_of(name) for name in names):
        return
    try:
        require_sandbox()
    except CrewError as error:
        raise ConfigError(f"the reward {', '.join(f'`{name}`' for name in names)} runs code: {error}") from error
    for number, row in enumerate(rows, start=1):
        try:
            if row.get("tests") is not None:
                plan(row["tests"])
        except DatasetError as error:
            raise DatasetError(f"row {number} of the training data: {error}") from error


def calibrate(
    name: str,
    reward: Reward,
    calibration: Calibration,
    template: str = DEFAULT_TEMPLATE,
    labels: str = DEFAULT_LABELS,
) -> tuple[float, float]:
    """(lowest score of a good completion, highest score of a bad one).

    Raises:
        ConfigError: the reward does not separate them, naming the pair; it raises, or gives no number.
    """
    texts = _texts(calibration, template)
    scores = _scores(name, reward, calibration, texts, template, labels)
    return _separated(f"the reward `{name}` does not separate good from bad: it gives", scores, texts, calibration)


def check_rewards(
    names: Sequence[str],
    template: str = DEFAULT_TEMPLATE,
    labels: str = DEFAULT_LABELS,
    weights: Sequence[float] | None = None,
) -> list[str]:
    """Refuse rewards that cannot teach the task; returns one line for each that was checked.

    A plugin's reward without completions of its own is held against those of the built-in ones, whichever it separates.

    Args:
        weights: of each reward in the sum; 1 where None.

    Raises:
        ConfigError: none is given, one is unknown, does not separate, or all of them pay for format alone.
    """
    if not names:
        raise ConfigError("GRPO needs a reward: set `reward`, for example `[{name: mcq_letter}]`.")
    weights = [1.0] * len(names) if weights is None else list(weights)
    kinds: list[dict[str, tuple[float, float]]] = []
    lines = []
    for name in names:
        reward = resolve(name)
        kinds.append(_answers_told_apart(name, reward, template, labels))
        own = CALIBRATION.get(name) or getattr(reward, "calibration", None)
        again = next((kind for kind, known in {**_ANSWERS, **_PROGRAMS}.items() if known is own), None)
        if again is not None and again in kinds[-1]:
            low, high = kinds[-1][again]  # held against these just now
        elif own is not None:
            low, high = calibrate(name, reward, own, template, labels)
        elif kinds[-1]:
            low, high = next(iter(kinds[-1].values()))
        else:
            low, high = calibrate(name, reward, _TEXT, template, labels)
        lines.append(f"{name}: good >= {low:g}, bad <= {high:g}")
    knowing = [kind for kind, weight in zip(kinds, weights, strict=True) if kind and weight]
    if not knowing:
        paid = ", ".join(f"`{name}`" for name, weight in zip(names, weights, strict=True) if weight) or "nothing"
        raise ConfigError(
            f"{paid} cannot be the only reward: a model that always answers in the right form and never right would "
            "have all of it. Put `mcq_letter`, `exact`, `number` or `code_tests` beside it, with a weight above 0."
        )
    if len(names) > 1 or weights[0] != 1:  # a weight below 0 turns right and wrong round
        low, high = _together(names, weights, next(iter(knowing[0])), template, labels)
        lines.append(f"together, weighted: good >= {low:g}, bad <= {high:g}")
    return lines


def _answers_told_apart(name: str, reward: Reward, template: str, labels: str) -> dict[str, tuple[float, float]]:
    """For each kind of answer of which the reward knows right from wrong: lowest good and highest bad score."""
    found = {}
    for kind, calibration in (_PROGRAMS if "tests" in columns_of(name) else _ANSWERS).items():
        try:
            found[kind] = calibrate(name, reward, calibration, template, labels)
        except ConfigError:
            continue
    return found


def _together(
    names: Sequence[str], weights: Sequence[float], kind: str, template: str, labels: str
) -> tuple[float, float]:
    calibration = {**_ANSWERS, **_PROGRAMS}[kind]
    texts = _texts(calibration, template)
    total = [0.0] * len(texts)
    for name, weight in zip(names, weights, strict=True):
        scores = _scores(name, resolve(name), calibration, texts, template, labels)
        total = [sum_ + weight * score for sum_, score in zip(total, scores, strict=True)]
    told = ", ".join(f"{weight:g} x {name}" for name, weight in zip(names, weights, strict=True))
    return _separated(
        f"the rewards together ({told}) do not separate good from bad: they give", total, texts, calibration
    )


def _texts(calibration: Calibration, template: str) -> list[str]:
    def rendered(text: str) -> str:
        return re.sub(r"\{line:([^}]*)\}", lambda found: template.replace("{answer}", found[1]), text)

    return [rendered(text) for text in (*calibration.good, *calibration.bad)]


def _scores(
    name: str, reward: Reward, calibration: Calibration, texts: Sequence[str], template: str, labels: str
) -> list[float]:
    scores = scored(
        name,
        reward,
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        prompts=[""] * len(texts),
        completion_ids=[text.split() for text in texts],
        answer=[calibration.answer] * len(texts),
        tests=[list(calibration.tests)] * len(texts),
        answer_template=template,
        answer_labels=labels,
        max_completion_length=_LIMIT,
    )
    if any(score is None for score in scores):
        raise ConfigError(
            f"the reward `{name}` gives no score at all to some of the completions that it is calibrated with."
        )
    return scores


def _separated(
    told: str, scores: Sequence[float], texts: Sequence[str], calibration: Calibration
) -> tuple[float, float]:
    count = len(calibration.good)
    low, high = min(scores[:count]), max(scores[count:])
    if not low > high:
        good, bad = texts[list(scores[:count]).index(low)], texts[count + list(scores[count:]).index(high)]
        raise ConfigError(
            f"{told} {low:g} to {good!r} and {high:g} to {bad!r} (right answer: {calibration.answer}). A model would "
            "learn to please it and not to answer."
        )
    return low, high
