"""Verifiers that read a row and nothing else: answer, form, length, language, arithmetic.

Those that ask a model or run code are in judging.py and code_tests.py.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field

from posttrain_crew.errors import InputError
from posttrain_crew.target import Target
from posttrain_crew.tools.data.labels import working_supports_label
from posttrain_crew.tools.data.synthesis.answers import AnswerRule
from posttrain_crew.tools.data.synthesis.base import (
    NoParameters,
    Parameters,
    Sampler,
    SyntheticRow,
    Verification,
    parameters_as,
)
from posttrain_crew.tools.data.synthesis.written import CONTROL
from posttrain_crew.tools.data.text import tokens

__all__ = ["AnswerMatch", "ArithmeticCheck", "Bench", "FormatCheck", "LanguageCheck", "LengthCheck"]

OK = Verification(ok=True)


@dataclass
class Bench:
    """What a verifier may use."""

    target: Target
    seed: int = 0
    sampler: Sampler | None = None
    """The model that self_consistency asks: the generator's own, unless another was given."""
    judge: Sampler | None = None
    """The model that llm_judge asks."""

    @property
    def rule(self) -> AnswerRule:
        return AnswerRule(self.target.answer)


def no(reason: str) -> Verification:
    """A row that failed."""
    return Verification(ok=False, reason=reason)


class AnswerMatch:
    """The verifier `answer_match`."""

    summary: ClassVar[str] = "the completion's last answer line says the row's answer (letter, number or text)"
    parameters: ClassVar[type[BaseModel]] = NoParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        self._rule = bench.rule

    def verify(self, row: SyntheticRow) -> Verification:
        if row.answer is None:
            return no("no known answer")
        if self._rule.is_right(row.completion, row.answer):
            return OK
        return no("no answer line" if self._rule.strict(row.completion) is None else "another answer")


class FormatParameters(Parameters):
    """What the check of the form can be told."""

    working: bool = Field(default=False, description="a working must come before the answer line")


class FormatCheck:
    """The verifier `format`."""

    summary: ClassVar[str] = "the answer line is there once and last; no control tokens; roles in order"
    parameters: ClassVar[type[BaseModel]] = FormatParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        self._rule = bench.rule
        self._params = parameters_as(FormatParameters, params)

    def verify(self, row: SyntheticRow) -> Verification:
        roles = [turn.get("role") for turn in row.prompt]
        if not roles or roles[-1] != "user" or any(role not in ("system", "user", "assistant") for role in roles):
            return no("the prompt does not end with the user")
        if any(CONTROL.search(text) for text in [row.completion, *(turn.get("content", "") for turn in row.prompt)]):
            return no("control tokens of a chat template")
        if not row.completion.strip():
            return no("empty completion")
        if row.answer is None:
            return OK  # an open row has no answer line
        offsets = self._rule.lines(row.completion)
        if len(offsets) > 1:
            return no("several answer lines")
        if not offsets or self._rule.strict(row.completion) is None:
            return no("no answer line")
        before, last = row.completion[: offsets[0]], row.completion[offsets[0] :]
        if "\n" in last.strip() or last.strip() != self._rule.line(self._rule.strict(row.completion) or ""):
            return no("text after the answer line")
        if before and not before.endswith("\n"):
            return no("the answer has no line of its own")
        return no("no working") if self._params.working and not before.strip() else OK


class LengthParameters(Parameters):
    """Bounds of a completion and its question, in words and numbers (not tokens of a tokenizer)."""

    min_words: int = Field(default=1, ge=0, description="words of the completion, at least")
    max_words: int = Field(default=600, ge=1, description="words of the completion, at most")
    max_prompt_words: int = Field(default=600, ge=1, description="words of the prompt, at most")


class LengthCheck:
    """The verifier `length`."""

    summary: ClassVar[str] = "the completion and the prompt are neither too short nor too long"
    parameters: ClassVar[type[BaseModel]] = LengthParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        self._params = parameters_as(LengthParameters, params)

    def verify(self, row: SyntheticRow) -> Verification:
        words = len(tokens(row.completion))
        if words < self._params.min_words:
            return no("completion too short")
        if words > self._params.max_words:
            return no("completion too long")
        asked = sum(len(tokens(turn.get("content", ""))) for turn in row.prompt)
        return no("prompt too long") if asked > self._params.max_prompt_words else OK


class LanguageParameters(Parameters):
    """Which languages a row may be in."""

    allowed: str = Field(default="en", description="language codes with commas between (ISO 639-1); empty: any")
    same: bool = Field(default=False, description="prompt and completion must be in the same language")
    minimum_letters: int = Field(default=40, ge=1, description="a shorter text is not judged: it cannot be told")


class LanguageCheck:
    """The verifier `language`: py3langid, offline, 97 languages."""

    summary: ClassVar[str] = "the question and the completion are in an allowed language (py3langid)"
    parameters: ClassVar[type[BaseModel]] = LanguageParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        self._params = parameters_as(LanguageParameters, params)
        self._allowed = {code.strip() for code in self._params.allowed.split(",") if code.strip()}
        self._identifier: Any = None

    def verify(self, row: SyntheticRow) -> Verification:
        told = [self._language(text) for text in (row.question, row.solution or row.completion)]
        if self._allowed and any(code is not None and code not in self._allowed for code in told):
            return no("another language")
        if self._params.same and None not in told and len(set(told)) > 1:
            return no("question and completion in different languages")
        return OK

    def _language(self, text: str) -> str | None:
        letters = re.sub(r"[\W\d_]+", " ", text).strip()
        if len(letters) < self._params.minimum_letters:
            return None
        if self._identifier is None:
            self._identifier = importlib.import_module("py3langid")  # has no types; reads its model, 0.5 s
        return str(self._identifier.classify(letters)[0])


class ArithmeticParameters(Parameters):
    """How strictly the arithmetic of a working is read."""

    need_equation: bool = Field(default=False, description="a working without any equation fails")
    result: bool = Field(default=True, description="the working must end with the right choice, where it can be told")


_PLAIN = r"\d+(?:,\d{3})*(?:\.\d+)?"
_OPERAND = rf"[-+]?{_PLAIN}"
_OPERATOR = r"[-+*/x×·÷^]"
# not in the middle of a longer calculation (before: an operator or bracket; after: an operator with a number)
_EQUATION = re.compile(
    rf"(?<![\w.,^()])(?<![-+*/x×·÷^(]\s)({_OPERAND}(?:[ \t]*{_OPERATOR}[ \t]*{_OPERAND})+)[ \t]*=[ \t]*({_OPERAND})"
    rf"(?!\d|[.,]\d|[ \t]*{_OPERATOR}[ \t]*\d)"
)
_PIECE = re.compile(rf"{_PLAIN}|{_OPERATOR}")
MAX_EQUATIONS = 200


class ArithmeticCheck:
    """The verifier `arithmetic_check`."""

    summary: ClassVar[str] = "every equation of numbers in the working is true, and it ends with the right choice"
    parameters: ClassVar[type[BaseModel]] = ArithmeticParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        self._params = parameters_as(ArithmeticParameters, params)

    def verify(self, row: SyntheticRow) -> Verification:
        working = row.solution if row.solution is not None else row.completion
        found = _EQUATION.findall(working[:100_000])[:MAX_EQUATIONS]
        if any(not _is_true(left, right) for left, right in found):
            return no("a wrong equation")
        if not found and self._params.need_equation:
            return no("no equation")
        if self._params.result and working_supports_label(row.example()) in ("contradicts", "unsupported"):
            return no("the working ends with another value")
        return OK


def _is_true(left: str, right: str) -> bool:
    """Whether a calculation gives the stated number, up to the digits that the number shows."""
    try:
        value = _value(left)
    except (ZeroDivisionError, ValueError, OverflowError):
        return False
    stated = Fraction(right.replace(",", ""))
    digits = len(right.partition(".")[2])
    return abs(value - stated) <= (Fraction(1, 2 * 10**digits) if digits else 0)


def _value(text: str) -> Fraction:
    """A calculation with + - * / ^ in the usual order, exactly; no brackets. Nothing is evaluated as code."""
    pieces = _PIECE.findall(text)
    numbers: list[Fraction] = []
    operators: list[str] = []
    sign = 1
    for piece in pieces:
        if piece[0].isdigit():
            numbers.append(sign * Fraction(piece.replace(",", "")))
            sign = 1
        elif len(operators) == len(numbers):  # a sign in front of a number
            sign = -sign if piece == "-" else sign
        else:
            operators.append({"x": "*", "×": "*", "·": "*", "÷": "/"}.get(piece, piece))
    if len(operators) != len(numbers) - 1:
        raise ValueError(text)
    order: tuple[Literal["^", "*/", "+-"], ...] = ("^", "*/", "+-")
    for level in order:
        place = 0
        while place < len(operators):
            if operators[place] in level:
                numbers[place : place + 2] = [_apply(numbers[place], operators.pop(place), numbers[place + 1])]
            else:
                place += 1
    return numbers[0]


def _apply(left: Fraction, operator: str, right: Fraction) -> Fraction:
    if operator == "^":
        if right.denominator != 1 or abs(right) > 64 or abs(left) > 10**6:
            raise ValueError("too large a power to check")
        return Fraction(left ** int(right))
    return {"+": lambda: left + right, "-": lambda: left - right, "*": lambda: left * right, "/": lambda: left / right}[
        operator
    ]()


def need(sampler: Sampler | None, who: str, what: str) -> Sampler:
    """The sampler. Raises InputError where none was given."""
    if sampler is None:
        raise InputError(f"the verifier `{who}` needs {what}.")
    return sampler
