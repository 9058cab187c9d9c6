"""The Hub's own list of hardware and prices, as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import JobHardwareInfo

__all__ = ["Flavor", "flavors"]

_PER_HOUR = {"second": 3600.0, "minute": 60.0, "hour": 1.0}


@dataclass(frozen=True)
class Flavor:
    """One kind of machine."""

    name: str
    device: str
    """`cpu`, or for example `Nvidia A100 x4`."""
    memory_gib: float
    """Of one accelerator, or the RAM of a machine without one, GiB."""
    usd_per_hour: float | None
    """None: the list does not say it, or in a unit that is not known."""
    devices: int = 1
    """Accelerators of it."""


def flavors(listed: Iterable[JobHardwareInfo]) -> dict[str, Flavor]:
    """By name. The list gives GB; 1 GiB = 1.0737 GB."""
    found = {}
    for item in listed:
        accelerator = item.accelerator
        if accelerator is None:
            device, memory, devices = "cpu", _gib(item.ram), 1
        else:
            count = str(accelerator.quantity)
            device = f"{accelerator.manufacturer} {accelerator.model}" + (f" x{count}" if count != "1" else "")
            devices = max(1, int(count) if count.isdigit() else 1)
            memory = _gib(accelerator.vram) / devices
        factor = _PER_HOUR.get(str(item.unit_label))
        price = None if factor is None or item.unit_cost_usd is None else round(item.unit_cost_usd * factor, 4)
        found[item.name] = Flavor(item.name, device, round(memory, 2), price, devices)
    return found


def _gib(text: str) -> float:
    match = re.match(r"\s*([\d.]+)\s*(GB|TB|MB)?", text or "")
    if match is None:
        return 0.0
    scale = {"MB": 1e6, "TB": 1e12}.get(match[2] or "GB", 1e9)
    return float(match[1]) * scale / 2**30
