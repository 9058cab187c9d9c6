"""What all entries share: the base class and the closed vocabularies."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["Cause", "EntryBody", "ErrorClass", "Method", "Status"]

Status = Literal["hypothesis", "observation", "decision", "correction"]
Method = Literal["sft", "dpo", "grpo"]

ErrorClass = Literal[
    "config",  # the config is not valid for the installed trainer
    "data",  # a file is missing, malformed, or its sha256 is not the audited one
    "model",  # the parent checkpoint does not load
    "out_of_memory",
    "disk_full",
    "diverged",  # NaN or infinite loss, gradient or weights
    "stopped_by_rule",  # a watch rule ended the job; the diagnosis says which
    "stopped_by_user",  # `crew jobs cancel`; it is not started again
    "timeout",
    "cancelled",
    "killed",  # the process is gone and left no outcome
    "crashed",  # any other exception
]

Cause = Literal[
    "healthy",
    "divergence",
    "reward_collapse",
    "zero_variance",
    "length_explosion",
    "never_ends",
    "reward_hacking",
    "overfitting",
    "entropy_collapse",
    "kl_explosion",
    "plateau",
    "stalled_data",  # no step comes any more: the data loader, a file system or a peer hangs
    "infrastructure",
    "unknown",
]


class EntryBody(BaseModel):
    """Base of all bodies: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: ClassVar[str] = ""
    prefix: ClassVar[str] = ""
    """Entry ids are `prefix-N`, N counting from 1 within a kind."""
    min_refs: ClassVar[int] = 0
