"""The query parameters that the real services know, so that one that was injected or misspelt is noticed."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["unknown"]

_PAPER_FILTERS = (
    "query fields publicationTypes openAccessPdf minCitationCount publicationDateOrYear year venue fieldsOfStudy "
)
_KNOWN: tuple[tuple[str, str], ...] = (
    (r"/graph/v1/paper/search$", _PAPER_FILTERS + "offset limit"),
    # the semanticscholar package sends offset and limit to bulk, which has no use for them
    (r"/graph/v1/paper/search/bulk$", _PAPER_FILTERS + "token sort offset limit"),
    (r"/graph/v1/paper/search/match$", _PAPER_FILTERS),
    (r"/graph/v1/paper/batch$", "fields"),
    (r"/graph/v1/snippet/search$", "query fields limit paperIds authors minCitationCount insertedBefore "
     "publicationDateOrYear year venue fieldsOfStudy"),
    (r"/graph/v1/paper/.*/(citations|references|authors)$", "fields offset limit publicationDateOrYear"),
    (r"/graph/v1/paper/", "fields"),
    (r"/recommendations/v1/", "fields limit from"),
    (r"/arxiv/api/query$", "search_query id_list start max_results sortBy sortOrder"),
    (r"^/api/papers/search$", "q limit"),
    (r"^/api/daily_papers$", "p limit sort date week month submitter"),
    (r"^/api/jobs/[^/]+$", "stage label timeout limit cursor"),
    (r"^/api/jobs/.*/logs$", "tail"),
    (r"^/api/models/.*/tree/", "recursive expand limit cursor"),
    (r"^/api/datasets$", "filter author gated search sort direction limit cursor full expand config"),
    (r"^/api/datasets/.*/tree/", "recursive expand limit cursor"),
    (r"^/api/datasets/", "expand blobs securityStatus full"),
    (r"^/api/(models|papers|arxiv)/", "expand blobs securityStatus"),
    (r"^/datasets/.*/resolve/", "download"),
    (r"^/datasets-server/(is-valid|splits|parquet|size|info)$", "dataset config split"),
    (r"^/datasets-server/(first-rows|statistics)$", "dataset config split"),
    (r"^/datasets-server/rows$", "dataset config split offset length"),
    (r"^/datasets-server/search$", "dataset config split query offset length"),
    (r"^/datasets-server/filter$", "dataset config split where orderby offset length"),
)  # fmt: skip
_PATTERNS = tuple((re.compile(pattern), frozenset(names.split())) for pattern, names in _KNOWN)


def unknown(path: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that the service at `path` has no parameter for."""
    for pattern, known in _PATTERNS:
        if pattern.search(path):
            return [name for name in names if name not in known]
    return list(names)
