"""How an LLM reports what a call used."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["OnUsage", "ignore_usage"]

OnUsage = Callable[[int, float | None], None]
"""Called after every answered call with its tokens and its price in USD, None where the price is not known.
It may raise BudgetError, which ends the work order."""


def ignore_usage(_tokens: int, _usd: float | None) -> None:
    """The default: nobody counts."""
