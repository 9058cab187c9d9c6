"""Semantic Scholar: graph/v1 and recommendations/v1, in the shapes of facts/services.md section 1a.

As the live service does: without `fields` an answer has paperId and title only, an unknown field is a 400, a paper that
is not known is a 404 with `{"error": ...}`, and a batch has null in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.loopback.content import Content, Link, Paper
from tests.loopback.fulltext import passages

__all__ = ["routes"]

PAPER_FIELDS = frozenset(
    re.findall(
        r"\w+",
        "paperId corpusId externalIds url title abstract venue publicationVenue year referenceCount citationCount "
        "influentialCitationCount isOpenAccess openAccessPdf fieldsOfStudy s2FieldsOfStudy publicationTypes "
        "publicationDate journal citationStyles authors citations references embedding tldr textAvailability",
    )
)
EDGE_FIELDS = frozenset({"contexts", "intents", "contextsWithIntent", "isInfluential"})
SEARCHABLE = 1000
"""Relevance search gives the first thousand results only."""
BULK_PAGE = 1000
BATCH = 500


class _BadError(Exception):
    """A request that the service refuses with 400."""


class _MissingError(Exception):
    """Something that the service does not have: 404."""


Handler = Callable[[Request], Any]


def routes(content: Content) -> list[Route]:
    """All paths below /s2."""
    api = _Api(content)
    graph = "/s2/graph/v1/paper"
    return [
        Route(f"{graph}/search", _told(api.search)),
        Route(f"{graph}/search/bulk", _told(api.bulk)),
        Route(f"{graph}/search/match", _told(api.match)),
        Route(f"{graph}/batch", _told(api.batch), methods=["POST"]),
        Route("/s2/graph/v1/snippet/search", _told(api.snippets)),
        # ids may hold slashes (DOI:10.1/x), so what follows the id is looked for first
        Route(f"{graph}/{{id:path}}/citations", _told(api.citations)),
        Route(f"{graph}/{{id:path}}/references", _told(api.references)),
        Route(f"{graph}/{{id:path}}", _told(api.paper)),
        Route("/s2/recommendations/v1/papers/forpaper/{id:path}", _told(api.recommended)),
    ]


def _told(handler: Handler) -> Handler:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request))
        except _BadError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except _MissingError as error:
            return JSONResponse({"error": str(error)}, status_code=404)

    return answer


class _Api:
    def __init__(self, content: Content) -> None:
        self._content = content

    async def search(self, request: Request) -> dict[str, Any]:
        found, fields = self._matching(request), _fields(request)
        offset, limit = _whole(request, "offset", 0, 0, 9999), _whole(request, "limit", 100, 1, 100)
        if offset + limit > SEARCHABLE:
            raise _BadError("Requested data for this limit and/or offset is not available")
        page = {"total": len(found), "offset": offset, **_next(offset, limit, len(found))}
        return {**page, "data": [self._shown(paper, fields) for paper in found[offset : offset + limit]]}

    async def bulk(self, request: Request) -> dict[str, Any]:
        found, fields = self._matching(request), _fields(request)
        by, _, order = request.query_params.get("sort", "paperId:asc").partition(":")
        keys: dict[str, Callable[[Paper], Any]] = {
            "paperId": lambda paper: paper.s2,
            "publicationDate": lambda paper: paper.published,
            "citationCount": lambda paper: len(self._content.citations(paper)),
        }
        if by not in keys:
            raise _BadError(f"Invalid sort field: {by}")
        found = sorted(found, key=keys[by], reverse=order == "desc")
        start = _token(request.query_params.get("token"))
        token = f"TOKEN{start + BULK_PAGE}" if start + BULK_PAGE < len(found) else None
        data = [self._shown(paper, fields) for paper in found[start : start + BULK_PAGE]]
        return {"total": len(found), "token": token, "data": data}

    async def match(self, request: Request) -> dict[str, Any]:
        found = self._matching(request)
        if not found:
            raise _MissingError("Title match not found")
        score = round(40 * self._content.score(request.query_params["query"], found[0]), 3)
        return {"data": [{**self._shown(found[0], _fields(request)), "matchScore": score}]}

    async def paper(self, request: Request) -> dict[str, Any]:
        return self._shown(self._found(request), _fields(request))

    async def batch(self, request: Request) -> list[dict[str, Any] | None]:
        try:
            ids = [str(name) for name in (await request.json())["ids"]]
        except (ValueError, KeyError, TypeError) as error:
            raise _BadError("Could not parse the body: it must be JSON with a list 'ids'") from error
        if not 0 < len(ids) <= BATCH:
            raise _BadError(f"Number of ids must be between 1 and {BATCH}")
        fields = _fields(request)
        papers = [self._content.find(name) for name in ids]
        return [None if paper is None else self._shown(paper, fields) for paper in papers]

    async def citations(self, request: Request) -> dict[str, Any]:
        return self._edges(request, self._content.citations(self._found(request)), "citingPaper")

    async def references(self, request: Request) -> dict[str, Any]:
        return self._edges(request, self._content.references(self._found(request)), "citedPaper")

    async def snippets(self, request: Request) -> dict[str, Any]:
        query, limit = request.query_params.get("query", ""), _whole(request, "limit", 10, 1, 1000)
        if not query:
            raise _BadError("Missing required parameter: 'query'")
        wanted = [name for name in request.query_params.get("paperIds", "").split(",") if name]
        chosen = [self._content.find(name) for name in wanted] if wanted else list(self._content.papers.values())
        found = []
        for paper in self._filtered(request, [paper for paper in chosen if paper is not None]):
            for section, kind, text in passages(paper):
                if score := _overlap(query, text):
                    found.append((score, _snippet(paper, section, kind, text, score)))
        found.sort(key=lambda pair: -pair[0])
        return {"data": [snippet for _, snippet in found[:limit]], "retrievalVersion": "loopback"}

    async def recommended(self, request: Request) -> dict[str, Any]:
        paper, fields = self._found(request), _fields(request)
        limit = _whole(request, "limit", 100, 1, 500)
        if (pool := request.query_params.get("from", "recent")) not in ("recent", "all-cs"):
            raise _BadError(f"Unacceptable value for query parameter 'from': {pool[:40]}")
        near = [link.cited for link in self._content.references(paper)]
        near += [link.citing for link in self._content.citations(paper)]
        beyond = [link.cited for other in near for link in self._content.references(other)]
        # a neighbour of neighbours is new to somebody who knows the paper and what it cites
        new = [other for other in dict.fromkeys(beyond) if other not in near and other is not paper]
        return {"recommendedPapers": [self._shown(other, fields) for other in new[:limit]]}

    def _found(self, request: Request) -> Paper:
        name = request.path_params["id"]
        paper = self._content.find(name)
        if paper is None:
            raise _MissingError(f"Paper with id {name} not found")
        return paper

    def _matching(self, request: Request) -> list[Paper]:
        query = request.query_params.get("query", "").strip()
        if not query:
            raise _BadError("Missing required parameter: 'query'")
        return self._filtered(request, self._content.search(query))

    def _filtered(self, request: Request, papers: Sequence[Paper]) -> list[Paper]:
        asked = request.query_params
        first, last = _span(asked.get("year") or "")
        since, until = _dates(asked.get("publicationDateOrYear") or "")
        cited = _whole(request, "minCitationCount", 0, 0, 10**9)
        fields = [name for name in asked.get("fieldsOfStudy", "").split(",") if name]
        venues = [name for name in asked.get("venue", "").split(",") if name]
        return [
            paper
            for paper in papers
            if first <= paper.year <= last
            and since <= paper.published <= until
            and len(self._content.citations(paper)) >= cited
            and (not fields or "Computer Science" in fields)
            and (not venues or paper.venue in venues)
            and ("openAccessPdf" not in asked or paper.arxiv is not None)
        ]

    def _edges(self, request: Request, links: Sequence[Link], key: str) -> dict[str, Any]:
        fields = _fields(request, EDGE_FIELDS)
        offset, limit = _whole(request, "offset", 0, 0, 9999), _whole(request, "limit", 100, 1, 1000)
        data = []
        for link in links[offset : offset + limit]:
            edge: dict[str, Any] = {
                "contexts": list(link.contexts),
                "intents": list(link.intents),
                "contextsWithIntent": [{"context": text, "intents": list(link.intents)} for text in link.contexts],
                "isInfluential": link.influential,
            }
            other = link.citing if key == "citingPaper" else link.cited
            data.append({**{name: edge[name] for name in edge if name in fields}, key: self._shown(other, fields)})
        return {"offset": offset, **_next(offset, limit, len(links)), "data": data}

    def _shown(self, paper: Paper, fields: frozenset[str]) -> dict[str, Any]:
        whole = self._whole(paper)
        inner = {field.partition(".")[0] for field in fields} & PAPER_FIELDS
        # null for what the service could know of a paper and does not
        shown = {**{name: whole.get(name) for name in sorted(inner)}, "paperId": paper.s2}
        for name, links in (("citations", "citing"), ("references", "cited")):
            if name in inner:
                below = frozenset(f.partition(".")[2] for f in fields if f.startswith(f"{name}.")) or frozenset(
                    {"title"}
                )
                edges = self._content.citations(paper) if name == "citations" else self._content.references(paper)
                shown[name] = [self._shown(getattr(link, links), below) for link in edges]
        return shown

    def _whole(self, paper: Paper) -> dict[str, Any]:
        citations = self._content.citations(paper)
        ids = {"DOI": paper.doi, "CorpusId": paper.corpus} | ({"ArXiv": paper.arxiv} if paper.arxiv else {})
        pdf = {"url": f"https://arxiv.org/pdf/{paper.arxiv}", "status": "GREEN"} if paper.arxiv else None
        first = re.split(r"(?<=\.)\s", paper.abstract)[-1]
        return {
            "corpusId": paper.corpus,
            "externalIds": ids,
            "url": f"https://www.semanticscholar.org/paper/{paper.s2}",
            "title": paper.title,
            "abstract": paper.abstract,
            "venue": paper.venue,
            "year": paper.year,
            "referenceCount": len(self._content.references(paper)),
            "citationCount": len(citations),
            "influentialCitationCount": sum(link.influential for link in citations),
            "isOpenAccess": paper.arxiv is not None,
            "openAccessPdf": pdf,
            "fieldsOfStudy": ["Computer Science"],
            "s2FieldsOfStudy": [{"category": "Computer Science", "source": "s2-fos-model"}],
            "publicationTypes": ["JournalArticle"],
            "publicationDate": paper.published,
            "journal": {"name": "ArXiv" if paper.arxiv else paper.venue, "volume": f"abs/{paper.arxiv}"},
            "tldr": {"model": "tldr@v2.0.0", "text": first},
            "authors": [{"authorId": _author_id(name), "name": name} for name in paper.authors],
        }


def _fields(request: Request, more: Iterable[str] = ()) -> frozenset[str]:
    asked = [name for name in request.query_params.get("fields", "").split(",") if name]
    known = PAPER_FIELDS | set(more)
    if strange := [name for name in asked if name.partition(".")[0] not in known]:
        raise _BadError(f"Unrecognized or unsupported fields: [{', '.join(strange)}]")
    return frozenset(asked) or frozenset({"title"})


def _whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise _BadError(
            f"Unacceptable value for query parameter '{name}': {text[:40]}; it must be in [{least}, {most}]"
        )
    return int(text)


def _next(offset: int, limit: int, total: int) -> dict[str, int]:
    """The live service leaves `next` out on the last page."""
    return {"next": offset + limit} if offset + limit < total else {}


def _token(token: str | None) -> int:
    if not token:
        return 0
    if not re.fullmatch(r"TOKEN\d{1,6}", token):
        raise _BadError("Invalid token")
    return int(token[5:])


def _span(year: str) -> tuple[int, int]:
    """`2024`, `2024-`, `-2024`, `2020-2024`."""
    if not year:
        return 0, 9999
    match = re.fullmatch(r"(\d{4})?(-)?(\d{4})?", year)
    if match is None or not (match[1] or match[3]):
        raise _BadError(f"Invalid value for 'year': {year[:40]}")
    first = int(match[1] or 0)
    return first, int(match[3] or 9999) if match[2] else first


def _dates(span: str) -> tuple[str, str]:
    """`2024-06-01:2025-01-31`, either side open or shorter."""
    since, colon, until = span.partition(":")
    return since, (until or "9999" if colon else since or "9999") + "~"  # ~ sorts behind any rest of a date


def _overlap(query: str, text: str) -> float:
    wanted = set(re.findall(r"\w+", query.lower()))
    return round(len(wanted & set(re.findall(r"\w+", text.lower()))) / max(1, len(wanted)), 4)


def _snippet(paper: Paper, section: str | None, kind: str, text: str, score: float) -> dict[str, Any]:
    return {
        "score": score,
        "paper": {
            "corpusId": str(paper.corpus),
            "title": paper.title,
            "authors": list(paper.authors),
            "openAccessInfo": {"license": "CCBY", "status": "GREEN", "disclaimer": ""},
        },
        "snippet": {
            "text": text,
            "snippetKind": kind,
            "section": section,
            "snippetOffset": {"start": 0, "end": len(text)},
            "annotations": {"refMentions": None, "sentences": [{"start": 0, "end": len(text)}]},
        },
    }


def _author_id(name: str) -> str:
    return str(sum(ord(letter) * 31**place for place, letter in enumerate(name)) % 10**9)
