"""What a training runs on: devices, machines of them, and how it is spread over them. Data: profiles/*.yaml."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from posttrain_crew.errors import ConfigError

__all__ = ["Cluster", "Device", "Sharding", "devices", "find_cluster", "sharding", "shardings"]

_PROFILES = Path(__file__).parent / "profiles"
_NAMED = re.compile(r"(?:(\d+)\s*x\s*)?([a-z].*)")


@dataclass(frozen=True)
class Device:
    """One accelerator. The fields are explained at the head of profiles/devices.yaml."""

    name: str
    title: str
    memory_gib: float
    tflops: float
    bandwidth: float
    link: float
    network: float
    host_gib: float
    host_link: float

    @property
    def on_cpu(self) -> bool:
        return self.name == "cpu"


@dataclass(frozen=True)
class Cluster:
    """Devices of one kind: `gpus` on each of `nodes` machines."""

    device: Device
    gpus: int = 1
    nodes: int = 1

    @property
    def world(self) -> int:
        """Processes, one for each device."""
        return self.gpus * self.nodes

    @property
    def title(self) -> str:
        each = self.device.title if self.gpus == 1 else f"{self.gpus} x {self.device.title}"
        return each if self.nodes == 1 else f"{self.nodes} nodes of {each}"

    @property
    def link(self) -> float:
        """GB/s of one process to the others, by the slowest way."""
        return self.device.link if self.nodes == 1 else self.device.network


@dataclass(frozen=True)
class Sharding:
    """One way to spread a training; see the head of profiles/sharding.yaml."""

    name: str
    about: str
    stage: int
    engine: Literal["none", "ddp", "deepspeed", "fsdp"]
    offload_optimizer: bool = False
    offload_weights: bool = False
    accelerate: Mapping[str, Any] = field(default_factory=dict)
    deepspeed: Mapping[str, Any] = field(default_factory=dict)

    def bucket(self, name: str) -> int:
        """A size of the DeepSpeed config in elements, 0 where it has none."""
        return int(self.deepspeed.get("zero_optimization", {}).get(name, 0))


@functools.cache
def devices() -> Mapping[str, Device]:
    """All devices by name."""
    return {name: Device(name=name, **row) for name, row in _read("devices.yaml").items()}


@functools.cache
def shardings() -> Mapping[str, Sharding]:
    """All ways to spread a training by name, from none to everything in main memory."""
    return {name: Sharding(name=name, **row) for name, row in _read("sharding.yaml").items()}


def sharding(name: str) -> Sharding:
    """One of them. Raises ConfigError for a name that is not there."""
    known = shardings()
    if name not in known:
        raise ConfigError(f"there is no sharding profile `{name}`. Profiles: {', '.join(known)}.")
    return known[name]


def find_cluster(name: str, gpus: int | None = None, nodes: int = 1) -> Cluster:
    """From `h100` or `8xh100`, with a number of GPUs beside it or in it.

    Raises:
        ConfigError: the device is not known, the numbers contradict each other, or a machine has not so many GPUs.
    """
    match = _NAMED.fullmatch(name.strip().lower().replace("_", "-"))
    known = devices()
    if match is None or match[2] not in known:
        raise ConfigError(f"there is no device `{name}`. Devices: {', '.join(known)}; `8xh100` is eight of them.")
    counted = None if match[1] is None else int(match[1])
    if counted is not None and gpus is not None and counted != gpus:
        raise ConfigError(f"`{name}` says {counted} GPUs, but {gpus} are asked for beside it: say it once.")
    count = next((given for given in (counted, gpus) if given is not None), 1)
    if not 1 <= count <= 8:
        raise ConfigError(
            f"a machine has 1 to 8 GPUs, not {count}; for more of them give a number of machines (nodes)."
        )
    if nodes < 1:
        raise ConfigError(f"a number of machines (nodes) is at least 1, not {nodes}.")
    return Cluster(known[match[2]], count, nodes)


def _read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((_PROFILES / name).read_text(encoding="utf-8"))
    return loaded
