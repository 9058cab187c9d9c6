"""Synthetic rows: generators make them, verifiers check them, the pipeline keeps what is new, right and useful."""

from __future__ import annotations

from collections.abc import Callable

from posttrain_crew.tools.data.synthesis.base import Generator, Verifier

__all__ = ["BUILTIN_GENERATORS", "BUILTIN_VERIFIERS"]

BUILTIN_GENERATORS: dict[str, Callable[..., Generator]] = {}
BUILTIN_VERIFIERS: dict[str, Callable[..., Verifier]] = {}
