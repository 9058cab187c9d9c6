"""What a playbook policy sees and says: the task's input, the tool calls made so far, and the next move.

A policy is a pure function, `policy(conversation) -> ToolCalls | Final`. It keeps no state: the same conversation
always gives the same move, in this process or behind an HTTP server, so a killed run can be played again.

    def policy(conversation: Conversation) -> ToolCalls | Final:
        if (found := conversation.last("search_papers")) is None:
            return ToolCalls([ToolCall("search_papers", {"query": "chain of thought"})])
        return Final(MyResult(titles=[hit["title"] for hit in items(found)]))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

__all__ = ["Conversation", "Final", "Policy", "ToolCall", "ToolCalls", "items"]


@dataclass(frozen=True)
class ToolCall:
    """A call to make, or one that was made, with what came back."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    """Parsed JSON (a string where it was none); None until it is answered."""

    @property
    def error(self) -> str | None:
        """The message of a call that failed, else None."""
        if isinstance(self.result, dict) and "error" in self.result and "message" in self.result:
            return str(self.result["message"])
        if isinstance(self.result, str) and self.result.startswith(("Error", "Tool ")):
            return self.result  # crewai's own text for an unknown tool or arguments that do not fit
        return None


@dataclass(frozen=True)
class ToolCalls:
    """A move: call these tools, in this order; the results come back together."""

    calls: list[ToolCall]


@dataclass(frozen=True)
class Final:
    """A move: the work is done, and this is its result."""

    model: BaseModel


@dataclass(frozen=True)
class Conversation:
    """One agent's work so far."""

    input: dict[str, Any]
    """The task's JSON block: `specialist`, and `order`, `target`, `entries`, `seed` (or `brief`)."""
    tools: frozenset[str]
    """Names of the tools that can still be called; empty when only the final answer is wanted."""
    calls: list[ToolCall] = field(default_factory=list)
    """All answered calls, in order."""

    @property
    def order(self) -> dict[str, Any]:
        """The work order, empty for the coordinator."""
        return dict(self.input.get("order") or {})

    @property
    def parameters(self) -> dict[str, Any]:
        """The order's parameters."""
        return dict(self.order.get("parameters") or {})

    def made(self, name: str) -> list[ToolCall]:
        """The answered calls of a tool, failed ones too."""
        return [call for call in self.calls if call.name == name]

    def results(self, name: str) -> list[Any]:
        """What the calls of a tool brought back, without failed ones."""
        return [call.result for call in self.made(name) if call.error is None]

    def last(self, name: str) -> Any | None:
        """The newest result of a tool, or None."""
        found = self.results(name)
        return found[-1] if found else None

    def error(self, call: ToolCall) -> str | None:
        """Why a call failed, or None."""
        return call.error

    def errors(self) -> list[str]:
        """The messages of all failed calls, in order, each with its tool."""
        return [f"{call.name}: {call.error}" for call in self.calls if call.error is not None]

    def can(self, name: str) -> bool:
        """Whether a tool can be called now."""
        return name in self.tools


Policy = Callable[[Conversation], ToolCalls | Final]


def items(result: Any) -> list[Any]:
    """The list in a tool's result, also where its tail was left out (`{"items": [...], "left_out": n}`)."""
    if isinstance(result, dict) and isinstance(result.get("items"), list):
        return list(result["items"])
    return list(result) if isinstance(result, list) else []
