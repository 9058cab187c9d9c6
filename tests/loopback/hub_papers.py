"""Papers on the Hugging Face Hub: search, daily, detail with linked datasets and models, Markdown; the models.

As live: a search item nests the paper, the detail is flat, and `/papers/ID.md` of a paper without HTML on arXiv is the
Hub's own page as HTML (status 200).
"""

from __future__ import annotations

import hashlib
import html
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.loopback.content import Content, Paper
from tests.loopback.fulltext import markdown
from tests.loopback.hub_datasets import missing, refused, summary
from tests.loopback.repos import REPOS, STALE_LINKS
from tests.loopback.shelf import Shelf

__all__ = ["routes"]

QUERY_CHARS = 250


def routes(content: Content, shelf: Shelf) -> list[Route]:
    """Papers below the Hub's address."""

    def search(request: Request) -> Response:
        query = request.query_params.get("q", "")
        limit = _limit(request, 120, 120)
        if not query or len(query) > QUERY_CHARS or limit is None:
            return refused(400, f"q must have 1 to {QUERY_CHARS} characters, limit must be 1 to 120")
        found = [paper for paper in content.search(query) if paper.arxiv]
        return JSONResponse([_item(paper) for paper in found[:limit]])

    def daily(request: Request) -> Response:
        limit, page = _limit(request, 50, 100), _whole(request, "p", 0)
        if limit is None or page is None:
            return refused(400, "limit must be 1 to 100, p a page number")
        papers = sorted((p for p in content.papers.values() if p.arxiv), key=lambda p: p.published, reverse=True)
        if date := request.query_params.get("date"):
            papers = [paper for paper in papers if paper.published == date]
        return JSONResponse([_item(paper) for paper in papers[page * limit : (page + 1) * limit]])

    def detail(request: Request) -> Response:
        paper = content.arxiv(request.path_params["id"])
        if paper is None:
            return refused(404, "Paper not found")
        datasets, models = _linked(paper, shelf), [_model(name) for name in paper.models]
        counts = {"numTotalDatasets": len(datasets), "numTotalModels": len(models), "numTotalSpaces": 0}
        links = {"linkedDatasets": datasets, "linkedModels": models, "linkedSpaces": []}
        return JSONResponse({**_flat(paper), **links, **counts})

    def text(request: Request) -> Response:
        paper = content.arxiv(request.path_params["id"])
        if paper is None:
            return PlainTextResponse("Paper not found", status_code=404)
        if "md" in paper.texts:
            return Response(markdown(paper), media_type="text/markdown; charset=utf-8")
        shown = f"<h1>Paper page - {html.escape(paper.title)}</h1><p>{html.escape(paper.abstract)}</p>"
        return Response(f"<!doctype html><html><body>{shown}</body></html>", media_type="text/html; charset=utf-8")

    def repos(request: Request) -> Response:
        paper = content.arxiv(request.path_params["id"])
        if paper is None:
            return refused(404, "Paper not found")
        models = [_model(name) for name in paper.models]
        return JSONResponse({"models": models, "datasets": _linked(paper, shelf), "spaces": []})

    def model(request: Request) -> Response:
        name = f"{request.path_params['owner']}/{request.path_params['name']}"
        if not any(name in paper.models for paper in content.papers.values()):
            return missing(request)
        return JSONResponse(_model(name))

    return [
        Route("/api/papers/search", search),
        Route("/api/papers/{id}", detail),
        Route("/api/daily_papers", daily),
        Route("/api/arxiv/{id}/repos", repos),
        Route("/papers/{id}.md", text),
        Route("/api/models/{owner}/{name}", model),
    ]


def _limit(request: Request, default: int, most: int) -> int | None:
    limit = _whole(request, "limit", default)
    return limit if limit is not None and 1 <= limit <= most else None


def _whole(request: Request, name: str, default: int) -> int | None:
    text = request.query_params.get(name, str(default))
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _linked(paper: Paper, shelf: Shelf) -> list[dict[str, Any]]:
    """Datasets whose tags name the paper; and what is still linked though it is gone."""
    found = [summary(repo, shelf) for repo in REPOS.values() if f"arxiv:{paper.arxiv}" in repo.tags]
    gone = STALE_LINKS.get(paper.arxiv or "", ())
    return found + [{"id": name, "author": name.partition("/")[0], "downloads": 12, "likes": 0} for name in gone]


def _model(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "author": name.partition("/")[0],
        "downloads": 1000,
        "likes": 10,
        "pipeline_tag": "text-generation",
    }


def _flat(paper: Paper) -> dict[str, Any]:
    digest = hashlib.sha1(paper.key.encode(), usedforsecurity=False).hexdigest()
    return {
        "id": paper.arxiv,
        "authors": [
            {"_id": f"{digest[:22]}{n:02d}", "name": name, "hidden": False} for n, name in enumerate(paper.authors)
        ],
        "publishedAt": f"{paper.published}T00:00:00.000Z",
        "title": paper.title,
        "summary": paper.abstract,
        "upvotes": paper.number,
        "discussionId": digest[:24],
        "ai_summary": paper.abstract.partition(". ")[0] + ".",
        "ai_keywords": ["post-training", "small language models"],
        "githubRepo": f"https://github.com/loopback/{paper.arxiv}",
        "githubStars": 3 * paper.number,
        "projectPage": None,
    }


def _item(paper: Paper) -> dict[str, Any]:
    flat = _flat(paper)
    top = {name: flat[name] for name in ("publishedAt", "title", "summary")}
    return {"paper": flat, **top, "numComments": 0, "isAuthorParticipating": False}
