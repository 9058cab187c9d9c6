"""The embedded LLM: no model at all, but the deterministic policy of each role, behind the interface of an LLM.

`answer` is the same function that tests/loopback serves over HTTP, so a run with a real client exercises every layer.
"""

from __future__ import annotations

from typing import Any

from crewai import BaseLLM
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import llm_call_context
from pydantic import BaseModel, PrivateAttr

from posttrain_crew.agents.llm.usage import OnUsage, ignore_usage
from posttrain_crew.agents.playbooks.answer import answer
from posttrain_crew.errors import CrewError

__all__ = ["Playbook", "answer"]


class Playbook(BaseLLM):
    """Plays any role that a policy is registered for. It costs nothing and uses no tokens."""

    llm_type: str = "posttrain_crew_playbook"
    model: str = "playbook"
    _on_usage: OnUsage = PrivateAttr(default_factory=lambda: ignore_usage)

    @classmethod
    def make(cls, on_usage: OnUsage) -> Playbook:
        """One object, for one agent."""
        playbook = cls(model="playbook")
        playbook._on_usage = on_usage
        return playbook

    def supports_function_calling(self) -> bool:
        return True

    def supports_stop_words(self) -> bool:
        return False

    def get_context_window_size(self) -> int:
        return 10_000_000

    def get_input_tokens_count(self, *_args: Any, **_kwargs: Any) -> int:
        return 1

    def call(
        self,
        messages: Any,
        tools: Any = None,
        callbacks: Any = None,
        available_functions: Any = None,
        from_task: Any = None,
        from_agent: Any = None,
        response_model: type[BaseModel] | None = None,
    ) -> Any:
        """The policy's next move."""
        chat: list[Any] = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        with llm_call_context():
            self._emit_call_started_event(messages=chat, tools=tools, from_task=from_task, from_agent=from_agent)
            try:
                move = answer(chat, tools)
            except CrewError as error:
                self._emit_call_failed_event(str(error), from_task, from_agent)
                raise
            self._track_token_usage_internal(usage)
            self._on_usage(0, 0.0)
            kind = LLMCallType.LLM_CALL if isinstance(move, str) else LLMCallType.TOOL_CALL
            self._emit_call_completed_event(move, kind, from_task, from_agent, chat, usage)
            if response_model is not None and isinstance(move, str):
                return response_model.model_validate_json(move)
            return move

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)
