"""The client against a real server on 127.0.0.1, with its faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from posttrain_crew.agents.llm.factory import make_llm
from posttrain_crew.errors import AgentError, BudgetError
from posttrain_crew.settings import Settings
from tests.agents.test_playbooks import opening
from tests.loopback.llm_server import LLMServer

TOOLS = [{"type": "function", "function": {"name": "evaluate", "description": "d", "parameters": {"type": "object"}}}]


@pytest.fixture
def server() -> Iterator[LLMServer]:
    with LLMServer() as running:
        yield running


def chat(server: LLMServer, spent: list[tuple[int, float | None]], **more: Any) -> Any:
    settings = Settings(llm_base_url=server.url, llm_api_key=SecretStr("sk-very-secret-indeed-1234"), **more)
    llm = make_llm("openai/playbook", settings, lambda tokens, usd: spent.append((tokens, usd)))
    llm.retry_wait = 0.01
    return llm


def chat_of(llm: Any) -> Any:
    """The same object; messages are plain dicts here, not crewai's own type."""
    return llm


@pytest.mark.parametrize("fault", ["429", "500", "bad_json", "empty"])
def test_a_passing_fault_is_survived(server: LLMServer, fault: str) -> None:
    spent: list[tuple[int, float | None]] = []
    server.faults.append(fault)
    move = chat(server, spent).call(opening("evaluator", {"subject": "base"}), tools=TOOLS)
    assert move[0]["function"]["name"] == "evaluate"
    assert len(server.requests) == 2
    assert spent[-1][0] > 0 and spent[-1][1] is None  # the price is not known, and not called 0


def test_prices_given_by_the_user_count(server: LLMServer) -> None:
    spent: list[tuple[int, float | None]] = []
    chat(server, spent, llm_price_in=0.5, llm_price_out=0.5).call(opening("evaluator", {}), tools=TOOLS)
    assert spent == [(spent[0][0], spent[0][0] * 0.5)]


def test_a_server_without_tools_gets_text_ones(server: LLMServer) -> None:
    server.refuses_tools = True
    llm = chat(server, [])
    for _ in range(2):
        assert llm.call(opening("evaluator", {"subject": "base"}), tools=TOOLS)[0]["function"]["name"] == "evaluate"
    assert llm.tool_mode == "text"
    assert [bool(request.get("tools")) for request in server.requests] == [True, False, False]


def test_two_empty_answers_are_an_agent_error(server: LLMServer) -> None:
    server.faults.extend(["empty", "empty"])
    with pytest.raises(AgentError, match="answered twice with nothing"):
        chat(server, []).call(opening("evaluator", {}), tools=TOOLS)


def test_a_lasting_fault_is_one_paragraph_without_the_key(server: LLMServer) -> None:
    server.faults.extend(["500"] * 9)
    with pytest.raises(AgentError) as caught:
        chat(server, []).call(opening("evaluator", {}), tools=TOOLS)
    assert "openai/playbook" in str(caught.value) and server.url in str(caught.value)
    assert "very-secret" not in str(caught.value)
    assert len(server.requests) == 5


def test_the_hook_can_end_the_work(server: LLMServer) -> None:
    def refuse(_tokens: int, _usd: float | None) -> None:
        raise BudgetError("no tokens are left")

    settings = Settings(llm_base_url=server.url, llm_api_key=SecretStr("k"))
    with pytest.raises(BudgetError):
        chat_of(make_llm("openai/playbook", settings, refuse)).call(opening("evaluator", {}), tools=TOOLS)


def test_a_bad_tool_mode_is_named() -> None:
    with pytest.raises(AgentError, match="CREW_LLM_TOOL_MODE"):
        make_llm("openai/x", Settings(llm_tool_mode="natve"))
