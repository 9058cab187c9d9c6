"""The datasets-server: what it says is computed from the data files.

As live: errors carry X-Error-Code, answers X-Revision; the only config is `default`; datasets with a
loading script, too many columns, or a viewer that is switched off have no answer; cells of first-rows are cut when the
whole is too large.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.loopback.columns import cut, features, statistics
from tests.loopback.hub_datasets import granted
from tests.loopback.repos import Repo
from tests.loopback.shelf import PARQUET, Shelf

__all__ = ["routes"]

CONFIG = "default"
PAGE_ROWS = 100
FIRST_ROWS_BYTES = 1_000_000
CELL_CHARS = 100
COLUMNS = 1000

_Rows = Sequence[Mapping[str, Any]]


class _RefusalError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def routes(shelf: Shelf) -> list[Route]:
    """All paths below /datasets-server."""
    viewer = _Viewer(shelf)
    endpoints: Mapping[str, Callable[[Repo, Request], dict[str, Any]]] = {
        "is-valid": viewer.is_valid,
        "splits": viewer.splits,
        "first-rows": viewer.first_rows,
        "rows": viewer.rows,
        "search": viewer.search,
        "filter": viewer.filter,
        "statistics": viewer.statistics,
        "parquet": viewer.parquet,
        "size": viewer.size,
        "info": viewer.info,
    }

    def answer(request: Request) -> Response:
        try:
            handler = endpoints.get(request.path_params["endpoint"])
            if handler is None:
                raise _RefusalError(404, "NotFound", "Not Found")
            repo = viewer.repo(request)
            return JSONResponse(handler(repo, request), headers={"X-Revision": shelf.sha(repo)})
        except _RefusalError as error:
            headers = {"X-Error-Code": error.code}
            return JSONResponse({"error": str(error)}, status_code=error.status, headers=headers)

    return [Route("/datasets-server/{endpoint}", answer)]


class _Viewer:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def repo(self, request: Request) -> Repo:
        """The dataset that is asked about. Raises _RefusalError."""
        repo = self._shelf.repo(_needed(request, "dataset"))
        if repo is None or (repo.gated and not granted(request)):
            known = request.headers.get("authorization", "").startswith("Bearer hf_")
            kind = "Authenticated" if known else "Unauthenticated"
            how = "with the current credentials" if known else "without authentication"
            message = f"The dataset does not exist, or is not accessible {how} (private or gated)."
            raise _RefusalError(404 if known else 401, f"External{kind}Error", message)
        return repo

    def is_valid(self, repo: Repo, _request: Request) -> dict[str, Any]:
        able = repo.viewer and bool(repo.splits)
        rows = able and self._columns(repo) <= COLUMNS
        return {"preview": rows, "viewer": rows, "search": rows, "filter": rows, "statistics": rows}

    def splits(self, repo: Repo, request: Request) -> dict[str, Any]:
        return {"splits": [_name(repo, split) for split in self._served(repo, request)], "pending": [], "failed": []}

    def first_rows(self, repo: Repo, request: Request) -> dict[str, Any]:
        split, rows = self._rows_of(repo, request)
        first = rows[:PAGE_ROWS]
        large = len(json.dumps(first)) > FIRST_ROWS_BYTES
        shown = [cut(row, CELL_CHARS) if large else (row, []) for row in first]
        items = [{"row_idx": number, "row": row, "truncated_cells": cells} for number, (row, cells) in enumerate(shown)]
        return {**_name(repo, split), "features": features(rows), "rows": items, "truncated": len(rows) > len(first)}

    def rows(self, repo: Repo, request: Request) -> dict[str, Any]:
        return _page(self._rows_of(repo, request)[1], request, lambda row: True)

    def search(self, repo: Repo, request: Request) -> dict[str, Any]:
        words = _needed(request, "query").lower().split()
        return _page(self._rows_of(repo, request)[1], request, lambda row: _has(row, words))

    def filter(self, repo: Repo, request: Request) -> dict[str, Any]:
        return _page(self._rows_of(repo, request)[1], request, _condition(_needed(request, "where")))

    def statistics(self, repo: Repo, request: Request) -> dict[str, Any]:
        _, rows = self._rows_of(repo, request)
        return {"num_examples": len(rows), "statistics": statistics(rows), "partial": False}

    def parquet(self, repo: Repo, request: Request) -> dict[str, Any]:
        listed = []
        for split in self._served(repo, request):
            place = f"{CONFIG}/{split}/0000.parquet"
            found = self._shelf.file(repo, place, PARQUET)
            url = f"{request.base_url}datasets/{repo.id}/resolve/{PARQUET.replace('/', '%2F')}/{place}"
            size = found.size if found is not None else 0
            listed.append({**_name(repo, split), "url": url, "filename": "0000.parquet", "size": size})
        return {"parquet_files": listed, "pending": [], "failed": [], "partial": False}

    def size(self, repo: Repo, request: Request) -> dict[str, Any]:
        splits = [self._sizes(repo, split) for split in self._served(repo, request)]
        whole: dict[str, Any] = {key: sum(each[key] for each in splits) for key in splits[0] if key.startswith("num_")}
        columns = {"num_columns": splits[0]["num_columns"]}
        del whole["num_columns"]
        files = [self._shelf.file(repo, path) for path in repo.splits.values()]
        whole["num_bytes_original_files"] = sum(found.size for found in files if found is not None)
        config = {"dataset": repo.id, "config": CONFIG, **whole, **columns}
        size = {"dataset": {"dataset": repo.id, **whole}, "configs": [config], "splits": splits}
        return {"size": size, "pending": [], "failed": [], "partial": False}

    def _sizes(self, repo: Repo, split: str) -> dict[str, Any]:
        rows = self._shelf.rows(repo, split)
        copy = self._shelf.file(repo, f"{CONFIG}/{split}/0000.parquet", PARQUET)
        return {
            **_name(repo, split),
            "num_bytes_parquet_files": copy.size if copy is not None else 0,
            "num_bytes_memory": sum(len(json.dumps(row)) for row in rows),
            "num_rows": len(rows),
            "num_columns": len(rows[0]),
        }

    def info(self, repo: Repo, request: Request) -> dict[str, Any]:
        splits = self._served(repo, request)
        self._narrow(repo)
        files = [self._shelf.file(repo, path) for path in repo.splits.values()]
        name = repo.id.rpartition("/")[2]
        counted: dict[str, dict[str, Any]] = {}
        for split in splits:
            rows = self._shelf.rows(repo, split)
            size = sum(len(json.dumps(row)) for row in rows)
            counted[split] = {"name": split, "num_bytes": size, "num_examples": len(rows), "dataset_name": name}
        described = {
            "builder_name": "parquet" if repo.splits[splits[0]].endswith(".parquet") else "json",
            "dataset_name": name,
            "config_name": CONFIG,
            "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
            "features": {item["name"]: item["type"] for item in features(self._shelf.rows(repo, splits[0]))},
            "splits": counted,
            "download_size": sum(found.size for found in files if found is not None),
            "dataset_size": sum(each["num_bytes"] for each in counted.values()),
        }
        whole: object = described if "config" in request.query_params else {CONFIG: described}
        return {"dataset_info": whole, "pending": [], "failed": [], "partial": False}

    def _served(self, repo: Repo, request: Request) -> list[str]:
        """The splits that are asked about, all without a name. Raises _RefusalError for what is not served."""
        if not repo.viewer:
            raise _RefusalError(404, "DisabledViewerError", "The dataset viewer is disabled.")
        if not repo.splits:
            raise _RefusalError(
                501,
                "DatasetWithScriptNotSupportedError",
                "The dataset viewer doesn't support this dataset because it runs arbitrary Python code. You can "
                "convert it to a Parquet data-only dataset.",
            )
        if request.query_params.get("config", CONFIG) != CONFIG:
            raise _RefusalError(404, "ConfigNotFoundError", "The config does not exist.")
        split = request.query_params.get("split")
        if split is not None and split not in repo.splits:
            raise _RefusalError(404, "SplitNotFoundError", "The split does not exist.")
        return [split] if split is not None else list(repo.splits)

    def _rows_of(self, repo: Repo, request: Request) -> tuple[str, list[dict[str, Any]]]:
        for name in ("config", "split"):
            _needed(request, name)
        split = self._served(repo, request)[0]
        self._narrow(repo)
        return split, self._shelf.rows(repo, split)

    def _narrow(self, repo: Repo) -> None:
        if (columns := self._columns(repo)) > COLUMNS:
            raise _RefusalError(
                501,
                "TooManyColumnsError",
                f"The number of columns ({columns}) exceeds the maximum supported number of columns ({COLUMNS}).",
            )

    def _columns(self, repo: Repo) -> int:
        split, path = next(iter(repo.splits.items()))
        found = self._shelf.file(repo, path)
        if found is None or found.place.suffix != ".parquet":
            return len(self._shelf.rows(repo, split)[0])
        import pyarrow.parquet as pq  # slow to import

        return len(pq.read_schema(found.place).names)


def _name(repo: Repo, split: str) -> dict[str, str]:
    return {"dataset": repo.id, "config": CONFIG, "split": split}


def _needed(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise _RefusalError(422, "MissingRequiredParameter", f"Parameter '{name}' is required")
    return value


def _page(rows: _Rows, request: Request, fits: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
    offset, length = request.query_params.get("offset", "0"), request.query_params.get("length", str(PAGE_ROWS))
    if not (offset.isdecimal() and length.isdecimal()):
        raise _RefusalError(422, "InvalidParameter", "Parameters 'offset' and 'length' must be integers")
    if int(length) > PAGE_ROWS:
        raise _RefusalError(422, "InvalidParameter", f"Parameter 'length' must not be greater than {PAGE_ROWS}")
    found = [(number, row) for number, row in enumerate(rows) if fits(row)]
    shown = found[int(offset) : int(offset) + int(length)]
    items = [{"row_idx": number, "row": row, "truncated_cells": []} for number, row in shown]
    totals = {"num_rows_total": len(found), "num_rows_per_page": PAGE_ROWS, "partial": False}
    return {"features": features(rows), "rows": items, **totals}


def _has(row: Mapping[str, Any], words: Sequence[str]) -> bool:
    text = json.dumps(row).lower()
    return all(word in text for word in words)


def _condition(where: str) -> Callable[[Mapping[str, Any]], bool]:
    """`"column"='text'`, joined by AND: the least that the service knows of SQL."""
    wanted = []
    for part in re.split(r"\s+AND\s+", where):
        match = re.fullmatch(r"\s*\"([^\"]+)\"\s*=\s*'((?:[^']|'')*)'\s*", part)
        if match is None:
            raise _RefusalError(422, "InvalidParameter", "A query parameter is invalid")
        wanted.append((match[1], match[2].replace("''", "'")))
    return lambda row: all(str(row.get(name)) == value for name, value in wanted)
