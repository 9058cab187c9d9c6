"""Tool calls as plain text, for models and servers that have no native ones.

Tools are listed in the system message; the model calls one by answering with a fenced `tool_call` block; results come
back as fenced `tool_result` blocks, each on one JSON line so that no content can close its fence. `restore` is the
reverse, for servers that speak this protocol (tests/loopback).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["flatten", "parse", "restore"]

Message = dict[str, Any]

_TOOLS = re.compile(r"^```tools\n(.*)\n```$", re.MULTILINE)
_CALL = re.compile(r"^```tool_call[ \t]*\n(.*?)\n?```[ \t]*$", re.MULTILINE | re.DOTALL)
_RESULT = re.compile(r"^```tool_result\n(.*)\n```$", re.MULTILINE)

_HOW = (
    "You can call the tools listed below. To call one, answer with nothing but blocks of this form, one per call:\n\n"
    '```tool_call\n{"name": "...", "arguments": {...}}\n```\n\n'
    "Each result comes back as a tool_result block; never write one yourself. When the work is done, answer without "
    "any tool_call block.\n\n"
)


def flatten(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> list[Message]:
    """The same conversation without native tool messages."""
    flat: list[Message] = []
    if tools:
        listed = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
        flat.append({"role": "system", "content": f"{_HOW}```tools\n{listed}\n```"})
    for message in messages:
        if message.get("role") == "tool":
            result = {k: message.get(k) for k in ("tool_call_id", "name", "content")}
            text = f"```tool_result\n{json.dumps(result, ensure_ascii=False)}\n```"
            if flat and flat[-1].get("role") == "user" and str(flat[-1]["content"]).startswith("```tool_result"):
                flat[-1]["content"] += "\n" + text
            else:
                flat.append({"role": "user", "content": text})
        elif calls := message.get("tool_calls"):
            text = "\n".join(f"```tool_call\n{json.dumps(_bare(call), ensure_ascii=False)}\n```" for call in calls)
            flat.append({"role": "assistant", "content": text})
        else:
            flat.append({"role": message["role"], "content": message.get("content") or ""})
    return flat


def parse(text: str, first: int = 0) -> list[dict[str, Any]]:
    """The tool calls in a model's answer as OpenAI-style dicts, numbered from `first`; empty for a final answer."""
    calls: list[dict[str, Any]] = []
    for block in _CALL.findall(text.split("```tool_result", 1)[0]):
        try:
            value = json.loads(block)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            arguments = value.get("arguments") if isinstance(value.get("arguments"), dict) else {}
            number = first + len(calls) + 1
            calls.append(
                {
                    "id": str(value.get("id") or f"text_call_{number}"),
                    "type": "function",
                    "function": {"name": value["name"], "arguments": json.dumps(arguments, ensure_ascii=False)},
                }
            )
    return calls


def restore(messages: Sequence[Message]) -> tuple[list[Message], list[dict[str, Any]]]:
    """Messages and tools as they were before `flatten`; unchanged, and no tools, where it was not applied."""
    tools: list[dict[str, Any]] = []
    native: list[Message] = []
    for message in messages:
        content = str(message.get("content") or "")
        if message.get("role") == "system" and (listed := _TOOLS.search(content)):
            tools = [{"type": "function", "function": function} for function in json.loads(listed[1])]
        elif message.get("role") == "assistant" and (calls := parse(content)):
            native.append({"role": "assistant", "content": None, "tool_calls": calls})
        elif message.get("role") == "user" and (results := _RESULT.findall(content)):
            native += [{"role": "tool", **json.loads(result)} for result in results]
        else:
            native.append(dict(message))
    return native, tools


def _bare(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = {}
    return {"id": call.get("id"), "name": function["name"], "arguments": arguments}
