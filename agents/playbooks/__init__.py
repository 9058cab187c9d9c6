"""The embedded policies, one module per role: what the team does when no LLM is configured."""

from __future__ import annotations

import importlib
from functools import partial

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, Policy, ToolCalls

__all__ = ["BUILTIN_PLAYBOOKS"]


def _play(module: str, conversation: Conversation) -> ToolCalls | Final:
    policy: Policy = importlib.import_module(f"{__name__}.{module}").policy
    return policy(conversation)


BUILTIN_PLAYBOOKS: dict[str, Policy] = {
    name: partial(_play, name) for name in ("coordinator", "literature", "data", "trainer", "evaluator")
}
"""Policy by role name; a module is imported when its role first plays."""
