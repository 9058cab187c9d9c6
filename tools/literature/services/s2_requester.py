"""The `semanticscholar` package's way to its service, replaced: every request goes through our Service.

As it is, the package (0.12.0) turns 401, 502 and 503 into empty results, ignores Retry-After, glues queries into URLs
so that a `&` adds parameters, stops paging in silence when a page is shorter than asked for, and takes an answer
without its fields for an empty one. Here none of this can happen.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl, quote

from semanticscholar import AsyncSemanticScholar
from semanticscholar.ApiRequester import ApiRequester

from posttrain_crew.errors import BadAnswerError, InputError, NotFoundError
from posttrain_crew.tools.literature.services.base import old_answers_welcome, one_line, remember_if_old
from posttrain_crew.tools.services.http import Answer, Service

__all__ = ["CheckRow", "PackageClient", "done", "in_path"]

CheckRow = Callable[[str, object], object]
"""Takes what was asked for (paper, search, citations, references, snippets, recommendations, batch) and one row of the
answer; raises BadAnswerError of a row that cannot be read."""

_KNOWN = frozenset(
    {
        "query", "fields", "offset", "limit", "year", "minCitationCount", "fieldsOfStudy", "openAccessPdf", "paperIds",
        "from",
    }
)  # fmt: skip
_COUNTS = {"citations": "citationCount", "references": "referenceCount"}
_T = TypeVar("_T")


class PackageClient(AsyncSemanticScholar):  # type: ignore[misc]
    """The package's client on our Service. Its coroutines never wait: end them with `done`.

    Texts that callers pass on must be percent-encoded (`quote_plus`), names of papers by `in_path`: the package glues
    them into URLs as they are.
    """

    debug = False  # the package has a property here that configures logging for the whole process

    def __init__(self, service: Service, check_row: CheckRow, max_age_s: float) -> None:
        super().__init__(api_url=service.base_url)
        self._requester = Requester(service, check_row, max_age_s)

    async def batch(self, names: list[str], fields: list[str]) -> list[dict[str, Any] | None]:
        """Papers in the order of their names (500 at most), None for one that is not known.

        The package's get_papers leaves out the unknown ones, and with them which is which.
        """
        url = f"{self.api_url}{self.BASE_PATH_GRAPH}/paper/batch"
        rows: list[dict[str, Any] | None] = await self._requester.get_data_async(
            url, f"fields={','.join(fields)}", {}, {"ids": names}
        )
        return rows


class Requester(ApiRequester):  # type: ignore[misc]
    """Asks the Service, checks the form of each answer, and delivers whole pages."""

    def __init__(self, service: Service, check_row: CheckRow, max_age_s: float) -> None:
        super().__init__(timeout=0, retry=False)  # the Service has both
        self._service, self._check_row, self._max_age_s = service, check_row, max_age_s

    async def get_data_async(
        self, url: str, parameters: str, headers: Mapping[str, str], payload: dict[str, Any] | None = None
    ) -> Any:
        """What the package calls for every request. Raises ServiceError."""
        params = self._parsed(parameters)
        if payload is not None:
            return self._service.post_json(url, payload, params, check=lambda answer: self._check("batch", answer))
        if "offset" in params:
            return self._whole_page(url, url.rpartition("/")[2], params)
        if url.endswith("/snippet/search"):
            return self._get(url, "snippets", params)
        return self._get(url, "recommendations" if "/recommendations/" in url else "paper", params)

    def _parsed(self, parameters: str) -> dict[str, str]:
        """The package's text of parameters, taken apart so that the Service encodes each value again."""
        pairs = parse_qsl(parameters, keep_blank_values=True)
        params = dict(pairs)
        if len(params) != len(pairs) or not set(params) <= _KNOWN:
            raise InputError(
                f"{self._service.name}: a text would add parameters to the request ({one_line(parameters, 200)!r}). "
                "It must be percent-encoded."
            )
        return params

    def _get(self, url: str, kind: str, params: Mapping[str, str]) -> Any:
        answer = self._service.get(
            url,
            params,
            max_age_s=self._max_age_s,
            stale_if_down=old_answers_welcome(),
            check=lambda answer: self._check(kind, answer, int(params.get("offset", 0)), url),
        )
        return remember_if_old(answer).json()

    def _whole_page(self, url: str, kind: str, params: dict[str, str]) -> dict[str, Any]:
        """The page as long as it was asked for, however short the pages of the service are."""
        start, wanted = int(params["offset"]), int(params["limit"])
        value = self._get(url, kind, params)
        rows: list[Any] = list(value.get("data") or [])
        while len(rows) < wanted and value.get("next") is not None:
            here = {**params, "offset": str(value["next"]), "limit": str(wanted - len(rows))}
            value = self._get(url, kind, here)
            rows += value["data"]
        return {**value, "data": rows[:wanted], "offset": start}

    def _check(self, kind: str, answer: Answer, offset: int = 0, url: str = "") -> None:
        """Raises BadAnswerError unless the answer has the form that this request gets."""
        value = answer.json()
        rows: object = value
        if kind != "batch":
            if not isinstance(value, dict) or (len(value) == 1 and "error" in value):
                self._moved(answer, "a mapping")
            elif kind == "paper":
                rows = [value]
            elif kind == "recommendations":
                rows = value.get("recommendedPapers")
            else:
                rows = self._page_rows(value, answer, offset)
        if not isinstance(rows, list):
            self._moved(answer, "its list")
        if not rows and offset == 0 and kind in _COUNTS:
            self._confirm_none(url.rpartition("/")[0], _COUNTS[kind], answer)
        for row in rows:
            if not (kind == "batch" and row is None):
                self._check_row(kind, row)

    def _confirm_none(self, paper_url: str, counted: str, answer: Answer) -> None:
        """No citations are believed only if the paper's own count says so: a page that lost its rows looks the same."""
        paper = self._get(paper_url, "paper", {"fields": f"paperId,externalIds,title,{counted}"})
        if counted not in paper or paper[counted]:
            self._moved(answer, f"rows, though the {counted} of the paper is {paper.get(counted)},")

    def _page_rows(self, value: dict[str, Any], answer: Answer, offset: int) -> object:
        rows, following, total = value.get("data"), value.get("next"), value.get("total")
        if rows is None and (withheld := _withheld(value)):
            raise NotFoundError(f"{self._service.name} may not show this: {withheld}", service=self._service.name)
        if "data" not in value and total == 0:
            return []  # the live service leaves it out where nothing fits
        if following is not None and (not isinstance(following, int) or following <= offset):
            self._moved(answer, f"an offset after {offset} as next")
        if not rows and (following is not None or (isinstance(total, int) and total > offset)):
            self._moved(answer, "rows, of which it says that there are some,")
        return rows

    def _moved(self, answer: Answer, missing: str) -> NoReturn:
        raise BadAnswerError(
            f"{self._service.name} answered {answer.place} without {missing}; it begins {answer.text()[:80]!r}.",
            service=self._service.name,
        )


def _withheld(value: Mapping[str, Any]) -> str:
    """What the service says where a publisher does not let it show references: `data` is null then."""
    info = value.get("citingPaperInfo") or value.get("citedPaperInfo")
    pdf = info.get("openAccessPdf") if isinstance(info, dict) else None
    said = one_line(pdf.get("disclaimer"), 300) if isinstance(pdf, dict) else ""
    return said or ("the publisher keeps it back." if isinstance(info, dict) else "")


def done(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """The result of a coroutine of PackageClient. It never waits, so that no event loop is needed, or in the way."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    coroutine.close()
    raise AssertionError("the requester answers at once; a coroutine that waits is none of the package's")


def in_path(name: str) -> str:
    """The name of a paper as part of a URL's path."""
    return quote(name, safe=":/")
