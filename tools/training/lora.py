"""Adapters: LoRA on the weights as they are, QLoRA on weights in 4 or 8 bits, and how they become a plain model again.

The keys are those of TRL's ModelConfig (`use_peft`, `lora_r`, `load_in_4bit`, ...), among the trainer's own. An adapter
is trained alone; at the end it is added to the start checkpoint in its full precision, loaded afresh, so that the
finished model is a folder like any other, whether the training was sharded, quantised or neither.

Left out: other adapters than LoRA and its variants (DoRA, rank-stabilised), adapters that stay separate.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.training.config import TrainingConfig
from posttrain_crew.tools.training.launcher import load_whole
from posttrain_crew.tools.training.trainer_fields import ADAPTER_FIELDS

__all__ = ["adapter", "merge", "quantization", "trainer_arguments", "uses_adapter"]


def uses_adapter(config: TrainingConfig) -> bool:
    """Whether the job trains an adapter and not the weights themselves."""
    return bool(config.trainer.get("use_peft"))


def trainer_arguments(config: TrainingConfig) -> dict[str, Any]:
    """The trainer fields without those that are about the adapter."""
    return {name: value for name, value in config.trainer.items() if name not in ADAPTER_FIELDS}


def adapter(config: TrainingConfig) -> Any:
    """The `peft.LoraConfig` of a job, or None for full fine-tuning.

    Raises:
        ConfigError: peft is not installed, or does not take the values.
    """
    if not uses_adapter(config):
        return None
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(
            "`trainer.use_peft` needs the package `peft`, which is not installed here: `pip install peft`."
        )
    from trl.trainer.utils import get_peft_config

    try:
        return get_peft_config(_model_config(config))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the installed peft refuses the adapter of this config: {error}") from error


def quantization(config: TrainingConfig) -> Any:
    """The `transformers.BitsAndBytesConfig` of a job, or None where the weights are loaded as they are.

    Raises:
        ConfigError: there is no CUDA device, or bitsandbytes is not installed.
    """
    key = next((name for name in ("load_in_4bit", "load_in_8bit") if config.trainer.get(name)), None)
    if key is None:
        return None
    import torch

    missing = []
    if not torch.cuda.is_available():
        missing.append("a CUDA device (there is none here)")
    if importlib.util.find_spec("bitsandbytes") is None:
        missing.append("the package `bitsandbytes` (it is not installed here)")
    if missing:
        raise ConfigError(
            f"`trainer.{key}` (QLoRA) needs {' and '.join(missing)}. Train where it is, or leave `{key}` out: plain "
            "LoRA (`use_peft` alone) runs anywhere."
        )
    from trl.trainer.utils import get_quantization_config

    return get_quantization_config(_model_config(config))


def merge(config: TrainingConfig, folder: Path) -> None:
    """Replace the adapter that was saved in `folder` by the whole model that it makes of the start checkpoint.

    Needs the start checkpoint once more in main memory, in the job's `dtype`.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": "auto"}[config.dtype]
    load_whole()
    base = AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload(safe_merge=True)
    for name in ("README.md", "adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    merged.save_pretrained(str(folder))


def _model_config(config: TrainingConfig) -> Any:
    from trl.trainer.model_config import ModelConfig

    fields = {name: value for name, value in config.trainer.items() if name in ADAPTER_FIELDS}
    targets = fields.get("lora_target_modules")
    if isinstance(targets, str) and targets != "all-linear":
        fields["lora_target_modules"] = [targets]
    return ModelConfig(model_name_or_path=config.model, dtype=config.dtype, **fields)
