"""How long a job takes and how much memory it needs, said before it is launched.

Time comes from the run's own finished jobs where there are any, and from the target's first guess until then. Memory is
a formula: it decides whether a launch is hopeless, and the smoke run, on the longest rows, has the last word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from posttrain_crew.entries import Experiment, JobOutcome, JobStarted, TrainingSet
from posttrain_crew.errors import ModelError
from posttrain_crew.state import RunState
from posttrain_crew.tools.training.config import trainer_value
from posttrain_crew.tools.workspace import Workspace

__all__ = ["ModelShape", "estimate_seconds", "memory_gib", "model_shape", "steps_of", "trained_parameters"]

Method = Literal["sft", "dpo", "grpo"]

PROCESS_GIB = 1.0
"""Python, torch and the trainer before a model is loaded; measured 0.7 (SFT) and 1.0 (GRPO) with the embedded base."""
DPO_PASSES = 8 / 3
"""A pair is two rows, each with a forward pass of the reference beside forward and backward (2 units): 2 x 4 / 3 of
SFT."""
DEFAULT_SECONDS_PER_STEP = 5.0
"""Where neither the run nor the target knows better. A guess."""


@dataclass(frozen=True)
class ModelShape:
    """Of a model directory, what memory depends on."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    kv_width: int
    """Key and value heads x head size."""
    architecture: str


def steps_of(method: Method, trainer: Mapping[str, Any], rows: int) -> int:
    """Optimizer steps of a job on one process."""

    def value(name: str) -> Any:
        return trainer_value(method, dict(trainer), name)

    if value("max_steps") > 0:
        return int(value("max_steps"))
    per_step = int(value("per_device_train_batch_size")) * int(value("gradient_accumulation_steps"))
    if method == "grpo":
        group, times = int(value("num_generations")), int(value("num_iterations") or 1)
        return max(1, math.ceil(rows * group / per_step * float(value("num_train_epochs")) * times))
    return max(1, math.ceil(math.ceil(rows / per_step) * float(value("num_train_epochs"))))


def estimate_seconds(workspace: Workspace, method: Method, trainer: Mapping[str, Any], rows: int) -> float:
    """Wall seconds of a job with its start and its saving."""
    startup, per_step = _measured(workspace, method, trainer)
    training = workspace.target.training
    if startup is None:
        startup = training.startup_seconds
    if per_step is None:
        start = training.grpo if method == "grpo" else training.sft
        base = training.seconds_per_step.get("grpo" if method == "grpo" else "sft", DEFAULT_SECONDS_PER_STEP)
        if method == "dpo":
            base *= DPO_PASSES
        per_step = base * _scale(method, trainer, start)
    return startup + steps_of(method, trainer, rows) * per_step


def memory_gib(method: Method, trainer: Mapping[str, Any], shape: ModelShape, max_tokens: int) -> float:
    """Peak memory of a job on one process, GiB, in float32 with AdamW.

    Parameters x 16 bytes: weights 4, gradients 4, two moments 8; x 4 more for the reference model of DPO and of GRPO
    with beta > 0. With LoRA the weights alone (4 bytes; about 0.6 in 4 bits, 1.1 in 8 bits), no reference model, and 16
    bytes for each parameter of the adapter: rank x (width in + width out) of each target, here the four projections of
    attention, or all seven of a block. DPO has two rows, chosen and rejected, where SFT has one.
    Activations, per token in a forward pass: 68 bytes x hidden x layers (34 bytes in 16 bits, Korthikanti et al. 2022,
    arXiv:2205.05198, eq. 1), or 4 x hidden x layers + 68 x hidden with gradient checkpointing; attention scores are not
    stored by the fused kernels. Logits: 3 x 4 bytes x vocabulary a token (logits, their gradient, log-softmax).
    Sampling keeps 8 bytes x kv width x layers a token, at another time than the backward pass.

    Args:
        max_tokens: tokens of the longest row of the training set (of the prompt, for GRPO).
    """

    def value(name: str) -> Any:
        return trainer_value(method, dict(trainer), name)

    batch = int(value("per_device_train_batch_size")) * (2 if method == "dpo" else 1)
    if method == "grpo":
        length = max_tokens + int(value("max_completion_length") or 256)
    else:
        length = min(max_tokens, int(value("max_length") or max_tokens))
    tokens = batch * max(1, length)
    width = 2 if value("bf16") and not value("use_cpu") else 4  # bytes of an activation under autocast
    per_layer = 17 * width * shape.hidden
    if value("gradient_checkpointing"):
        activations = tokens * (width * shape.hidden * shape.layers + per_layer)
    else:
        activations = tokens * per_layer * shape.layers
    logits = tokens * shape.vocabulary * 4 * 3
    sampling = tokens * shape.kv_width * shape.layers * 8 if method == "grpo" else 0
    weights = _weight_bytes(method, value, shape)
    return float(PROCESS_GIB + (weights + max(activations + logits, sampling)) / 2**30)


def trained_parameters(method: Method, trainer: Mapping[str, Any], shape: ModelShape) -> int:
    """Parameters that get a gradient: all of them, or those of the adapter."""

    def value(name: str) -> Any:
        return trainer_value(method, dict(trainer), name)

    if not value("use_peft"):
        return shape.parameters
    targets = value("lora_target_modules")
    whole_block = targets == "all-linear" or (isinstance(targets, list) and len(targets) > 4)
    # width in + width out of q, k, v, o; and of gate, up, down, with the usual 8/3 to 4 times the hidden width
    widths = 4 * shape.hidden + 2 * (shape.hidden + shape.kv_width) + (3 * 5 * shape.hidden if whole_block else 0)
    return min(shape.parameters, int(value("lora_r")) * widths * shape.layers)


def _weight_bytes(method: Method, value: Callable[[str], Any], shape: ModelShape) -> float:
    reference = method == "dpo" and not value("precompute_ref_log_probs")
    reference = reference or (method == "grpo" and (value("beta") or 0) > 0)
    if not value("use_peft"):
        return shape.parameters * (20 if reference else 16)
    each = 0.6 if value("load_in_4bit") else 1.1 if value("load_in_8bit") else 4.0
    names = ("use_peft", "lora_r", "lora_target_modules")
    return shape.parameters * each + 16 * trained_parameters(method, {name: value(name) for name in names}, shape)


def model_shape(folder: Path) -> ModelShape:
    """Read config.json and the headers of the weight files; no weights are loaded.

    Raises:
        ModelError: there is no model in safetensors form.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parameters = sum(_parameters(path) for path in folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder} is no model directory with config.json and *.safetensors files: {error}") from error
    if not parameters:
        raise ModelError(f"{folder} holds no weights as *.safetensors: save the model with `save_pretrained`.")
    text = config.get("text_config", config)
    heads = int(text.get("num_attention_heads", 1))
    hidden = int(text.get("hidden_size", 0))
    head = int(text.get("head_dim") or hidden // max(1, heads))
    return ModelShape(
        parameters=parameters,
        layers=int(text.get("num_hidden_layers", 0)),
        hidden=hidden,
        vocabulary=int(text.get("vocab_size", 0)),
        kv_width=int(text.get("num_key_value_heads") or heads) * head,
        architecture=",".join(config.get("architectures") or [str(config.get("model_type"))]),
    )


def _parameters(path: Path) -> int:
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _measured(workspace: Workspace, method: Method, trainer: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(startup, per step) seconds: medians over this run's finished training jobs of the method."""
    jobs = {job.body.label: job.body for job in workspace.board.of(JobStarted) if job.body.role == "train"}
    views = RunState.of(workspace.board).experiments
    startups, steps = [], []
    for outcome in workspace.board.of(JobOutcome):
        job = jobs.get(outcome.body.label)
        view = views.get(job.subject) if job is not None else None
        measured = outcome.body.metrics
        if view is None or view.entry.body.method != method or not outcome.body.ok:
            continue
        if "startup_s" in measured:
            startups.append(measured["startup_s"] + measured.get("save_s", 0.0))
        if outcome.body.steps >= 2 and measured.get("seconds_per_step", 0.0) > 0:
            steps.append(measured["seconds_per_step"] * _scale(method, trainer, _trainer_of(view.entry.body)))
    return (median(startups) if startups else None), (median(steps) if steps else None)


def _trainer_of(experiment: Experiment) -> dict[str, Any]:
    return {name: value for name, value in experiment.config.items() if name != "reward"}


def _scale(method: Method, trainer: Mapping[str, Any], reference: Mapping[str, Any]) -> float:
    """How much more work a step of `trainer` is than one of `reference`: tokens, at most. Bounded to 1/8 ... 8."""

    def tokens(fields: Mapping[str, Any]) -> float:
        def value(name: str) -> Any:
            return trainer_value(method, dict(fields), name)

        rows = int(value("per_device_train_batch_size")) * int(value("gradient_accumulation_steps"))
        # SFT pads to the longest row and not to max_length; GRPO's length limit bounds what sampling can cost
        return float(rows * (int(value("max_completion_length") or 256) if method == "grpo" else 1))

    return min(8.0, max(0.125, tokens(trainer) / tokens(reference)))


def rows_of(training_set: TrainingSet) -> int:
    """Rows that one epoch has."""
    return training_set.rows
