"""A walk over citations: best edges first, within its budget, without circles, and honest about what it did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from posttrain_crew.errors import InputError, NotFoundError, ServiceError, ServiceUnavailableError
from posttrain_crew.tools.literature.services.base import (
    CitationLink,
    Direction,
    PaperIds,
    PaperRecord,
    SourceFailure,
)
from posttrain_crew.tools.literature.services.finder import Cited, PaperFinder
from posttrain_crew.tools.literature.services.graph import Walk, WalkBudget, edge_weight, walk
from posttrain_crew.tools.services.services import Services
from tests.loopback.world import Loopback

SEED = PaperIds(arxiv="2609.90001")


def record(number: int, year: int | None = 2026, citations: int | None = 0) -> PaperRecord:
    return PaperRecord(
        ids=PaperIds(arxiv=f"2601.{number:05d}"),
        title=f"The paper with the number {number}",
        year=year,
        citation_count=citations,
        sources=("graph",),
    )


class Graph:
    """Citations by number of the citing paper, with intents; a number that is missing is not known."""

    def __init__(self, cites: Mapping[int, Sequence[tuple[int, str]]], down: Sequence[int] = ()) -> None:
        self._cites, self._down = cites, down
        self.asked: list[tuple[int, Direction]] = []

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> Cited:
        number = int((ids.arxiv or "0").rpartition(".")[2])
        self.asked.append((number, direction))
        if number in self._down:
            raise ServiceUnavailableError("down", service="graph")
        if number not in self._cites:
            raise NotFoundError("unknown", service="graph")
        if direction == "references":
            edges = list(self._cites[number])
        else:
            edges = [(other, intent) for other, row in self._cites.items() for to, intent in row if to == number]
        links = [
            CitationLink(
                paper=record(to), contexts=(f"{number}-{to}",), intents=(intent,), influential=intent == "strong"
            )
            for to, intent in edges[:limit]
        ]
        return Cited(links=links, failures=[], asked=["graph"])


def numbers(result: Walk) -> list[int]:
    return [int((one.paper.ids.arxiv or "0").rpartition(".")[2]) for one in result.reached]


def seed(number: int) -> PaperIds:
    return record(number).ids


def test_the_dataset_paper_that_a_search_misses_is_reached(services: Services) -> None:
    finder = PaperFinder(services)
    searched = [paper.ids.arxiv for paper in finder.search("worked solutions reasoning small models").papers]
    assert "2609.90001" in searched and "2609.90007" not in searched
    result = walk(finder, [SEED], directions=["references"], budget=WalkBudget(max_requests=3), this_year=2026)
    best = result.reached[0]
    assert best.paper.ids.arxiv == "2609.90007" and best.depth == 1
    (step,) = best.path
    assert (step.start, step.end) == ("arxiv:2609.90001", "arxiv:2609.90007") and step.influential
    assert step.intents == ("methodology",) and step.context.startswith("We train on the released exercises")
    assert result.requests == 3 and result.failures == []


def test_walks_go_both_ways_and_are_the_same_every_time(services: Services) -> None:
    finder = PaperFinder(services)
    results = [walk(finder, [SEED], budget=WalkBudget(max_requests=8), this_year=2026) for _ in range(2)]
    assert results[0] == results[1]
    assert {one.path[0].direction for one in results[0].reached} == {"references", "cited_by"}
    keys = [one.paper.ids.key for one in results[0].reached]
    assert len(keys) == len(set(keys)) and "arxiv:2609.90001" not in keys
    assert {one.depth for one in results[0].reached} == {1, 2}


def test_circles_end() -> None:
    graph = Graph({1: [(2, "strong")], 2: [(3, "strong")], 3: [(1, "strong"), (3, "strong")]})
    result = walk(graph, [seed(1)], budget=WalkBudget(max_requests=100, max_depth=50), this_year=2026)
    assert sorted(numbers(result)) == [2, 3]
    assert len(graph.asked) == len(set(graph.asked)) == 6, "each paper once in each direction"


def test_intents_and_influence_order_the_papers() -> None:
    graph = Graph({1: [(2, "background"), (3, "methodology"), (4, "result"), (5, "strong"), (6, "")]})
    result = walk(graph, [seed(1)], directions=["references"], budget=WalkBudget(max_depth=1), this_year=2026)
    assert numbers(result) == [5, 3, 4, 2, 6]


def test_newer_and_more_cited_papers_weigh_more() -> None:
    def weight(year: int | None, citations: int | None) -> float:
        return edge_weight(CitationLink(paper=record(1, year, citations)), 2026)

    assert weight(2026, 0) > weight(2023, 0) > weight(2010, 0) > 0
    assert weight(2020, 10_000) > weight(2020, 100) > weight(2020, 0) == weight(2020, None)
    assert weight(2026, 10**9) <= 1 and weight(2030, 0) == weight(2026, 0)
    whole = CitationLink(paper=record(1, 2026, 10**6), intents=("methodology",), influential=True)
    assert edge_weight(whole, 2026) == pytest.approx(1.0)


def test_the_strongest_way_is_kept_even_if_a_shorter_one_was_seen_first() -> None:
    graph = Graph({1: [(2, "strong"), (9, "")], 2: [(9, "strong")], 9: []})
    result = walk(graph, [seed(1)], directions=["references"], this_year=2026)
    (nine,) = [one for one in result.reached if one.paper.ids.arxiv == "2601.00009"]
    assert [step.context for step in nine.path] == ["1-2", "2-9"]


def test_the_budget_holds_and_what_is_left_is_said() -> None:
    wide = {1: [(n, "result") for n in range(2, 42)], **{n: [(100 + n, "result")] for n in range(2, 42)}}
    graph = Graph(wide)
    result = walk(
        graph, [seed(1)], directions=["references"], budget=WalkBudget(max_papers=5, max_requests=4), this_year=2026
    )
    assert result.requests == len(graph.asked) == 4
    assert len(result.reached) == 5 and result.seen == 43
    assert len(result.not_asked) == 37 and "arxiv:2601.00041" in result.not_asked
    assert walk(graph, [seed(1)], budget=WalkBudget(max_depth=1, per_request=3), directions=["references"]).seen == 3


def test_depth_is_bounded() -> None:
    graph = Graph({n: [(n + 1, "strong")] for n in range(1, 10)})
    result = walk(graph, [seed(1)], directions=["references"], budget=WalkBudget(max_depth=3), this_year=2026)
    assert sorted(numbers(result)) == [2, 3, 4] and result.not_asked == []


def test_what_could_not_be_asked_is_reported() -> None:
    graph = Graph({1: [(2, "strong"), (3, "result")], 3: [(4, "result")]}, down=[2])
    result = walk(graph, [seed(1)], directions=["references"], this_year=2026)
    assert sorted(numbers(result)) == [2, 3, 4]
    told = {(failure.paper, failure.direction, failure.failure.error) for failure in result.failures}
    assert told == {("arxiv:2601.00002", "references", "ServiceUnavailableError")}


def test_an_outage_is_an_error_and_no_short_walk(world: Loopback, services: Services) -> None:
    with pytest.raises(ServiceUnavailableError):
        walk(Graph({}, down=[1, 2]), [seed(1), seed(2)])
    with pytest.raises(NotFoundError):
        walk(Graph({}), [seed(1)])
    world.faults.add("s2", "500", times=None)
    with pytest.raises(ServiceError):
        walk(PaperFinder(services), [SEED])


def test_a_degraded_answer_is_passed_on() -> None:
    failure = SourceFailure(source="other", error="RateLimitedError", message="slow down")

    class Half(Graph):
        def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> Cited:
            whole = super().citations(ids, direction, limit=limit)
            return Cited(links=whole.links, failures=[failure], asked=["graph", "other"])

    result = walk(Half({1: [(2, "strong")]}), [seed(1)], directions=["references"], budget=WalkBudget(max_depth=1))
    assert [told.failure for told in result.failures] == [failure] and numbers(result) == [2]


def test_a_paper_without_a_name_is_reached_and_not_asked() -> None:
    report = PaperRecord(ids=PaperIds(), title="A technical report without a number", sources=("graph",))

    class Unnamed(Graph):
        def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> Cited:
            super().citations(ids, direction)
            return Cited(links=[CitationLink(paper=report)], failures=[], asked=["graph"])

    graph = Unnamed({1: []})
    result = walk(graph, [seed(1)], directions=["references"])
    assert [one.paper.title for one in result.reached] == [report.title] and len(graph.asked) == 1


def test_walks_that_cannot_begin(tmp_path: Path) -> None:
    graph = Graph({1: []})
    for seeds in ([], [PaperIds()]):
        with pytest.raises(InputError, match="seed"):
            walk(graph, seeds)
    with pytest.raises(InputError, match="directions"):
        walk(graph, [seed(1)], directions=["sideways"])  # type: ignore[list-item]
    for name in ("max_papers", "max_requests", "max_depth", "per_request"):
        with pytest.raises(InputError, match=name):
            WalkBudget(**{name: 0})
    assert graph.asked == []


def test_a_paper_with_more_citations_than_were_looked_at_is_named() -> None:
    graph = Graph({0: [(1, "methodology"), (2, "background"), (3, "strong")], 1: [], 2: [], 3: []})
    told = walk(graph, [record(0)], directions=["references"], budget=WalkBudget(max_depth=1, per_request=2))
    assert told.seen == 2 and told.cut == ["arxiv:2601.00000"]
    whole = walk(graph, [record(0)], directions=["references"], budget=WalkBudget(max_depth=1))
    assert whole.seen == 3 and whole.cut == []
