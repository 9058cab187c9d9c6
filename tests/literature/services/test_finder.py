"""PaperFinder: many sources, one answer, and no failure hidden."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain_crew.errors import (
    BadAnswerError,
    InputError,
    NotFoundError,
    PluginError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.plugins import hookimpl, manager
from posttrain_crew.settings import Settings
from posttrain_crew.tools.literature.services.base import CitationLink, Direction, PaperIds, PaperRecord
from posttrain_crew.tools.literature.services.finder import PaperFinder
from posttrain_crew.tools.literature.services.ids import parse_ids
from posttrain_crew.tools.literature.services.merging import MergedPapers, fused, merge_records
from posttrain_crew.tools.services.services import Services
from tests.loopback.world import Loopback

WORKED = PaperIds(arxiv="2609.90001")


def paper(title: str, year: int | None = 2026, source: str = "one", **ids: str) -> PaperRecord:
    return PaperRecord(ids=PaperIds(**ids), title=title, year=year, sources=(source,))


class Stub:
    """A plugin's source: what it answers is a function of the test's."""

    can = frozenset({"search", "paper", "citations"})

    def __init__(self, name: str, answer: Callable[[], list[PaperRecord]]) -> None:
        self.name, self._answer = name, answer

    def search(self, query: str, *, year_from: int | None = None, limit: int = 20) -> list[PaperRecord]:
        return self._answer()

    def paper(self, ids: PaperIds) -> PaperRecord:
        return self._answer()[0]

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> list[CitationLink]:
        return [CitationLink(paper=record) for record in self._answer()]


def failing(error: Exception) -> Callable[[], list[PaperRecord]]:
    def answer() -> list[PaperRecord]:
        raise error

    return answer


def finder_of(*sources: Stub) -> PaperFinder:
    return PaperFinder(Services(), sources)


# --- the registered sources on the loopback world ---


def test_the_same_paper_from_three_services_is_one_entry(services: Services) -> None:
    found = PaperFinder(services).search("worked solutions small models", limit=10)
    assert found.asked == ["semantic_scholar", "arxiv", "huggingface", "library"] and not found.degraded
    first = found.papers[0]
    assert first.ids.arxiv == "2609.90001" and first.ids.corpus
    assert first.sources == ("semantic_scholar", "arxiv", "huggingface")
    assert first.citation_count == 5 and first.code, "each source adds what it knows"
    keys = [record.ids.key for record in found.papers]
    assert len(keys) == len(set(keys)) <= 10
    assert any("library" in record.sources for record in found.papers)


def test_a_source_that_is_down_is_told_and_the_others_answer(world: Loopback, services: Services) -> None:
    world.faults.add("s2", "502", times=None)
    found = PaperFinder(services).search("worked solutions small models")
    (failure,) = found.failures
    assert (failure.source, failure.error, failure.stale) == ("semantic_scholar", "ServiceUnavailableError", False)
    assert "502" in failure.message and "semantic_scholar" in found.asked
    assert found.papers[0].ids.arxiv == "2609.90001" and "semantic_scholar" not in found.papers[0].sources


def test_when_all_are_down_there_is_an_error_and_no_empty_answer(world: Loopback, tmp_path: Path) -> None:
    online = Services.parse("loopback", Settings(loopback_url=world.url), cache=tmp_path)
    for service in ("s2", "arxiv", "hub"):
        world.faults.add(service, "503", times=None)
    finder = PaperFinder(online)
    for ask in (
        lambda: finder.search("worked solutions"),
        lambda: finder.paper(WORKED),
        lambda: finder.citations(WORKED, "references"),
        lambda: finder.snippets("learning rate"),
        lambda: finder.recommendations(WORKED),
    ):
        with pytest.raises(ServiceUnavailableError, match=r"503|not asked again"):
            ask()


def test_an_outdated_answer_stands_in_and_is_told(world: Loopback, services: Services) -> None:
    fresh = PaperFinder(services).search("worked solutions", limit=5)
    for stored in (services.cache or Path()).rglob("*"):
        if stored.is_file():
            head, _, body = stored.read_bytes().partition(b"\n")
            kept = {**json.loads(head), "at": time.time() - 3 * 86400}
            stored.write_bytes(json.dumps(kept).encode() + b"\n" + body)
    world.faults.add("s2", "503", times=None)
    found = PaperFinder(services).search("worked solutions", limit=5)
    assert found.papers == fresh.papers
    (failure,) = found.failures
    assert failure.source == "semantic_scholar" and failure.stale and "72.0 hours old" in failure.message


def test_an_answer_of_yesterday_is_not_asked_for_again(world: Loopback, services: Services) -> None:
    PaperFinder(services).search("worked solutions")
    world.requests.clear()
    PaperFinder(services).search("worked solutions")
    assert world.requests == []


def test_a_source_that_dawdles_is_given_up(world: Loopback, services: Services) -> None:
    world.faults.add("s2", "slow", times=None, seconds=30)
    found = PaperFinder(replace(services, timeout_s=0.2)).search("worked solutions")
    assert [failure.source for failure in found.failures] == ["semantic_scholar"] and found.papers


def test_a_paper_is_known_by_all_once_one_tells_its_other_name(services: Services) -> None:
    finder = PaperFinder(services)
    corpus = finder.paper(WORKED).paper.ids.corpus
    known = finder.paper(parse_ids(f"CorpusId:{corpus}"))
    assert known.paper.sources == ("semantic_scholar", "arxiv", "huggingface")
    assert known.paper.ids.arxiv == "2609.90001" and not known.degraded
    assert finder.paper(parse_ids("2609.90007")).paper.datasets == ("lab-notebook/quanta-steps",)


def test_not_found_is_said_only_when_everyone_says_it(world: Loopback, services: Services) -> None:
    finder = PaperFinder(services)
    with pytest.raises(NotFoundError):
        finder.paper(PaperIds(arxiv="2609.99999"))
    world.faults.add("s2", "500", times=None)
    with pytest.raises(ServiceUnavailableError, match="does not have it"):
        finder.paper(PaperIds(arxiv="2609.99998"))
    assert [failure.source for failure in finder.paper(PaperIds(arxiv="2609.90002")).failures] == ["semantic_scholar"]


def test_citations_passages_and_recommendations(services: Services) -> None:
    finder = PaperFinder(services)
    links = finder.citations(WORKED, "references").links
    (data,) = [link for link in links if link.paper.ids.arxiv == "2609.90007"]
    assert data.influential and data.contexts
    assert finder.citations(PaperIds(arxiv="2402.03300"), "cited_by").links, "the library answers for its own papers"
    (snippet, *_) = finder.snippets("learning rate", within=[WORKED], limit=2).snippets
    assert snippet.paper.ids == finder.paper(WORKED).paper.ids
    recommended = finder.recommendations(WORKED, limit=4).papers
    assert 0 < len(recommended) <= 4 and "2609.90001" not in [record.ids.arxiv for record in recommended]


def test_the_shipped_library_alone_asks_nobody(world: Loopback) -> None:
    finder = PaperFinder(Services.parse("shipped"))
    assert finder.sources == ["library"]
    assert finder.search("preference optimization without a reward model").papers
    with pytest.raises(NotFoundError):
        finder.paper(WORKED)
    with pytest.raises(InputError, match="live"):
        finder.snippets("learning rate")
    assert world.requests == []


def test_online_without_shipped_has_no_library(world: Loopback) -> None:
    finder = PaperFinder(Services.parse("loopback", Settings(loopback_url=world.url)))
    assert finder.sources == ["semantic_scholar", "arxiv", "huggingface"]


@pytest.mark.parametrize("query", ["", "?!"])
def test_what_cannot_be_asked_is_the_users_error(services: Services, query: str) -> None:
    with pytest.raises(InputError):
        PaperFinder(services).search(query)
    with pytest.raises(InputError, match="at least 1"):
        PaperFinder(services).search("grpo", limit=0)
    with pytest.raises(InputError, match="direction"):
        PaperFinder(services).citations(WORKED, "sideways")  # type: ignore[arg-type]


@pytest.fixture
def plugin() -> Iterator[dict[str, Callable[[Services], object]]]:
    """A plugin that is registered for one test: what the test puts into the mapping are its paper sources."""
    makers: dict[str, Callable[[Services], object]] = {}

    class Plugin:
        @hookimpl
        def register_paper_sources(self) -> dict[str, Callable[[Services], object]]:
            return makers

    registered = Plugin()
    manager().register(registered)
    yield makers
    manager().unregister(registered)


def test_a_plugin_adds_a_source(services: Services, plugin: dict[str, Callable[[Services], object]]) -> None:
    mine = paper("A note about worked solutions", arxiv="2601.00001", source="notes")
    plugin["notes"] = lambda _services: Stub("notes", lambda: [mine])
    found = PaperFinder(services).search("worked solutions")
    assert found.asked[-1] == "notes" and mine in found.papers
    assert "notes" not in PaperFinder(Services.parse("shipped")).sources, "only online sources are asked online"
    plugin["notes"] = lambda _services: object()
    with pytest.raises(PluginError, match="`notes` lacks"):
        PaperFinder(services)


# --- how answers are put together ---


def test_sources_are_asked_side_by_side() -> None:
    meet = threading.Barrier(3, timeout=10)

    def answer() -> list[PaperRecord]:
        meet.wait()  # breaks unless all three are being asked at once
        return [paper("A paper of this source", arxiv="2601.00001")]

    found = finder_of(*(Stub(name, answer) for name in "abc")).search("anything")
    assert len(found.papers) == 1 and found.failures == []


def test_a_plugin_that_breaks_is_told_and_costs_nothing_else() -> None:
    good = Stub("good", lambda: [paper("A good paper about training", arxiv="2601.00001")])
    found = finder_of(Stub("broken", failing(KeyError("data"))), good).search("anything")
    assert [record.title for record in found.papers] == ["A good paper about training"]
    assert [(failure.source, failure.error) for failure in found.failures] == [("broken", "ServiceError")]
    assert "KeyError" in found.failures[0].message
    with pytest.raises(ServiceError, match="broken broke"):
        finder_of(Stub("broken", failing(KeyError("data")))).search("anything")


def test_the_error_of_many_names_each() -> None:
    down = failing(RateLimitedError("too many", service="a", status=429, retry_after=9))
    bad = failing(BadAnswerError("no JSON", service="b"))
    with pytest.raises(RateLimitedError, match="a: too many b: no JSON") as caught:
        finder_of(Stub("a", down), Stub("b", bad)).search("anything")
    assert caught.value.retry_after == 9 and caught.value.status == 429


def test_an_empty_answer_and_a_failure_are_an_empty_answer_that_is_degraded() -> None:
    found = finder_of(Stub("a", list), Stub("b", failing(ServiceUnavailableError("down", service="b")))).search("x")
    assert found.papers == [] and found.degraded and found.asked == ["a", "b"]


def test_papers_that_more_sources_find_come_first() -> None:
    x, y, z = (paper(f"Title of the paper {name}", arxiv=f"2601.0000{n}") for n, name in enumerate("xyz", start=1))
    found = finder_of(Stub("a", lambda: [x, y]), Stub("b", lambda: [z, y])).search("anything")
    assert [record.title[-1] for record in found.papers] == ["y", "x", "z"]
    assert finder_of(Stub("a", lambda: [x, y, z])).search("anything", limit=2).papers == [x, y]
    assert fused([[1, 1, 2], [2]]) == [2, 1], "a source that lists a paper twice has one voice for it"


def test_one_record_may_show_that_two_others_are_one_paper() -> None:
    papers = MergedPapers()
    one = papers.add(paper("Preprint with one name", arxiv="2601.00001"))
    two = papers.add(paper("Printed under another name", source="two", doi="10.1/x"))
    assert papers.which(one) != papers.which(two)
    papers.add(paper("Knows both of them", source="three", arxiv="2601.00001", doi="10.1/x"))
    assert papers.which(one) == papers.which(two)
    assert papers[two].sources == ("one", "two", "three") and papers[two].title == "Preprint with one name"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (paper("Direct Preference Tuning", doi="10.1/a"), paper("direct preference tuning!", corpus="7"), True),
        (paper("A Long Enough Title", 2025, doi="10.1/a"), paper("A Long Enough Title", 2026, corpus="7"), True),
        (paper("A Long Enough Title", 2020, doi="10.1/a"), paper("A Long Enough Title", 2026, corpus="7"), False),
        (paper("A Long Enough Title", None, doi="10.1/a"), paper("A Long Enough Title", 2026, corpus="7"), True),
        (paper("A Long Enough Title", arxiv="2601.00001"), paper("A Long Enough Title", arxiv="2601.00002"), False),
        (paper("Overview", doi="10.1/a"), paper("Overview", corpus="7"), False),
        (paper("Same name, other title", arxiv="2601.00001"), paper("Another title", arxiv="2601.00001"), True),
    ],
)  # fmt: skip
def test_what_makes_two_records_one_paper(first: PaperRecord, second: PaperRecord, same: bool) -> None:
    for pair in ((first, second), (second, first)):
        papers = MergedPapers()
        one, two = (papers.add(record) for record in pair)
        assert (papers.which(one) == papers.which(two)) is same


def test_merging_fills_gaps_and_contradicts_nothing() -> None:
    one = PaperRecord(ids=WORKED, title="T", citation_count=0, datasets=("a/1",), sources=("one",))
    printed = PaperIds(doi="10.1/x")
    two = PaperRecord(
        ids=printed, title="U", abstract="About.", citation_count=9, datasets=("a/2", "a/1"), sources=("two",)
    )
    both = merge_records(one, two)
    assert (both.title, both.abstract, both.citation_count) == ("T", "About.", 0)
    assert both.datasets == ("a/1", "a/2") and both.ids.doi == "10.1/x"


def test_a_source_that_wants_a_long_pause_is_left_out_with_its_pause(world: Loopback, services: Services) -> None:
    world.faults.add("s2", "429_retry_after", times=1, seconds=100)
    finder = PaperFinder(services)
    start = time.monotonic()
    for query in ("worked solutions", "verifiable rewards"):  # nor is it asked for the second one
        (failure,) = finder.search(query).failures
        assert failure.error == "RateLimitedError" and failure.retry_after_s is not None
        assert 80 < failure.retry_after_s <= 100 and "pause" in failure.message
    assert time.monotonic() - start < 20
    assert sum("/s2/" in request[1] for request in world.requests) == 1
