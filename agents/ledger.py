"""What one agent's LLM calls cost: reserved before, watched on every call, settled after."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from posttrain_crew.budget import Budget
from posttrain_crew.errors import BudgetError

__all__ = ["Ledger"]

_TOKENS_IN, _TOKENS_OUT = 20_000, 2_000
"""Reserved for an agent whose LLM is not free; the real number is only known after."""


class Ledger:
    """Counts one order's tokens and USD against the run's limits.

    Args:
        free: the LLM uses no tokens (the playbook), so nothing is set aside for it.
    """

    def __init__(self, budget: Budget, label: str, *, free: bool) -> None:
        self._budget = budget
        self._label = label
        self._lock = threading.Lock()
        self.free = free
        self.calls = 0
        self.tokens = 0
        self.usd = 0.0

    @contextmanager
    def open(self, llm: Any, refs: tuple[str, ...] = ()) -> Iterator[None]:
        """Reserve, and settle on leaving, whatever happened.

        Raises:
            BudgetError: what is left does not suffice, or the price is unknown and there is a limit in USD.
        """
        price = getattr(llm, "price", None)
        usd = 0.0 if self.free else price(_TOKENS_IN, _TOKENS_OUT) if price else None
        tokens = 0 if self.free else _TOKENS_IN + _TOKENS_OUT
        if self.free and self._label.startswith("llm:plan:"):
            yield  # a plan of the playbook costs nothing and need not fill the blackboard
            return
        self._budget.reserve(self._label, wall_s=0.0, usd=usd, tokens=tokens, refs=refs, final=True)
        try:
            yield
        finally:
            self._budget.settle(self._label, usd=self.usd, tokens=self.tokens)

    def record(self, tokens: int, usd: float | None) -> None:
        """Count one call; the hook of an LLM.

        Raises:
            BudgetError: a limit is passed, or the price is unknown although there is a limit in USD.
        """
        with self._lock:
            self.calls += 1
            self.tokens += tokens
            self.usd += usd or 0.0
        if self.free:
            return
        limits = self._budget.limits
        if usd is None and limits.usd is not None:
            raise BudgetError(
                f"the price of the LLM is not known, and the run has a limit of {limits.usd:g} USD. Set "
                "CREW_LLM_PRICE_IN and CREW_LLM_PRICE_OUT (USD per token), or lift the limit."
            )
        self._budget.note(self._label, tokens=self.tokens, usd=self.usd)
        used = self._budget.usage()
        if limits.usd is not None and used.usd > limits.usd:
            raise BudgetError(f"the LLM has used up the limit of {limits.usd:g} USD during `{self._label}`.")
        if limits.tokens is not None and used.tokens > limits.tokens:
            raise BudgetError(f"the LLM has used up the limit of {limits.tokens} tokens during `{self._label}`.")
