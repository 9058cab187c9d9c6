"""Who speaks in a conversation: the role names of the wild, as system, user, assistant and tool.

TRL's own conversion (`maybe_convert_to_chatml`) renames the keys of ShareGPT turns but leaves `gpt` and `human` as they
are, and a chat template then either fails or puts a role in the prompt that the model never saw. Turns are therefore
read here: messages, ShareGPT, and the text form of Anthropic's HH-RLHF (two newlines, `Human:` or `Assistant:`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ROLES", "Refusal", "Role", "Turn", "content_text", "read_turns", "role_of", "split_dialogue"]

Role = Literal["system", "user", "assistant", "tool"]

_NAMES: dict[Role, str] = {
    "user": "user human prompter student customer instruction question questioner person client",
    "assistant": "assistant gpt bot model chatgpt tutor agent ai chatbot bard bing claude gpt-4 gpt4 llm teacher "
    "response answer",
    "system": "system developer",
    "tool": "tool function observation function_response function_call tool_call tool_calls tool_response ipython "
    "environment",
}
ROLES: dict[str, Role] = {name: role for role, names in _NAMES.items() for name in names.split()}
"""Role names as they are met, in lower case."""

_SPEAKER = re.compile(r"\n\n(Human|Assistant|System): ?")


@dataclass(frozen=True)
class Turn:
    """One message."""

    role: Role
    content: str

    def record(self) -> dict[str, str]:
        """The message as a chat template wants it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True)
class Refusal:
    """Why a row cannot be used: a short name to count by."""

    reason: str


def role_of(name: object) -> Role | None:
    """The role behind a name, None for one that is not known."""
    return ROLES.get(str(name).strip().lower())


def content_text(content: object) -> str | None:
    """The text of a message: a string, or the text parts of a list of typed parts. None for anything else."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content:
        texts = [
            part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None for part in content
        ]
        if all(isinstance(text, str) for text in texts):
            return "".join(str(text) for text in texts)
    return None


def read_turns(value: object) -> list[Turn] | Refusal:
    """The turns of a `messages` or `conversations` value, or of a dialogue in one text, in plain roles.

    Refused, with a reason: tool calls and tool results (`tool_use`), images or other non-text content (`not_text`),
    a role that nobody knows (`unknown_role`), no turns (`empty`), what is no conversation at all (`no_conversation`).
    """
    if isinstance(value, str):
        turns = split_dialogue(value)
        return turns if turns else Refusal("no_conversation")
    if not isinstance(value, Sequence):
        return Refusal("no_conversation")
    found: list[Turn] = []
    for raw in value:
        if not isinstance(raw, Mapping):
            return Refusal("no_conversation")
        name = next((raw[key] for key in ("role", "from", "speaker", "author") if raw.get(key) is not None), None)
        role = role_of(name)
        if role == "tool" or any(raw.get(key) for key in ("tool_calls", "function_call", "tool_call_id")):
            return Refusal("tool_use")
        if role is None:
            return Refusal("unknown_role")
        text = content_text(next((raw[key] for key in ("content", "value", "text") if raw.get(key) is not None), None))
        if text is None:
            return Refusal("not_text")
        found.append(Turn(role, text))
    return found or Refusal("empty")


def split_dialogue(text: str) -> list[Turn]:
    """The turns of an HH-RLHF text: `\\n\\nHuman: ...\\n\\nAssistant: ...`; empty where the text has no such form."""
    if not text.startswith("\n\n"):
        text = "\n\n" + text.lstrip()
    parts = _SPEAKER.split(text)
    if len(parts) < 3 or parts[0].strip():
        return []
    roles: dict[str, Role] = {"Human": "user", "Assistant": "assistant", "System": "system"}
    return [Turn(roles[who], said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)]
