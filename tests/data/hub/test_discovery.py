"""Discovery on the loopback world: ranked with reasons, nothing replaced in silence, no outage hidden."""

from __future__ import annotations

import json

import pytest

from posttrain_crew.errors import InputError, ServiceUnavailableError
from posttrain_crew.tools.data.hub.client import HubDatasets
from posttrain_crew.tools.data.hub.discovery import Discovery, Needs, discover
from posttrain_crew.tools.data.hub.shelf import described
from tests.loopback.world import Loopback

GOOD, DUMP, WALLED, GONE = (
    "lab-notebook/quanta-steps", "quizdump/science-mcq-worked", "walled/physics-olympiad", "gone-lab/lost-set"
)  # fmt: skip


def blocked(found: Discovery) -> dict[str, str]:
    return {problem.dataset: problem.kind for problem in found.problems if problem.blocking}


def test_a_paper_leads_where_no_word_does(hub: HubDatasets) -> None:
    by_words = discover(hub, Needs(query="science questions with worked solutions"))
    assert DUMP in {each.dataset for each in by_words.candidates} and not by_words.failures
    assert GOOD not in {each.dataset for each in by_words.candidates}
    by_paper = discover(hub, Needs(query="science questions with worked solutions", papers=("2609.90007",)))
    good = next(each for each in by_paper.candidates if each.dataset == GOOD)
    assert "linked to arXiv 2609.90007" in good.reasons and "licence cc-by-4.0" in good.reasons
    assert good.revision and good.bytes and good.size == "1K<n<10K"


def test_what_cannot_be_had_is_named(hub: HubDatasets) -> None:
    needs = Needs(
        query="physics",
        papers=("2609.90014",),
        named=((GONE, "recipe rec-1"), ("A Corpus of Quantities", "recipe rec-1"), ("bad/na me", "paper pap-2")),
        deny=("*/science-mcq-*",),
    )
    found = discover(hub, Needs(**{**vars(needs), "query": "physics science worked"}))
    assert blocked(found) == {
        WALLED: "gated", GONE: "missing", DUMP: "denied", "bad/na me": "not a dataset name"
    }  # fmt: skip
    told = {problem.dataset: problem.what for problem in found.problems}
    assert f"/datasets/{WALLED}" in told[WALLED]
    assert "named by recipe rec-1" in told[GONE] and "linked to arXiv 2609.90014" in told[GONE]
    assert not {WALLED, GONE, DUMP} & {each.dataset for each in found.candidates}
    assert any(problem.dataset == "A Corpus of Quantities" and not problem.blocking for problem in found.problems)


def test_a_name_from_a_recipe_comes_first_and_scripts_are_none(hub: HubDatasets) -> None:
    needs = Needs(query="science", named=((GOOD, "recipe rec-3"), ("evil/script-loader", "recipe rec-3")), limit=3)
    found = discover(hub, needs)
    assert found.candidates[0].dataset == GOOD and found.candidates[0].reasons[0] == "named by recipe rec-3"
    assert len(found.candidates) <= 3 and blocked(found) == {"evil/script-loader": "no data files"}


def test_too_large_is_told(hub: HubDatasets) -> None:
    found = discover(hub, Needs(named=((GOOD, "you"),), max_bytes=1000))
    assert blocked(found) == {GOOD: "too large"} and not found.candidates


def test_a_service_that_fails_on_the_way_is_in_the_result(world: Loopback, hub: HubDatasets) -> None:
    world.faults.add("hub", "503", times=None, path="/api/papers/")
    world.faults.add("hub", "500", times=None, path=f"/api/datasets/{DUMP}")
    found = discover(hub, Needs(query="science", papers=("2609.90007",)))
    assert {failure.asked for failure in found.failures} == {"the page of arXiv 2609.90007", f"the files of {DUMP}"}
    assert {failure.error for failure in found.failures} == {"ServiceUnavailableError"}
    assert GOOD in {each.dataset for each in found.candidates}
    assert not blocked(found), "an outage is no property of a dataset"


def test_nothing_answered_is_an_error_and_nothing_asked_too(world: Loopback, hub: HubDatasets) -> None:
    world.faults.add("hub", "502", times=None)
    with pytest.raises(ServiceUnavailableError):
        discover(hub, Needs(query="science", papers=("2609.90007",)))
    with pytest.raises(ServiceUnavailableError):
        discover(hub, Needs(named=((GOOD, "recipe rec-1"),)))
    with pytest.raises(InputError, match="say what is looked for"):
        discover(hub, Needs(query=" "))
    with pytest.raises(InputError, match="arXiv id"):
        discover(hub, Needs(papers=("no paper",)))


def test_what_an_agent_sees_is_bounded(hub: HubDatasets) -> None:
    named = tuple((f"nobody/no-such-set-{number}-{'x' * 60}", "recipe rec-1") for number in range(40))
    shown = described(discover(hub, Needs(query="science physics", named=named, limit=20)))
    assert len(json.dumps(shown)) <= 11_000
    assert len(shown["problems"]) + shown["left_out"]["problems"] >= 40 and shown["candidates"]
