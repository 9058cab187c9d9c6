"""From a chat to the playbook's next message: a pure function of messages and tools, as an LLM server sees them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, Policy, ToolCall
from posttrain_crew.errors import AgentError
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.tasks.prompts import task_input

__all__ = ["answer", "conversation_of"]


def answer(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]] | str:
    """Tool calls in OpenAI's form, or the final JSON. Without tools it is always the final JSON.

    Raises:
        AgentError: no task input is in the messages, or no policy plays the specialist that it names.
    """
    conversation = conversation_of(messages, tools)
    policies: dict[str, Policy] = merged(hooks().register_playbooks())
    name = str(conversation.input["specialist"])
    if name not in policies:
        raise AgentError(
            f"no playbook plays the role `{name}` (known: {', '.join(sorted(policies))}). Give this role an LLM with "
            "`llm:` in its YAML file, or let its plugin register one with the hook register_playbooks."
        )
    move = policies[name](conversation)
    if isinstance(move, Final):
        return str(move.model.model_dump_json())
    wanted = [call for call in move.calls if call.name in conversation.tools]
    if not wanted:
        missing = ", ".join(sorted({call.name for call in move.calls})) or "no tool at all"
        raise AgentError(
            f"the playbook of `{name}` wants to call {missing}, which it does not have now. Check `tools` and "
            "`max_iter` in the role's YAML file."
        )
    first = len(conversation.calls)
    return [
        {
            "id": f"call_{first + number}_{call.name}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
        }
        for number, call in enumerate(wanted, start=1)
    ]


def conversation_of(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None) -> Conversation:
    """What a policy sees of a chat. Tool results never count as task input, whatever is written in them."""
    found = task_input([_text(message) for message in messages if message.get("role") in ("system", "user")])
    if found is None:
        raise AgentError(
            "the conversation holds no task input (a fenced json block with `specialist`), so the playbook does not "
            "know its role. The prompt template must have the placeholder {input_json}."
        )
    results = {str(m.get("tool_call_id")): _parsed(_text(m)) for m in messages if m.get("role") == "tool"}
    calls: list[ToolCall] = []
    for message in messages:
        for call in message.get("tool_calls") or []:
            if str(call.get("id")) in results:
                arguments = _parsed(call["function"].get("arguments") or "{}")
                calls.append(
                    ToolCall(
                        call["function"]["name"],
                        arguments if isinstance(arguments, dict) else {},
                        results[str(call.get("id"))],
                    )
                )
    names = frozenset(str(tool["function"]["name"]) for tool in tools or [])
    return Conversation(input=found, tools=names, calls=calls)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")


def _parsed(text: str | dict[str, Any]) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
