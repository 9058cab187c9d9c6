"""The field names of the installed trainers' configs, read from their sources so that nobody has to import torch.

`trl.SFTConfig`, `trl.DPOConfig` and `trl.GRPOConfig` are dataclasses over `transformers.TrainingArguments`. Importing
them takes seconds and half a gigabyte; parsing the files takes a tenth of a second, and is right for whichever version
is installed. The fields of `trl.ModelConfig` that are about adapters stand beside them, as they do in TRL's own
scripts.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from posttrain_crew.errors import ConfigError

__all__ = [
    "ADAPTER_FIELDS",
    "RESERVED",
    "TrainerField",
    "TrainerMethod",
    "checked_value",
    "nearest_field",
    "trainer_fields",
]

TrainerMethod = Literal["sft", "dpo", "grpo"]

ADAPTER_FIELDS = (
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_target_parameters",
    "lora_modules_to_save",
    "use_rslora",
    "use_dora",
    "load_in_4bit",
    "load_in_8bit",
    "bnb_4bit_quant_type",
    "use_bnb_nested_quant",
    "bnb_4bit_quant_storage",
)
"""The fields of `trl.ModelConfig` that a job takes; the others it sets itself (`model`, `dtype`)."""

RESERVED: dict[str, str] = {
    "output_dir": "crew places checkpoints in the job's directory",
    "seed": "use the job-level key `seed`",
    "data_seed": "use the job-level key `seed`",
    "run_name": "use the job-level key `run_name`",
    "project": "use the job-level key `trackio_project`",
    "report_to": "metrics go to metrics.jsonl and trackio",
    "trackio_space_id": "tracking stays on this machine",
    "trackio_bucket_id": "tracking stays on this machine",
    "trackio_static_space_id": "tracking stays on this machine",
    "push_to_hub": "a job never uploads; `crew push RUN --to OWNER/NAME` publishes final_model/ when you approve",
    "reward_weights": "use the job-level key `reward` with a weight for each",
    "resume_from_checkpoint": "use the job-level key `resume`",
    "logging_nan_inf_filter": "crew keeps NaN visible, because the watch rules need it",
    "model_init_kwargs": "use the job-level keys `model` and `dtype`",
    "ignore_data_skip": "a resumed job has to see the rows that it has not seen yet",
    "save_only_model": "a checkpoint without optimizer and random state cannot be resumed",
}
"""Fields that the job sets itself, with what to do instead."""

_OTHER_NAMES = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "steps": "max_steps",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "max_new_tokens": "max_completion_length",
    "evaluation_strategy": "eval_strategy",
    "scheduler": "lr_scheduler_type",
    "group_size": "num_generations",
    "kl_coef": "beta",
    "no_cuda": "use_cpu",
    "warmup_ratio": "warmup_steps",
    "grad_accum": "gradient_accumulation_steps",
    "r": "lora_r",
    "lora_rank": "lora_r",
    "rank": "lora_r",
    "target_modules": "lora_target_modules",
    "lora": "use_peft",
    "qlora": "load_in_4bit",
    "dpo_beta": "beta",
    "dpo_loss_type": "loss_type",
    "max_prompt_length": "max_length",
}
_BASES = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
)
_OWN: dict[TrainerMethod, tuple[str, str, str]] = {
    "sft": ("trl", "trainer/sft_config.py", "SFTConfig"),
    "dpo": ("trl", "trainer/dpo_config.py", "DPOConfig"),
    "grpo": ("trl", "trainer/grpo_config.py", "GRPOConfig"),
}
_MODEL = ("trl", "trainer/model_config.py", "ModelConfig")
_QUOTED = re.compile(r"'(\w+)'")


@dataclass(frozen=True)
class TrainerField:
    """One field of a trainer's config."""

    name: str
    annotation: str
    """As the source has it, for example `int | None`."""
    default: Any
    """None where the source computes it."""
    choices: tuple[str, ...] = ()
    """Values that the source names, for the fields that it says have no others."""


@cache
def trainer_fields(method: TrainerMethod) -> dict[str, TrainerField]:
    """All fields by name, those of the subclasses over those of their base.

    Raises:
        ConfigError: trl or transformers is not installed, or is laid out in a way that this cannot read.
    """
    fields: dict[str, TrainerField] = {}
    for package, path, name in (*_BASES, _OWN[method]):
        fields.update((field.name, field) for field in _fields_of(package, path, name))
    adapter = (field for field in _fields_of(*_MODEL) if field.name in ADAPTER_FIELDS)
    fields.update((field.name, field) for field in adapter)
    return fields


def nearest_field(method: TrainerMethod, name: str) -> str | None:
    """The field that a wrong name probably means, or None."""
    fields = trainer_fields(method)
    known = _OTHER_NAMES.get(name.lower())
    if known in fields:
        return known
    close = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
    return close[0] if close else None


def checked_value(field: TrainerField, value: Any) -> Any:
    """The value in the field's type. YAML reads `2e-5` as text, so text that is a number becomes one where it must be.

    Raises:
        ConfigError: the value is of another type.
    """
    kinds = {part.strip().split("[")[0] for part in field.annotation.split("|")}
    plain = kinds & {"int", "float", "bool", "str", "None"}
    if plain != kinds or not plain:
        return value
    if isinstance(value, str) and "str" not in kinds:
        try:
            value = float(value)
        except ValueError:
            value = str(value)
    if isinstance(value, bool):
        good = "bool" in kinds
    elif isinstance(value, int):
        good = bool(kinds & {"int", "float"})
    elif isinstance(value, float):
        if "float" not in kinds and "int" in kinds and value.is_integer():
            value = int(value)
        good = "float" in kinds or isinstance(value, int)
    elif value is None:
        # TRL resolves several fields from None itself although their annotation does not say so
        good = "None" in kinds or field.default is None
    else:
        good = "str" in kinds
    if not good:
        raise ConfigError(f"`trainer.{field.name}` must be {field.annotation}, but {value!r} was given.")
    return value


def _fields_of(package: str, path: str, class_name: str) -> Iterator[TrainerField]:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the package `{package}` is not installed here: `pip install posttrain-crew` brings it.")
    source = Path(spec.submodule_search_locations[0]) / path
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise ConfigError(
            f"{source} cannot be read ({error}), so trainer fields cannot be checked. Install a version of "
            f"`{package}` that crew supports (see pyproject.toml)."
        ) from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    annotation = ast.unparse(item.annotation)
                    if not annotation.startswith("ClassVar"):
                        yield TrainerField(item.target.id, annotation, _default(item.value), _choices(item.value))
            return
    raise ConfigError(f"{source} has no class `{class_name}`: this version of `{package}` is not supported.")


def _default(value: ast.expr | None) -> Any:
    if isinstance(value, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in value.keywords}
        factory = keywords.get("default_factory")
        value = factory.body if isinstance(factory, ast.Lambda) else keywords.get("default")
    if value is None:
        return None
    try:
        return ast.literal_eval(value)
    except ValueError:
        return None


def _choices(value: ast.expr | None) -> tuple[str, ...]:
    """What a field's metadata lists as its choices, or its help after "Possible values are" or "Supported values are";
    () where neither does."""
    if not isinstance(value, ast.Call):
        return ()
    metadata = next((keyword.value for keyword in value.keywords if keyword.arg == "metadata"), None)
    try:
        told = ast.literal_eval(metadata) if metadata is not None else {}
        if isinstance(told.get("choices"), list):
            return tuple(str(choice) for choice in told["choices"])
        text = told["help"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
    found = re.search(r"(?:Possible|Supported) values are:?([^.]*)", str(text))
    names = _QUOTED.findall(found[1]) if found else []
    return tuple(names) if len(names) > 1 else ()
