"""Hugging Face papers as a source: search, papers of the day, one paper with its datasets, models and repository.

Raw JSON over our Service: huggingface_hub's list_papers drops what is nested in `paper` (the summary made by the
service, the repository), none of its calls for papers is tried again, and paper_info sends no token. The Hub names
papers by their arXiv id and keeps no citations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date as calendar_date
from typing import Any, NoReturn

from pydantic import ValidationError

from posttrain_crew.errors import BadAnswerError, InputError, NotFoundError
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
from posttrain_crew.tools.services.http import Answer, Params, Service

__all__ = ["HuggingFacePapers"]

NAME = "huggingface"
MAX_QUERY = 250
"""The Hub refuses longer ones."""
MAX_RESULTS = 120
MAX_DAILY = 100
MAX_PAGES = 20
MAX_AGE_S = 86400.0
DAILY_AGE_S = 3600.0
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NEXT = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


class HuggingFacePapers:
    """The source. It makes no request until a method is called.

    Args:
        hub: the Hugging Face Hub, with its token.
    """

    name = NAME
    can = frozenset({"search", "paper"})

    def __init__(self, hub: Service) -> None:
        self._hub = hub

    def search(self, query: str, *, year_from: int | None = None, limit: int = 20) -> list[PaperRecord]:
        """Papers in the Hub's order, at most 120. Raises InputError of a query without a word, ServiceError."""
        _positive(limit)
        # the Hub has no filter for years, so that a filtered search asks for all it gives
        asked = min(limit, MAX_RESULTS) if year_from is None else MAX_RESULTS
        params: Params = {"q": bounded_query(query, MAX_QUERY), "limit": asked}
        found = [_of_item(item) for item in self._list("api/papers/search", params, _of_item, MAX_AGE_S)[0]]
        return [paper for paper in found if year_from is None or (paper.year or 0) >= year_from][:limit]

    def daily(self, day: str | None = None, *, limit: int = 50) -> list[PaperRecord]:
        """Papers put forward on a day (YYYY-MM-DD), by default the latest. Raises InputError, ServiceError."""
        _positive(limit)
        if day is not None:
            try:
                known = calendar_date.fromisoformat(day).isoformat() == day
            except ValueError:
                known = False
            if not known:
                raise InputError(f"{day[:40]!r} is no day; write it as YYYY-MM-DD.")
        params: Params = {"date": day, "limit": min(limit, MAX_DAILY)}
        return [_of_item(item) for item in self._list("api/daily_papers", params, _of_item, DAILY_AGE_S)[0]]

    def paper(self, ids: PaperIds) -> PaperRecord:
        """One paper with the datasets and models that are linked to it. Raises NotFoundError, ServiceError."""
        answer = self._get(f"api/papers/{_arxiv(ids)}", {}, lambda answer: _of_detail(answer.json()), MAX_AGE_S)
        raw, paper = answer.json(), _of_detail(answer.json())
        more: dict[str, tuple[str, ...]] = {}
        for kind, shown in (("datasets", paper.datasets), ("models", paper.models)):
            total = raw.get(f"numTotal{kind.capitalize()}")
            if isinstance(total, int) and total > len(shown):  # the page shows the first few
                more[kind] = tuple(dict.fromkeys((*shown, *self._linked(kind, ids, 100))))
        return PaperRecord(**{**paper.model_dump(), **more}) if more else paper

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> list[CitationLink]:
        """The Hub keeps no citations. Raises NotFoundError, always."""
        raise NotFoundError("Hugging Face keeps no citations: ask Semantic Scholar.", service=NAME)

    def linked_datasets(self, ids: PaperIds, *, limit: int = 50) -> list[str]:
        """Ids of datasets that name the paper, most downloaded first; also of papers without a page of their own.

        Raises NotFoundError where the ids have no arXiv id, ServiceError.
        """
        return self._linked("datasets", ids, limit)

    def linked_models(self, ids: PaperIds, *, limit: int = 50) -> list[str]:
        """Ids of models that name the paper, most downloaded first. Raises as `linked_datasets` does."""
        return self._linked("models", ids, limit)

    def _linked(self, kind: str, ids: PaperIds, limit: int) -> list[str]:
        _positive(limit)
        found: dict[str, None] = {}
        page: str = f"api/{kind}"
        params: Params = {"filter": f"arxiv:{_arxiv(ids)}", "sort": "downloads", "limit": min(limit, 100)}
        for _ in range(MAX_PAGES):
            rows, following = self._list(page, params, _repository, MAX_AGE_S)
            found.update(dict.fromkeys(_repository(row) for row in rows))
            if following is None or len(found) >= limit:
                return list(found)[:limit]
            page, params = following, {}
        raise BadAnswerError(f"the Hub's list of {kind} did not end after {MAX_PAGES} pages.", service=NAME)

    def _list(
        self, path: str, params: Params, check_row: Callable[[object], object], max_age_s: float
    ) -> tuple[list[Any], str | None]:
        """Rows of a page, and the address of the next one."""

        def check(answer: Answer) -> None:
            rows = answer.json()
            if not isinstance(rows, list):
                _moved(f"{type(rows).__name__} where a list belongs")
            if not rows and _following(answer):
                _moved("an empty page that has another one behind it")
            for row in rows:
                check_row(row)

        answer = self._get(path, params, check, max_age_s)
        return answer.json(), _following(answer)

    def _get(self, path: str, params: Params, check: Callable[[Answer], object], max_age_s: float) -> Answer:
        return remember_if_old(
            self._hub.get(path, params, max_age_s=max_age_s, stale_if_down=old_answers_welcome(), check=check)
        )


def _positive(limit: int) -> None:
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1.")


def _arxiv(ids: PaperIds) -> str:
    if ids.arxiv is None:
        raise unknown_to(NAME, ids, "arXiv id")
    return ids.arxiv


def _following(answer: Answer) -> str | None:
    match = _NEXT.search(answer.headers.get("link", ""))
    return match[1] if match else None


def _moved(what: str) -> NoReturn:
    raise BadAnswerError(f"{NAME} gave an answer in another form than it should: {one_line(what, 300)}.", service=NAME)


def _repository(row: object) -> str:
    name = row.get("id") if isinstance(row, dict) else None
    return name if isinstance(name, str) and name else _moved("a repository without its id")


def _of_item(item: object) -> PaperRecord:
    """A record of a row of a search or of a day, which nests the paper."""
    return _record(item.get("paper") if isinstance(item, dict) else None)


def _of_detail(value: object) -> PaperRecord:
    return _record(value)


def _record(paper: object) -> PaperRecord:
    """Raises BadAnswerError."""
    if not isinstance(paper, dict):
        _moved("a row without its paper")
    for name in ("id", "title", "summary"):
        if not isinstance(paper.get(name), str):
            _moved(f"a paper without its {name}")
    try:
        arxiv = parse_ids(paper["id"]).arxiv
    except InputError:
        arxiv = None  # a paper that is on the Hub only
    given = paper.get("publishedAt")
    published = match[0] if isinstance(given, str) and (match := _DATE.match(given)) else None
    try:
        return PaperRecord(
            ids=PaperIds(arxiv=arxiv),
            title=paper["title"],
            abstract=paper["summary"],
            year=int(published[:4]) if published else None,
            published=published,
            authors=tuple(author.get("name") for author in paper.get("authors") or () if author.get("name")),
            summary=paper.get("ai_summary"),
            datasets=_ids_in(paper, "linkedDatasets"),
            models=_ids_in(paper, "linkedModels"),
            code=paper.get("githubRepo"),
            sources=(NAME,),
        )
    except (ValidationError, AttributeError, TypeError, ValueError) as error:
        _moved(str(error))


def _ids_in(paper: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(_repository(row) for row in paper.get(name) or ())
