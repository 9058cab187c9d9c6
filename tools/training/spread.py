"""On how many devices, and of how many machines, a job is started: as it was ordered; otherwise on one where that is
enough, and on the fewest that do where it is not.

More devices come after smaller micro-batches and checkpointing on one (ladder.py), and before an adapter, which would
be another experiment. The effective batch stays: micro-batch x accumulation x processes is what the config ordered. The
experiment keeps the config as it was ordered, for one process; the job gets it with the changes of `Spread.applied`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.compute.base import Capacity
from posttrain_crew.tools.training.config import TrainingConfig, trainer_value
from posttrain_crew.tools.training.hardware import sharding
from posttrain_crew.tools.training.launcher import Launch
from posttrain_crew.tools.training.memory import GIB, Memory, Work, memory_of
from posttrain_crew.tools.training.shape import ModelShape

__all__ = ["PROFILE_VARIABLE", "SHAPE_FIELDS", "Spread", "Wanted", "spread_over"]

SHAPE_FIELDS = ("devices", "nodes", "sharding")
"""Keys of an experiment's config that are no trainer fields: they say how its job is started (`Wanted`)."""
PROFILE_VARIABLE = "CREW_SHARDING"
"""In a job's environment: the name of its profile, for who looks at the job later."""
_ON_DEVICES = ("zero2", "zero3")
_WITH_MAIN_MEMORY = ("zero2_offload", "zero3_offload", "zero3_offload_all")
"""Slower than more devices, so they are tried when no number of devices is enough."""
_HOST_SHARE = 0.9
"""Of the main memory that is available, for what is offloaded; the rest is for what else runs. An assumption."""


@dataclass(frozen=True)
class Wanted:
    """What an order says of the job's shape; all None where it says nothing."""

    devices: int | None = None
    """Processes on each machine, one for each device; all of a machine's where only `nodes` is said."""
    nodes: int | None = None
    """Machines."""
    sharding: str | None = None
    """A profile of profiles/sharding.yaml; without it the fastest that fits."""

    @classmethod
    def taken_from(cls, changes: dict[str, Any]) -> Wanted:
        """Take its keys out of an order's changes. Raises ConfigError for values that are none."""
        given = {name: changes.pop(name) for name in SHAPE_FIELDS if changes.get(name) is not None}
        for name in ("devices", "nodes"):
            if name in given and (isinstance(given[name], bool) or not isinstance(given[name], int) or given[name] < 1):
                raise ConfigError(f"`{name}` must be a whole number of at least 1, but is {given[name]!r}.")
        if "sharding" in given:
            sharding(str(given["sharding"]))
        return cls(**given)

    def recorded(self) -> dict[str, Any]:
        """For an experiment's config."""
        return {name: value for name in SHAPE_FIELDS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Spread:
    """One job on several devices, or with its states in main memory."""

    launch: Launch
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Trainer fields of the job that differ from those ordered."""
    memory_gib: float = 0.0
    """Of each device."""

    @property
    def processes(self) -> int:
        """On each machine."""
        return self.launch.processes

    @property
    def nodes(self) -> int:
        return self.launch.nodes

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.launch.processes * self.launch.nodes

    def environment(self) -> dict[str, str]:
        """Of the job."""
        return {**self.launch.environment(), PROFILE_VARIABLE: self.launch.profile}

    def applied(self, config: TrainingConfig) -> TrainingConfig:
        """The job's config of an ordered one."""
        return config.model_copy(update={"trainer": {**config.trainer, **self.changes}})

    def told(self) -> dict[str, Any]:
        """For an answer to an agent."""
        return {
            "processes": self.processes,
            "nodes": self.nodes,
            "profile": self.launch.profile,
            "changes": dict(self.changes),
            "memory_gib_per_device": round(self.memory_gib, 2),
        }


def spread_over(
    config: TrainingConfig, shape: ModelShape, max_tokens: int, capacity: Capacity, wanted: Wanted | None = None
) -> Spread | None:
    """How to run a job on several devices: as `wanted`, else only where it does not fit one.

    Args:
        max_tokens: of the longest row of the training set (of the prompt, for GRPO).
        wanted: what the order says of it.

    Returns:
        None where nothing is wanted and one device is enough, with smaller steps of the same training if need be; where
        the backend has no more than one for a job; and where no number of them is enough.

    Raises:
        ConfigError: what is wanted cannot be had here, or does not fit.
    """
    if wanted is not None and wanted != Wanted():
        return _as_wanted(config, shape, max_tokens, capacity, wanted)
    if capacity.device == "cpu" or capacity.devices_per_job * capacity.nodes_per_job < 2:
        return None
    have = capacity.device_memory_gib
    least = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    for fields in (config.trainer, {**config.trainer, **least}):
        work = Work.of(config.method, fields, shape, max_tokens, dtype=config.dtype)
        if memory_of(work, sharding("single"), device_gib=have).gib <= have:
            return None
    if work.adapter in ("qlora", "lora_8bit"):
        return None  # packed weights are neither spread nor offloaded here
    most = capacity.devices_per_job if capacity.job_is_slot else min(capacity.devices_per_job, capacity.slots)
    shapes = [(1, processes) for processes in range(2, most + 1)]
    shapes += [(nodes, most) for nodes in range(2, capacity.nodes_per_job + 1)]
    for profiles in (_ON_DEVICES, _WITH_MAIN_MEMORY):
        for nodes, processes in shapes:
            for profile in profiles:
                for option in _options(
                    config, shape, max_tokens, capacity, Launch(config.method, profile, processes, nodes)
                ):
                    if option.fits:
                        return option.spread
    return None


@dataclass(frozen=True)
class _Option:
    spread: Spread
    memory: Memory
    fits: bool


def _options(
    config: TrainingConfig, shape: ModelShape, max_tokens: int, capacity: Capacity, launch: Launch
) -> Iterator[_Option]:
    """The ways to run the job as `launch` says, the fastest first."""
    on_cpu, have = capacity.device == "cpu", capacity.device_memory_gib
    # of a cluster's machines nobody here knows the main memory: the smoke run tells
    host_gib = float("inf") if capacity.job_is_slot else _HOST_SHARE * psutil.virtual_memory().available / GIB
    world = launch.processes * launch.nodes
    for changes in _changes(config, world):
        trainer = {**config.trainer, **changes}
        work = Work.of(config.method, trainer, shape, max_tokens, dtype=config.dtype, on_cpu=on_cpu)
        memory = memory_of(work, sharding(launch.profile), world, have)
        fits = memory.gib <= have and memory.host_bytes / GIB * launch.processes <= host_gib
        bf16 = work.bf16 and not config.trainer.get("fp16")
        way = Launch(config.method, launch.profile, launch.processes, launch.nodes, bf16=bf16, on_cpu=on_cpu)
        yield _Option(Spread(way, changes, memory.gib), memory, fits)


def _as_wanted(
    config: TrainingConfig, shape: ModelShape, max_tokens: int, capacity: Capacity, wanted: Wanted
) -> Spread | None:
    nodes = wanted.nodes or 1
    devices = wanted.devices or (capacity.devices_per_job if nodes > 1 else 1)
    for name, asked, most in (("devices", devices, capacity.devices_per_job), ("nodes", nodes, capacity.nodes_per_job)):
        if asked > most:
            raise ConfigError(f"`{name}: {asked}` is more than one job can have on this backend, {most}.")
    world = devices * nodes
    if world == 1 and wanted.sharding in (None, "single"):
        return None
    packed = bool(config.trainer.get("load_in_4bit") or config.trainer.get("load_in_8bit"))
    if packed and wanted.sharding not in (None, "ddp"):
        raise ConfigError(f"QLoRA's packed weights cannot be spread with `{wanted.sharding}`: use `ddp`.")
    profiles: tuple[str, ...] = ("ddp",) if packed else ("ddp", *_ON_DEVICES)
    profiles += () if packed or capacity.device == "cpu" else _WITH_MAIN_MEMORY
    least: _Option | None = None
    for profile in profiles if wanted.sharding is None else (wanted.sharding,):
        launch = Launch(config.method, profile, devices, nodes, on_cpu=capacity.device == "cpu")
        for option in _options(config, shape, max_tokens, capacity, launch):
            if option.fits:
                return option.spread
            if least is None or option.memory.gib < least.memory.gib:
                least = option
    if least is None:
        groups = " in whole groups" if config.method == "grpo" else ""
        raise ConfigError(
            f"the effective batch of this order cannot be spread evenly over {world} process(es){groups}: take another "
            "number of them, or order another batch."
        )
    raise ConfigError(
        f"on {nodes} x {devices} device(s) it needs {least.memory.gib:.1f} GiB of each even with "
        f"{least.spread.launch.profile}, and they have {capacity.device_memory_gib:.1f}; or it needs more main memory "
        "than is free."
    )


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
