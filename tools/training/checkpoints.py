"""Which checkpoint to go on from after a kill, possibly in the midst of writing one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

__all__ = ["last_checkpoint"]


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that is complete; one whose writing was cut off by a kill is passed over."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rsplit("-", 1)[1].isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), reverse=True):
        if _is_complete(path):
            return path
    return None


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        weights = list(checkpoint.glob("*.safetensors"))
        for path in weights:
            with path.open("rb") as stream:
                size = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(size))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            if path.stat().st_size != 8 + size + max(ends, default=0):
                return False
    except (OSError, ValueError, KeyError):
        return False
    states = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"]
    # DeepSpeed keeps its own states in a folder of their own
    return bool(weights) and (all(zipfile.is_zipfile(path) for path in states) or any(checkpoint.glob("global_step*")))
