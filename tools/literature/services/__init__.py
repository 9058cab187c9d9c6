"""Sources of papers: one class per service, behind the protocol of `base`."""

from __future__ import annotations

from collections.abc import Callable

from posttrain_crew.tools.literature.services.base import PaperSource
from posttrain_crew.tools.services.services import Services

__all__ = ["BUILTIN_PAPER_SOURCES"]

BUILTIN_PAPER_SOURCES: dict[str, Callable[[Services], PaperSource]] = {}
"""By name, in the order in which they are asked and trusted."""
