"""A job's model: loaded at its start, saved as a plain folder at its end."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from posttrain_crew.errors import ModelError
from posttrain_crew.tools.data.turn_end import end_ids, prepare_for_chat
from posttrain_crew.tools.training.config import TrainingConfig
from posttrain_crew.tools.training.lora import merge, quantization, uses_adapter
from posttrain_crew.tools.training.outcome import DiskFull, disk_is_full

__all__ = ["load_model", "save_model", "weights_are_finite"]


def load_model(config: TrainingConfig) -> tuple[Any, Any]:
    """(model, tokenizer) of the start checkpoint.

    Raises:
        ModelError: it is no causal language model, or is damaged.
        ConfigError: it is to be quantised where that cannot be done.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": "auto"}[config.dtype]
    if config.model.startswith(("/", "./", "../", "~")) and not Path(config.model).is_dir():
        raise ModelError(f"there is no model folder at `{config.model}`: `model` names it.")
    quantized = quantization(config)
    extra = {} if quantized is None else {"quantization_config": quantized}
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype, **extra)
    except torch.cuda.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"`{config.model}` cannot be loaded as a causal language model: {error}") from error
    except Exception as error:  # safetensors and tokenizers raise classes of their own
        if type(error).__module__.split(".")[0] in ("safetensors", "safetensors_rust", "tokenizers", "builtins"):
            raise ModelError(f"`{config.model}` cannot be loaded as a causal language model: {error}") from error
        raise
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of `{config.model}` has no end token, so the model could not learn to stop: set "
            "`eos_token`."
        )
    return model, tokenizer


def weights_are_finite(model: Any) -> bool:
    """Whether every weight is a number."""
    import torch

    with torch.no_grad():
        return all(bool(torch.isfinite(parameter.sum())) for parameter in model.parameters())


def save_model(trainer: Any, config: TrainingConfig, directory: Path, *, chat: bool) -> None:
    """The model as a plain Hugging Face folder, with its parent's tokenizer and generation config; after rows of turns
    (`chat`) with the end token and template that it was trained with (data/turn_end.py), so that it stops by itself.

    It appears by a rename when it is complete. Raises DiskFull; then nothing of it is left behind.
    """
    final = directory / config.output
    final.parent.mkdir(parents=True, exist_ok=True)
    # every process of a sharded run has to take part in gathering the weights, and to the same place
    shared = final.parent / f".{final.name}.saving"
    if trainer.is_world_process_zero():
        shutil.rmtree(shared, ignore_errors=True)  # what a kill left of it
    trainer.accelerator.wait_for_everyone()
    try:
        _write(trainer, config, shared, chat)
    except Exception as error:
        full = disk_is_full(error, final.parent)
        if trainer.is_world_process_zero():
            shutil.rmtree(shared, ignore_errors=True)
        if full:
            raise DiskFull(f"no room for the finished model at {final}", final.parent) from error
        raise
    if not trainer.is_world_process_zero():
        return
    if final.exists():
        final.rename(Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent)) / final.name)
    shared.rename(final)


def _write(trainer: Any, config: TrainingConfig, shared: Path, chat: bool) -> None:
    trainer.save_model(str(shared))
    if not trainer.is_world_process_zero():
        return
    if uses_adapter(config):
        merge(config, shared)
    from transformers import AutoTokenizer

    # loaded again: a trainer changes padding side and may change the chat template of the one it was given
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    parents, own = Path(config.model) / "generation_config.json", shared / "generation_config.json"
    given = _json(parents) if parents.is_file() else _json(own) if own.is_file() else {}
    if chat and prepare_for_chat(tokenizer, given.get("eos_token_id")):
        given["eos_token_id"] = end_ids(tokenizer.eos_token_id, given.get("eos_token_id"))
        own.write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")
    elif parents.is_file():
        shutil.copyfile(parents, own)
    tokenizer.save_pretrained(str(shared))
    (shared / "training_args.bin").unlink(missing_ok=True)  # a pickle of local paths


def _json(path: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return raw
