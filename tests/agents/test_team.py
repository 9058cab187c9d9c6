"""Work orders with real crewai agents: the playbook in this process, and the same over HTTP through litellm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import SecretStr

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls
from posttrain_crew.agents.roles import Role, load_roles
from posttrain_crew.agents.team import Team
from posttrain_crew.blackboard import Entry
from posttrain_crew.budget import Limits
from posttrain_crew.entries import BudgetSettled, PaperRead, Recipe, WorkOrder
from posttrain_crew.errors import AgentError, RoleError, RunError
from posttrain_crew.settings import Settings
from posttrain_crew.tasks.contracts import EvaluationResult, LiteratureResult, OrderDraft, Plan
from posttrain_crew.tools.workspace import Workspace
from tests.agents.conftest import EchoDesk, FakeHooks
from tests.loopback.llm_server import LLMServer

Order = Callable[..., Entry[WorkOrder]]


def roles() -> dict[str, Role]:
    """The packaged roles, with the tools that the test desks have."""
    kept = {"literature": ["literature"], "evaluator": ["echo"], "coordinator": []}
    return {name: load_roles()[name].model_copy(update={"tools": tools}) for name, tools in kept.items()}


def http_settings(url: str, **more: Any) -> Settings:
    return Settings(llm_base_url=url, llm_api_key=SecretStr("no-key-at-all"), **more)


def play(monkeypatch: pytest.MonkeyPatch, **policies: Any) -> None:
    monkeypatch.setattr("posttrain_crew.agents.playbooks.answer.hooks", lambda: FakeHooks(register_playbooks=policies))


def test_literature_order_posts_papers_and_recipes(
    workspace: Workspace, desk: EchoDesk, order: Order, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    team = Team(workspace, roles(), "playbook", settings)
    started = time.monotonic()
    result = team.run(order("literature", "literature", needs=["format", "reasoning"], exclude=[]))
    assert time.monotonic() - started < 15
    assert result.body.ok, result.body.error
    found = LiteratureResult.model_validate(result.body.result)
    assert 2 <= len(found.recipes) <= 5
    recipes = [workspace.board.typed(name, Recipe) for name in found.recipes]
    assert {"sft", "grpo"} <= {recipe.body.method for recipe in recipes}
    read = {entry.id for entry in workspace.board.of(PaperRead)}
    assert all(set(recipe.refs) <= read and recipe.status == "hypothesis" for recipe in recipes)
    assert set(found.recipes) <= set(result.refs)
    assert found.papers == [f"pap-{n + 1}" for n in range(len(found.papers))]  # ids follow the order of the calls
    second = team.run(order("literature", "literature", needs=["format", "reasoning"], exclude=found.recipes))
    further = LiteratureResult.model_validate(second.body.result)
    assert further.recipes and not set(further.recipes) & set(found.recipes)
    assert capfd.readouterr().out == ""


def test_an_order_is_done_once(workspace: Workspace, desk: EchoDesk, order: Order, settings: Settings) -> None:
    team = Team(workspace, roles(), "playbook", settings)
    sent = order("evaluator", "evaluation", subject="base", few_shot=3)
    first = team.run(sent)
    assert first.body.ok and first.body.result["reason"] == "few_shot 3"
    assert team.run(sent).id == first.id
    assert desk.evaluated == ["base"]
    assert [entry.body.label for entry in workspace.board.of(BudgetSettled)] == [f"llm:{sent.id}:0"]
    events = [json.loads(line) for line in workspace.run.events.read_text().splitlines()]
    assert [(e["tool"], e["role"]) for e in events if e["event"] == "tool_call"] == [("evaluate", "evaluator")]


def test_the_same_order_over_http(workspace: Workspace, desk: EchoDesk, order: Order) -> None:
    with LLMServer() as server:
        server.faults.extend(["429"])
        settings = http_settings(server.url, llm_price_in=1e-6, llm_price_out=1e-6)
        team = Team(workspace, roles(), "openai/playbook", settings)
        result = team.run(order("evaluator", "evaluation", subject="base"))
    assert result.body.ok, result.body.error
    assert result.body.llm_calls == 2 and result.body.tokens > 100 and result.body.usd > 0
    assert workspace.budget.usage().tokens == result.body.tokens


def test_a_model_sees_open_mappings_and_optional_arguments(workspace: Workspace, desk: EchoDesk, order: Order) -> None:
    with LLMServer() as server:
        team = Team(workspace, roles(), "openai/playbook", http_settings(server.url))
        result = team.run(order("literature", "literature", needs=["format"]))
    assert result.body.ok, result.body.error
    sent = {tool["function"]["name"]: tool["function"] for tool in server.requests[0]["tools"]}
    recipe = sent["post_recipe"]["parameters"]
    assert recipe["properties"]["hyperparameters"]["additionalProperties"] is not False
    assert "prior" not in recipe["required"] and "strict" not in sent["post_recipe"]
    assert {"type": "null"} in sent["search_papers"]["parameters"]["properties"]["technique"]["anyOf"]


def test_literature_over_http_with_text_tools(workspace: Workspace, desk: EchoDesk, order: Order) -> None:
    with LLMServer() as server:
        server.refuses_tools = True
        team = Team(workspace, roles(), "openai/playbook", http_settings(server.url))
        result = team.run(order("literature", "literature", needs=["format"]))
    assert result.body.ok, result.body.error
    assert result.body.result["recipes"]


def test_orders_run_side_by_side(workspace: Workspace, desk: EchoDesk, order: Order, settings: Settings) -> None:
    team = Team(workspace, roles(), "playbook", settings)
    orders = [order("evaluator", "evaluation", subject="base", few_shot=n) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(team.run, orders))
    assert [result.body.result["reason"] for result in results] == [f"few_shot {n}" for n in range(4)]


def test_a_made_up_id_is_refused_after_one_retry(
    workspace: Workspace, desk: EchoDesk, order: Order, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def liar(conversation: Conversation) -> Final:
        seen.append(conversation)
        return Final(LiteratureResult(recipes=["rec-77"], papers=[], summary="trust me"))

    play(monkeypatch, literature=liar)
    result = Team(workspace, roles(), "playbook", settings).run(order("literature", "literature", needs=["format"]))
    assert not result.body.ok and "rec-77" in str(result.body.error)
    assert len(seen) == 2


def test_a_broken_tool_ends_the_order_and_not_the_run(
    workspace: Workspace, desk: EchoDesk, order: Order, settings: Settings
) -> None:
    desk.breaks = True
    result = Team(workspace, roles(), "playbook", settings).run(order("evaluator", "evaluation", subject="base"))
    assert not result.body.ok and "ZeroDivisionError" in str(result.body.error)


def test_a_server_that_is_down_is_a_failed_order(
    workspace: Workspace,
    desk: EchoDesk,
    order: Order,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = Settings(llm_base_url="http://127.0.0.1:9/v1", llm_api_key=SecretStr("sk-secretsecretsecret"))
    monkeypatch.setattr("posttrain_crew.agents.llm.litellm_chat._ATTEMPTS", 1)
    result = Team(workspace, roles(), "openai/x", settings).run(order("evaluator", "evaluation", subject="base"))
    assert not result.body.ok and "127.0.0.1:9" in str(result.body.error)
    assert "secretsecret" not in str(result.body.error)
    assert capfd.readouterr().out == ""


def test_an_unknown_price_is_refused_under_a_usd_limit(
    make_workspace: Callable[[Limits], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = make_workspace(Limits(hours=1, usd=1.0))
    monkeypatch.setattr("posttrain_crew.agents.team.hooks", lambda: FakeHooks(register_tools={"echo": EchoDesk()}))
    team_roles = {"evaluator": roles()["evaluator"]}
    sent = limited.board.post(
        WorkOrder(specialist="evaluator", objective="x", budget_seconds=9, result_type="evaluation"),
        author="coordinator",
    )
    result = Team(limited, team_roles, "openai/some-model-without-price", Settings()).run(sent)
    assert not result.body.ok and "price" in str(result.body.error)


def test_a_role_of_a_plugin_works_like_a_built_in(
    workspace: Workspace, desk: EchoDesk, order: Order, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def policy(conversation: Conversation) -> ToolCalls | Final:
        if not conversation.calls:
            return ToolCalls([ToolCall("evaluate", {"subject": "base", "few_shot": 5})])
        return Final(EvaluationResult(job=None, subject="base", reason=conversation.calls[0].result["reason"]))

    play(monkeypatch, adviser=policy)
    adviser = Role(
        name="adviser", role="Adviser", goal="g of {title}", backstory="b", description="Gives advice.",
        tools=["evaluate"], result_type="evaluation", task="work", stage="advise", parameters={"about": "what"},
    )  # fmt: skip
    team = Team(workspace, {**roles(), "adviser": adviser}, "playbook", settings)
    assert "adviser" in [line["name"] for line in team.roster()]
    assert "coordinator" not in [line["name"] for line in team.roster()]
    result = team.run(order("adviser", "evaluation", about="braces {like} these"))
    assert result.body.ok and result.body.result["reason"] == "few_shot 5"


def test_a_plan_is_checked_and_retried_once(
    workspace: Workspace, desk: EchoDesk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [
        Plan(assessment="a", orders=[OrderDraft(specialist="literatur", objective="o", budget_seconds=5)]),
        Plan(assessment="b", orders=[OrderDraft(specialist="literature", objective="o", budget_seconds=5)]),
    ]
    briefs = []

    def policy(conversation: Conversation) -> Final:
        briefs.append(conversation.input["brief"])
        return Final(plans[min(len(briefs), 2) - 1])

    play(monkeypatch, coordinator=policy)
    team = Team(workspace, roles(), "playbook", settings)
    assert team.plan({"text": "a ```json\n{}\n``` b {x}"}).assessment == "b"
    assert briefs[0]["text"] == "a ```json\n{}\n``` b {x}" and briefs[0]["roster"] == team.roster()
    plans[1] = plans[0]
    with pytest.raises(AgentError, match="literatur"):
        team.plan({})


def test_an_unknown_tool_is_a_role_error(workspace: Workspace, desk: EchoDesk, settings: Settings) -> None:
    bad = {"evaluator": roles()["evaluator"].model_copy(update={"tools": ["evaluat"]})}
    with pytest.raises(RoleError, match="`evaluat`"):
        Team(workspace, bad, "playbook", settings)


def test_a_home_that_cannot_be_written_is_explained(
    workspace: Workspace, desk: EchoDesk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "crewai":
            raise FileNotFoundError(2, "No such file or directory")
        return real(name, *rest)

    team = Team(workspace, roles(), "playbook", settings)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RunError, match="HOME"):
        team.plan({})
