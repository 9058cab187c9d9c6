"""The state of every random generator that training draws from."""

from __future__ import annotations

import random
from typing import Any

__all__ = ["random_state", "set_random_state"]


def random_state() -> dict[str, Any]:
    """The state of every generator that training draws from, in types that `torch.load(weights_only=True)` takes."""
    import numpy
    import torch

    name, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put all generators into a state that `random_state` gave."""
    import numpy
    import torch

    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
