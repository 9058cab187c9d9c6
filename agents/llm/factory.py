"""From the name of an LLM to the object, one per agent: a shared one would count its tokens several times."""

from __future__ import annotations

from collections.abc import Callable

from crewai import BaseLLM

from posttrain_crew.agents.llm.litellm_chat import LiteLLMChat
from posttrain_crew.agents.llm.playbook import Playbook
from posttrain_crew.agents.llm.usage import OnUsage, ignore_usage
from posttrain_crew.errors import AgentError
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.settings import Settings

__all__ = ["BUILTIN_LLMS", "MakeLLM", "make_llm"]

MakeLLM = Callable[[str, Settings, OnUsage], BaseLLM]
"""Takes the whole name that the user gave, the settings, and what to call with the tokens and USD of each call: USD is
None where the price is not known, and the BudgetError that it may raise must pass. Raises AgentError with the cure."""


def _playbook(_spec: str, _settings: Settings, on_usage: OnUsage) -> BaseLLM:
    return Playbook.make(on_usage)


def _litellm(spec: str, settings: Settings, on_usage: OnUsage) -> BaseLLM:
    if settings.llm_tool_mode not in ("native", "text"):
        raise AgentError(f"CREW_LLM_TOOL_MODE is {settings.llm_tool_mode!r}; use `native` or `text`.")
    return LiteLLMChat(
        model=spec.removeprefix("litellm/"),
        base_url=settings.llm_base_url,
        api_key=settings.llm_api_key.get_secret_value() if settings.llm_api_key else None,
        tool_mode=settings.llm_tool_mode,
        context_window=settings.llm_context_window,
        price_in=settings.llm_price_in,
        price_out=settings.llm_price_out,
    ).listening(on_usage)


BUILTIN_LLMS: dict[str, MakeLLM] = {"playbook": _playbook, "litellm": _litellm}


def make_llm(spec: str, settings: Settings, on_usage: OnUsage = ignore_usage) -> BaseLLM:
    """`playbook`, a plugin's LLM by its prefix, or a litellm model name such as `openai/gpt-5` or `ollama/qwen3`.

    Raises:
        AgentError: the name or the tool mode cannot be used.
        PluginError: two plugins claim a prefix.
    """
    if not spec.strip():
        raise AgentError("the name of the LLM is empty. Use `playbook`, or a litellm model such as `openai/gpt-5`.")
    makers: dict[str, MakeLLM] = merged(hooks().register_llms())
    return makers.get(spec.split("/")[0], _litellm)(spec, settings, on_usage)
