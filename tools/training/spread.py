"""On how many devices of one machine a job is started: on one where that is enough, otherwise on the fewest that do.

More devices come after smaller micro-batches and checkpointing on one (ladder.py), and before an adapter, which would
be another experiment. The effective batch stays: micro-batch x accumulation x processes is what the config ordered. The
experiment keeps the config as it was ordered, for one process; the job gets it with the changes of `Spread.applied`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from posttrain_crew.tools.compute.base import Capacity
from posttrain_crew.tools.training.config import TrainingConfig, trainer_value
from posttrain_crew.tools.training.hardware import sharding
from posttrain_crew.tools.training.launcher import Launch
from posttrain_crew.tools.training.memory import GIB, Work, memory_of
from posttrain_crew.tools.training.shape import ModelShape

__all__ = ["Spread", "spread_over"]

_ON_DEVICES = ("zero2", "zero3")
_WITH_MAIN_MEMORY = ("zero2_offload", "zero3_offload", "zero3_offload_all")
"""Slower than more devices, so they are tried when no number of devices is enough."""
_HOST_SHARE = 0.9
"""Of the main memory that is available, for what is offloaded; the rest is for what else runs. An assumption."""


@dataclass(frozen=True)
class Spread:
    """One job on several devices of one machine."""

    launch: Launch
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Trainer fields of the job that differ from those ordered."""
    memory_gib: float = 0.0
    """Of each device."""

    @property
    def processes(self) -> int:
        return self.launch.processes

    def applied(self, config: TrainingConfig) -> TrainingConfig:
        """The job's config of an ordered one."""
        return config.model_copy(update={"trainer": {**config.trainer, **self.changes}})

    def told(self) -> dict[str, Any]:
        """For an answer to an agent."""
        return {
            "processes": self.processes,
            "profile": self.launch.profile,
            "changes": dict(self.changes),
            "memory_gib_per_device": round(self.memory_gib, 2),
        }


def spread_over(config: TrainingConfig, shape: ModelShape, max_tokens: int, capacity: Capacity) -> Spread | None:
    """How to run a job that does not fit one device on several of this machine.

    Args:
        max_tokens: of the longest row of the training set (of the prompt, for GRPO).

    Returns:
        None where one device is enough, with smaller steps of the same training if need be; where the backend has no
        more than one for a job; and where no number of them is enough.
    """
    if capacity.devices_per_job < 2 or capacity.device == "cpu":
        return None
    method, have = config.method, capacity.device_memory_gib

    def work(trainer: Mapping[str, Any]) -> Work:
        return Work.of(method, trainer, shape, max_tokens, dtype=config.dtype)

    least = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    for fields in (config.trainer, {**config.trainer, **least}):
        if memory_of(work(fields), sharding("single"), device_gib=have).gib <= have:
            return None
    if work(config.trainer).adapter in ("qlora", "lora_8bit"):
        return None  # packed weights are neither spread nor offloaded here
    host_gib = _HOST_SHARE * psutil.virtual_memory().available / GIB
    for profiles in (_ON_DEVICES, _WITH_MAIN_MEMORY):
        for processes in range(2, min(capacity.devices_per_job, capacity.slots) + 1):
            for profile in profiles:
                for changes in _changes(config, processes):
                    wanted = work({**config.trainer, **changes})
                    memory = memory_of(wanted, sharding(profile), processes, have)
                    if memory.gib <= have and memory.host_bytes / GIB * processes <= host_gib:
                        launch = Launch(method, profile, processes, bf16=wanted.bf16)
                        return Spread(launch, changes, memory.gib)
    return None


def _changes(config: TrainingConfig, processes: int) -> Iterator[dict[str, Any]]:
    """Ways to spread the ordered batch evenly: the largest micro-batch first, with and without checkpointing."""

    def value(name: str) -> Any:
        return trainer_value(config.method, dict(config.trainer), name)

    micro, accumulation = int(value("per_device_train_batch_size")), int(value("gradient_accumulation_steps"))
    each, rest = divmod(micro * accumulation, processes)
    if rest:
        return
    for smaller in (n for n in range(min(micro, each), 0, -1) if each % n == 0):
        changes = {"per_device_train_batch_size": smaller, "gradient_accumulation_steps": each // smaller}
        if config.method == "grpo":
            # completions sampled together: as many in all as before, and whole groups on each process
            sampled = int(value("generation_batch_size") or micro * int(value("steps_per_generation") or accumulation))
            steps, rest = divmod(sampled, smaller * processes)
            if rest or smaller * steps % int(value("num_generations") or 8):
                continue
            if config.trainer.get("steps_per_generation"):
                changes["steps_per_generation"] = steps
        yield changes
        if not value("gradient_checkpointing"):
            yield {**changes, "gradient_checkpointing": True}
