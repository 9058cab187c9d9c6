"""One training job as a YAML file: what to train on what, and the trainer's own fields.

    method: grpo
    model: runs/mini/experiments/exp-1/model
    data: runs/mini/data/4be1.../train.jsonl
    data_sha256: 4be1...
    reward: [{name: mcq_letter, weight: 1.0}]
    trainer: {learning_rate: 1.0e-4, max_steps: 60, num_generations: 8}

Everything under `trainer` is a field of TRL's SFTConfig, DPOConfig or GRPOConfig, or of its ModelConfig where it is
about adapters (`use_peft`, `lora_r`, ...), under its own name and with TRL's default where it is left out. Reading a
config imports no torch, so that a mistake is told in milliseconds.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.training.trainer_fields import (
    ADAPTER_FIELDS,
    RESERVED,
    TrainerMethod,
    checked_value,
    nearest_field,
    trainer_fields,
)

__all__ = [
    "RewardSpec",
    "TrainingConfig",
    "check_job",
    "check_trainer",
    "load",
    "one_name",
    "rewards_of",
    "trainer_value",
    "without_effect",
]


_SAME = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
}
"""New name to old name."""


class RewardSpec(BaseModel):
    """One reward of a GRPO job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """A built-in of rewards.py, or one that a plugin registers."""
    weight: float = 1.0


class TrainingConfig(BaseModel):
    """A training job. Relative paths are relative to the working directory of the job, which is its own directory."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    method: TrainerMethod
    model: str
    """Local directory of the parent checkpoint, or a Hub id."""
    data: Path
    """JSONL: `prompt` + `completion` or `messages` for SFT, `prompt` + `chosen` + `rejected` for DPO, `prompt` (+ what
    the rewards need) for GRPO."""
    data_sha256: str | None = None
    """Training refuses to start on a file with another hash. None skips the check, which crew's own runs never do."""
    eval_data: Path | None = None
    """Rows held out from the training data, same form, for `eval_strategy`. Never the benchmark's."""
    output: Path = Path("model")
    """Directory of the finished model, inside the job's directory; it appears by a rename when it is complete."""
    seed: int = 0
    max_seconds: float | None = Field(default=None, gt=0)
    """Wall time from the start of the process after which training stops cleanly and the model is saved."""
    environment: str | None = None
    """Python executable that the job runs in, on the machine where it runs; see environment.py."""
    resume: bool = False
    """Go on from the last complete checkpoint of an earlier attempt; from the beginning where there is none."""
    save_seconds: float | None = Field(default=30.0, gt=0)
    """Seconds between checkpoints for `resume`, more where one takes so long that it would cost over 2 % of the time;
    None for none but those of the trainer's `save_strategy`. A job that SIGTERM ends saves one more, unless None. They
    are gone once the model is saved."""
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

    @field_validator("reward", mode="before")
    @classmethod
    def _names_are_rewards(cls, value: Any) -> tuple[RewardSpec, ...]:
        try:
            return rewards_of(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @field_validator("trainer", mode="before")
    @classmethod
    def _nothing_is_no_field(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("answer_template")
    @classmethod
    def _has_a_place_for_the_answer(cls, value: str) -> str:
        if value.count("{answer}") != 1 or not value.split("{answer}")[0].strip():
            raise ValueError("must hold `{answer}` once, with some text before it, as in `Answer: {answer}`")
        return value


def rewards_of(given: Any) -> tuple[RewardSpec, ...]:
    """From a name, a list of names, or a list of {name, weight}. Raises ConfigError for anything else."""
    parts = [] if given is None else [given] if isinstance(given, str | dict | RewardSpec) else given
    try:
        return tuple(
            RewardSpec(name=part) if isinstance(part, str) else RewardSpec.model_validate(part) for part in parts
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`reward` must be a name or a list of {{name, weight}}, but is {given!r}.") from error


def load(path: Path) -> TrainingConfig:
    """Read and check a config file.

    Raises:
        ConfigError: the file is no YAML mapping, or anything in it is not valid (see `check_trainer`, `check_job`).
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
        problems = "; ".join(
            f"`{'.'.join(map(str, e['loc']))}`: "
            + (_meant(str(e["loc"][-1]), raw) if e["type"] == "extra_forbidden" else e["msg"])
            for e in error.errors()
        )
        raise ConfigError(f"the training config {path} is not valid: {problems.rstrip('.')}.") from error
    config = config.model_copy(update={"trainer": check_trainer(config.method, config.trainer)})
    check_job(config)
    return config


def _meant(name: str, raw: dict[str, Any]) -> str:
    """What to do about an unknown key."""
    near = difflib.get_close_matches(name, TrainingConfig.model_fields, n=1)
    if near:
        return f"there is no such key; did you mean `{near[0]}`?"
    method = raw.get("method")
    if method in ("sft", "dpo", "grpo") and (field := nearest_field(method, name)) is not None:
        return f"there is no such key here; it belongs under `trainer`{'' if field == name else f', as `{field}`'}"
    return f"there is no such key; there are {', '.join(TrainingConfig.model_fields)}"


def check_job(config: TrainingConfig) -> None:
    """What `check_trainer` cannot see, and what a smoke run, which neither evaluates nor saves, would not meet.

    Raises:
        ConfigError: keys of the job contradict its trainer fields.
    """
    if config.reward and config.method != "grpo":
        raise ConfigError(f"`reward` belongs to GRPO: leave it out of a {config.method.upper()} job.")
    evaluates = str(trainer_value(config.method, config.trainer, "eval_strategy") or "no")
    if evaluates != "no" and config.eval_data is None:
        raise ConfigError(
            f"`trainer.eval_strategy: {evaluates}` needs rows to evaluate on: name a file of them under `eval_data`, "
            "or leave it out."
        )
    saves = str(config.trainer.get("save_strategy", "no"))
    if config.trainer.get("load_best_model_at_end") and (evaluates == "no" or saves not in (evaluates, "best")):
        raise ConfigError(
            "`trainer.load_best_model_at_end` chooses among checkpoints by their evaluation: set `eval_data`, and both "
            f"`eval_strategy` and `save_strategy` to `steps` or `epoch` (they are `{evaluates}` and `{saves}`)."
        )


def check_trainer(method: TrainerMethod, trainer: dict[str, Any]) -> dict[str, Any]:
    """The trainer fields in their types.

    Raises:
        ConfigError: a field is unknown to the installed trainer (with the one that was probably meant), is the job's
            own to set, has the wrong type, or contradicts another.
    """
    fields = trainer_fields(method)
    checked: dict[str, Any] = {}
    for name, value in one_name(trainer).items():
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


def one_name(trainer: dict[str, Any]) -> dict[str, Any]:
    """The fields with each setting under one name, the one that the rest of crew reads. transformers 5 has two names
    for some, and takes the new one where both are there. Raises ConfigError where they say different things."""
    named = dict(trainer)
    for new, old in _SAME.items():
        if new in named and named.setdefault(old, named[new]) != named.pop(new):
            raise ConfigError(f"`trainer.{new}` and `trainer.{old}` are one setting, and say different things.")
    return named


def trainer_value(method: TrainerMethod, trainer: dict[str, Any], name: str) -> Any:
    """A field's value, or the installed trainer's default."""
    if name in trainer:
        return trainer[name]
    field = trainer_fields(method).get(name)
    return None if field is None else field.default


def _check_together(method: TrainerMethod, trainer: dict[str, Any]) -> None:
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
    _check_adapter(trainer, value)
    _check_choices(method, trainer)
    if method == "grpo":
        _check_grpo(value)
        return
    length = value("max_length")
    if length is not None and length < 1:
        raise ConfigError(f"`trainer.max_length` must be at least 1, but is {length}.")
    if method == "dpo":
        _check_dpo(value)


def _check_adapter(trainer: dict[str, Any], value: Callable[[str], Any]) -> None:
    if not value("use_peft"):
        stray = next(
            (name for name in ADAPTER_FIELDS if name != "use_peft" and name in trainer and trainer[name]), None
        )
        if stray is not None:
            raise ConfigError(
                f"`trainer.{stray}` is about an adapter, but `trainer.use_peft` is not set, so all weights would be "
                "trained. Set `use_peft: true` or leave it out."
            )
        return
    if value("lora_r") < 1 or value("lora_alpha") <= 0:
        raise ConfigError(
            f"`trainer.lora_r` must be at least 1 and `trainer.lora_alpha` above 0, but they are {value('lora_r')} and "
            f"{value('lora_alpha')}."
        )
    if not 0 <= value("lora_dropout") < 1:
        raise ConfigError(f"`trainer.lora_dropout` must be in [0, 1), but is {value('lora_dropout')}.")
    if value("load_in_4bit") and value("load_in_8bit"):
        raise ConfigError("`trainer.load_in_4bit` and `trainer.load_in_8bit` exclude each other: choose one.")
    quantised = next((name for name in ("load_in_4bit", "load_in_8bit") if value(name)), None)
    if quantised and value("use_cpu"):
        raise ConfigError(
            f"`trainer.{quantised}` (QLoRA) needs a CUDA device and bitsandbytes, but `trainer.use_cpu` is set. Leave "
            "out one of them; plain LoRA (`use_peft` alone) runs on a CPU."
        )
    if value("sync_ref_model"):
        raise ConfigError(
            "`trainer.sync_ref_model` has no reference model to move with `trainer.use_peft`: the reference is the "
            "model without its adapter. Leave out one of them."
        )


def _check_choices(method: TrainerMethod, trainer: dict[str, Any]) -> None:
    """Some of these the trainer itself would not refuse: it shuffles for every order of rows that it does not know."""
    for name, given in trainer.items():
        choices = trainer_fields(method)[name].choices
        for value in given if isinstance(given, list) else [given]:
            if choices and isinstance(value, str) and value not in choices:
                near = difflib.get_close_matches(value, choices, n=1)
                raise ConfigError(
                    f"the installed {method.upper()} trainer has no `{name}` `{value}`."
                    + (f" Did you mean `{near[0]}`?" if near else f" It has {', '.join(choices)}.")
                )


def _check_dpo(value: Callable[[str], Any]) -> None:
    if not value("beta") > 0:
        raise ConfigError(
            f"`trainer.beta` must be above 0 for DPO, but is {value('beta')}: with 0 the loss does not depend on the "
            "model."
        )
    losses = value("loss_type")
    losses = [losses] if isinstance(losses, str) else list(losses or [])
    weights = value("loss_weights")
    if weights is not None and len(weights) != len(losses):
        raise ConfigError(f"`trainer.loss_weights` has {len(weights)} weights for {len(losses)} values of `loss_type`.")
    if "robust" in losses and not 0 <= value("label_smoothing") < 0.5:
        raise ConfigError("`trainer.label_smoothing` must be in [0, 0.5) for `loss_type: robust`.")
    if value("sync_ref_model") and value("precompute_ref_log_probs"):
        raise ConfigError(
            "`trainer.sync_ref_model` moves the reference model, and `trainer.precompute_ref_log_probs` needs one "
            "that stays as it is: leave out one of them."
        )


def _check_grpo(value: Callable[[str], Any]) -> None:
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
    if value("sync_ref_model") and not value("beta"):
        raise ConfigError(
            "`trainer.sync_ref_model` has no reference model to move while `trainer.beta` is 0: set `beta` above 0."
        )
    if value("use_vllm"):
        _check_vllm(value)


def _check_vllm(value: Callable[[str], Any]) -> None:
    if value("use_cpu"):
        raise ConfigError(
            "`trainer.use_vllm` needs an accelerator, but `trainer.use_cpu` is set: leave out one of them."
        )
    mode = value("vllm_mode")
    if mode not in ("colocate", "server"):
        raise ConfigError(f"`trainer.vllm_mode` must be `colocate` or `server`, but is {mode!r}.")
    share = value("vllm_gpu_memory_utilization")
    if not 0 < share < 1:
        raise ConfigError(
            f"`trainer.vllm_gpu_memory_utilization` must be above 0 and below 1, but is {share}: it is vLLM's share of "
            "the GPU's memory, and the rest is for the training."
        )
    if value("vllm_tensor_parallel_size") < 1:
        raise ConfigError("`trainer.vllm_tensor_parallel_size` must be at least 1.")
    address = value("vllm_server_base_url")
    if address is not None and not str(address).startswith(("http://", "https://")):
        raise ConfigError(f"`trainer.vllm_server_base_url` must begin with http:// or https://, but is {address!r}.")
    mask, masks = value("vllm_importance_sampling_mode"), ("token_truncate", "token_mask")
    if value("loss_type") == "vespo" and value("vllm_importance_sampling_correction") and mask not in masks:
        raise ConfigError(
            f"`trainer.loss_type: vespo` with vLLM needs `vllm_importance_sampling_mode: {masks[0]}` or `{masks[1]}`, "
            f"but it is `{mask}`."
        )


_NEEDS: tuple[tuple[str, str, Any, str], ...] = (
    ("vllm_", "use_vllm", True, "only sampling with vLLM reads it"),
    ("vllm_server_", "vllm_mode", "server", "`vllm_mode` is not `server`"),
    ("vllm_group_port", "vllm_mode", "server", "`vllm_mode` is not `server`"),
    ("vllm_gpu_memory_utilization", "vllm_mode", "colocate", "the server has its own, given where it is started"),
    ("vllm_tensor_parallel_size", "vllm_mode", "colocate", "the server has its own, given where it is started"),
    ("vllm_max_model_length", "vllm_mode", "colocate", "the server has its own, given where it is started"),
    ("vllm_enable_sleep_mode", "vllm_mode", "colocate", "`vllm_mode` is not `colocate`"),
    ("save_steps", "save_strategy", "steps", "`save_strategy` is not `steps`"),
    ("eval_steps", "eval_strategy", "steps", "`eval_strategy` is not `steps`"),
    ("gradient_checkpointing_kwargs", "gradient_checkpointing", True, "`gradient_checkpointing` is off"),
    ("packing_strategy", "packing", True, "`packing` is off"),
    ("ref_model_", "sync_ref_model", True, "`sync_ref_model` is off"),
    (
        "f_alpha_divergence_coef",
        "f_divergence_type",
        "alpha_divergence",
        "`f_divergence_type` is not `alpha_divergence`",
    ),
    ("bnb_4bit_", "load_in_4bit", True, "`load_in_4bit` is off"),
    ("entropy_coef_", "use_adaptive_entropy", True, "`use_adaptive_entropy` is off"),
    ("entropy_target", "use_adaptive_entropy", True, "`use_adaptive_entropy` is off"),
)
"""(field or start of its name, field that it needs, value that it needs, what to say): of TRL 1.16 and transformers
5.23."""


def without_effect(method: TrainerMethod, trainer: dict[str, Any], eval_data: Path | None = None) -> list[str]:
    """One line for each field that is set and that the trainer will not read as the rest of the config stands.

    Args:
        eval_data: of the job.

    What a trainer drops by itself while it is made, it says in warnings of its own; a job's notes hold both.
    """

    def value(name: str) -> Any:
        # a job's own default: the clock of `save_seconds` saves
        return trainer.get(name, "no") if name == "save_strategy" else trainer_value(method, trainer, name)

    notes = [
        f"`{name}` has no effect: {reason}"
        for name in trainer
        for start, needed, wanted, reason in _NEEDS
        if name.startswith(start) and needed in trainer_fields(method) and value(needed) != wanted
    ]
    if eval_data is not None and value("eval_strategy") == "no":
        notes.append("`eval_data` has no effect: `eval_strategy` is `no`; set it to `steps` or `epoch`")
    if method == "grpo" and "train_sampling_strategy" in trainer:
        notes.append(
            "`train_sampling_strategy` has no effect: GRPO reads `shuffle_dataset`, and `false` keeps the file's order"
        )
    if method == "sft" and value("packing") and value("train_sampling_strategy") == "sequential":
        notes.append("`train_sampling_strategy` keeps the order of packs, not of the file: packing mixes rows")
    if "num_train_epochs" in trainer and value("max_steps") > 0:
        notes.append(f"`num_train_epochs` has no effect: `max_steps` {value('max_steps')} decides")
    if trainer.get("warmup_steps") and value("lr_scheduler_type") == "constant":
        notes.append("`warmup_steps` has no effect: `lr_scheduler_type` is `constant`; `constant_with_warmup` has one")
    if method == "dpo":
        losses = value("loss_type")
        for name, losses_that_read in (
            ("discopop_tau", {"discopop"}),
            ("label_smoothing", {"robust", "exo_pair", "aot", "aot_unpaired"}),
        ):
            if trainer.get(name) and not losses_that_read & set([losses] if isinstance(losses, str) else losses):
                notes.append(f"`{name}` has no effect: `loss_type` is not {' or '.join(sorted(losses_that_read))}")
        if trainer.get("padding_free"):
            notes.append("`padding_free` has no effect: the installed DPO trainer pads nevertheless")
    return notes
