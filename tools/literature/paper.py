"""What the library knows of one paper, and the short forms that searches return.

Only facts: ids, years, numbers that the paper reports, and findings in our own words. Text from a paper is data; none
of it is ever executed or followed as an instruction.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.vocabulary import METHODS, TECHNIQUES, TRL_FIELDS, check_word

__all__ = ["HyperValue", "Paper", "PaperHit", "ReportedScore", "normalise_id"]

_ID = re.compile(r"(?P<id>\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(?:v\d+)?")
_PREFIX = re.compile(r"^(?:https?://)?(?:www\.)?(?:arxiv\.org/(?:abs|pdf|html)/|huggingface\.co/papers/|arxiv:)", re.I)

HyperValue = bool | int | float | str


def normalise_id(text: str) -> str:
    """`arXiv:2402.03300v3`, `https://arxiv.org/abs/2402.03300` -> `2402.03300`; InputError if it is no arXiv id."""
    bare = _PREFIX.sub("", text.strip()).removesuffix(".pdf").strip("/ ")
    match = _ID.fullmatch(bare)
    if match is None:
        raise InputError(f"{text!r} is not an arXiv id; write it like 2402.03300 or arXiv:2402.03300v3.")
    return match["id"]


class _Fact(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReportedScore(_Fact):
    """A number that the paper itself reports. `before` is the model without the technique, where the paper has it."""

    benchmark: str = Field(min_length=2)
    setting: str
    """Shots, prompting, voting: what must be equal before this number may be compared with another."""
    model: str
    before: float | None = None
    after: float
    unit: Literal["percent", "points", "win-rate"] = "percent"

    @model_validator(mode="after")
    def _in_range(self) -> ReportedScore:
        if self.unit != "points":
            for value in (self.before, self.after):
                if value is not None and not 0 <= value <= 100:
                    raise ValueError(f"{self.benchmark}: {value} is not between 0 and 100 {self.unit}")
        return self

    @property
    def headroom_gain(self) -> float | None:
        """Share of the missing percent that was won: (after - before) / (100 - before), None without both."""
        if self.unit != "percent" or self.before is None or self.before >= 100:
            return None
        return (self.after - self.before) / (100 - self.before)


class Paper(_Fact):
    """One entry of the library."""

    arxiv_id: str
    title: str = Field(min_length=4)
    year: int = Field(ge=1991, le=2100)
    authors: list[str] = Field(min_length=1)
    """The first few; the last one is `et al.` where there are more."""
    techniques: list[str] = Field(min_length=1)
    trained_on: list[str] = []
    """Base models and data sets, Hub ids where they are certain."""
    compute: str | None = None
    reported: list[ReportedScore] = []
    findings: list[Annotated[str, Field(min_length=20, max_length=400)]] = Field(min_length=1, max_length=4)
    """Short sentences in our own words; the first one is the line that a search shows."""
    hyperparameters: dict[str, dict[str, HyperValue]] = {}
    """Method (sft, dpo, grpo) -> TRL field -> value, only what the paper states."""
    cites: list[str] = []
    """arXiv ids of other papers of this library."""
    checked: Literal["search", "memory"]
    """How id and title were confirmed: found together in stored public text, or remembered by the one who wrote it."""

    @field_validator("arxiv_id")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        if normalise_id(value) != value:
            raise ValueError(f"write {normalise_id(value)} instead of {value}")
        return value

    @field_validator("techniques")
    @classmethod
    def _known_techniques(cls, value: list[str]) -> list[str]:
        for tag in value:
            check_word(tag, TECHNIQUES, "technique")
        if len(set(value)) != len(value):
            raise ValueError("a technique is listed twice")
        return value

    @field_validator("hyperparameters")
    @classmethod
    def _known_fields(cls, value: dict[str, dict[str, HyperValue]]) -> dict[str, dict[str, HyperValue]]:
        for method, fields in value.items():
            check_word(method, METHODS, "hyperparameters: method")
            for name in fields:
                check_word(name, TRL_FIELDS, "hyperparameters: TRL field")
        return value

    @model_validator(mode="after")
    def _cites_others(self) -> Paper:
        if self.arxiv_id in self.cites:
            raise ValueError("the paper cites itself")
        if len(set(self.cites)) != len(self.cites):
            raise ValueError("cites lists an id twice")
        return self


class PaperHit(_Fact):
    """A paper as a search shows it: one line, bounded."""

    arxiv_id: str
    title: str
    year: int
    techniques: list[str]
    score: float
    """BM25 score of a search; number of citations inside the library for `citations`."""
    finding: str

    @classmethod
    def of(cls, paper: Paper, score: float) -> PaperHit:
        """The short form of `paper`."""
        return cls(
            arxiv_id=paper.arxiv_id,
            title=paper.title,
            year=paper.year,
            techniques=paper.techniques,
            score=score,
            finding=paper.findings[0],
        )
