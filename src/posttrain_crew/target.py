"""Targets: the benchmarks to raise, one YAML file each.

A target names its lm-eval tasks, how an answer looks, the base model, where candidates for training data are found, and
what it needs of the machine. Look-up order of a name: a path to a YAML file, `./targets/`, the user's config directory,
then plugins and the targets shipped with crew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posttrain_crew.errors import TargetError

__all__ = ["Answer", "DefaultBudget", "EvaluationTask", "Requirements", "Target", "Training", "load_target"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EvaluationTask(_Part):
    """How the benchmark is scored with lm-eval."""

    dev_task: str
    """lm-eval task whose items are used for every choice during the run."""
    test_task: str
    """lm-eval task whose items only the final gate sees."""
    include_path: str | None = None
    """Folder of task YAMLs: `builtin:NAME` for one shipped with crew, or a path (relative to the target's file)."""
    metric: str = "exact_match"
    strict_filter: str = "strict-match"
    lenient_filter: str = "flexible-extract"
    invalid_answer: str = "[invalid]"
    """What the filter returns where no answer was found."""
    apply_chat_template: bool = True
    batch_size: int = Field(default=64, ge=1)
    few_shot_reference: int = Field(default=3, ge=0)
    """Examples in the prompt of the few-shot reference evaluation of the base; 0 leaves it out."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first items of each split: for trying a target out. None is the whole benchmark."""


class Answer(_Part):
    """The form in which the benchmark wants an answer, and how it is checked."""

    kind: Literal["choice", "number", "exact"] = "choice"
    labels: str = "ABCD"
    template: str = "Answer: {answer}"
    """The line that a completion must end with."""
    prompt: str = "{question}\n{choices}"
    choice: str = "({label}) {text}"
    """One line of {choices}."""


class Training(_Part):
    """Starting points for this base model; a recipe may change them."""

    sft: dict[str, float | int | str | bool] = {}
    dpo: dict[str, float | int | str | bool] = {}
    """On top of those of `sft` that are about the machine, which hold for DPO, too."""
    grpo: dict[str, float | int | str | bool] = {}
    seconds_per_step: dict[Literal["sft", "dpo", "grpo"], float] = {}
    """First guess for the planner; replaced by what the run measures."""
    evaluation_seconds: float = 60.0
    startup_seconds: float = 15.0


class Requirements(_Part):
    """What a run on this target needs."""

    gpu_memory_gib: float = 0.0
    gated_dataset: str | None = None
    network: bool = False
    disk_gib: float = 1.0


class DefaultBudget(_Part):
    hours: Annotated[float, Field(gt=0)] = 1.0


class Target(_Part):
    """A benchmark to raise."""

    name: str
    title: str
    description: str
    domains: list[str] = []
    base_model: str
    """`builtin:NAME` for a model that crew makes, a local path, or a Hub id."""
    evaluation: EvaluationTask
    answer: Answer = Answer()
    items: str
    """Where the benchmark's items are read for contamination checks: `builtin:NAME`, `jsonl:PATH`, `hf:DATASET`."""
    candidates: list[str] = []
    """Where candidates for training data are found: `builtin:NAME` or a path to a folder of datasets."""
    sources: str = "shipped"
    """Where papers and datasets are looked up unless the user says otherwise: `shipped`, `live`, `live,shipped`."""
    deny_datasets: list[str] = []
    """Datasets that must never be trained on, by name or glob."""
    goal: float | None = Field(default=None, ge=0, le=1)
    """Strict dev score at which the run has reached what it set out for."""
    training: Training = Training()
    requires: Requirements = Requirements()
    budget: DefaultBudget = DefaultBudget()
    origin: Path | None = Field(default=None, exclude=True)
    """The file it was read from."""


def load_target(path: Path) -> Target:
    """Read and check one target file.

    Raises:
        TargetError: missing, no YAML, or a key is unknown, missing or of the wrong type, naming each.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise TargetError(f"the target file {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise TargetError(f"the target file {path} must hold a YAML mapping with `name`, `base_model`, `evaluation`.")
    try:
        return Target.model_validate({**raw, "origin": path})
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        raise TargetError(
            f"the target file {path} is not valid: {problems}. Compare it with `crew targets show gpqa-mini`."
        ) from error
