"""What an agent may call: a plain typed method, marked. Nothing here knows crewai.

    class LiteratureDesk:
        @agent_tool
        def search_papers(self, query: Annotated[str, "words to look for"], limit: int = 8) -> list[PaperHit]:
            \"\"\"Find papers in the library. (This docstring is what the LLM reads.)\"\"\"

A desk is bound to a run's workspace. Results are JSON, bounded; a CrewError raised by a tool reaches the agent as
`{"error": ..., "message": ...}`, so that it can correct itself, and everything else ends the work order.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from posttrain_crew.errors import CrewError, InputError, PluginError

__all__ = ["MAX_RESULT_CHARS", "AgentTool", "agent_tool", "online_tool", "tools_of"]

MAX_RESULT_CHARS = 12_000
"""An LLM never sees more of one tool result; the rest is on the blackboard or in a file that the result names."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def agent_tool(function: FunctionT) -> FunctionT:
    """Mark a method as callable by agents. It needs type hints on all parameters and a docstring."""
    function.__agent_tool__ = True  # type: ignore[attr-defined]
    return function


def online_tool(function: FunctionT) -> FunctionT:
    """As `agent_tool`, for one that asks services: it is offered only in a run whose sources may be asked."""
    function.__online_tool__ = True  # type: ignore[attr-defined]
    return agent_tool(function)


@dataclass(frozen=True)
class AgentTool:
    """One callable with its schema."""

    name: str
    description: str
    arguments: type[BaseModel]
    """Pydantic model of the arguments; its JSON schema is what an LLM gets."""
    function: Callable[..., Any]
    online: bool = False
    """Whether it asks services, and so is left out of runs that may not."""

    def __call__(self, values: Mapping[str, Any]) -> str:
        """Run with unchecked arguments; the answer is JSON of at most MAX_RESULT_CHARS characters."""
        try:
            checked = self.arguments.model_validate(dict(values))
            given = {name: getattr(checked, name) for name in type(checked).model_fields}
            return _bounded(_plain(self.function(**given)))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            return _failure(InputError(f"the arguments of {self.name} are not valid: {problems}."))
        except CrewError as error:
            return _failure(error)


def tools_of(desk: object) -> Iterator[AgentTool]:
    """The marked methods of a desk, in the order of their names.

    Raises:
        PluginError: a marked method lacks a docstring or a type hint.
    """
    for name, method in inspect.getmembers(desk, callable):
        if not getattr(method, "__agent_tool__", False):
            continue
        if not (description := inspect.getdoc(method)):
            raise PluginError(f"the tool `{name}` of {type(desk).__name__} has no docstring: an LLM could not know it.")
        online = getattr(method, "__online_tool__", False)
        yield AgentTool(name, description, _arguments_model(name, method), method, online)


def _arguments_model(name: str, method: Callable[..., Any]) -> type[BaseModel]:
    hints = get_type_hints(method, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(method).parameters.values():
        if parameter.name not in hints:
            raise PluginError(f"the parameter `{parameter.name}` of the tool `{name}` has no type hint.")
        hint, description = hints[parameter.name], None
        if get_origin(hint) is Annotated:
            hint, *notes = get_args(hint)
            description = next((note for note in notes if isinstance(note, str)), None)
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hint, Field(default, description=description))
    return create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **fields)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value


def _bounded(value: Any) -> str:
    """JSON text; a list that is too long loses its tail and says so, anything else is cut as a string."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= MAX_RESULT_CHARS:
        return text
    if isinstance(value, list):
        kept: list[Any] = []
        size = 0
        for item in value:
            size += len(json.dumps(item, ensure_ascii=False, default=str)) + 2
            if size > MAX_RESULT_CHARS - 200:
                break
            kept.append(item)
        return json.dumps({"items": kept, "left_out": len(value) - len(kept)}, ensure_ascii=False, default=str)
    size = MAX_RESULT_CHARS // 2 - 100  # JSON text inside a JSON string: each quote and backslash becomes two
    return json.dumps({"cut": text[:size], "left_out_characters": len(text) - size}, ensure_ascii=False)


def _failure(error: CrewError) -> str:
    return json.dumps({"error": type(error).__name__, "message": str(error)[:2000]}, ensure_ascii=False)
