"""arXiv's query API as a source of papers, built on the `arxiv` package with its HTTP session replaced by our Service.

The package parses what can be saved of a broken feed and skips entries that it does not like; here a feed is checked
before it is parsed, so that a cut or moved one is an error and not a shorter list. arXiv has no citations.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import arxiv  # type: ignore[import-untyped]
from lxml import etree  # type: ignore[import-untyped]
from pydantic import ValidationError

from posttrain_crew.errors import BadAnswerError, InputError, NotFoundError, ServiceError
from posttrain_crew.tools.literature.bm25 import tokens
from posttrain_crew.tools.literature.services.base import (
    CitationLink,
    Direction,
    PaperIds,
    PaperRecord,
    bounded_query,
    old_answers_welcome,
    one_line,
    remember_if_old,
    unknown_to,
)
from posttrain_crew.tools.literature.services.ids import parse_ids
from posttrain_crew.tools.services.http import Answer, Service

__all__ = ["Arxiv"]

NAME = "arxiv"
MAX_QUERY = 300
MAX_TERMS = 10
MAX_RESULTS = 100
MAX_AGE_S = 86400.0
_ATOM, _OPEN = "{http://www.w3.org/2005/Atom}", "{http://a9.com/-/spec/opensearch/1.1/}"
_FEED_PARTS = frozenset({f"{_ATOM}{name}" for name in ("id", "title", "updated", "link", "author", "entry", "rights")})
_TERM = re.compile(r'"([^"]+)"|([^\s"]+)')

logging.getLogger("arxiv").addHandler(logging.NullHandler())  # its warnings are errors here


class Arxiv:
    """The source. It makes no request until a method is called.

    Args:
        service: arXiv's API, with the pace of one request in 3 seconds that it asks for.
    """

    name = NAME
    can = frozenset({"search", "paper"})

    def __init__(self, service: Service) -> None:
        self._service = service

    def search(self, query: str, *, year_from: int | None = None, limit: int = 20) -> list[PaperRecord]:
        """Papers by arXiv's relevance, at most 100: those with all words of the query, else those with any.

        Words in quotes are a phrase. Raises InputError of a query without a word, ServiceError.
        """
        if limit < 1:
            raise InputError(f"limit is {limit}; it must be at least 1.")
        terms = _terms(bounded_query(query, MAX_QUERY))
        # the year is looked at here, not in the query, so a filtered search asks for more than it gives
        asked = min(MAX_RESULTS, limit if year_from is None else 4 * limit)
        found = self._found(arxiv.Search(query=" AND ".join(terms), max_results=asked), asked)
        if not found and len(terms) > 1:
            found = self._found(arxiv.Search(query=" OR ".join(terms), max_results=asked), asked)
        return [paper for paper in found if year_from is None or (paper.year or 0) >= year_from][:limit]

    def paper(self, ids: PaperIds) -> PaperRecord:
        """One paper by its arXiv id. Raises NotFoundError, ServiceError."""
        if ids.arxiv is None:
            raise unknown_to(NAME, ids, "arXiv id")
        found = self._found(arxiv.Search(id_list=[ids.arxiv], max_results=1), 1)
        if not found:
            raise NotFoundError(f"arXiv has no paper {ids.arxiv}.", service=NAME)
        return found[0]

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> list[CitationLink]:
        """arXiv keeps no citations. Raises NotFoundError, always."""
        raise NotFoundError("arXiv keeps no citations: ask Semantic Scholar.", service=NAME)

    def _found(self, search: Any, asked: int) -> list[PaperRecord]:
        client = arxiv.Client(page_size=asked, delay_seconds=0.0, num_retries=0)  # the Service has pace and retries
        client.query_url_format = f"{self._service.base_url.replace('{', '{{').replace('}', '}}')}/api/query?{{}}"
        client._session = _Session(self._service)
        try:
            return [_record(result) for result in client.results(search)]
        except (ValueError, arxiv.ArxivError) as error:  # ValueError: of pydantic, or a date that is none
            raise _unreadable(str(error)) from error


class _Page(NamedTuple):
    """What the package reads of an answer."""

    status_code: int
    content: bytes


class _Session:
    """Stands in for the package's requests.Session."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def get(self, url: str, headers: object = None) -> _Page:
        answer = self._service.get(url, max_age_s=MAX_AGE_S, stale_if_down=old_answers_welcome(), check=_check)
        return _Page(200, remember_if_old(answer).body)


def _terms(query: str) -> list[str]:
    """Words and phrases of a query as arXiv's syntax has them: nothing in them can be an operator or a field."""
    phrases = [_words(phrase or word) for phrase, word in _TERM.findall(query)]
    # stop words are in every paper, and with them go AND, OR and the like; a query of nothing else is asked as it is
    kept = [words for words in phrases if words and tokens(words)] or [words for words in phrases if words]
    return list(dict.fromkeys(f'all:"{words}"' for words in kept))[:MAX_TERMS]


def _words(text: str) -> str:
    return " ".join(word for part in text.split() if (word := re.sub(r"[^\w.-]", "", part).strip("._-")))


def _check(answer: Answer) -> None:
    """Raises BadAnswerError unless the answer is a whole feed of whole entries, ServiceError for arXiv's own errors."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        feed = etree.fromstring(answer.body, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise _unreadable(f"no XML ({error})") from error
    if feed.tag != f"{_ATOM}feed" or feed.getroottree().docinfo.doctype:
        raise _unreadable(f"<{feed.tag}> and no Atom feed")
    entries = feed.findall(f"{_ATOM}entry")
    for entry in entries:
        _check_entry(entry)
    total = (feed.findtext(f"{_OPEN}totalResults") or "").strip()
    start = (feed.findtext(f"{_OPEN}startIndex") or "").strip()
    if not total.isdecimal() or not start.isdecimal():
        raise _unreadable("a feed without the number of results")
    strange = sorted({str(part.tag) for part in _elements(feed)} - _FEED_PARTS)
    if strange:
        raise _unreadable(f"a feed with {', '.join(strange)[:200]}")
    if not entries and int(total) > int(start):
        raise _unreadable(f"a feed that counts {total} results and has none (arXiv sends such ones now and then)")


def _elements(feed: Any) -> Iterator[Any]:
    return (part for part in feed if isinstance(part.tag, str) and part.tag.startswith(_ATOM))


def _check_entry(entry: Any) -> None:
    name = (entry.findtext(f"{_ATOM}id") or "").strip()
    if "arxiv.org/api/errors" in name:
        said = one_line(entry.findtext(f"{_ATOM}summary") or "", 300)
        raise ServiceError(f"arXiv refused the query: {said or 'it gives no reason'}.", service=NAME)
    for part in ("id", "title", "summary", "published", "updated"):
        if not (entry.findtext(f"{_ATOM}{part}") or "").strip():
            raise _unreadable(f"the entry {name[:100]!r} without its {part}")


def _unreadable(what: str) -> BadAnswerError:
    return BadAnswerError(f"arXiv did not give a feed that can be read: {one_line(what, 400)}.", service=NAME)


def _record(result: Any) -> PaperRecord:
    try:
        ids = parse_ids(result.entry_id)
    except InputError as error:
        raise _unreadable(f"an entry that is named {result.entry_id[:100]!r}") from error
    doi = None
    if result.doi:
        try:
            doi = parse_ids(f"doi:{result.doi}").doi
        except InputError:  # authors type it; the arXiv id is enough
            doi = None
    try:
        return PaperRecord(
            ids=PaperIds(arxiv=ids.arxiv, doi=doi),
            title=result.title,
            abstract=result.summary,
            year=result.published.year,
            published=result.published.date().isoformat(),
            authors=tuple(author.name for author in result.authors),
            venue=result.journal_ref,
            sources=(NAME,),
        )
    except ValidationError as error:
        raise _unreadable(str(error)) from error
