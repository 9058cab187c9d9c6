"""Protocols of synthesis."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Generator", "Verifier"]


class Generator(Protocol):
    """Makes candidate rows."""


class Verifier(Protocol):
    """Says whether a candidate row is right."""
