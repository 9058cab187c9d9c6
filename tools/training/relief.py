"""From a job that ran out of memory to the changes of the order that is tried next: ladder.py on what really ran.

An order names one effective batch for one process, and the launch may have divided it over several devices with a
smaller micro-batch (spread.py). The next rung starts from the micro-batch and the profile that ran, and is told in an
order's own terms, so that it can be laid over the order's changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain_crew.entries import JobStarted, Method
from posttrain_crew.tools.compute.base import Capacity
from posttrain_crew.tools.compute.jobs import kept_environment
from posttrain_crew.tools.training.config import load, trainer_value
from posttrain_crew.tools.training.ladder import Refusal, Room, Settings, next_config
from posttrain_crew.tools.training.spread import PROFILE_VARIABLE, Spread

__all__ = ["as_ordered", "next_order", "ran_in", "room_of"]


def room_of(capacity: Capacity) -> Room:
    """What the next attempt on a backend may use."""
    on_cpu = capacity.device == "cpu"
    most = capacity.devices_per_job if capacity.job_is_slot else min(capacity.devices_per_job, capacity.slots)
    return Room(gpus=most, nodes=capacity.nodes_per_job, offload=not on_cpu, on_cpu=on_cpu)


def as_ordered(method: Method, ordered: Mapping[str, Any], spread: Spread | None) -> Settings:
    """A job that is started as `spread` says, as the order that it amounts to."""
    if spread is None:
        return Settings(method, dict(ordered))
    return _settings(method, ordered, spread.changes, spread.launch.profile, spread.processes, spread.nodes)


def ran_in(folder: Path, job: JobStarted, method: Method, ordered: Mapping[str, Any]) -> Settings:
    """The same of a job that was started, from what its folder holds.

    Raises:
        ConfigError, JobError: its config or its environment cannot be read.
    """
    profile = kept_environment(folder).get(PROFILE_VARIABLE, "single")
    return _settings(method, ordered, load(folder / "config.yaml").trainer, profile, job.processes, job.nodes)


def next_order(ran: Settings, ordered: Mapping[str, Any], room: Room) -> tuple[dict[str, Any], str]:
    """(changes to lay over the order, why); no changes where nothing is left that keeps the experiment what it is."""
    rung = next_config(ran, room)
    if isinstance(rung, Refusal):
        return {}, rung.reason
    changes = {
        name: value
        for name, value in rung.settings.trainer.items()
        if value != trainer_value(ran.method, dict(ordered), name)
    }
    # of the ladder's own changes also those that repeat a default: a reader should see what is meant
    return {**changes, **rung.changes}, rung.reason


def _settings(
    method: Method, ordered: Mapping[str, Any], ran: Mapping[str, Any], profile: str, devices: int, nodes: int
) -> Settings:
    def value(fields: Mapping[str, Any], name: str) -> Any:
        return trainer_value(method, dict(fields), name)

    whole = int(value(ordered, "per_device_train_batch_size")) * int(value(ordered, "gradient_accumulation_steps"))
    micro = int(value({**ordered, **ran}, "per_device_train_batch_size"))
    trainer = {**ordered, **ran}
    trainer |= {"per_device_train_batch_size": micro, "gradient_accumulation_steps": whole // micro}
    if method == "grpo" and ordered.get("steps_per_generation"):
        sampled = int(value(ordered, "per_device_train_batch_size")) * int(ordered["steps_per_generation"])
        trainer["steps_per_generation"] = sampled // micro
    return Settings(method, trainer, profile, devices, nodes)
