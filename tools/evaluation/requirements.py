"""What a target needs and this machine does not have, said before a run starts and with what would do instead."""

from __future__ import annotations

import os
from pathlib import Path

from posttrain_crew.target import Target
from posttrain_crew.tools.compute.base import Capacity
from posttrain_crew.tools.services.reach import connection_problem

__all__ = ["missing"]


def missing(target: Target, capacity: Capacity) -> list[str]:
    """One sentence for each thing that is missing here; empty where the target can be run.

    Nothing is contacted for a target that needs no network. Otherwise a TCP connection is opened and closed: nothing is
    sent, and no token is read. The base model and the disk are checked where they are used.
    """
    needs, found = target.requires, []
    if needs.gpu_memory_gib and (capacity.device == "cpu" or capacity.device_memory_gib < needs.gpu_memory_gib):
        have = "none" if capacity.device == "cpu" else f"{capacity.device_memory_gib:.0f} GiB"
        found.append(
            f"{target.name} needs an accelerator with {needs.gpu_memory_gib:g} GiB of memory, and here is {have}. "
            "Run it on a machine that has one; `--target gpqa-mini` runs the same loop on a CPU."
        )
    if needs.network and (problem := _unreachable()):
        found.append(f"{target.name} reads from the Hugging Face Hub, but {problem}.")
    if needs.gated_dataset and not _has_token():
        found.append(
            f"the dataset {needs.gated_dataset} is gated and no Hugging Face token is set. Accept its terms at "
            f"{_endpoint()}/datasets/{needs.gated_dataset}, then run `hf auth login` or set HF_TOKEN."
        )
    return found


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _unreachable() -> str | None:
    """Why the Hub cannot be asked, or None. Behind a proxy it is the proxy that must answer."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "HF_HUB_OFFLINE is set: unset it"
    if problem := connection_problem(_endpoint()):
        place, error = problem
        return f"{place} cannot be reached ({error}): connect, or set HF_ENDPOINT to a mirror"
    return None


def _has_token() -> bool:
    """Whether a token is there; its value is not read."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser().is_file()
