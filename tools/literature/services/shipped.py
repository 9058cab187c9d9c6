"""The library that ships with crew as a source of papers: no network, facts in our own words, citations inside it."""

from __future__ import annotations

from functools import cache

from posttrain_crew.errors import NotFoundError
from posttrain_crew.tools.literature.library import Library
from posttrain_crew.tools.literature.paper import Paper
from posttrain_crew.tools.literature.services.base import (
    CitationLink,
    Direction,
    PaperIds,
    PaperRecord,
    bounded_query,
    unknown_to,
)

__all__ = ["ShippedLibrary"]

NAME = "library"


@cache
def _shipped() -> Library:
    return Library.load()


class ShippedLibrary:
    """The source.

    Args:
        library: the shipped one by default, which is read when it is first needed.
    """

    name = NAME
    can = frozenset({"search", "paper", "citations"})

    def __init__(self, library: Library | None = None) -> None:
        self._given = library

    @property
    def _library(self) -> Library:
        return self._given if self._given is not None else _shipped()

    def search(self, query: str, *, year_from: int | None = None, limit: int = 20) -> list[PaperRecord]:
        """Papers by BM25. Raises InputError of a query without a word, or a limit below 1."""
        hits = self._library.search(bounded_query(query, 2000), year_from=year_from, limit=limit)
        return [self._record(self._library.get(hit.arxiv_id)) for hit in hits]

    def paper(self, ids: PaperIds) -> PaperRecord:
        """One paper; its summary is what the library knows of it. Raises NotFoundError."""
        return self._record(self._known(ids))

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> list[CitationLink]:
        """Papers of the library that it cites, or that cite it, without sentences. Raises NotFoundError."""
        hits = self._library.citations(self._known(ids).arxiv_id, direction)
        return [CitationLink(paper=self._record(self._library.get(hit.arxiv_id))) for hit in hits[:limit]]

    def _known(self, ids: PaperIds) -> Paper:
        if ids.arxiv is None:
            raise unknown_to("the shipped library", ids, "arXiv id")
        if ids.arxiv not in self._library:
            raise NotFoundError(f"the shipped library has no paper {ids.arxiv}.", service=NAME)
        return self._library.get(ids.arxiv)

    def _record(self, paper: Paper) -> PaperRecord:
        return PaperRecord(
            ids=PaperIds(arxiv=paper.arxiv_id),
            title=paper.title,
            year=paper.year,
            authors=tuple(author for author in paper.authors if author != "et al."),
            summary=" ".join(paper.findings),
            sources=(NAME,),
        )
