"""What the tensors of a training step really occupy, counted one by one: what the planner is held to.

On a CPU there is no `torch.cuda.max_memory_allocated`. A dispatch mode sees every tensor that an operator returns,
also in the backward pass, and hears when its storage is freed.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Bytes of the storages that are alive, and the most that there ever were."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self._seen: set[int] = set()
        self.live = 0
        for tensor in known:
            self._count(tensor)
        self.peak = self.live

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf)
        self.peak = max(self.peak, self.live)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or storage.nbytes() == 0:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.live += size
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Bytes that a forward pass keeps for its backward pass, each storage once, weights left out."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        self._weights = {weight.untyped_storage()._cdata for weight in weights}
        self._kept: dict[int, torch.Tensor] = {}
        self.by_shape: dict[tuple[Any, ...], int] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in self._weights and key not in self._kept:
            self._kept[key] = tensor.detach()
            shape = (tuple(tensor.shape), str(tensor.dtype))
            self.by_shape[shape] = self.by_shape.get(shape, 0) + 1
        return tensor
