"""One training job as a YAML file: what to train on what, and the trainer's own fields.

    method: grpo
    model: runs/mini/experiments/exp-1/model
    data: runs/mini/data/4be1.../train.jsonl
    data_sha256: 4be1...
    reward: [{name: mcq_letter, weight: 1.0}]
    trainer: {learning_rate: 1.0e-4, max_steps: 60, num_generations: 8}

Everything under `trainer` is a field of TRL's SFTConfig or GRPOConfig, under its own name and with TRL's default where
it is left out. Reading a config imports no torch, so that a mistake is told in milliseconds.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.training.trainer_fields import RESERVED, checked_value, nearest_field, trainer_fields

__all__ = ["RewardSpec", "TrainingConfig", "check_trainer", "load", "trainer_value"]


class RewardSpec(BaseModel):
    """One reward of a GRPO job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """A built-in of rewards.py, or one that a plugin registers."""
    weight: float = 1.0


class TrainingConfig(BaseModel):
    """A training job. Relative paths are relative to the working directory of the job, which is its own directory."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    method: Literal["sft", "grpo"]
    model: str
    """Local directory of the parent checkpoint, or a Hub id."""
    data: Path
    """JSONL: `prompt` + `completion` or `messages` for SFT, `prompt` (+ what the rewards need) for GRPO."""
    data_sha256: str | None = None
    """Training refuses to start on a file with another hash. None skips the check, which crew's own runs never do."""
    eval_data: Path | None = None
    """Rows held out from the training data, same form, for `eval_strategy`. Never the benchmark's."""
    output: Path = Path("model")
    """Directory of the finished model, inside the job's directory; it appears by a rename when it is complete."""
    seed: int = 0
    max_seconds: float | None = Field(default=None, gt=0)
    """Wall time from the start of the process after which training stops cleanly and the model is saved."""
    resume: bool = False
    """Go on from the last complete checkpoint of an earlier attempt; from the beginning where there is none."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Type of the weights while training; float32 with `trainer.bf16` is mixed precision."""
    trackio_project: str | None = None
    trackio_dir: Path | None = None
    run_name: str | None = None
    smoke: bool = False
    """Two steps on the longest rows and nothing saved: does this config run here at all?"""
    reward: tuple[RewardSpec, ...] = ()
    """GRPO only."""
    answer_template: str = "Answer: {answer}"
    """The line a completion must end with; the target's."""
    answer_labels: str = "ABCD"
    """Letters of a multiple-choice target."""
    trainer: dict[str, Any] = {}

    @field_validator("answer_template")
    @classmethod
    def _has_a_place_for_the_answer(cls, value: str) -> str:
        if value.count("{answer}") != 1 or not value.split("{answer}")[0].strip():
            raise ValueError("must hold `{answer}` once, with some text before it, as in `Answer: {answer}`")
        return value


def load(path: Path) -> TrainingConfig:
    """Read and check a config file.

    Raises:
        ConfigError: the file is no YAML mapping, or anything in it is not valid (see `check_trainer`).
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the training config {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"the training config {path} must hold a YAML mapping with `method`, `model`, `data`.")
    try:
        config = TrainingConfig.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        raise ConfigError(f"the training config {path} is not valid: {problems}.") from error
    return config.model_copy(update={"trainer": check_trainer(config.method, config.trainer)})


def check_trainer(method: Literal["sft", "grpo"], trainer: dict[str, Any]) -> dict[str, Any]:
    """The trainer fields in their types.

    Raises:
        ConfigError: a field is unknown to the installed trainer (with the one that was probably meant), is the job's
            own to set, has the wrong type, or contradicts another.
    """
    fields = trainer_fields(method)
    checked: dict[str, Any] = {}
    for name, value in trainer.items():
        if name in RESERVED:
            raise ConfigError(f"`trainer.{name}` is not free: {RESERVED[name]}.")
        if name not in fields:
            near = nearest_field(method, name)
            raise ConfigError(
                f"the installed {method.upper()} trainer has no field `{name}`."
                + (f" Did you mean `{near}`?" if near else " `crew train --help` tells where the names come from.")
            )
        checked[name] = checked_value(fields[name], value)
    _check_together(method, checked)
    return checked


def trainer_value(method: Literal["sft", "grpo"], trainer: dict[str, Any], name: str) -> Any:
    """A field's value, or the installed trainer's default."""
    if name in trainer:
        return trainer[name]
    field = trainer_fields(method).get(name)
    return None if field is None else field.default


def _check_together(method: Literal["sft", "grpo"], trainer: dict[str, Any]) -> None:
    def value(name: str) -> Any:
        return trainer_value(method, trainer, name)

    rate = value("learning_rate")
    if not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
        raise ConfigError(f"`trainer.learning_rate` must be a positive number, but is {rate}.")
    if value("max_steps") <= 0 and value("num_train_epochs") <= 0:
        raise ConfigError(
            "nothing would be trained: `trainer.max_steps` and `trainer.num_train_epochs` are both 0 or less. "
            "Set one of them."
        )
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if value(name) < 1:
            raise ConfigError(f"`trainer.{name}` must be at least 1, but is {value(name)}.")
    if value("fp16") and value("bf16"):
        raise ConfigError("`trainer.fp16` and `trainer.bf16` exclude each other: choose one.")
    if value("use_cpu") and value("fp16"):
        raise ConfigError("`trainer.fp16` needs an accelerator, but `trainer.use_cpu` is set: leave out one of them.")
    if method == "sft":
        length = value("max_length")
        if length is not None and length < 1:
            raise ConfigError(f"`trainer.max_length` must be at least 1, but is {length}.")
        return
    group = value("num_generations")
    if group is None or group < 2:
        raise ConfigError(
            f"`trainer.num_generations` must be at least 2, but is {group}: GRPO compares the completions of a group."
        )
    batch, accumulation = value("per_device_train_batch_size"), value("gradient_accumulation_steps")
    if value("generation_batch_size") is not None and value("steps_per_generation") is not None:
        raise ConfigError("`trainer.generation_batch_size` and `trainer.steps_per_generation` exclude each other.")
    generated = value("generation_batch_size") or batch * (value("steps_per_generation") or accumulation)
    if generated % group:
        raise ConfigError(
            f"a generation batch of {generated} completions (`trainer.per_device_train_batch_size` {batch} x "
            f"{generated // batch}) is not divisible by `trainer.num_generations` {group}. "
            f"Use a batch of {max(group, generated // group * group)}, or another group size."
        )
    if (value("max_completion_length") or 1) < 1:
        raise ConfigError("`trainer.max_completion_length` must be at least 1.")
    if value("temperature") is not None and value("temperature") <= 0:
        raise ConfigError("`trainer.temperature` must be above 0: without chance all completions of a group are equal.")
    if value("auto_find_batch_size"):
        raise ConfigError("`trainer.auto_find_batch_size` cannot be used with GRPO: it would break up the groups.")
