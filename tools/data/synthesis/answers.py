"""What a completion answers, by the target's own rule: the strict answer line, or what a patient reader would take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from posttrain_crew.target import Answer
from posttrain_crew.tools.data.label_probe import lenient_answer
from posttrain_crew.tools.data.rendering import answer_line
from posttrain_crew.tools.data.text import number_of
from posttrain_crew.tools.training.rewards import exact, mcq_letter, number

__all__ = ["AnswerRule"]

_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class AnswerRule:
    """Reads and checks the answers of one target."""

    answer: Answer

    @cached_property
    def _line(self) -> re.Pattern[str]:
        before, after = self.answer.template.split("{answer}")
        return re.compile(f"{re.escape(before)}[ \\t]*(\\S[^\\n]*?)[ \\t]*{re.escape(after)}[ \\t]*(?=\\n|$)")

    def is_right(self, text: str, answer: str, *, lenient: bool = False) -> bool:
        """Whether a completion gives this answer: by the same functions that GRPO is rewarded with, so that what is
        kept here is what a training would call right. Lenient: see `lenient`."""
        if lenient:
            said = self.lenient(text)
            return said is not None and self.same(said, answer)
        if self.answer.kind == "choice":
            return mcq_letter([text], [answer], self.answer.template, self.answer.labels) == [1.0]
        reward = exact if self.answer.kind == "exact" else number
        return reward([text], [answer], self.answer.template) == [1.0]

    def strict(self, text: str) -> str | None:
        """What the last answer line says; None where there is none, or it names no label."""
        if self.answer.kind == "choice":
            right = (label for label in self.answer.labels if self.is_right(text, label))
            return next(right, None)
        found = self._line.findall(text)
        return str(found[-1]) if found else None

    def lenient(self, text: str) -> str | None:
        """The answer line, else the last label or number that stands alone. None for `exact` without a line."""
        if (said := self.strict(text)) is not None:
            return said
        if self.answer.kind == "choice":
            return lenient_answer(text, self.answer.labels)
        if self.answer.kind == "number":
            found = _NUMBER.findall(text)
            return found[-1] if found else None
        return None

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are equal: labels as they are, numbers by value, texts up to case and a final dot."""
        if self.answer.kind == "number":
            value = number_of(one)
            return value is not None and value == number_of(other)
        return one.strip().rstrip(".").casefold() == other.strip().rstrip(".").casefold()

    def lines(self, text: str) -> list[int]:
        """Offsets at which an answer line begins, in the target's form."""
        before = self.answer.template.split("{answer}")[0]
        return [match.start() for match in re.finditer(re.escape(before), text)] if before.strip() else []

    def line(self, answer: str) -> str:
        """The answer line."""
        return answer_line(answer, self.answer)
