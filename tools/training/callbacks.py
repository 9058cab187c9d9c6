"""Callbacks of a training job: write the metrics, keep the time, stop when told to or when the numbers are gone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from posttrain_crew.tools.training.metrics import append_metrics

__all__ = ["JobCallback"]

_MUST_BE_FINITE = ("loss", "grad_norm", "entropy", "reward")


class JobCallback(TrainerCallback):
    """One callback for all of it, so that a step pays for one.

    Args:
        metrics: the metrics file, or None on all processes but the first.
        deadline: `time.monotonic()` after which training stops with what it has; None for no limit.
        cancelled: whether somebody asked the job to end; looked at after each step.
    """

    def __init__(self, metrics: Path | None, deadline: float | None, cancelled: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._deadline = deadline
        self._cancelled = cancelled
        self._began = time.monotonic()
        self._first_end: float | None = None
        self._last_end: float | None = None
        self._steps = 0
        self.stopped_early = False
        self.diverged: str | None = None
        """The metric that is no number any more, with its step."""
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        """First and last value of each metric."""

    @property
    def seconds_per_step(self) -> float:
        """Wall seconds of a step with its logging; the first, which warms caches, counts only where it is the only."""
        if self._first_end is None or self._last_end is None:
            return 0.0
        if self._steps < 2:
            return self._first_end - self._began
        return (self._last_end - self._first_end) / (self._steps - 1)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._steps += 1
        now = time.monotonic()
        if self._first_end is None:
            self._first_end = now
        self._last_end = now
        if self._cancelled():
            control.should_training_stop = True
            control.should_save = False
        elif self._deadline is not None and now > self._deadline and state.global_step < state.max_steps:
            self.stopped_early = True
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or not state.is_world_process_zero:
            return
        record: dict[str, Any] = {"step": state.global_step, "epoch": state.epoch, "time": round(time.time(), 3)}
        numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
        record.update(numbers)
        for name, value in numbers.items():
            self.first.setdefault(name, value)
            self.last[name] = value
        if self._metrics is not None and "train_runtime" not in logs:
            append_metrics(self._metrics, record)
        for name in _MUST_BE_FINITE:
            value = numbers.get(name, 0.0)
            # under fp16 the loss scaler skips a step whose gradient overflowed, and goes on
            if not math.isfinite(value) and not (name == "grad_norm" and args.fp16):
                self.diverged = f"{name} is {value} at step {state.global_step}"
                control.should_training_stop = True
                control.should_save = False
                return
