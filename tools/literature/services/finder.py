"""All sources of papers of a run asked at once, their answers made one, and what failed told with the answer.

finder = PaperFinder(services)
found = finder.search("worked solutions small models", year_from=2024)
found.papers, found.failures, found.asked
finder.paper(parse_ids("2402.03300")).paper
finder.citations(ids, "references").links
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar, cast

from posttrain_crew.errors import CrewError, InputError, NotFoundError, PluginError, ServiceError
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.tools.literature.services.base import (
    CitationLink,
    Direction,
    FilteredSource,
    PaperIds,
    PaperRecord,
    PaperSource,
    RecommendationSource,
    Snippet,
    SnippetSource,
    SourceFailure,
    old_answers,
    one_line,
)
from posttrain_crew.tools.literature.services.ids import merge_ids
from posttrain_crew.tools.literature.services.merging import MergedPapers, fused, merge_records
from posttrain_crew.tools.services.services import Services

__all__ = ["Cited", "Found", "Known", "PaperFinder", "Quoted"]

LIBRARY = "library"
"""The one source that needs no network."""
_WORDS = {
    "filters": "a search by last year, citations, field or open access",
    "snippets": "passages of full texts",
    "recommendations": "papers like one",
}
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class _Told:
    failures: list[SourceFailure]
    """Sources that could not be asked, or whose outdated answer was used. Tell them on: the answer lacks theirs."""
    asked: list[str]
    """Names of all sources that were asked, failed ones included."""

    @property
    def degraded(self) -> bool:
        """Whether something is missing or outdated."""
        return bool(self.failures)


@dataclass(frozen=True, kw_only=True)
class Found(_Told):
    """Papers, best first."""

    papers: list[PaperRecord]


@dataclass(frozen=True, kw_only=True)
class Known(_Told):
    """One paper, as all sources together know it."""

    paper: PaperRecord


@dataclass(frozen=True, kw_only=True)
class Cited(_Told):
    """Edges of the citation graph."""

    links: list[CitationLink]


@dataclass(frozen=True, kw_only=True)
class Quoted(_Told):
    """Passages of papers, best first."""

    snippets: list[Snippet]


@dataclass(frozen=True)
class _Answers(Generic[_T]):
    values: Mapping[str, _T]
    """By source, in the order of trust."""
    absent: Mapping[str, NotFoundError]
    """Sources that were asked and do not have it."""
    errors: Mapping[str, ServiceError]
    old: Mapping[str, str]

    @property
    def failures(self) -> list[SourceFailure]:
        failed = [SourceFailure.of(name, error) for name, error in self.errors.items()]
        return failed + [
            SourceFailure(source=name, error="ServiceUnavailableError", message=one_line(reason, 600), stale=True)
            for name, reason in self.old.items()
        ]

    @property
    def asked(self) -> list[str]:
        return [*self.values, *self.absent, *self.errors]


class PaperFinder:
    """Searches, papers, citations, passages and recommendations over all sources of a run.

    Each method raises InputError of an argument that cannot be asked, and a ServiceError only when every source failed;
    a part of them failing is in `failures` of the answer. Sources are asked side by side, in threads.

    Args:
        services: which sources are allowed: the shipped library if `services.shipped`, the others if `services.online`.
        sources: used instead of the ones that are registered (hook `register_paper_sources`).
    """

    def __init__(self, services: Services, sources: Sequence[PaperSource] | None = None) -> None:
        self._sources = list(sources) if sources is not None else _registered(services)
        if not self._sources:
            raise InputError(f"the sources {','.join(services.names)} have no papers: choose `--sources shipped,live`.")

    @property
    def sources(self) -> list[str]:
        """Names of the sources, the most trusted first."""
        return [source.name for source in self._sources]

    def search(
        self,
        query: str,
        *,
        year_from: int | None = None,
        limit: int = 20,
        year_to: int | None = None,
        min_citations: int = 0,
        fields_of_study: Sequence[str] = (),
        open_access: bool = False,
    ) -> Found:
        """Papers that fit a query, best first by reciprocal rank fusion over the sources.

        With one of the last four filters, only sources that have them are asked (`filters` in `can`: Semantic Scholar):
        the others cannot tell which of their papers fit. Raises InputError where the run has none.
        """
        _positive(limit)
        if year_to is not None or min_citations > 0 or fields_of_study or open_access:
            answers = self._ask(
                "filters",
                lambda source: cast(FilteredSource, source).search(
                    query,
                    year_from=year_from,
                    limit=limit,
                    year_to=year_to,
                    min_citations=min_citations,
                    fields_of_study=fields_of_study,
                    open_access=open_access,
                ),
            )
        else:
            answers = self._ask("search", lambda source: source.search(query, year_from=year_from, limit=limit))
        if not answers.values:
            _fail(answers)
        papers = _fused(list(answers.values.values()))[:limit]
        return Found(papers=papers, failures=answers.failures, asked=answers.asked)

    def paper(self, ids: PaperIds) -> Known:
        """One paper, with what each source knows of it. Raises NotFoundError when all say that they do not have it."""
        first = self._ask("paper", lambda source: source.paper(ids))
        if not first.values:
            _fail(first)
        record = _folded(list(first.values.values()))
        everything = merge_ids(ids, record.ids)
        again: _Answers[PaperRecord] = _Answers({}, {}, {}, {})
        if first.absent and set(everything.names) - set(ids.names):
            # who knows papers by arXiv id only can answer now that another source has told it
            again = self._ask("paper", lambda source: source.paper(everything), only=set(first.absent))
            in_order = {**first.values, **again.values}
            record = _folded([in_order[name] for name in self.sources if name in in_order])
        return Known(paper=record, failures=[*first.failures, *again.failures], asked=first.asked)

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> Cited:
        """What a paper cites (`references`) or what cites it (`cited_by`), with the sentences where a source has them.

        `limit` is for each source. Raises NotFoundError when no source knows the paper.
        """
        _positive(limit)
        if direction not in ("references", "cited_by"):
            raise InputError(f"direction {direction!r} is unknown; use references or cited_by.")
        answers = self._ask("citations", lambda source: source.citations(ids, direction, limit=limit))
        if not answers.values:
            _fail(answers)
        papers = MergedPapers()
        numbers = [[papers.add(link.paper) for link in links] for links in answers.values.values()]
        edges: dict[int, list[CitationLink]] = {}
        for row, links in zip(numbers, answers.values.values(), strict=True):
            for number, link in zip(row, links, strict=True):
                edges.setdefault(papers.which(number), []).append(link)
        order = fused([papers.which(number) for number in row] for row in numbers)
        merged_links = [_joined(papers[number], edges[number]) for number in order]
        return Cited(links=merged_links, failures=answers.failures, asked=answers.asked)

    def snippets(self, query: str, *, within: Sequence[PaperIds] = (), limit: int = 10) -> Quoted:
        """Passages of full texts that fit a query; of the papers `within` where some are given."""
        _positive(limit)
        answers = self._ask(
            "snippets",
            lambda source: cast(SnippetSource, source).snippets(query, within=tuple(within), limit=limit),
        )
        if not answers.values:
            _fail(answers)
        found = [snippet for snippets in answers.values.values() for snippet in snippets]
        return Quoted(snippets=found[:limit], failures=answers.failures, asked=answers.asked)

    def recommendations(self, ids: PaperIds, *, limit: int = 20) -> Found:
        """Papers like this one, best first. Raises NotFoundError when no source knows it."""
        _positive(limit)
        answers = self._ask(
            "recommendations", lambda source: cast(RecommendationSource, source).recommendations(ids, limit=limit)
        )
        if not answers.values:
            _fail(answers)
        papers = _fused(list(answers.values.values()))[:limit]
        return Found(papers=papers, failures=answers.failures, asked=answers.asked)

    def _ask(self, what: str, call: Callable[[PaperSource], _T], only: set[str] | None = None) -> _Answers[_T]:
        able = [source for source in self._sources if what in source.can and (only is None or source.name in only)]
        if not able:
            raise InputError(
                f"none of the sources {', '.join(self.sources)} can answer this (wanted: {_WORDS.get(what, what)}); "
                "`--sources live` has one that can."
            )
        with ThreadPoolExecutor(max_workers=len(able), thread_name_prefix="papers") as pool:
            running = [(source.name, pool.submit(_one, source, call)) for source in able]
        values: dict[str, _T] = {}
        absent: dict[str, NotFoundError] = {}
        errors: dict[str, ServiceError] = {}
        old: dict[str, str] = {}
        for name, future in running:
            try:
                values[name], reasons = future.result()
            except NotFoundError as error:
                absent[name] = error
            except ServiceError as error:
                errors[name] = error
            else:
                if reasons:
                    old[name] = reasons[0]
        return _Answers(values, absent, errors, old)


def _one(source: PaperSource, call: Callable[[PaperSource], _T]) -> tuple[_T, list[str]]:
    """Runs in a thread of its own: what is noted about old answers is noted for this source."""
    try:
        with old_answers() as reasons:
            return call(source), reasons
    except CrewError:
        raise
    except Exception as error:  # a plugin can raise anything; the other sources' answers are not lost to that
        about = one_line(f"{type(error).__name__}: {error}", 300)
        raise ServiceError(f"the source {source.name} broke: {about}.", service=source.name) from error


def _registered(services: Services) -> list[PaperSource]:
    makers: dict[str, Callable[[Services], PaperSource]] = merged(hooks().register_paper_sources())
    sources = []
    for name, make in makers.items():
        if not (services.shipped if name == LIBRARY else services.online):
            continue
        source = make(services)
        if not isinstance(source, PaperSource):
            raise PluginError(f"the paper source `{name}` lacks a part of PaperSource (literature/services/base).")
        sources.append(source)
    return sources


def _positive(limit: int) -> None:
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1.")


def _fail(answers: _Answers[_T]) -> NoReturn:
    """No source gave an answer: raise what is true of all of them.

    NotFoundError only if every one says that it does not have it: with one of them down, nobody knows.
    """
    told: Mapping[str, ServiceError] = answers.errors or answers.absent
    if len(answers.errors) + len(answers.absent) == 1:
        raise next(iter(told.values()))
    first = next(iter(told.values()))
    waits = [error.retry_after for error in told.values() if error.retry_after is not None]
    message = " ".join(f"{name}: {error}" for name, error in told.items())
    if answers.errors and answers.absent:
        message += f" ({', '.join(answers.absent)} answered, and does not have it.)"
    raise type(first)(
        message, service=first.service, status=first.status, retry_after=min(waits, default=None)
    ) from first


def _folded(records: Sequence[PaperRecord]) -> PaperRecord:
    whole = records[0]
    for record in records[1:]:
        whole = merge_records(whole, record)
    return whole


def _fused(answers: Sequence[Sequence[PaperRecord]]) -> list[PaperRecord]:
    papers = MergedPapers()
    numbers = [[papers.add(record) for record in records] for records in answers]
    return [papers[number] for number in fused([papers.which(number) for number in row] for row in numbers)]


def _joined(paper: PaperRecord, links: Sequence[CitationLink]) -> CitationLink:
    return CitationLink(
        paper=paper,
        contexts=tuple(context for link in links for context in link.contexts),
        intents=tuple(intent for link in links for intent in link.intents),
        influential=any(link.influential for link in links),
    )
