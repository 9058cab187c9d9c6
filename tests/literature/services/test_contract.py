"""Every method of every client of papers against every fault: none takes a failed request for an empty answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    InputError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.tools.literature.services.arxiv_api import Arxiv
from posttrain_crew.tools.literature.services.base import PaperIds
from posttrain_crew.tools.literature.services.hf_papers import HuggingFacePapers
from posttrain_crew.tools.literature.services.semantic_scholar import SemanticScholar
from posttrain_crew.tools.services.http import Service
from tests.loopback.faults import KINDS
from tests.loopback.world import Loopback

PAPER = PaperIds(arxiv="2609.90001")
CORPUS = PaperIds(arxiv="2609.90007")
QUERY = "worked solutions"


class Call(NamedTuple):
    """A method of a client, on the service that it asks."""

    service: str
    ask: Callable[[Service], Any]


CALLS = {
    "s2.search": Call("s2", lambda s: SemanticScholar(s).search(QUERY)),
    "s2.paper": Call("s2", lambda s: SemanticScholar(s).paper(PAPER)),
    "s2.batch": Call("s2", lambda s: SemanticScholar(s).batch([PAPER, PaperIds(arxiv="2609.99999"), CORPUS])),
    "s2.references": Call("s2", lambda s: SemanticScholar(s).citations(PAPER, "references")),
    "s2.cited_by": Call("s2", lambda s: SemanticScholar(s).citations(PAPER, "cited_by")),
    "s2.snippets": Call("s2", lambda s: SemanticScholar(s).snippets("learning rate")),
    "s2.recommendations": Call("s2", lambda s: SemanticScholar(s).recommendations(PAPER)),
    "arxiv.search": Call("arxiv", lambda s: Arxiv(s).search(QUERY)),
    "arxiv.paper": Call("arxiv", lambda s: Arxiv(s).paper(PAPER)),
    "huggingface.search": Call("hub", lambda s: HuggingFacePapers(s).search(QUERY)),
    "huggingface.daily": Call("hub", lambda s: HuggingFacePapers(s).daily()),
    "huggingface.paper": Call("hub", lambda s: HuggingFacePapers(s).paper(CORPUS)),
    "huggingface.linked_datasets": Call("hub", lambda s: HuggingFacePapers(s).linked_datasets(CORPUS)),
}
TYPES: dict[str, type[ServiceError]] = {
    "429": RateLimitedError,
    "429_retry_after": RateLimitedError,
    "500": ServiceUnavailableError,
    "502": ServiceUnavailableError,
    "503": ServiceUnavailableError,
    "504": ServiceUnavailableError,
    "401": AccessDeniedError,
    "403": AccessDeniedError,
    "404": NotFoundError,
    "cut": ServiceUnavailableError,
    "slow": ServiceUnavailableError,
    "bad_json": BadAnswerError,
    "html": BadAnswerError,
    "no_body": BadAnswerError,
    "bomb": BadAnswerError,
    "empty": BadAnswerError,
    "moved_fields": BadAnswerError,
}
AT_ONCE = {"401", "403", "404", "bomb"}
"""Kinds that are not asked for again: they are answers, or cost too much to be tried twice."""
NO_TELLING = frozenset(
    {"s2.snippets", "s2.recommendations", "huggingface.search", "huggingface.daily", "huggingface.linked_datasets"}
)
"""Lists without a total or a next page: an empty one is what the service says when it has nothing."""


def test_the_table_knows_every_fault_of_the_world() -> None:
    assert set(TYPES) == set(KINDS)


_answers: dict[Call, tuple[Any, int]] = {}


def _healthy(world: Loopback, eager: Callable[..., Service], call: Call) -> tuple[Any, int]:
    """What a call gives when nothing is wrong, and how many requests it takes; asked for once, for speed."""
    if call not in _answers:
        _answers[call] = call.ask(eager(call.service)), len(world.requests)
        world.requests.clear()
    assert _answers[call][0], "an empty answer would be equal to a failed one"
    return _answers[call]


def cases() -> list[Any]:
    return [
        pytest.param(CALLS[name], kind, id=f"{name}-{kind}")
        for name in CALLS
        for kind in KINDS
        if not (kind == "empty" and (name in NO_TELLING or name.endswith((".paper", ".batch"))))
    ]


@pytest.mark.parametrize(("call", "kind"), cases())
def test_a_fault_that_stays_is_its_typed_error(
    world: Loopback, eager: Callable[..., Service], call: Call, kind: str
) -> None:
    service = eager(call.service, timeout_s=0.2, tries=1) if kind == "slow" else eager(call.service)
    world.faults.add(call.service, kind, times=None, seconds=8 if kind == "slow" else None)
    with pytest.raises(ServiceError) as caught:
        call.ask(service)
    assert type(caught.value) is TYPES[kind]
    assert caught.value.service, "the message names the service for those who read the blackboard"
    if kind in AT_ONCE:
        assert len(world.requests) == 1


@pytest.mark.parametrize(("call", "kind"), [case for case in cases() if case.values[1] not in AT_ONCE | {"slow"}])
def test_a_fault_that_passes_leaves_no_trace(
    world: Loopback, eager: Callable[..., Service], call: Call, kind: str
) -> None:
    healthy, requests = _healthy(world, eager, call)
    world.faults.add(call.service, kind)
    assert call.ask(eager(call.service)) == healthy
    assert world.faults.pending == 0
    looked_up = 1 if kind == "empty" and call in (CALLS["s2.references"], CALLS["s2.cited_by"]) else 0
    assert len(world.requests) == requests + 1 + looked_up  # no citations: the count of the paper is looked up


@pytest.mark.parametrize("name", ["s2.search", "arxiv.search", "huggingface.search"])
def test_a_slow_answer_is_waited_for_if_it_is_not_too_slow(
    world: Loopback, eager: Callable[..., Service], name: str
) -> None:
    call = CALLS[name]
    healthy = call.ask(eager(call.service))
    world.faults.add(call.service, "slow", seconds=0.2)
    assert call.ask(eager(call.service)) == healthy


@pytest.mark.parametrize("name", sorted(NO_TELLING))
def test_what_says_that_it_has_nothing_is_believed(world: Loopback, eager: Callable[..., Service], name: str) -> None:
    world.faults.add(CALLS[name].service, "empty", times=None)
    assert CALLS[name].ask(eager(CALLS[name].service)) == []


@pytest.mark.parametrize("seconds", [0, 3])
def test_retry_after_is_honoured_by_every_client(world: Loopback, seconds: int) -> None:
    for name, path in (("s2", "/s2"), ("arxiv", "/arxiv"), ("hub", "")):
        waits: list[float] = []
        service = Service(name, world.url + path, backoff_s=0.0, sleep=waits.append)
        world.faults.add(name, "429_retry_after", seconds=seconds)
        if name == "hub":  # it says the same in another header, too
            world.faults.clear()
            world.faults.add(name, "429")
        call = next(call for call in CALLS.values() if call.service == name)
        assert call.ask(service)
        wanted = 1 if name == "hub" else seconds
        assert [round(wait) for wait in waits] == ([wanted] if wanted else [])
        service.close()


HOSTILE = 'worked & limit=1&fields=paperId#x\n;year=1900 "AND" ti:a OR (b) %26offset=9\u2028solutions + ' * 120


@pytest.mark.parametrize("name", ["s2.search", "s2.snippets", "arxiv.search", "huggingface.search"])
def test_a_hostile_query_of_10_kb_adds_nothing_and_is_cut(
    world: Loopback, eager: Callable[..., Service], name: str
) -> None:
    asks: dict[str, Callable[[Service, str], Any]] = {
        "s2.search": lambda s, q: SemanticScholar(s).search(q, year_from=2020, limit=5),
        "s2.snippets": lambda s, q: SemanticScholar(s).snippets(q, limit=5),
        "arxiv.search": lambda s, q: Arxiv(s).search(q, limit=5),
        "huggingface.search": lambda s, q: HuggingFacePapers(s).search(q, limit=5),
    }
    service = eager(CALLS[name].service)
    asks[name](service, QUERY)
    plain = dict(world.requests[0].parameters)
    world.requests.clear()
    assert len(HOSTILE) > 10_000
    asks[name](service, HOSTILE)
    query_name = {"arxiv.search": "search_query", "huggingface.search": "q"}.get(name, "query")
    searches = [request for request in world.requests if "search" in request.path or "query" in request.path]
    for request in searches:
        names = [parameter for parameter, _ in request.parameters]
        assert len(names) == len(set(names))
        asked = dict(request.parameters)
        assert {key: asked[key] for key in asked if key != query_name} == {
            key: plain[key] for key in plain if key != query_name
        }
        assert "worked" in asked[query_name] and "\n" not in asked[query_name]
        assert len(asked[query_name]) <= 300
        assert "#" not in request.query and len(request.query) < 2000
    assert searches and world.unknown_parameters == []


@pytest.mark.parametrize(
    "ids",
    [
        PaperIds(doi="10.1234/a?fields=paperId&limit=1#b"),
        PaperIds(doi="10.1234/a%3Ffields"),
        PaperIds(doi="10.1002/(sici)1097<1::aid>3.0.co;2-o"),
        PaperIds(arxiv="hep-th/9901001"),
    ],
)
def test_a_hostile_name_stays_in_its_place(world: Loopback, eager: Callable[..., Service], ids: PaperIds) -> None:
    source = SemanticScholar(eager("s2"))
    with pytest.raises(NotFoundError):
        source.paper(ids)
    (request,) = world.requests
    assert request.path == f"/s2/graph/v1/paper/{'ARXIV:' + ids.arxiv if ids.arxiv else 'DOI:' + str(ids.doi)}"
    assert [name for name, _ in request.parameters] == ["fields"]
    assert source.batch([ids]) == [None]
    source.snippets("learning rate", within=[ids])
    assert world.unknown_parameters == []


@pytest.mark.parametrize("query", ["", "  ", "&&& ???", "\n\x00"])
@pytest.mark.parametrize("name", ["s2", "arxiv", "hub"])
def test_a_query_without_a_word_is_refused_before_it_is_sent(
    world: Loopback, eager: Callable[..., Service], name: str, query: str
) -> None:
    source = {"s2": SemanticScholar, "arxiv": Arxiv, "hub": HuggingFacePapers}[name](eager(name))
    with pytest.raises(InputError):
        source.search(query)
    assert world.requests == []
