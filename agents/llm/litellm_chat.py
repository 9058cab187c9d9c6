"""Any model that litellm can reach, as a crewai LLM: native tool calls, text ones where a server has none.

crewai's own LLM class is not used: it prices unknown models at nothing, hides tools from servers that it does not know
and cuts their context window to 8k tokens. Left out: streaming, since no agent's answer is watched word by word.
"""

from __future__ import annotations

import logging
from typing import Any

from crewai import BaseLLM
from crewai.events.types.llm_events import LLMCallType
from crewai.llms.base_llm import llm_call_context
from pydantic import BaseModel, PrivateAttr

from posttrain_crew.agents.llm.text_tools import flatten, parse
from posttrain_crew.agents.llm.usage import OnUsage, ignore_usage
from posttrain_crew.errors import AgentError, CrewError
from posttrain_crew.redact import redact
from posttrain_crew.tools.services.llm_request import ATTEMPTS, complete, denied, price

__all__ = ["LiteLLMChat"]

_ATTEMPTS = ATTEMPTS
_CHARS_PER_TOKEN = 3.5
_log = logging.getLogger(__name__)


class LiteLLMChat(BaseLLM):
    """A chat model behind litellm.

    Fields: tool_mode `native` or `text`; context_window in tokens where litellm does not know the model; timeout of one
    request in seconds; price_in and price_out in USD per token, over litellm's own prices.
    """

    llm_type: str = "posttrain_crew_litellm"
    tool_mode: str = "native"
    context_window: int = 32768
    timeout: float = 600.0
    price_in: float | None = None
    price_out: float | None = None
    retry_wait: float = 1.0
    """Seconds before the first retry where the server names no time; doubled each time."""
    _on_usage: OnUsage = PrivateAttr(default_factory=lambda: ignore_usage)
    _schemas: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    def listening(self, on_usage: OnUsage) -> LiteLLMChat:
        """Report every call's usage to `on_usage`."""
        self._on_usage = on_usage
        return self

    def knowing(self, schemas: dict[str, dict[str, Any]]) -> LiteLLMChat:
        """Send these JSON schemas for the tools of these names. crewai makes every schema `strict`, which forbids all
        keys in an open mapping (`changes`, `hyperparameters`) and makes optional arguments required."""
        self._schemas = schemas
        return self

    def supports_function_calling(self) -> bool:
        return True  # text mode is translated here, so that crewai's executor works the same way for both

    def supports_stop_words(self) -> bool:
        return False

    def get_context_window_size(self) -> int:
        import litellm

        try:
            known = litellm.get_model_info(self.model).get("max_input_tokens")
        except Exception:  # noqa: BLE001 - litellm raises a bare Exception for a model that is not in its map
            known = None
        return int((known or self.context_window) * 0.85)

    def get_input_tokens_count(self, messages: Any, tools: Any = None, response_model: Any = None) -> int:
        return int((len(str(messages)) + len(str(tools or ""))) / _CHARS_PER_TOKEN) + 1

    def price(self, tokens_in: int, tokens_out: int) -> float | None:
        """USD of a call, or None where neither the user nor litellm's map names a price."""
        return price(self.model, tokens_in, tokens_out, self.price_in, self.price_out)

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
        """One answer: a list of tool calls, or text.

        Raises:
            AgentError: the server failed, refused or answered with nothing, after retries.
            BudgetError: the run's limit of tokens or USD is reached.
        """
        chat: list[Any] = [dict(message) for message in self._format_messages(messages)]
        with llm_call_context():
            self._emit_call_started_event(messages=chat, tools=tools, from_task=from_task, from_agent=from_agent)
            try:
                offered = [self._offered(tool) for tool in tools or []]
                move, usage = self._ask(chat, offered)
                if not move:
                    nudge = {"role": "user", "content": "Your last answer was empty. Call a tool, or give the result."}
                    move, usage = self._ask([*chat, nudge], offered)
                if not move:
                    raise AgentError(
                        f"the model `{self.model}` answered twice with nothing. Try another model, or "
                        "CREW_LLM_TOOL_MODE=text if it cannot make native tool calls."
                    )
            except CrewError as error:
                self._emit_call_failed_event(str(error), from_task, from_agent)
                raise
            kind = LLMCallType.LLM_CALL if isinstance(move, str) else LLMCallType.TOOL_CALL
            self._emit_call_completed_event(move, kind, from_task, from_agent, chat, usage)
            if response_model is not None and isinstance(move, str):
                return self._validate_structured_output(move, response_model)
            return move

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def _offered(self, tool: dict[str, Any]) -> dict[str, Any]:
        function = tool["function"]
        kept = {name: function[name] for name in ("name", "description") if name in function}
        parameters = self._schemas.get(str(function["name"]), function.get("parameters"))
        return {"type": "function", "function": {**kept, "parameters": parameters}}

    def _ask(self, chat: list[dict[str, Any]], tools: list[dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        from litellm import exceptions

        if self.tool_mode == "native":
            try:
                answer = self._complete(chat, tools)
            except exceptions.BadRequestError as error:
                if not tools or "tool" not in str(error).lower():
                    raise self._failed(error, "the server refused the request") from error
                _log.warning("%s has no native tool calls; text ones are used from now on.", self.model)
                self.tool_mode = "text"
        if self.tool_mode == "text":
            try:
                answer = self._complete(flatten(chat, tools), [])
            except exceptions.BadRequestError as error:
                raise self._failed(error, "the server refused the request") from error
        usage = self._count(answer)
        if not answer.choices:
            return "", usage
        message = answer.choices[0].message
        if message.tool_calls:
            return [call.model_dump() for call in message.tool_calls], usage
        text = (message.content or "").strip()
        if self.tool_mode == "text" and tools:
            made = sum(len(m.get("tool_calls") or []) for m in chat)
            return parse(text, made) or text, usage
        return text, usage

    def _complete(self, chat: list[dict[str, Any]], tools: list[dict[str, Any]]) -> Any:
        """One request with its retries. BadRequestError passes through."""
        from litellm import exceptions

        try:
            return complete(
                self.model,
                chat,
                timeout_s=self.timeout,
                retry_wait_s=self.retry_wait,
                attempts=_ATTEMPTS,
                api_base=self.base_url,
                api_key=self.api_key,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                seed=self.seed,
                tools=tools or None,
            )
        except exceptions.BadRequestError:
            raise
        except Exception as error:
            refused = isinstance(error, denied())
            what = "check the model's name, the key and the address" if refused else f"{_ATTEMPTS} attempts failed"
            raise self._failed(error, what) from error

    def _count(self, answer: Any) -> dict[str, Any]:
        found = getattr(answer, "usage", None)
        usage = {
            name: int(getattr(found, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        usd = self.price(usage["prompt_tokens"], usage["completion_tokens"])
        self._track_token_usage_internal(usage)
        self._on_usage(usage["total_tokens"], usd)
        return {**usage, "cost_usd": usd}

    def _failed(self, error: Exception, what: str) -> AgentError:
        text = " ".join(str(error).split())
        if self.api_key:
            text = text.replace(self.api_key, "[redacted]")
        place = f" at {redact(self.base_url)}" if self.base_url else ""
        return AgentError(
            f"the model `{self.model}`{place} could not be used ({what}): {type(error).__name__}: {redact(text)[:600]} "
            "Check CREW_LLM, CREW_LLM_BASE_URL and the key, then `crew resume`; `--llm playbook` needs no model."
        )
