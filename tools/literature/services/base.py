"""What every source of papers offers, and the typed records that all of them return.

A source raises a ServiceError for everything that it could not find out; an empty list means that it was asked and has
nothing. What a source says is data: texts are cut to size and freed of control characters, whoever writes the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from posttrain_crew.errors import InputError, NotFoundError, ServiceError
from posttrain_crew.tools.services.http import Answer

__all__ = [
    "CitationLink",
    "Direction",
    "FilteredSource",
    "PaperIds",
    "PaperRecord",
    "PaperSource",
    "RecommendationSource",
    "Snippet",
    "SnippetSource",
    "SourceFailure",
    "bounded_query",
    "old_answers",
    "old_answers_welcome",
    "one_line",
    "remember_if_old",
    "unknown_to",
]

Direction = Literal["references", "cited_by"]
"""references: what a paper cites; cited_by: what cites it."""

MAX_AUTHORS = 20
MAX_CONTEXTS = 8
MAX_LINKED = 200
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_line(value: object, limit: int) -> str:
    """A text of a service or a user as one line of at most `limit` characters; the empty string for anything else."""
    if not isinstance(value, str):
        return ""
    # cut before the work, so that a huge text costs nothing; twice, because runs of white space shrink
    return " ".join(_UNSEEN.sub(" ", value[: 4 * limit]).split())[:limit].rstrip()


def _cut(limit: int) -> BeforeValidator:
    return BeforeValidator(lambda value: one_line(value, limit) if isinstance(value, str) else value)


def _cut_or_none(limit: int) -> BeforeValidator:
    return BeforeValidator(lambda value: (one_line(value, limit) or None) if isinstance(value, str) else value)


def _cut_each(limit: int, number: int) -> BeforeValidator:
    def cut(value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        lines = (one_line(each, limit) if isinstance(each, str) else each for each in value[: 4 * number])
        return tuple(line for line in dict.fromkeys(lines) if line)[:number]

    return BeforeValidator(cut)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperIds(_Record):
    """The names of one paper, each in its normal form: no version, no prefix, lower-case DOI (see `ids`)."""

    arxiv: str | None = None
    """For example 2402.03300."""
    doi: str | None = None
    corpus: str | None = None
    """Semantic Scholar's CorpusId."""
    s2: str | None = None
    """Semantic Scholar's 40-digit paper id."""

    @property
    def key(self) -> str:
        """One name: `arxiv:...`, else `doi:...`, `corpus:...`, `s2:...`; empty where there is none."""
        return next(iter(self.names), "")

    @property
    def names(self) -> tuple[str, ...]:
        """All names with their kind in front, the best known kind first."""
        pairs = (("arxiv", self.arxiv), ("doi", self.doi), ("corpus", self.corpus), ("s2", self.s2))
        return tuple(f"{kind}:{value}" for kind, value in pairs if value)


class PaperRecord(_Record):
    """A paper as sources describe it. Texts are bounded, and they are data: never instructions."""

    ids: PaperIds
    title: Annotated[str, _cut(500), Field(max_length=500)]
    abstract: Annotated[str, _cut(6000), Field(max_length=6000)] = ""
    year: Annotated[int | None, Field(ge=1800, le=2200)] = None
    published: Annotated[str | None, _cut_or_none(10)] = None
    """ISO date."""
    authors: Annotated[tuple[str, ...], _cut_each(120, MAX_AUTHORS)] = ()
    """At most 20."""
    venue: Annotated[str | None, _cut_or_none(200)] = None
    citation_count: int | None = None
    influential_citation_count: int | None = None
    summary: Annotated[str | None, _cut_or_none(1000)] = None
    """A short summary made by the service (tldr, ai_summary), where it has one."""
    datasets: Annotated[tuple[str, ...], _cut_each(200, MAX_LINKED)] = ()
    """Hub ids that the service links to the paper."""
    models: Annotated[tuple[str, ...], _cut_each(200, MAX_LINKED)] = ()
    code: Annotated[str | None, _cut_or_none(300)] = None
    """Repository URL."""
    sources: tuple[str, ...]
    """Names of the sources that know it."""


class CitationLink(_Record):
    """One edge of the citation graph, as seen from the paper that was asked about."""

    paper: PaperRecord
    contexts: Annotated[tuple[str, ...], _cut_each(600, MAX_CONTEXTS)] = ()
    """Sentences around the citation, bounded in number and length; those with the strongest intent first."""
    intents: Annotated[tuple[str, ...], _cut_each(40, 6)] = ()
    """methodology, background, result."""
    influential: bool = False


class Snippet(_Record):
    """A passage of a paper's text that fits a query."""

    paper: PaperRecord
    text: Annotated[str, _cut(4000)]
    section: Annotated[str | None, _cut_or_none(200)]
    score: float


class SourceFailure(_Record):
    """A source that could not be asked, so that an answer without it is known to be degraded."""

    source: str
    error: str
    """Class of the ServiceError."""
    message: str
    stale: bool = False
    """An older answer from the cache was used in its place."""
    retry_after_s: float | None = None
    """Seconds after which the service allows another try, where it said so."""

    @classmethod
    def of(cls, source: str, error: ServiceError) -> SourceFailure:
        """What a source raised."""
        message = one_line(str(error), 600)
        return cls(source=source, error=type(error).__name__, message=message, retry_after_s=error.retry_after)


@runtime_checkable
class PaperSource(Protocol):
    """A source of papers. What it cannot do at all it leaves out of `can`, and is then not asked for it.

    Sources are asked from several threads. They raise ServiceError for what could not be found out, NotFoundError for
    what they were asked about and do not have, and InputError for what no source could be asked.
    """

    name: str
    can: frozenset[str]
    """Some of: search, filters, paper, citations, snippets, recommendations."""

    def search(self, query: str, *, year_from: int | None = None, limit: int = 20) -> list[PaperRecord]:
        """Papers, best first."""
        ...

    def paper(self, ids: PaperIds) -> PaperRecord:
        """One paper. Raises NotFoundError, also where none of the ids is of a kind that the source knows."""
        ...

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> list[CitationLink]:
        """What it cites, or what cites it. Raises NotFoundError as `paper` does."""
        ...


@runtime_checkable
class FilteredSource(Protocol):
    """What a PaperSource with `filters` in `can` takes, too."""

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
    ) -> list[PaperRecord]:
        """As `search`, with papers that pass all filters alone."""
        ...


@runtime_checkable
class SnippetSource(Protocol):
    """What a PaperSource with `snippets` in `can` has, too."""

    def snippets(self, query: str, *, within: tuple[PaperIds, ...] = (), limit: int = 10) -> list[Snippet]:
        """Passages that fit a query, best first; of the papers `within` where some are given."""
        ...


@runtime_checkable
class RecommendationSource(Protocol):
    """What a PaperSource with `recommendations` in `can` has, too."""

    def recommendations(self, ids: PaperIds, *, limit: int = 20) -> list[PaperRecord]:
        """Papers like this one, best first. Raises NotFoundError as `paper` does."""
        ...


def bounded_query(query: str, limit: int) -> str:
    """A query as one line, cut at a word to at most `limit` characters. Raises InputError when there is no word in it.

    Services refuse long queries or cut them in silence; what matters stands at the beginning of most questions.
    """
    line = one_line(query, max(limit, 2000))
    if len(line) > limit:
        line = (line[: limit + 1].rpartition(" ")[0] or line)[:limit].rstrip()
    if not any(character.isalnum() for character in line):
        raise InputError(f"the query {query[:80]!r} has no word in it: write what papers should be about.")
    return line


def unknown_to(source: str, ids: PaperIds, kinds: str) -> NotFoundError:
    """The error of a source that has no use for the kind of names that it was given."""
    return NotFoundError(f"{source} knows papers by {kinds} only; {ids.key or 'no name'} is none.", service=source)


_old: ContextVar[list[str] | None] = ContextVar("old_answers", default=None)


@contextmanager
def old_answers() -> Iterator[list[str]]:
    """Inside, a source may use an outdated answer of its cache when the service is down.

    Yields the list to which the reason of each is added: whoever opens this has to tell it on. Outside, a source that
    is down raises.
    """
    reasons: list[str] = []
    token = _old.set(reasons)
    try:
        yield reasons
    finally:
        _old.reset(token)


def old_answers_welcome() -> bool:
    """Whether this runs inside `old_answers`."""
    return _old.get() is not None


def remember_if_old(answer: Answer) -> Answer:
    """Note in `old_answers` that an answer was outdated, if it was."""
    reasons = _old.get()
    if answer.stale is not None and reasons is not None:
        reasons.append(f"{answer.stale} An answer that is {answer.age_s / 3600:.1f} hours old was used.")
    return answer
