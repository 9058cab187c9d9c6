"""The callback of a training job: write the metrics, keep the time, save by the clock, stop when told to or when the
numbers are gone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from posttrain_crew.tools.training.checkpoints import SaveClock
from posttrain_crew.tools.training.metrics import append_metrics, read_metrics
from posttrain_crew.tools.training.random_state import random_state, set_random_state
from posttrain_crew.tools.training.tracking import refill_tracked

__all__ = ["JobCallback"]

_MUST_BE_FINITE = ("loss", "grad_norm", "entropy", "reward")


class JobCallback(TrainerCallback):
    """One callback for all of it, so that a step pays for one.

    Args:
        metrics: the metrics file, or None on all processes but the first.
        deadline: `time.monotonic()` after which training stops with what it has; None for no limit.
        cancelled: whether somebody asked the job to end; looked at after each step. It then ends with a checkpoint
            of that step, unless `clock` never saves.
        clock: when to save.
    """

    def __init__(
        self, metrics: Path | None, deadline: float | None, cancelled: Callable[[], bool], clock: SaveClock
    ) -> None:
        self.clock = clock
        self.epoch_random: dict[str, Any] = {}
        """Random state at the start of the current epoch, which samplers and data loaders drew from."""
        self.refill: tuple[str, str] | None = None
        """(project, run) of a trackio run that goes on, to be completed from the metrics file."""
        self._resumed_epoch: dict[str, Any] | None = None
        self._metrics = metrics
        self._deadline = deadline
        self._cancelled = cancelled
        self._began = time.monotonic()
        self._first_end: float | None = None
        self._last_end: float | None = None
        self._steps = 0
        self._ending = ""
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
        # trackio's own callback comes before this one, so its run is there
        if self.refill is not None and self._metrics is not None and state.is_world_process_zero:
            refill_tracked(*self.refill, self._metrics)
        self._began = time.monotonic()
        self.clock.start(self._began)

    def resume_epoch_with(self, state: dict[str, Any]) -> None:
        """Begin the next epoch, the one that a checkpoint lies in, with this random state."""
        self._resumed_epoch = state

    def remember(self, metrics: Path) -> None:
        """Take first and last values from the records of the attempt that this one goes on from."""
        for record in read_metrics(metrics):
            for name, value in record.items():
                if isinstance(value, int | float):
                    self.first.setdefault(name, float(value))
                    self.last[name] = float(value)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._resumed_epoch:
            set_random_state(self._resumed_epoch)
        self._resumed_epoch = None
        self.epoch_random = random_state()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._steps += 1
        now = time.monotonic()
        if self._first_end is None:
            self._first_end = now
        self._last_end = now
        late = self._deadline is not None and now > self._deadline and state.global_step < state.max_steps
        cancelled, late, due = _any_process((self._cancelled(), late, self.clock.due(now)), args)
        # between two logs the sums of their mean are in no checkpoint; at an epoch's end its evaluation is still to
        # come
        epoch_ends = state.epoch is not None and float(state.epoch).is_integer()
        evaluates = epoch_ends and args.eval_strategy == IntervalStrategy.EPOCH
        if cancelled:
            self._ending = "after its evaluation" if evaluates else "now"
            control.should_training_stop = True
            control.should_save = self.clock.timed and not evaluates
            control.should_log = control.should_log or control.should_save
            return
        if late:
            self.stopped_early = True
            control.should_training_stop = True
            return
        if due and control.should_log and not evaluates:
            control.should_save = True
        elif control.should_save:
            control.should_log = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # transformers calls this also for an epoch that was broken off, and would evaluate and save in its middle
        if self._ending == "now":
            control.should_evaluate = control.should_save = control.should_log = False
        elif self._ending:
            control.should_save = self.clock.timed

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


def _any_process(flags: tuple[bool, ...], args: TrainingArguments) -> list[bool]:
    """Each flag, true where it is on any process: saving and stopping need all of them at the same step."""
    if args.world_size <= 1:
        return list(flags)
    import torch

    shared = torch.tensor([int(flag) for flag in flags], device=args.device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]
