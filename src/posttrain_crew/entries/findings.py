"""Entries about experiments and what they showed."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from posttrain_crew.entries.base import Cause, EntryBody, Method

__all__ = ["Comparison", "Decision", "Diagnosis", "Evaluation", "Experiment", "MetricEvidence"]


class Experiment(EntryBody):
    """A node of the search tree: parent, hypothesis, training config. Its stage is derived from later entries."""

    kind: ClassVar[str] = "experiment"
    prefix: ClassVar[str] = "exp"
    min_refs: ClassVar[int] = 1
    parent: str
    """`base`, or the id of the experiment whose checkpoint it starts from."""
    hypothesis: str
    method: Method
    training_set: str
    recipe: str | None = None
    config: dict[str, Any]
    """The trainer's own field names and values (TRL), without paths."""
    purpose: Literal["candidate", "ablation", "remedy"] = "candidate"
    ablates: str | None = None
    """For an ablation: the experiment of which one part was left out."""
    seed: int


class MetricEvidence(EntryBody):
    """A number that shows a cause."""

    metric: str
    step: int
    value: float
    threshold: float


class Diagnosis(EntryBody):
    """Why a job went as it went: a cause of a fixed set, the numbers that show it, and what to change."""

    kind: ClassVar[str] = "diagnosis"
    prefix: ClassVar[str] = "dia"
    min_refs: ClassVar[int] = 1
    cause: Cause
    evidence: list[MetricEvidence]
    confidence: float = Field(ge=0, le=1)
    remedy: dict[str, float | int | str | bool] = {}
    """Config changes by TRL field name; empty where none helps."""
    advice: str


class Evaluation(EntryBody):
    """Scores of one checkpoint on one split, read from the result file."""

    kind: ClassVar[str] = "evaluation"
    prefix: ClassVar[str] = "eval"
    min_refs: ClassVar[int] = 1
    subject: str
    """`base` or an experiment id."""
    split: Literal["dev", "test"]
    task: str
    few_shot: int
    n: int
    score: float
    """Strict score, 0-1: the answer in the required format is right."""
    ci_low: float
    ci_high: float
    lenient_score: float
    """Score, 0-1, with lenient answer extraction."""
    lenient_ci_low: float
    lenient_ci_high: float
    format_valid_rate: float
    accuracy_given_valid: float | None
    mean_output_chars: float
    truncated_rate: float
    harness: str
    directory: str
    samples_sha256: str


class Comparison(EntryBody):
    """A paired test of two evaluations on the same items (equal prompt and document hashes)."""

    kind: ClassVar[str] = "comparison"
    prefix: ClassVar[str] = "cmp"
    min_refs: ClassVar[int] = 2
    candidate: str
    reference: str
    """Subjects: `base` or experiment ids. The evaluations are the refs: candidate first, then reference."""
    split: Literal["dev", "test"]
    metric: Literal["strict", "lenient"]
    n: int
    delta: float
    ci_low: float
    ci_high: float
    """95 % paired bootstrap interval of the difference, in score units (0-1)."""
    p_value: float
    """Exact two-sided McNemar."""
    gained: int
    """Items right for the candidate only."""
    lost: int


class Decision(EntryBody):
    """What was decided and on which entries it rests."""

    kind: ClassVar[str] = "decision"
    prefix: ClassVar[str] = "dec"
    min_refs: ClassVar[int] = 1
    action: Literal["promote", "discard", "keep_as_ablation", "stop", "abandon", "accept", "reject"]
    """accept / reject: the final gate's verdict on the test comparison."""
    subject: str
    reason: str
