"""From the name of an LLM to the object, one per agent: a shared one would count its tokens several times."""

from __future__ import annotations

from crewai import BaseLLM

from posttrain_crew.agents.llm.litellm_chat import LiteLLMChat
from posttrain_crew.agents.llm.playbook import Playbook
from posttrain_crew.agents.llm.usage import OnUsage, ignore_usage
from posttrain_crew.errors import AgentError
from posttrain_crew.settings import Settings

__all__ = ["PLAYBOOK", "make_llm"]

PLAYBOOK = "playbook"


def make_llm(spec: str, settings: Settings, on_usage: OnUsage = ignore_usage) -> BaseLLM:
    """`playbook`, or a litellm model name such as `openai/gpt-5` or `ollama/qwen3`.

    Raises:
        AgentError: the name or the tool mode cannot be used.
    """
    if spec == PLAYBOOK:
        return Playbook.make(on_usage)
    if not spec.strip():
        raise AgentError("the name of the LLM is empty. Use `playbook`, or a litellm model such as `openai/gpt-5`.")
    if settings.llm_tool_mode not in ("native", "text"):
        raise AgentError(f"CREW_LLM_TOOL_MODE is {settings.llm_tool_mode!r}; use `native` or `text`.")
    return LiteLLMChat(
        model=spec,
        base_url=settings.llm_base_url,
        api_key=settings.llm_api_key.get_secret_value() if settings.llm_api_key else None,
        tool_mode=settings.llm_tool_mode,
        context_window=settings.llm_context_window,
        price_in=settings.llm_price_in,
        price_out=settings.llm_price_out,
    ).listening(on_usage)
