"""The loopback world."""

from __future__ import annotations

from tests.loopback.fixtures import world

__all__ = ["world"]
