"""Semantic Scholar as a source of papers, citations with their sentences, passages and recommendations.

Built on the `semanticscholar` package, whose requester is replaced (`s2_requester`). Fields are always named: without
them the package asks for everything, citations and embeddings included. Left out: authors, bulk search, data sets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import date
from typing import Any, TypeVar
from urllib.parse import quote_plus

from pydantic import ValidationError
from semanticscholar.Citation import Citation
from semanticscholar.Paper import Paper
from semanticscholar.Reference import Reference
from semanticscholar.Snippet import Snippet as PackageSnippet

from posttrain_crew.errors import BadAnswerError, InputError, ServiceError
from posttrain_crew.tools.literature.services.base import (
    CitationLink,
    Direction,
    PaperIds,
    PaperRecord,
    Snippet,
    bounded_query,
    one_line,
    unknown_to,
)
from posttrain_crew.tools.literature.services.ids import parse_ids, s2_name
from posttrain_crew.tools.literature.services.s2_requester import PackageClient, done, in_path
from posttrain_crew.tools.services.http import Service

__all__ = ["SemanticScholar"]

NAME = "semantic_scholar"
MAX_QUERY = 300
MAX_AGE_S = 86400.0
BATCH = 500
_EDGE = ["contexts", "intents", "contextsWithIntent", "isInfluential"]
_PLAIN = [
    "paperId", "externalIds", "title", "abstract", "year", "venue", "publicationDate", "citationCount",
    "influentialCitationCount", "authors",
]  # fmt: skip
_WITH_SUMMARY = [*_PLAIN, "tldr"]  # a field of searches and papers only
_SNIPPET = ["snippet.text", "snippet.snippetKind", "snippet.section"]
_STRENGTH = {"methodology": 0, "result": 1, "background": 2}
_T = TypeVar("_T")

logging.getLogger("semanticscholar").addHandler(logging.NullHandler())  # it would warn on stderr of unknown ids


class SemanticScholar:
    """The source. It makes no request until a method is called.

    Args:
        service: Semantic Scholar, with its key and pace.
    """

    name = NAME
    can = frozenset({"search", "filters", "paper", "citations", "snippets", "recommendations"})

    def __init__(self, service: Service) -> None:
        self._client = PackageClient(service, _check_row, MAX_AGE_S)

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
        """Papers by the service's relevance, at most 100. Raises InputError of a query without a word, ServiceError."""
        years = f"{year_from or ''}-{year_to or ''}"
        found = self._run(
            self._client.search_paper(
                quote_plus(bounded_query(query, MAX_QUERY)),
                year=years if years != "-" else None,
                min_citation_count=max(0, min_citations),
                fields_of_study=[quote_plus(field) for field in fields_of_study],
                open_access_pdf=open_access,
                fields=_WITH_SUMMARY,
                limit=_within(limit, 100),
            )
        )
        return [_record(paper) for paper in found.items]

    def paper(self, ids: PaperIds) -> PaperRecord:
        """One paper with its summary. Raises NotFoundError, ServiceError."""
        return _record(self._run(self._client.get_paper(_named(ids), fields=_WITH_SUMMARY)))

    def batch(self, wanted: Sequence[PaperIds]) -> list[PaperRecord | None]:
        """Papers in the order asked for, None for one that is not known. 500 go into one request."""
        names = [s2_name(ids) for ids in wanted]
        known = [name for name in names if name is not None]
        found: dict[str, PaperRecord] = {}
        for start in range(0, len(known), BATCH):
            part = known[start : start + BATCH]
            try:
                rows = done(self._client.batch(part, _WITH_SUMMARY))
            except ServiceError as error:
                if error.status == 400 and "no valid paper" in str(error).lower():
                    continue  # what the service says when it knows none of them
                raise
            if len(rows) != len(part):
                raise BadAnswerError(f"{NAME} was asked for {len(part)} papers and gave {len(rows)}.", service=NAME)
            found.update({name: _record(Paper(row)) for name, row in zip(part, rows, strict=True) if row is not None})
        return [found.get(name) if name is not None else None for name in names]

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> list[CitationLink]:
        """What the paper cites, or what cites it, at most 1,000, in the service's order.

        Raises NotFoundError (also where a publisher withholds the references), ServiceError.
        """
        ask: Callable[..., Coroutine[Any, Any, Any]]
        if direction == "references":
            ask = self._client.get_paper_references
        elif direction == "cited_by":
            ask = self._client.get_paper_citations
        else:
            raise InputError(f"direction {direction!r} is unknown; use references or cited_by.")
        edges = self._run(ask(_named(ids), fields=[*_EDGE, *_PLAIN], limit=_within(limit, 1000))).items
        links = [_link(edge) for edge in edges]
        # a reference that the service could not make out has neither name nor title
        return [link for link in links if link.paper.ids.key or link.paper.title]

    def snippets(self, query: str, *, within: Sequence[PaperIds] = (), limit: int = 10) -> list[Snippet]:
        """Passages of about 500 words that fit a query, best first; of the papers `within` where some are given.

        Raises InputError of more than 100 papers, NotFoundError where one of them has no name here, ServiceError.
        """
        if len(within) > 100:
            raise InputError(f"passages can be looked for within 100 papers at most, not {len(within)}.")
        names = [s2_name(ids) or "" for ids in within]
        for name, ids in zip(names, within, strict=True):
            if not name or "," in name:  # the service takes names separated by commas
                raise unknown_to(NAME, ids, "arXiv id, CorpusId, its own id and DOIs without a comma")
        found = self._run(
            self._client.search_snippet(
                quote_plus(bounded_query(query, MAX_QUERY)),
                paper_ids=[quote_plus(name) for name in names],
                fields=_SNIPPET,
                limit=_within(limit, 100),
            )
        )
        return self._named_fully([_snippet(each) for each in found])

    def _named_fully(self, snippets: list[Snippet]) -> list[Snippet]:
        """The same passages with the records of their papers: the service names them by CorpusId alone."""
        wanted = list(dict.fromkeys(snippet.paper.ids for snippet in snippets if snippet.paper.ids.corpus))
        papers = dict(zip(wanted, self.batch(wanted), strict=True))
        return [
            snippet.model_copy(update={"paper": papers.get(snippet.paper.ids) or snippet.paper}) for snippet in snippets
        ]

    def recommendations(self, ids: PaperIds, *, limit: int = 20) -> list[PaperRecord]:
        """Papers like this one, from all of computer science. Raises NotFoundError, ServiceError."""
        found = self._run(
            self._client.get_recommended_papers(
                _named(ids), fields=_PLAIN, limit=_within(limit, 100), pool_from="all-cs"
            )
        )
        return [_record(paper) for paper in found]

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        try:
            return done(coroutine)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(error) from error


def _named(ids: PaperIds) -> str:
    name = s2_name(ids)
    if name is None:
        raise unknown_to(NAME, ids, "arXiv id, DOI, CorpusId and its own id")
    return in_path(name)


def _within(limit: int, most: int) -> int:
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1.")
    return min(limit, most)


def _unreadable(error: Exception) -> BadAnswerError:
    about = one_line(f"{type(error).__name__}: {error}", 300)
    return BadAnswerError(f"{NAME} gave an answer in another form than it should: {about}.", service=NAME)


def _check_row(kind: str, row: object) -> object:
    """Raises BadAnswerError unless a row has the fields that were asked for."""
    try:
        if kind == "snippets":
            return _snippet(PackageSnippet(row))
        if kind == "citations":
            return _link(Citation(row))
        if kind == "references":
            return _link(Reference(row))
        return _record(Paper(row))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(error) from error


def _record(paper: Any) -> PaperRecord:
    """A record of a paper of the package. Raises BadAnswerError."""
    raw = paper.raw_data
    for name in ("paperId", "title", "externalIds"):
        if name not in raw:  # asked for, so it is there, if only as null
            raise BadAnswerError(f"{NAME} gave a paper without the field {name}.", service=NAME)
    authors = [author.name for author in paper.authors or [] if author.name]
    try:
        return PaperRecord(
            ids=_ids(paper.paperId, paper.externalIds),
            title=paper.title or "",
            abstract=paper.abstract or "",
            year=paper.year,
            published=date.isoformat(paper.publicationDate) if paper.publicationDate else None,
            authors=tuple(authors),
            venue=paper.venue or None,
            citation_count=paper.citationCount,
            influential_citation_count=paper.influentialCitationCount,
            summary=paper.tldr.text if paper.tldr is not None else None,
            sources=(NAME,),
        )
    except ValidationError as error:
        raise _unreadable(error) from error


def _ids(own: object, others: object) -> PaperIds:
    """Ids in their normal form; one that is malformed is left out."""
    external = others if isinstance(others, dict) else {}
    arxiv = _parsed("arXiv:", external.get("ArXiv")).arxiv
    doi = _parsed("doi:", external.get("DOI"))
    return PaperIds(
        arxiv=arxiv or doi.arxiv,  # the DOI of an arXiv paper is its arXiv id in other clothes
        doi=doi.doi,
        corpus=_parsed("CorpusId:", external.get("CorpusId")).corpus,
        s2=_parsed("s2:", own).s2,
    )


def _parsed(prefix: str, value: object) -> PaperIds:
    try:
        return parse_ids(f"{prefix}{value}") if value else PaperIds()
    except InputError:
        return PaperIds()


def _link(edge: Any) -> CitationLink:
    raw = edge.raw_data
    for name in ("isInfluential", "intents", "contexts"):
        if name not in raw:
            raise BadAnswerError(f"{NAME} gave a citation without the field {name}.", service=NAME)
    if edge.paper is None:
        raise BadAnswerError(f"{NAME} gave a citation without its paper.", service=NAME)
    told = [
        (min((_STRENGTH.get(intent, 3) for intent in pair.get("intents") or []), default=3), pair.get("context"))
        for pair in edge.contextsWithIntent or []
    ]
    told.sort(key=lambda pair: pair[0])
    return CitationLink(
        paper=_record(edge.paper),
        contexts=tuple(text for _, text in told if text) + tuple(edge.contexts or ()),
        intents=tuple(sorted(edge.intents or (), key=lambda intent: _STRENGTH.get(intent, 3))),
        influential=bool(edge.isInfluential),
    )


def _snippet(found: Any) -> Snippet:
    about, said = found.paper.raw_data, found.snippet
    if not isinstance(said.text, str) or not about.get("title"):
        raise BadAnswerError(f"{NAME} gave a passage without its text or the title of its paper.", service=NAME)
    return Snippet(
        paper=PaperRecord(
            ids=PaperIds(corpus=_parsed("CorpusId:", about.get("corpusId")).corpus),
            title=about["title"],
            authors=tuple(name for name in about.get("authors") or () if isinstance(name, str)),
            sources=(NAME,),
        ),
        text=said.text,
        section=said.section,
        score=found.score,
    )
