"""What to try after a job ran out of memory: one rung at a time, from the cheapest change to the dearest.

    smaller micro-batch, with as much more accumulation    the same step in smaller pieces
    gradient checkpointing                                 a third more arithmetic
    vLLM sleeps while the model is trained; offload        time for moving states
    more GPUs                                              money

Method, lengths, adapter and effective batch never change: what the experiment shows stays the same. At the end stands a
refusal, and what would help then is the user's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from posttrain_crew.tools.training.config import trainer_value
from posttrain_crew.tools.training.hardware import sharding
from posttrain_crew.tools.training.trainer_fields import TrainerMethod

__all__ = ["Refusal", "Room", "Rung", "Settings", "first_that_fits", "next_config"]

Kind = Literal["micro_batch", "checkpointing", "offload", "more_gpus"]
Value = float | int | str | bool

_NEXT = {
    "single": "zero2_offload",
    "ddp": "zero2",
    "zero1": "zero2",
    "zero2": "zero3",
    "zero2_offload": "zero3_offload_all",
    "zero3": "zero3_offload",
    "zero3_offload": "zero3_offload_all",
    "fsdp": "fsdp_offload",
}
"""The profile that needs less of each device on the same devices."""
_MORE = {"single": "zero2", "ddp": "zero2", "zero1": "zero2", "zero2_offload": "zero3_offload"}
"""The profile to take with twice the devices, where the present one would gain too little by them."""


@dataclass(frozen=True)
class Room:
    """What the next attempt may use."""

    gpus: int = 1
    """Most devices of one machine."""
    nodes: int = 1
    """Most machines."""
    offload: bool = False
    """States may be spread and moved to main memory: the backend starts jobs with a sharding profile."""
    on_cpu: bool = False


@dataclass(frozen=True)
class Settings:
    """A job as it ran out of memory."""

    method: TrainerMethod
    trainer: Mapping[str, Any]
    """As ordered: micro-batch x accumulation is the whole effective batch, of which each process gets its part."""
    sharding: str = "single"
    gpus: int = 1
    """Of each machine."""
    nodes: int = 1

    def value(self, name: str, room: Room) -> Any:
        if room.on_cpu and name == "gradient_checkpointing" and name not in self.trainer:
            return False  # as session.py sets it on a CPU
        return trainer_value(self.method, dict(self.trainer), name)

    @property
    def world(self) -> int:
        """Devices in all."""
        return self.gpus * self.nodes

    @property
    def effective_batch(self) -> int:
        """Rows, pairs or completions of an optimizer step over all devices."""
        fields = dict(self.trainer)
        micro = int(trainer_value(self.method, fields, "per_device_train_batch_size"))
        return micro * int(trainer_value(self.method, fields, "gradient_accumulation_steps"))


@dataclass(frozen=True)
class Rung:
    """The next attempt."""

    kind: Kind
    changes: Mapping[str, Value]
    """Trainer fields, and how the job is started (`spread.SHAPE_FIELDS`) where that is not on one device."""
    settings: Settings
    """The job with the changes."""
    reason: str


@dataclass(frozen=True)
class Refusal:
    """Nothing is left that keeps the experiment what it is."""

    reason: str
    tried: tuple[str, ...] = field(default=())


def next_config(config: Settings, capacity: Room) -> Rung | Refusal:
    """The next rung for a job that ran out of memory."""
    return (
        _smaller_pieces(config, capacity)
        or _checkpointing(config, capacity)
        or _offload(config, capacity)
        or _more_gpus(config, capacity)
        or _refusal(config, capacity)
    )


def first_that_fits(config: Settings, capacity: Room, fits: Callable[[Settings], bool]) -> tuple[Rung, ...] | Refusal:
    """The rungs down to the first whose settings fit; a refusal that names all of them where none does."""
    rungs: list[Rung] = []
    while True:
        following = next_config(rungs[-1].settings if rungs else config, capacity)
        if isinstance(following, Refusal):
            return Refusal(following.reason, tuple(rung.reason for rung in rungs))
        rungs.append(following)
        if fits(following.settings):
            return tuple(rungs)


def _smaller_pieces(config: Settings, room: Room) -> Rung | None:
    micro = int(config.value("per_device_train_batch_size", room))
    if micro == 1:
        return None
    factor = next(n for n in range(2, micro + 1) if micro % n == 0)
    accumulation = int(config.value("gradient_accumulation_steps", room))
    changes: dict[str, Value] = {
        "per_device_train_batch_size": micro // factor,
        "gradient_accumulation_steps": accumulation * factor,
    }
    if config.method == "grpo" and config.trainer.get("steps_per_generation"):
        changes["steps_per_generation"] = int(config.trainer["steps_per_generation"]) * factor
    reason = (
        f"micro-batch {micro} -> {micro // factor} with accumulation {accumulation} -> {accumulation * factor}: the "
        f"effective batch stays {config.effective_batch}"
    )
    return _rung("micro_batch", config, changes, reason)


def _checkpointing(config: Settings, room: Room) -> Rung | None:
    if config.value("gradient_checkpointing", room):
        return None
    reason = "the micro-batch is 1 already: activations are computed again and not kept (gradient checkpointing)"
    return _rung("checkpointing", config, {"gradient_checkpointing": True}, reason)


def _offload(config: Settings, room: Room) -> Rung | None:
    colocate = (
        config.method == "grpo" and config.value("use_vllm", room) and config.value("vllm_mode", room) == "colocate"
    )
    if colocate and not config.value("vllm_enable_sleep_mode", room):
        reason = "vLLM gives its memory back while the model is trained (sleep mode)"
        return _rung("offload", config, {"vllm_enable_sleep_mode": True}, reason)
    if not room.offload or room.on_cpu or _packed(config, room):
        return None
    following = _NEXT.get(config.sharding)
    if following is None:
        return None
    reason = f"{config.sharding} -> {following}: {sharding(following).about}"
    return _rung("offload", config, {}, reason, following)


def _more_gpus(config: Settings, room: Room) -> Rung | None:
    gpus, nodes = 2 * config.gpus, config.nodes
    if gpus > room.gpus:
        gpus, nodes = config.gpus, 2 * config.nodes
    if nodes > room.nodes or room.on_cpu or _packed(config, room) or not _spreads(config, room, gpus * nodes):
        return None
    profile = _MORE.get(config.sharding, config.sharding)
    reason = (
        f"{config.world} -> {gpus * nodes} GPUs with {profile}: the effective batch stays {config.effective_batch}, "
        f"{config.effective_batch // (gpus * nodes)} on each"
    )
    return _rung("more_gpus", config, {}, reason, profile, gpus, nodes)


def _spreads(config: Settings, room: Room, world: int) -> bool:
    """Whether each process gets as many rows as the others, and samples whole groups, as config.py asks for."""
    if config.effective_batch % world:
        return False
    if config.method != "grpo":
        return True
    micro = int(config.value("per_device_train_batch_size", room))
    steps = config.value("steps_per_generation", room) or config.value("gradient_accumulation_steps", room)
    sampled = int(config.value("generation_batch_size", room) or micro * int(steps))
    return sampled % (world * int(config.value("num_generations", room) or 8)) == 0


def _refusal(config: Settings, room: Room) -> Refusal:
    left = []
    if not room.offload and not room.on_cpu and config.sharding == "single" and not _packed(config, room):
        left.append("offload to main memory or more GPUs, which this backend does not start by itself (`crew plan`)")
    elif config.world < room.gpus * room.nodes and not _packed(config, room):
        most = room.gpus * room.nodes
        left.append(f"{most} GPUs, but the effective batch of {config.effective_batch} cannot be spread further")
    changed = "a shorter `max_completion_length`" if config.method == "grpo" else "a shorter `max_length`"
    left.append(f"another experiment: {changed}, LoRA (`use_peft`) or a smaller model, which is for you to decide")
    told = (
        f"micro-batch 1{', checkpointing' if config.value('gradient_checkpointing', room) else ''}, {config.sharding}"
    )
    return Refusal(
        f"out of memory with {told} on {config.world} device(s): nothing smaller trains the same thing. Left: "
        + "; or ".join(left)
    )


def _packed(config: Settings, room: Room) -> bool:
    return bool(config.value("load_in_4bit", room) or config.value("load_in_8bit", room))


def _rung(
    kind: Kind,
    config: Settings,
    changes: dict[str, Value],
    reason: str,
    profile: str | None = None,
    gpus: int | None = None,
    nodes: int | None = None,
) -> Rung:
    trainer = {**config.trainer, **changes}
    after = Settings(config.method, trainer, profile or config.sharding, gpus or config.gpus, nodes or config.nodes)
    shape: dict[str, Value] = {}
    if after.world > 1 or after.sharding != "single":
        shape = {"devices": after.gpus, "sharding": after.sharding}
        shape |= {"nodes": after.nodes} if after.nodes > 1 else {}
    return Rung(kind, {**changes, **shape}, after, reason)
