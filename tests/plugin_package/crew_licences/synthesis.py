"""A generator and a verifier of a third party: when a right ends, and a check for pasted licence texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from posttrain_crew.tools.data.formats import Example
from posttrain_crew.tools.data.synthesis.base import (
    NoParameters,
    Parameters,
    Request,
    SyntheticRow,
    Verification,
    parameters_as,
)
from posttrain_crew.tools.data.synthesis.rows import make_row
from posttrain_crew.tools.data.synthesis.verifiers import Bench

YEARS = {"patent": 20, "design": 25, "copyright after death": 70}


class Terms(Parameters):
    """What the generator can be told."""

    first_year: int = Field(default=1900, ge=1800, le=1980, description="earliest year in a question")


class LicenceQuestions:
    """When does a right end? Computed."""

    summary: ClassVar[str] = "questions on the end of intellectual property rights"
    parameters: ClassVar[type[BaseModel]] = Terms
    needs: ClassVar[tuple[Literal["model", "questions", "specification"], ...]] = ()

    def generate(self, request: Request) -> Iterator[SyntheticRow]:
        first = parameters_as(Terms, request.params).first_year
        rng = request.rng("licences")
        for number in range(request.rows):
            right, years = rng.choice(sorted(YEARS.items()))
            start = first + number
            values = [start + years, start + years + 5, start + years - 5, start + 2 * years]
            rng.shuffle(values)
            letter = "ABCD"[values.index(start + years)]
            working = f"{start} + {years} = {start + years}"
            question = f"In which year ends a {right} right of {years} years that began in {start}?"
            yield make_row(
                Example(question, tuple(map(str, values)), letter, working, None),
                request,
                completion=f"{working}\nAnswer: {letter}",
                label=letter,
                solution=working,
                generator="licence_questions",
                parent=f"{right}/{start}",
                model="computed",
            )


class NoLicenceText:
    """Rows with a pasted licence header teach boilerplate."""

    summary: ClassVar[str] = "no licence text in the row"
    parameters: ClassVar[type[BaseModel]] = NoParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        pass

    def verify(self, row: SyntheticRow) -> Verification:
        pasted = "permission is hereby granted" in f"{row.question} {row.completion}".lower()
        return Verification(ok=not pasted, reason="licence text" if pasted else "")
