"""The literature desk: offline on the shipped library, online against the loopback services."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall
from posttrain_crew.agents.playbooks.literature import policy
from posttrain_crew.entries import Incident, PaperRead, Recipe
from posttrain_crew.settings import Settings
from posttrain_crew.tools.literature.desk import LiteratureDesk
from posttrain_crew.tools.literature.services.base import PaperIds
from posttrain_crew.tools.literature.services.finder import Known, PaperFinder
from posttrain_crew.tools.literature.told import fitting
from posttrain_crew.tools.services.services import Services
from posttrain_crew.tools.tool import MAX_RESULT_CHARS, tools_of
from posttrain_crew.tools.workspace import Workspace
from tests.loopback.world import Loopback

Call = Callable[..., Any]


@pytest.fixture
def online(workspace: Workspace, world: Loopback, tmp_path: Path) -> Workspace:
    services = Services.parse("loopback", Settings(loopback_url=world.url), cache=tmp_path / "answers")
    return replace(workspace, services=services)


def caller(workspace: Workspace) -> Call:
    tools = {tool.name: tool for tool in tools_of(LiteratureDesk(workspace))}
    return lambda name, **arguments: json.loads(tools[name](arguments))


def recipe(call: Call, **changes: Any) -> Any:
    paper = call("read_paper", arxiv_id="2609.90001")
    values = {
        "title": "t", "method": "sft", "hypothesis": "h", "data_style": "worked", "arxiv_ids": ["2609.90001"],
        "papers": [paper["id"]], "addresses": ["format"],
    }  # fmt: skip
    return call("post_recipe", **(values | changes))


def test_offline_nothing_is_asked_and_the_library_answers(workspace: Workspace, world: Loopback) -> None:
    call = caller(workspace)
    hits = call("search_papers", query="group relative policy optimization", technique="grpo")
    assert "2402.03300" in {hit["arxiv_id"] for hit in hits["items"]} and hits["failed_sources"] == []
    assert call("read_paper", arxiv_id="arXiv:2402.03300v3")["id"] == "pap-1"
    assert world.requests == []


def test_a_read_paper_brings_text_recipes_and_datasets(online: Workspace) -> None:
    call = caller(online)
    told = call("read_paper", arxiv_id="https://arxiv.org/abs/2609.90007v2")
    assert told["read_from"] == "arxiv" and told["datasets"] == ["lab-notebook/quanta-steps"]
    section = told["outline"][1]["id"]
    assert call("read_section", arxiv_id="2609.90007", section=section)["quoted_text"]
    assert (online.run.root / "papers" / "2609.90007.md").read_text().startswith("# A Corpus of Unit-Checked")
    assert online.board.of(PaperRead)[0].body.datasets == ["lab-notebook/quanta-steps"]


def test_the_policy_reaches_a_dataset_over_a_citation(online: Workspace) -> None:
    tools = {tool.name: tool for tool in tools_of(LiteratureDesk(online))}
    task = {"order": {"parameters": {"needs": ["format", "reasoning"]}}, "target": {"domains": ["physics"]}}
    calls: list[ToolCall] = []
    while not isinstance(move := policy(Conversation(task, frozenset(tools), calls)), Final):
        calls += [ToolCall(c.name, c.arguments, json.loads(tools[c.name](c.arguments))) for c in move.calls]
        assert len(calls) < 60
    found = {hit["arxiv_id"] for c in calls if c.name == "search_papers" for hit in c.result["items"]}
    assert "2609.90001" in found and "2609.90007" not in found
    papers = {entry.body.arxiv_id: entry.body for entry in online.board.of(PaperRead)}
    assert papers["2609.90007"].via == ["2609.90001", "2609.90007"]
    recipes = [entry.body for entry in online.board.of(Recipe)]
    assert "lab-notebook/quanta-steps" in recipes[0].datasets
    rate = next(e for e in recipes[0].evidence if e.field == "learning_rate")
    text = (online.run.root / "papers" / f"{rate.arxiv_id}.md").read_text()
    assert rate.text.split(" | ")[-1] in text, "the quotation can be found in the kept text"


def test_a_source_that_is_down_is_told_and_never_no_papers(online: Workspace, world: Loopback) -> None:
    world.faults.add("s2", "503", times=None)
    call = caller(online)
    hits = call("search_papers", query="worked solutions reasoning steps")
    assert hits["items"] and [f["source"] for f in hits["failed_sources"]] == ["semantic_scholar"]
    call("search_papers", query="verifiable rewards")
    incidents = [entry.body for entry in online.board.of(Incident)]
    assert [incident.where for incident in incidents] == ["papers: semantic_scholar"], "told once"
    for service in ("arxiv", "hub"):
        world.faults.add(service, "503", times=None)
    answer = caller(online)("search_papers", query="something else entirely")
    assert answer["error"] == "ServiceUnavailableError" and "semantic_scholar" in answer["message"]


def test_values_that_no_paper_states_are_refused(online: Workspace) -> None:
    call = caller(online)
    stated = recipe(call, hyperparameters={"learning_rate": 2e-5})
    assert stated["id"] == "rec-1"
    invented = recipe(call, hyperparameters={"learning_rate": 3e-4})
    assert invented["error"] == "GateError" and "learning_rate" in invented["message"]
    assert "99.5" in recipe(call, reported=[{"benchmark": "GPQA", "after": 99.5}])["message"]
    assert "no paper" in recipe(call, datasets=["somebody/made-up"])["message"]
    assert len(online.board.of(Recipe)) == 1


def test_a_quote_proves_a_value_only_if_the_paper_has_it(online: Workspace) -> None:
    call = caller(online)
    first = recipe(call, hyperparameters={"learning_rate": 2e-5})
    assert first["id"]
    entry = next(e for e in online.board.of(Recipe)[0].body.evidence if e.field == "learning_rate")
    false = {"field": "learning_rate", "arxiv_id": "2609.90001", "section": entry.where, "text": "learning rate 0.3"}
    answer = recipe(call, hyperparameters={"learning_rate": 0.3}, quotes=[false])
    assert answer["error"] == "GateError" and "not in section" in answer["message"]


def test_an_unread_paper_supports_nothing(online: Workspace) -> None:
    answer = recipe(caller(online), arxiv_ids=["2609.90002"])
    assert answer["error"] == "GateError" and "read_paper" in answer["message"]


@pytest.mark.parametrize("name", ["2609.90018", "2609.90019", "2609.90020"])
def test_a_hostile_paper_is_read_or_refused_and_bounded(online: Workspace, name: str) -> None:
    told = caller(online)("read_paper", arxiv_id=name)
    assert len(json.dumps(told)) < 13_000
    assert "<script" not in json.dumps(told)


def test_services_that_die_after_the_search_cost_what_they_know_and_no_more(online: Workspace, world: Loopback) -> None:
    call = caller(online)
    assert call("search_papers", query="worked solutions reasoning steps")["items"]
    world.faults.add("s2", "503", times=None)
    world.faults.add("arxiv_html", "cut", times=None, path="/html/")
    told = call("read_paper", arxiv_id="2609.90001")
    assert told["read_from"] == "ar5iv" and told["outline"]
    assert {one["source"] for one in told["failed_sources"]} == {"semantic_scholar", "full text of arxiv-html"}
    walked = call("follow_citations", papers=["2609.90001"])
    assert walked["error"] == "ServiceUnavailableError"  # only it has citations
    for service in ("arxiv", "arxiv_html", "ar5iv", "hub"):
        world.faults.add(service, "502", times=None)
    posted = call(
        "post_recipe", title="t", method="sft", hypothesis="h", data_style="worked", arxiv_ids=["2609.90001"],
        papers=[told["id"]], addresses=["format"], hyperparameters={"learning_rate": 2e-5},
    )  # fmt: skip
    assert posted["id"] == "rec-1", "what was read is known, whoever is down now"
    unknown = call("read_paper", arxiv_id="2609.90003")
    assert unknown["error"] == "ServiceUnavailableError"
    told_of = {entry.body.where: entry.body.instead for entry in online.board.of(Incident)}
    assert told_of["papers: full text of arxiv-html"].startswith("the next place")
    assert "stays unknown" in "".join(told_of.values())


def test_a_paper_without_its_text_is_read_again_when_that_is_back(online: Workspace, world: Loopback) -> None:
    for service in ("arxiv_html", "ar5iv"):
        world.faults.add(service, "503", times=None)
    world.faults.add("hub", "503", times=None, path=".md")
    call = caller(online)
    degraded = call("read_paper", arxiv_id="2609.90007")
    assert degraded["read_from"] == "abstract" and degraded["failed_sources"][0]["used_instead"] == "the abstract"
    refused = call("read_section", arxiv_id="2609.90007", section="methodology")
    assert refused["error"] == "InputError"
    world.faults.clear()
    again = call("read_paper", arxiv_id="2609.90007")
    assert again["read_from"] == "arxiv" and again["failed_sources"] == []
    bodies = [entry.body for entry in online.board.of(PaperRead)]
    assert [body.source for body in bodies] == ["abstract", "arxiv"]
    assert call("read_paper", arxiv_id="2609.90007")["id"] == again["id"] != degraded["id"]
    assert call("read_section", arxiv_id="2609.90007", section="methodology")["quoted_text"]


def test_after_a_kill_the_papers_on_the_blackboard_still_support_a_recipe(online: Workspace) -> None:
    first = caller(online)("read_paper", arxiv_id="2609.90001")
    later = caller(online)  # another process: nothing was read in it
    posted = later(
        "post_recipe", title="t", method="sft", hypothesis="h", data_style="worked", arxiv_ids=["arXiv:2609.90001v1"],
        papers=[first["id"]], addresses=["format"], hyperparameters={"learning_rate": 2e-5},
    )  # fmt: skip
    assert posted["id"] == "rec-1"


def test_a_score_counts_for_its_own_benchmark_alone(online: Workspace) -> None:
    call = caller(online)
    score = call("read_paper", arxiv_id="2609.90001")["reported"][0]
    assert recipe(call, reported=[score])["id"] == "rec-1"
    for changes in ({"benchmark": "GPQA"}, {"arxiv_id": "2609.90002"}, {"after": str(score["after"] + 1)}):
        answer = recipe(call, reported=[score | changes])
        assert answer["error"] == "GateError" and "do not state" in answer["message"], changes
    assert "not valid" in recipe(call, reported=[score | {"gain": 40.0}])["message"]


def test_a_setting_counts_for_its_own_method_alone(online: Workspace) -> None:
    answer = recipe(caller(online), method="grpo", hyperparameters={"learning_rate": 2e-5})
    assert answer["error"] == "GateError" and "learning_rate" in answer["message"]


def test_a_section_is_read_page_by_page(online: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    call = caller(online)
    whole = call("read_section", arxiv_id="2609.90001", section="experiments")["quoted_text"]
    monkeypatch.setattr("posttrain_crew.tools.literature.desk._SECTION_CHARS", 500)
    first = call("read_section", arxiv_id="2609.90001", section="experiments")
    texts = [
        call("read_section", arxiv_id="2609.90001", section="experiments", page=number + 1)["quoted_text"]
        for number in range(first["pages"])
    ]
    assert first["pages"] > 1 and "".join(texts) == whole
    answer = call("read_section", arxiv_id="2609.90001", section="experiments", page=99)
    assert "no page 99" in answer["message"]


def test_two_orders_at_once_read_a_paper_once_on_the_blackboard(online: Workspace) -> None:
    call = caller(online)
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda name: call("read_paper", arxiv_id=name), ["2609.90001", "2609.90007"] * 2))
    assert told[0]["id"] == told[2]["id"] and told[1]["id"] == told[3]["id"]
    assert len(online.board.of(PaperRead)) == 2


def test_filters_and_recommendations_reach_the_agent(online: Workspace, workspace: Workspace) -> None:
    call = caller(online)
    hits = call("search_papers", query="worked solutions", min_citations=4)["items"]
    assert hits and all(hit["citations"] >= 4 for hit in hits)
    assert call("similar_papers", arxiv_id="2609.90001")["items"]
    assert "min_citations" in caller(workspace)("search_papers", query="sft", min_citations=4)["message"]


def test_an_answer_never_loses_its_form_to_its_length() -> None:
    answer = fitting({"items": [{"title": "é" * 500}] * 60, "failed_sources": []}, "items")
    assert len(json.dumps(answer, ensure_ascii=False)) <= MAX_RESULT_CHARS
    assert len(answer["items"]) + answer["left_out"] == 60 and len(answer["items"]) > 15


def test_a_year_that_no_source_tells_is_unknown_and_not_0(online: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = PaperFinder.paper

    def without_year(self: PaperFinder, ids: PaperIds) -> Known:
        known = asked(self, ids)
        return replace(known, paper=known.paper.model_copy(update={"year": None}))

    monkeypatch.setattr(PaperFinder, "paper", without_year)
    call = caller(online)
    assert call("read_paper", arxiv_id="doi:10.55555/loop.2025.11")["year"] is None
    assert call("read_paper", arxiv_id="2609.90001")["year"] == 2026  # an arXiv id has it
    assert [entry.body.year for entry in online.board.of(PaperRead)] == [None, 2026]
