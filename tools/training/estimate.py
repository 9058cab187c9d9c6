"""How long a job takes and how much memory it needs, said before it is launched.

Time comes from the run's own finished jobs where there are any, and from the target's first guess until then. Memory is
a formula: it decides whether a launch is hopeless, and the smoke run, on the longest rows, has the last word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any

from posttrain_crew.entries import Experiment, JobOutcome, JobStarted, Method, TrainingSet
from posttrain_crew.state import RunState
from posttrain_crew.tools.training.config import trainer_value
from posttrain_crew.tools.training.hardware import sharding
from posttrain_crew.tools.training.memory import Work, memory_of
from posttrain_crew.tools.training.shape import ModelShape, model_shape
from posttrain_crew.tools.training.spread import SHAPE_FIELDS
from posttrain_crew.tools.workspace import Workspace

__all__ = ["ModelShape", "estimate_seconds", "memory_gib", "model_shape", "steps_of", "trained_parameters"]


DPO_PASSES = 8 / 3
"""A pair is two rows, each with a forward pass of the reference beside forward and backward (2 units): 2 x 4 / 3 of
SFT."""
DEFAULT_SECONDS_PER_STEP = 5.0
"""Where neither the run nor the target knows better. A guess."""


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
        # a target that has measured no DPO gets it from its SFT
        known: Method = "sft" if method == "dpo" and "dpo" not in training.seconds_per_step else method
        start = {"sft": training.sft, "dpo": {**training.sft, **training.dpo}, "grpo": training.grpo}[known]
        base = training.seconds_per_step.get(known, DEFAULT_SECONDS_PER_STEP)
        if method != known:
            base *= DPO_PASSES
        per_step = base * _scale(method, trainer, start)
    return startup + steps_of(method, trainer, rows) * per_step


def memory_gib(
    method: Method,
    trainer: Mapping[str, Any],
    shape: ModelShape,
    max_tokens: int,
    *,
    dtype: str = "float32",
    on_cpu: bool = False,
    device_gib: float = 0.0,
) -> float:
    """Peak memory of a job on one process, GiB; the formulas and their sources are in memory.py.

    Args:
        max_tokens: tokens of the longest row of the training set (of the prompt, for GRPO).
        dtype: of the weights, as in the job's config.
        on_cpu: the job runs without an accelerator, where precision and checkpointing have other defaults.
        device_gib: memory of the device; vLLM takes a share of it.
    """
    work = Work.of(method, trainer, shape, max_tokens, dtype=dtype, on_cpu=on_cpu)
    return memory_of(work, sharding("single"), device_gib=device_gib).gib


def trained_parameters(method: Method, trainer: Mapping[str, Any], shape: ModelShape) -> int:
    """Parameters that get a gradient: all of them, or those of the adapter."""
    return Work.of(method, trainer, shape, max_tokens=1).trained


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
    return {name: value for name, value in experiment.config.items() if name not in ("reward", *SHAPE_FIELDS)}


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
