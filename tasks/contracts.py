"""What a specialist must return for a work order: one pydantic model per result type.

crewai validates an agent's last message against the model (`output_pydantic`); the loop then checks the ids in it
against the blackboard. Field descriptions are part of the prompt, so they are written for an LLM.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "RESULT_TYPES",
    "AdviceResult",
    "DataResult",
    "EvaluationResult",
    "LiteratureResult",
    "OrderDraft",
    "Plan",
    "RejectedDataset",
    "TrainingResult",
]

MAX_LITERATURE_WORDS = 1500
"""Of the literature agent's whole answer, ids included: what it read is on the blackboard."""


class _Contract(BaseModel):
    model_config = ConfigDict(extra="forbid")


class OrderDraft(_Contract):
    """A work order as the coordinator writes it."""

    specialist: str = Field(description="Name of the role to send the work to, one of the roster in the brief.")
    objective: str = Field(description="One or two sentences: what is wanted and why now.")
    inputs: list[str] = Field(default=[], description="Ids of blackboard entries that the specialist starts from.")
    parameters: dict[str, Any] = Field(
        default={}, description="Typed hints; the roster in the brief names those that each specialist understands."
    )
    budget_seconds: float = Field(gt=0, description="Wall-clock seconds that this order may use.")


class Plan(_Contract):
    """The coordinator's answer."""

    assessment: str = Field(description="What the blackboard shows now, in at most 120 words.")
    orders: list[OrderDraft] = Field(default=[], description="Work to send out now; empty to wait for running jobs.")
    finish: bool = Field(
        default=False,
        description="True when no further experiment is worth its cost; the final gate then decides on the best.",
    )
    finish_reason: str = Field(default="", description="Needed with finish: why no idea is left.")


class LiteratureResult(_Contract):
    """What the literature agent found."""

    recipes: list[str] = Field(description="Ids (rec-N) of the recipes posted to the blackboard, best first.")
    papers: list[str] = Field(description="Ids (pap-N) of the papers read.")
    summary: str = Field(
        max_length=10_000,
        description="At most 200 words: what is known to work for these needs, and how sure that is.",
    )

    @model_validator(mode="after")
    def _short(self) -> LiteratureResult:
        words = len(self.summary.split()) + len(self.recipes) + len(self.papers)
        if words > MAX_LITERATURE_WORDS:
            raise ValueError(f"the answer has {words} words; at most {MAX_LITERATURE_WORDS} are read, 200 are enough.")
        return self


class RejectedDataset(_Contract):
    """A dataset that is not used."""

    dataset: str
    reason: str = Field(description="With the measured number that decided it.")


class DataResult(_Contract):
    """What the data agent prepared."""

    profiles: list[str] = Field(description="Ids (prof-N) of all audits made.")
    training_sets: list[str] = Field(description="Ids (ts-N) of the training sets built, best first. May be empty.")
    rejected: list[RejectedDataset] = Field(default=[], description="Datasets left out, each with its reason.")
    summary: str = Field(description="At most 150 words.")


class TrainingResult(_Contract):
    """What the trainer did with an order."""

    experiment: str | None = Field(description="Id (exp-N) of the experiment, or null if it was refused.")
    job: str | None = Field(description="Label of the job that was launched, or null.")
    launched: bool
    reason: str = Field(description="Why this config; or, if nothing was launched, the failed check and the need.")


class EvaluationResult(_Contract):
    """What the evaluator started or found."""

    job: str | None = Field(description="Label of the evaluation job, or null if the scores were on the board already.")
    subject: str = Field(description="`base` or an experiment id.")
    reason: str


class AdviceResult(_Contract):
    """What a specialist contributes whose work fits none of the other types, for example one from a plugin."""

    findings: list[str] = Field(description="Each in one sentence, with the ids of the entries that show it.")
    summary: str = Field(description="At most 150 words.")


RESULT_TYPES: dict[str, type[BaseModel]] = {
    "plan": Plan,
    "literature": LiteratureResult,
    "data": DataResult,
    "training": TrainingResult,
    "evaluation": EvaluationResult,
    "advice": AdviceResult,
}
