"""How far the labels of a dataset can be believed, without anybody to ask.

Three independent measurements, none of which is proof:

(a) a worked solution says where it ends: a label that is not what the working ends with is wrong, or the working is;
(b) the same question with different answers, in one set or in two: one of them is wrong;
(c) a model of known accuracy agrees with right labels more often than with wrong ones.

Estimator of (c). Let `a` be the model's accuracy (lenient, on dev items), `k` the number of choices, `q` the share
of right labels. With wrong answers and wrong labels spread evenly, a model that is right agrees with a right label, and
one that is wrong hits a given wrong choice with probability 1/(k-1):

    P(agree) = q * a + (1 - q) * (1 - a) / (k - 1)
    q        = (agree - (1-a)/(k-1)) / (a - (1-a)/(k-1))

Assumptions: the candidate's questions are as hard for the model as those that `a` was measured on, and errors of model
and label are independent. Harder questions look like wrong labels, so `a` is better measured on other candidates whose
workings bear their labels out, where there are such (desk.py). Random labels give q = 1/k. Near chance (a ~ 1/k) the
denominator vanishes and nothing is said: see `LabelEstimate.informative`. Bounds: Wilson's interval (1927) of the
agreement, at the given accuracy.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from posttrain_crew.tools.data.formats import LABELS, Example
from posttrain_crew.tools.data.text import normalised, number_of, numbers

__all__ = [
    "Consistency",
    "LabelEstimate",
    "answers_by_question",
    "conflict_rate",
    "conflicting_rows",
    "estimate_label_accuracy",
    "question_key",
    "wilson",
    "working_supports_label",
]

Consistency = Literal["consistent", "contradicts", "unsupported", "unknown"]
Z95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""
_BRACKETED = re.compile(r"[(\[][A-J][)\]]")
_RESULT = re.compile(r"=\s*\**\s*\$?\s*(-?\d[\d,]*(?:\.\d+)?)")
_LAST_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?!\d|[^\W\d_]{1,8}\d)")


@dataclass(frozen=True)
class LabelEstimate:
    """Share of right labels by (c); all values are shares, 0-1."""

    accuracy: float
    low: float
    high: float
    """95 % bounds, cut to 0..1."""
    n: int
    agreement: float
    informative: bool
    """False where the sample is too small or the model too close to chance to tell right labels from random ones."""


def working_supports_label(example: Example) -> Consistency:
    """Whether the working of one row ends with its labelled choice.

    `unsupported`: an explicit result (`= 12`) that is none of the choices; `unknown`: no working, or nothing in it that
    can be compared with a choice.
    """
    right = example.answer_text
    if example.solution is None or right is None or not example.choices:
        return "unknown"
    working = _BRACKETED.sub(" ", example.solution)
    letters = [found.strip("()[]") for found in _BRACKETED.findall(example.solution)]
    if letters and letters[-1] in LABELS[: len(example.choices)] and letters[-1] != example.answer:
        return "contradicts"
    values = [number_of(choice) for choice in example.choices]
    if None not in values and len(set(values)) == len(values):
        found = _LAST_NUMBER.findall(working)
        last = number_of(found[-1]) if found else None
        if last is None:
            return "unknown"
        if last in values:
            return "consistent" if last == number_of(right) else "contradicts"
        results = _RESULT.findall(working)
        return "unsupported" if results and number_of(results[-1]) == last else "unknown"
    text = f" {normalised(working)} "
    ends = {}
    for choice in example.choices:
        plain = normalised(choice)
        if plain and (at := text.rfind(f" {plain} ")) >= 0:
            ends[choice] = (at + len(plain), len(plain))
    if not ends:
        return "unknown"
    return "consistent" if max(ends, key=lambda choice: ends[choice]) == right else "contradicts"


def question_key(example: Example) -> str:
    """What makes two rows the same question: its words, and its choices where it has no numbers to tell it apart."""
    key = normalised(example.question)
    if not numbers(example.question):
        key += " | " + " | ".join(sorted(normalised(choice) for choice in example.choices))
    return key


def answers_by_question(examples: Iterable[Example]) -> dict[str, set[str]]:
    """The answers (as text) that a dataset gives to each of its questions."""
    found: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        if (text := example.answer_text) is not None:
            found[question_key(example)].add(normalised(text))
    return dict(found)


def conflicting_rows(examples: Sequence[Example]) -> list[int]:
    """Indices of rows whose question has another answer elsewhere in the same set."""
    known = answers_by_question(examples)
    return [i for i, example in enumerate(examples) if len(known.get(question_key(example), ())) > 1]


def conflict_rate(one: dict[str, set[str]], other: dict[str, set[str]]) -> tuple[int, float]:
    """(number of shared questions, share of these to which two sets give no common answer)."""
    shared = one.keys() & other.keys()
    return len(shared), sum(not one[key] & other[key] for key in shared) / len(shared) if shared else 0.0


def wilson(successes: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion. n = 0 gives (0, 1)."""
    if n <= 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def estimate_label_accuracy(
    agree: int, n: int, accuracy: float, choices: int, minimum_rows: int = 40, minimum_lift: float = 0.10
) -> LabelEstimate:
    """Share of right labels from the agreement of a model of known accuracy (see the module's docstring).

    Args:
        agree: rows where the model's answer is the label; no answer counts as no agreement, as it does in `accuracy`.
        accuracy: the model's accuracy on such questions, 0-1.
        choices: number of choices of a question.
        minimum_lift: least difference between P(agree | right label) and P(agree | wrong label) that says anything.
    """
    wrong = (1 - accuracy) / max(1, choices - 1)
    lift = accuracy - wrong
    low, high = wilson(agree, n)
    if n == 0 or lift <= 0:
        return LabelEstimate(1 / choices, 0.0, 1.0, n, agree / n if n else 0.0, informative=False)

    def share(rate: float) -> float:
        return min(1.0, max(0.0, (rate - wrong) / lift))

    return LabelEstimate(
        share(agree / n),
        share(low),
        share(high),
        n,
        agree / n,
        informative=n >= minimum_rows and lift >= minimum_lift and (high - low) / lift < 1.2,
    )
