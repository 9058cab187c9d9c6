"""The one place where a crew tool becomes a crewai tool."""

from __future__ import annotations

import json
import time
from typing import Any

from crewai.tools import BaseTool
from pydantic import PrivateAttr

from posttrain_crew.events import Events
from posttrain_crew.tools.tool import AgentTool

__all__ = ["CrewaiTool", "Faults"]

Faults = list[BaseException]
"""What tools raised that is no CrewError: it ends the work order, but only after crewai has let go of it."""


_UNLIMITED = 1_000_000
"""A limit, however high, makes crewai run the calls of one message in order and not in parallel threads: entry ids
then follow from what an agent said and not from which thread was faster."""


def _never(_arguments: Any = None, _result: Any = None) -> bool:
    """A tool reads a blackboard that grows, so no result is cached."""
    return False


class CrewaiTool(BaseTool):
    """An AgentTool as crewai calls it. Every call is an event; the result is the tool's JSON text."""

    _tool: AgentTool = PrivateAttr()
    _author: str = PrivateAttr()
    _events: Events = PrivateAttr()
    _faults: Faults = PrivateAttr()

    @classmethod
    def make(cls, tool: AgentTool, role: str, events: Events, faults: Faults) -> CrewaiTool:
        """Wrap one tool for one agent."""
        made = cls(
            name=tool.name,
            description=tool.description,
            args_schema=tool.arguments,
            cache_function=_never,
            max_usage_count=_UNLIMITED,
        )
        made._tool, made._author, made._events, made._faults = tool, role, events, faults
        return made

    def _run(self, **arguments: Any) -> str:
        if self._faults:
            return _broken("an earlier tool broke; no further call is made. Give your result now.")
        started = time.monotonic()
        try:
            result = self._tool(arguments)
        except Exception as error:  # noqa: BLE001 - kept, and raised as the typed failure of the work order
            self._faults.append(error)
            result = _broken(f"{type(error).__name__}: the tool broke. Give your result now.")
        self._events.emit(
            "tool_call",
            tool=self._tool.name,
            role=self._author,
            seconds=round(time.monotonic() - started, 3),
            ok=not result.startswith('{"error"'),
        )
        return result


def _broken(message: str) -> str:
    return json.dumps({"error": "ToolBroken", "message": message})
