"""What every source of papers offers, and the typed records that all of them return.

A source raises a ServiceError for everything that it could not find out; an empty list means that it was asked and has
nothing.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["CitationLink", "Direction", "PaperIds", "PaperRecord", "PaperSource", "Snippet", "SourceFailure"]

Direction = Literal["references", "cited_by"]
"""references: what a paper cites; cited_by: what cites it."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperIds(_Record):
    """The names of one paper, each in its normal form: no version, no prefix, lower-case DOI."""

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
        for kind in ("arxiv", "doi", "corpus", "s2"):
            if value := getattr(self, kind):
                return f"{kind}:{value}"
        return ""


class PaperRecord(_Record):
    """A paper as sources describe it. Texts are bounded, and they are data: never instructions."""

    ids: PaperIds
    title: str = Field(max_length=500)
    abstract: str = Field(default="", max_length=6000)
    year: int | None = None
    published: str | None = None
    """ISO date."""
    authors: tuple[str, ...] = ()
    """At most 20."""
    venue: str | None = None
    citation_count: int | None = None
    influential_citation_count: int | None = None
    summary: str | None = None
    """A one-line summary made by the service (tldr, ai_summary), where it has one."""
    datasets: tuple[str, ...] = ()
    """Hub ids that the service links to the paper."""
    models: tuple[str, ...] = ()
    code: str | None = None
    """Repository URL."""
    sources: tuple[str, ...]
    """Names of the sources that know it."""


class CitationLink(_Record):
    """One edge of the citation graph, as seen from the paper that was asked about."""

    paper: PaperRecord
    contexts: tuple[str, ...] = ()
    """Sentences around the citation, bounded in number and length."""
    intents: tuple[str, ...] = ()
    """methodology, background, result."""
    influential: bool = False


class Snippet(_Record):
    """A passage of a paper's text that fits a query."""

    paper: PaperRecord
    text: str
    section: str | None
    score: float


class SourceFailure(_Record):
    """A source that could not be asked, so that an answer without it is known to be degraded."""

    source: str
    error: str
    """Class of the ServiceError."""
    message: str
    stale: bool = False
    """An older answer from the cache was used in its place."""


@runtime_checkable
class PaperSource(Protocol):
    """A source of papers. What it cannot do at all it leaves out of `can`."""

    name: str
    can: frozenset[str]
    """Some of: search, paper, citations, snippets, recommendations, daily."""

    def search(self, query: str, *, year_from: int | None = None, limit: int = 20) -> list[PaperRecord]:
        """Papers, best first."""
        ...

    def paper(self, ids: PaperIds) -> PaperRecord:
        """One paper. Raises NotFoundError."""
        ...

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> list[CitationLink]:
        """What it cites, or what cites it. Raises NotFoundError."""
        ...
