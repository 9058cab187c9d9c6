"""A training recipe as a paper states it, every field with the place it was read from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from posttrain_crew.tools.literature.vocabulary import TRL_FIELDS

__all__ = [
    "FIELDS",
    "METHODS",
    "Compute",
    "DatasetNamed",
    "Evidence",
    "ExtractedRecipe",
    "HyperValue",
    "Rejected",
    "ReportedResult",
    "Stated",
    "TrainingMethod",
]

TrainingMethod = Literal["sft", "dpo", "grpo", "ppo", "rloo", "kto", "orpo"]
METHODS: tuple[TrainingMethod, ...] = ("sft", "dpo", "grpo", "ppo", "rloo", "kto", "orpo")

FIELDS: frozenset[str] = TRL_FIELDS | {"effective_batch_size"}
"""Names that hyper-parameters may have: TRL's, and the batch of one optimiser step over all devices, which papers
state and
TRL has no field for. `warmup_steps` below 1 is a share of all steps, as in transformers 5."""

HyperValue = bool | int | float | str


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Evidence(_Model):
    """Where something is stated, word for word, so that it can be found again."""

    section: str
    """Id of the section in the Document."""
    kind: Literal["sentence", "cell"]
    text: str = Field(min_length=1, max_length=4000)
    """The sentence (or caption), or the cell's text."""
    row: str = ""
    """For a cell: the names of its row."""
    column: str = ""
    """For a cell: the heads of its column."""


class Stated(_Model):
    """A value with its evidence."""

    value: HyperValue
    unit: str = ""
    """`tokens`, `steps`, `share of steps`, `sequences`, `prompts`, `hours`; empty where there is none."""
    evidence: Evidence


class DatasetNamed(_Model):
    """A dataset that the recipe trains on."""

    name: str
    hub_id: str | None = None
    """Where the paper gives one. Whether it is there is for the Hub to say."""
    arxiv_id: str | None = None
    """The paper that the text cites for it."""
    evidence: Evidence


class Compute(_Model):
    """On what, and how long one run took."""

    gpu: Stated | None = None
    count: Stated | None = None
    hours: Stated | None = None
    """Wall-clock hours of one run; GPU hours are not put here."""


class ReportedResult(_Model):
    """A score after training, and before it where the paper has both."""

    benchmark: str
    split: str | None = None
    metric: str | None = None
    before: float | None = None
    after: float
    evidence: Evidence
    before_evidence: Evidence | None = None


class ExtractedRecipe(_Model):
    """What was trained how on what, and what came of it."""

    arxiv_id: str
    method: TrainingMethod
    method_evidence: Evidence
    base_model: Stated | None = None
    """Hub id where the paper gives one, or the name in words."""
    datasets: tuple[DatasetNamed, ...] = ()
    hyperparameters: dict[str, Stated] = {}
    compute: Compute = Compute()
    scores: tuple[ReportedResult, ...] = ()
    by: Literal["rules", "llm"] = "rules"

    def settings(self) -> dict[str, HyperValue]:
        """Hyper-parameters without their evidence."""
        return {name: stated.value for name, stated in self.hyperparameters.items()}


class Rejected(_Model):
    """A field that was not believed."""

    field: str
    reason: str
