"""arXiv: the query API as Atom, full texts as HTML and PDF; and ar5iv.

Queries know `all: ti: abs: au: cat: id:`, quoted phrases, AND, OR, ANDNOT and brackets, which is what the user's manual
describes. An id list together with a query filters it, as there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from posttrain_crew.tools.literature.bm25 import tokens
from tests.loopback.content import Content, Paper
from tests.loopback.fulltext import page, portable

__all__ = ["routes"]

CATEGORY = "cs.CL"
MOST = 2000
_TOKEN = re.compile(r'\(|\)|(?:(ti|abs|au|cat|all|id|co|jr|rn):)?("[^"]*"|[^\s()"]+)')
Test = Callable[[Paper], bool]


def routes(content: Content) -> list[Route]:
    """All paths below /arxiv and /ar5iv."""

    def query(request: Request) -> Response:
        return _query(content, request)

    def text(request: Request) -> Response:
        paper = content.arxiv(request.path_params["id"])
        body = page(paper) if paper is not None and "html" in paper.texts else None
        if body is None:
            return PlainTextResponse("No HTML for this paper", status_code=404)
        return Response(body, media_type="text/html; charset=utf-8")

    def old(request: Request) -> Response:
        paper = content.arxiv(request.path_params["id"])
        body = page(paper) if paper is not None and "ar5iv" in paper.texts else None
        if body is None:  # ar5iv sends people who ask for a paper that it has not to the page of arXiv
            return Response(status_code=307, headers={"Location": f"/arxiv/abs/{request.path_params['id']}"})
        return Response(body, media_type="text/html; charset=utf-8")

    def abstract(request: Request) -> Response:
        paper = content.arxiv(request.path_params["id"])
        if paper is None:
            return PlainTextResponse("Not found", status_code=404)
        shown = f"<h1 class='title'>{escape(paper.title)}</h1><blockquote>{escape(paper.abstract)}</blockquote>"
        return Response(f"<!DOCTYPE html><html><body>{shown}</body></html>", media_type="text/html; charset=utf-8")

    def pdf(request: Request) -> Response:
        paper = content.arxiv(request.path_params["id"].removesuffix(".pdf"))
        if paper is None or "pdf" not in paper.texts:
            return PlainTextResponse("Not found", status_code=404)
        return Response(portable(paper), media_type="application/pdf")

    return [
        Route("/arxiv/api/query", query),
        Route("/arxiv/html/{id}", text),
        Route("/arxiv/abs/{id}", abstract),
        Route("/arxiv/pdf/{id}", pdf),
        Route("/ar5iv/html/{id}", old),
    ]


def _query(content: Content, request: Request) -> Response:
    asked = request.query_params
    ids = [name for name in asked.get("id_list", "").split(",") if name]
    text = asked.get("search_query", "").strip()
    try:
        start, count = int(asked.get("start", 0)), int(asked.get("max_results", 10))
        if start < 0 or not 0 <= count <= MOST:
            raise ValueError(f"start must be non-negative and max_results in [0, {MOST}]")
        known = [content.arxiv(name) for name in ids] if ids else list(content.papers.values())
        papers = [paper for paper in known if paper is not None and paper.arxiv]
        if text:
            test = _parsed(text)
            papers = [paper for paper in papers if test(paper)]
        elif not ids:
            papers = []
        by = asked.get("sortBy", "relevance")
        if by == "relevance":
            words = " ".join(word.strip('"') for _, word in _TOKEN.findall(text))
            papers.sort(key=lambda paper: -content.score(words, paper))
        elif by in ("lastUpdatedDate", "submittedDate"):
            papers.sort(key=lambda paper: paper.published, reverse=asked.get("sortOrder") != "ascending")
        else:
            raise ValueError("sortBy must be in: relevance, lastUpdatedDate, submittedDate")
    except ValueError as error:  # arXiv tells about errors in an entry of a feed
        about = (
            f"<entry><id>http://arxiv.org/api/errors</id><title>Error</title><summary>{escape(str(error))}</summary>"
        )
        dates = "<updated>2026-01-01T00:00:00Z</updated><published>2026-01-01T00:00:00Z</published></entry>"
        return _feed(about + dates, 1, 0, 1, 400)
    return _feed("".join(_entry(paper) for paper in papers[start : start + count]), len(papers), start, count, 200)


def _parsed(text: str) -> Test:
    """A query as a test of a paper. Raises ValueError."""
    pieces = [(match[1] or "all", match[2] or match[0]) for match in _TOKEN.finditer(text)]
    test, rest = _either(pieces)
    if rest:
        raise ValueError(f"the query does not end at {rest[0][1]!r}")
    return test


Pieces = Sequence[tuple[str, str]]


def _either(pieces: Pieces) -> tuple[Test, Pieces]:
    test, rest = _all(pieces)
    while rest and rest[0][1] == "OR":
        test, rest = _joined(test, rest[1:], lambda first, second: lambda paper: first(paper) or second(paper))
    return test, rest


def _joined(first: Test, rest: Pieces, join: Callable[[Test, Test], Test]) -> tuple[Test, Pieces]:
    second, rest = _all(rest)
    return join(first, second), rest


def _all(pieces: Pieces) -> tuple[Test, Pieces]:
    test, rest = _one(pieces)
    while rest and rest[0][1] not in ("OR", ")"):
        without = rest[0][1] == "ANDNOT"
        further, rest = _one(rest[1:] if rest[0][1] in ("AND", "ANDNOT") else rest)
        test = _both(test, further, without)
    return test, rest


def _both(first: Test, second: Test, without: bool) -> Test:
    return lambda paper: first(paper) and second(paper) is not without


def _one(pieces: Pieces) -> tuple[Test, Pieces]:
    if not pieces:
        raise ValueError("the query ends where a word was expected")
    (field, word), rest = pieces[0], pieces[1:]
    if word != "(":
        return _word(field, word.strip('"')), rest
    test, rest = _either(rest)
    if not rest or rest[0][1] != ")":
        raise ValueError("a bracket is not closed")
    return test, rest[1:]


def _word(field: str, text: str) -> Test:
    wanted = " ".join(tokens(text.replace("_", " ")))

    def test(paper: Paper) -> bool:
        parts = {
            "ti": paper.title,
            "abs": paper.abstract,
            "au": " ".join(paper.authors),
            "cat": CATEGORY,
            "id": paper.arxiv or "",
        }
        inside = " ".join(parts.values()) if field == "all" else parts.get(field, "")
        return f" {wanted} " in f" {' '.join(tokens(inside))} "

    return test


def _entry(paper: Paper) -> str:
    page_url = f"http://arxiv.org/abs/{paper.arxiv}v1"
    date = f"{paper.published}T09:00:00Z"
    authors = "".join(f"<author><name>{escape(name)}</name></author>" for name in paper.authors)
    return (
        f"<entry><id>{page_url}</id><title>{escape(paper.title)}</title><updated>{date}</updated>"
        f'<link href="{page_url}" rel="alternate" type="text/html"/>'
        f'<link href="http://arxiv.org/pdf/{paper.arxiv}v1" rel="related" type="application/pdf" title="pdf"/>'
        f'<summary>{escape(paper.abstract)}</summary><category term="{CATEGORY}" '
        f'scheme="http://arxiv.org/schemas/atom"/><published>{date}</published>'
        f'<arxiv:comment>12 pages</arxiv:comment><arxiv:primary_category term="{CATEGORY}"/>{authors}</entry>'
    )


def _feed(entries: str, total: int, start: int, count: int, status: int) -> Response:
    feed = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<feed xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/" '
        'xmlns:arxiv="http://arxiv.org/schemas/atom" xmlns="http://www.w3.org/2005/Atom">'
        "<id>https://arxiv.org/api/loopback</id><title>arXiv Query</title><updated>2026-11-01T00:00:00Z</updated>"
        f"<opensearch:itemsPerPage>{count}</opensearch:itemsPerPage>"
        f"<opensearch:totalResults>{total}</opensearch:totalResults>"
        f"<opensearch:startIndex>{start}</opensearch:startIndex>{entries}</feed>"
    )
    return Response(feed, status_code=status, media_type="application/atom+xml; charset=utf-8")
