"""A TRL trainer that goes on after a kill as if nothing had been.

transformers restores weights, optimizer, scheduler, the random state at the step, and skips the rows that were seen.
With transformers 5.23 and TRL 1.16 these are not restored, and are here:

    the order of rows in GRPO from the second epoch on    its sampler begins with the first epoch's order again
    completions that GRPO still had to train on           it samples others, and is out of step with its rows from then
    on the random state at the start of the epoch            samplers and data loaders that draw from it draw otherwise
    the count of tokens                                   SFT and DPO begin at 0 again
    a reference model that moves (`sync_ref_model`)       it is the start checkpoint again
    the end                                               a job that was killed after its last step trains one more

Left out: the random state inside vLLM. A GRPO job that samples with it goes on from its checkpoint, but not with the
very completions that it would have had.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain_crew.tools.training.checkpoints import prune, remove, seal
from posttrain_crew.tools.training.outcome import DiskFull, disk_is_full
from posttrain_crew.tools.training.random_state import random_state

if TYPE_CHECKING:
    from posttrain_crew.tools.training.callbacks import JobCallback

__all__ = ["resumable"]

DEFAULT_KEPT = 2
"""Checkpoints that stay: the last one, and the one before should the last turn out to be damaged."""


def resumable(trainer_class: type[Any], callback: JobCallback) -> type[Any]:
    """A subclass of a TRL trainer whose checkpoints are whole or absent, and hold all that the next step depends on."""

    class Resumable(trainer_class):  # type: ignore[misc]
        def __init__(self, *args: Any, **named: Any) -> None:
            self._repeat_sampler: Any = None
            self._resumes_within_epoch = False
            super().__init__(*args, **named)
            self._kept = self.args.save_total_limit or DEFAULT_KEPT
            self.args.save_total_limit = None  # it would count, and delete, before the new checkpoint is whole

        def create_model_card(self, *args: Any, **named: Any) -> None:
            """None: a checkpoint is no publication."""

        def _get_train_sampler(self, *args: Any, **named: Any) -> Any:
            sampler = super()._get_train_sampler(*args, **named)
            if hasattr(sampler, "mini_repeat_count"):
                self._repeat_sampler = sampler
            return sampler

        def _init_training_state(self, *args: Any, **named: Any) -> Any:
            epochs, skipped = super()._init_training_state(*args, **named)
            self._resumes_within_epoch = skipped > 0
            if epochs and self._repeat_sampler is not None and self._repeat_sampler.shuffle:
                _skip_orders(self._repeat_sampler, epochs)
            return epochs, skipped

        def _run_epoch(self, *args: Any, **named: Any) -> Any:
            # transformers looks whether it is over after a step, and so would train one more than it was asked for
            if self.state.global_step >= self.state.max_steps:
                self.control.should_training_stop = True
                return None
            return super()._run_epoch(*args, **named)

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            super()._load_optimizer_and_scheduler(checkpoint)
            if checkpoint is not None:
                _restore(self, callback, Path(checkpoint) / _state_name(self))

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            began = time.monotonic()
            folder = Path(self.args.output_dir)
            checkpoint = folder / f"checkpoint-{self.state.global_step}"
            first = self.is_world_process_zero()
            if first and checkpoint.exists():
                remove(checkpoint)  # what a kill left of it
            self.accelerator.wait_for_everyone()
            try:
                super()._save_checkpoint(model, trial)
                _keep(self, callback, checkpoint / _state_name(self))
                self.accelerator.wait_for_everyone()
                if first:
                    seal(checkpoint)
            except Exception as error:
                full = disk_is_full(error, folder)  # asked before the rest of it makes room again
                if first:
                    remove(checkpoint)
                if full:
                    raise DiskFull(f"no room for {checkpoint.name} at {folder}", folder) from error
                raise
            if first:
                best = self.state.best_model_checkpoint
                prune(folder, self._kept, None if best is None else Path(best))
            callback.clock.saved(began, time.monotonic())

    # TRL names things after the class: model cards, and `_name` in messages
    Resumable.__name__ = Resumable.__qualname__ = trainer_class.__name__
    return Resumable


def _state_name(trainer: Any) -> str:
    return f"crew_state_{trainer.args.process_index}.pt"


def _keep(trainer: Any, callback: JobCallback, path: Path) -> None:
    import torch

    state: dict[str, Any] = {"random": random_state(), "epoch_random": callback.epoch_random}
    if hasattr(trainer, "_total_train_tokens"):
        state["tokens"] = int(trainer._total_train_tokens)
    if hasattr(trainer, "_buffered_inputs"):
        state["step"] = trainer._step
        every = trainer.args.steps_per_generation * trainer.num_iterations
        # at the end of a round of sampling nothing of it is needed any more
        state["buffered"] = trainer._buffered_inputs if trainer._step % every else None
    if getattr(trainer.args, "sync_ref_model", False):
        state["reference"] = trainer.accelerator.unwrap_model(trainer.ref_model).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def _restore(trainer: Any, callback: JobCallback, path: Path) -> None:
    import torch

    if not path.is_file():
        return  # other number of processes than before: transformers says so of its own random state
    state = torch.load(path, map_location="cpu", weights_only=True)
    callback.resume_epoch_with(state["epoch_random" if trainer._resumes_within_epoch else "random"])
    if "tokens" in state:
        trainer._total_train_tokens = state["tokens"]
    if "step" in state:
        device = trainer.accelerator.device
        trainer._step = state["step"]
        if state["buffered"] is not None:
            trainer._buffered_inputs = [
                {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
                for batch in state["buffered"]
            ]
    if "reference" in state:
        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(state["reference"])


def _skip_orders(sampler: Any, epochs: int) -> None:
    """Draw the orders of the epochs that are over, which a sampler of one process would have drawn."""
    import torch

    for _ in range(epochs):
        torch.randperm(sampler.num_samples, generator=sampler.generator)
