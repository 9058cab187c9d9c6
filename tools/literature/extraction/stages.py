"""Stages that a paper numbers (`Stage II: preference optimization`), so that "stage 2" tells a method elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable

from posttrain_crew.tools.literature.extraction.recipe import TrainingMethod
from posttrain_crew.tools.literature.extraction.scope import Said, methods_in
from posttrain_crew.tools.literature.reading.document import Document
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["Stages", "named", "stages_of"]

_STAGE = re.compile(
    r"\b(?:stage|phase|step)[\s-]?(?P<number>I{1,3}|[1-5])\b|\b(?P<word>first|second|third|fourth|1st|2nd"
    r"|3rd) (?:stage|phase)\b",
    re.IGNORECASE,
)
_NUMBERS = {"i": 1, "ii": 2, "iii": 3, "first": 1, "second": 2, "third": 3, "fourth": 4}
_NAMES: dict[TrainingMethod, str] = {"sft": "SFT", "dpo": "DPO", "grpo": "GRPO", "ppo": "PPO"}

Stages = dict[int, TrainingMethod]


def _numbers(text: str) -> set[int]:
    found = set()
    for match in _STAGE.finditer(plain(text[:400])):
        word = (match["number"] or match["word"]).lower()
        found.add(_NUMBERS.get(word, 0) or (int(word[0]) if word[0].isdigit() else 0))
    return found - {0}


def stages_of(document: Document, sentences: Iterable[Said], among: tuple[TrainingMethod, ...]) -> Stages:
    """Number of a stage -> its method, from headings and from sentences that name one stage and one method.

    A number that is told to be two methods is left out.
    """
    told: dict[int, set[TrainingMethod]] = {}
    texts = [section.title for section in document.sections]
    texts += [text for one in sentences if one.own for text in (one.head, one.plain) if len(text) < 300]
    for text in texts:
        numbers = _numbers(text) if text else set()
        methods = [method for method, weight in methods_in(text).items() if weight == 2] if len(numbers) == 1 else []
        if len(methods) == 1 and methods[0] in among:
            told.setdefault(numbers.pop(), set()).add(methods[0])
    return {number: methods.pop() for number, methods in told.items() if len(methods) == 1}


def named(text: str, stages: Stages) -> str:
    """A text that names one known stage and no method, with the stage's method behind it."""
    if not stages or 2 in methods_in(text).values():
        return text
    numbers = _numbers(text)
    method = stages.get(next(iter(numbers))) if len(numbers) == 1 else None
    return f"{text} ({_NAMES.get(method, method.upper())})" if method else text
