"""What is to be synthesised (plan) and what came out of it (card): both are JSON, so that a job can be given the one
and leaves the other."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from posttrain_crew.entries import ContaminationVerdict
from posttrain_crew.tools.data.synthesis.base import Usage

__all__ = ["Card", "Difficulty", "Plan", "Upsampling", "UsageLine", "VerifierChoice"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerifierChoice(_Part):
    """A verifier and what it is told."""

    name: str
    params: dict[str, Any] = {}


class Difficulty(_Part):
    """The filter by the student's own pass rate. Rows that it always or never gets right teach it least."""

    samples: int = Field(default=8, ge=2, le=64)
    """Of the student, per question."""
    low: float = Field(default=0.0, ge=0, le=1)
    high: float = Field(default=1.0, ge=0, le=1)
    """A row stays where `low < pass rate < high`."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    max_tokens: int = Field(default=256, ge=1, le=32768)
    lenient: bool = True
    """Read the last label or number where there is no answer line: a base knows more than it can put into form."""

    @model_validator(mode="after")
    def _ordered(self) -> Difficulty:
        if self.low >= self.high:
            raise ValueError("`low` must be below `high`")
        return self


class Upsampling(_Part):
    """How often rows are repeated."""

    hard_weight: float = Field(default=1.0, ge=1, le=10)
    """Weight of a row with pass rate 0; one with pass rate 1 has weight 1, in between it is linear."""
    max_repeats: int = Field(default=1, ge=1, le=10)
    """A row is in the file at most so often, whatever its weight. 1: no row twice; weights below 1 still thin out."""


class Plan(_Part):
    """One synthesis."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$")
    generator: str
    params: dict[str, Any] = {}
    verifiers: list[VerifierChoice] = []
    rows: int = Field(ge=1, le=200_000)
    """Candidates that the generator makes at most; the checks leave fewer."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    similarity: float = Field(default=0.8, gt=0, le=1)
    """Jaccard index of word pairs from which a row counts as nearly an earlier one."""
    difficulty: Difficulty | None = None
    upsampling: Upsampling = Upsampling()


class UsageLine(_Part):
    """What one model cost, all attempts together."""

    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    """None: the price is not known."""

    @classmethod
    def of(cls, model: str, usage: Usage) -> UsageLine:
        return cls(
            model=model,
            requests=usage.requests,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            usd=usage.usd,
        )


class Card(_Part):
    """What came out."""

    plan: Plan
    plan_sha256: str
    """Of the plan with the target, the sources and the models: the same call has the same."""
    target: str
    sources: list[str]
    """Names of the datasets that questions came from."""
    rows: int
    """Lines of the file, repeats included."""
    distinct: int
    path: str
    """Of the file, relative to the folder of the dataset."""
    sha256: str
    counts: dict[str, dict[str, int]]
    """By stage (sources, generated, verified, deduplicated, decontaminated, difficulty, upsampled): what became of how
    many rows."""
    left_out: dict[str, int]
    """Prompts or requests that got no text, by reason; with `budget` in it, the same call with more budget goes on."""
    usage: dict[str, UsageLine]
    """By role: writer, judge, student."""
    contamination: ContaminationVerdict
