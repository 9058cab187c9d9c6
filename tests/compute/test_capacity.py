"""On how many devices one job can run, by what a backend is told of its machines."""

from __future__ import annotations

import pytest
from huggingface_hub import JobHardwareInfo

from posttrain_crew.tools.compute.hf_hardware import flavors
from posttrain_crew.tools.compute.slurm import _gpus


@pytest.mark.parametrize(
    ("gres", "count"),
    [(None, 1), ("gpu", 1), ("gpu:4", 4), ("gpu:h100:8", 8), ("shard:9,gpu:a100:2", 2), ("license:5", 1)],
)
def test_the_gpus_of_a_slurm_node(gres: str | None, count: int) -> None:
    assert _gpus(gres) == count


def test_the_accelerators_of_a_flavor() -> None:
    common = {"cpu": "1 vCPU", "ram": "64 GB", "unitCostMicroUSD": 1, "unitCostUSD": 0.1, "unitLabel": "minute"}
    four = {"type": "gpu", "model": "A100", "quantity": "4", "vram": "320 GB", "manufacturer": "Nvidia"}
    listed = [
        JobHardwareInfo(**{"name": "cpu", "prettyName": "CPU", "accelerator": None, **common}),
        JobHardwareInfo(**{"name": "a100x4", "prettyName": "4x", "accelerator": four, **common}),
    ]
    found = flavors(listed)
    assert (found["cpu"].devices, found["a100x4"].devices) == (1, 4)
    assert found["a100x4"].memory_gib == pytest.approx(80e9 / 2**30, abs=0.01)
