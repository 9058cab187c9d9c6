"""Entries about what was read and which data was prepared."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from posttrain_crew.entries.base import EntryBody, Method

__all__ = [
    "ContaminationVerdict",
    "DatasetProfile",
    "Defect",
    "PaperRead",
    "Recipe",
    "RecipeEvidence",
    "SourceShare",
    "TrainingSet",
]


class PaperRead(EntryBody):
    """A paper that the literature agent looked at."""

    kind: ClassVar[str] = "paper"
    prefix: ClassVar[str] = "pap"
    arxiv_id: str
    """The arXiv id, or `doi:...`, `corpus:...` for a paper that is not there."""
    title: str
    year: int | None
    """None where no source tells it."""
    techniques: list[str]
    findings: list[str]
    source: str
    """What was read: `library` (facts that ship with crew), `arxiv`, `ar5iv`, `huggingface`, `pdf` or `abstract`."""
    via: list[str] = []
    """Papers, from the one that a search found, over which citations led here."""
    datasets: list[str] = []
    """Datasets that it trained on or brings, by Hub id where one is known."""


class RecipeEvidence(EntryBody):
    """Where one field of a recipe comes from."""

    field: str
    """A hyper-parameter by TRL name, or `base_model`, `datasets`, `compute`, `reported`."""
    value: str
    arxiv_id: str
    where: str
    """Id of the section or table of the paper."""
    text: str
    """The sentence or table cell, at most 300 characters."""


class Recipe(EntryBody):
    """A training idea with its evidence: method + data + hyper-parameters, and the score it was reported to reach."""

    kind: ClassVar[str] = "recipe"
    prefix: ClassVar[str] = "rec"
    min_refs: ClassVar[int] = 1
    method: Method
    title: str
    hypothesis: str
    data_style: Literal["worked", "terse", "preference", "verifiable-prompts", "any"]
    hyperparameters: dict[str, float | int | str | bool] = {}
    reported: list[dict[str, Any]] = []
    arxiv_ids: list[str]
    addresses: list[str] = []
    """Which needs of the baseline it answers: format, reasoning, knowledge, noisy-data, small-model, plateau."""
    prior: float = Field(ge=0, le=1)
    datasets: list[str] = []
    """Datasets that its papers trained on, by Hub id where one is known: where the data agent looks first."""
    evidence: list[RecipeEvidence] = []
    """Quotations behind hyper-parameters, scores and data; empty for facts of the shipped library."""


class Defect(EntryBody):
    """One thing wrong with a dataset, with the number that shows it."""

    name: Literal[
        "exact_duplicates",
        "near_duplicates",
        "label_noise",
        "contamination",
        "off_domain",
        "unreadable_rows",
        "missing_answers",
        "foreign_format",
        "no_worked_solutions",
        "answer_position_bias",
        "too_long",
        "too_small",
        "licence",
        "denied",
    ]
    value: float
    threshold: float
    severity: Literal["note", "clean", "reject"]
    """note: known, harmless; clean: rows must be dropped or rewritten first; reject: not usable at all."""
    detail: str


class DatasetProfile(EntryBody):
    """What an audit measured on a candidate. It holds rates and counts, never rows of the benchmark."""

    kind: ClassVar[str] = "dataset_profile"
    prefix: ClassVar[str] = "prof"
    dataset: str
    path: str
    rows: int
    columns: list[str]
    format: Literal["mcq", "messages", "sharegpt", "prompt_completion", "alpaca", "preference", "text", "unknown"]
    answer_style: Literal["worked", "terse", "mixed", "none"]
    licence: str | None
    defects: list[Defect]
    measures: dict[str, float]
    verdict: Literal["usable", "usable_after_cleaning", "rejected"]
    reason: str


class ContaminationVerdict(EntryBody):
    """Overlap of one file with the benchmark's items. Matched pairs stay with the evaluator: here are counts only."""

    sha256: str
    passed: bool
    rows_checked: int
    rows_matched: int
    benchmark_items: int
    by_check: dict[str, int]
    """Rows matched per check: exact, ngram13, ngram8, near_duplicate, reworded."""
    rows_unchecked: int = 0
    """Rows that could not be looked at (cut, no text, a broken line): a file with such a row does not pass."""


class SourceShare(EntryBody):
    """How many rows of a training set came from one dataset, and what was dropped on the way, by reason."""

    dataset: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = {}
    rewritten: int = 0


class TrainingSet(EntryBody):
    """A prepared file: conversational JSONL (`prompt` + `completion` for SFT, `prompt` + `answer` for GRPO)."""

    kind: ClassVar[str] = "training_set"
    prefix: ClassVar[str] = "ts"
    min_refs: ClassVar[int] = 1
    sha256: str
    path: str
    """Relative to the run directory: data/<sha256>/train.jsonl."""
    rows: int
    method: Method
    style: Literal["worked", "terse", "mixed", "verifiable-prompts", "preference"]
    sources: list[SourceShare]
    contamination: ContaminationVerdict
    mean_tokens: float
    max_tokens: int
    seed: int
    order: Literal["interleaved", "length", "difficulty"] = "interleaved"
    """Of the rows; any but `interleaved` is a curriculum, which the trainer must not shuffle."""
    note: str = ""
