"""The Hub's dataset viewer (datasets-server): splits, sizes, statistics, rows and parquet copies of a dataset.

It answers without the dataset being brought here. What it has not computed yet, or not for all of a dataset, is told in
each answer (`pending`, `failed`, `partial`), and a request that it refuses is an error with its `X-Error-Code`.
Facts: https://huggingface.co/docs/dataset-viewer, OpenAPI of 2026-08.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    InputError,
    NotFoundError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.tools.data.hub.client import checked_id
from posttrain_crew.tools.services.http import Service

__all__ = [
    "ColumnStatistics",
    "DatasetsServer",
    "Parquet",
    "ParquetFile",
    "Rows",
    "Size",
    "Split",
    "Splits",
    "Statistics",
    "Validity",
]

MAX_ROWS = 100
"""Rows that the service gives for one request."""
MAX_ANSWER_BYTES = 32 * 2**20
PARQUET_REVISION = "refs/convert/parquet"
_DENIED = frozenset({"ExternalUnauthenticatedError", "ExternalAuthenticatedError"})
_NOT_READY = frozenset({"ResponseNotReady", "ServiceUnavailable", "UnexpectedError", ""})
"""What may pass. Any other code of a 5xx is the viewer's last word on a dataset: a script, no known format, too big."""


@dataclass(frozen=True)
class Split:
    """One split of one configuration."""

    config: str
    split: str


@dataclass(frozen=True)
class _Told:
    """What each answer says of itself."""

    revision: str | None
    """Commit of the dataset that it is about."""
    partial: bool
    """It covers a first part of the dataset only."""
    pending: tuple[Split, ...]
    """Parts that are not computed yet: absent here, and not to be taken for empty."""
    failed: tuple[Split, ...]
    """Parts that the service could not read."""


@dataclass(frozen=True)
class Splits(_Told):
    """All splits of a dataset."""

    splits: tuple[Split, ...]


@dataclass(frozen=True)
class Size(_Told):
    """Rows and bytes of a dataset; rows by split as far as they are known."""

    rows: int
    bytes: int
    """Of the original files, or of the parquet copies where those are not stated."""
    by_split: Mapping[Split, int]


@dataclass(frozen=True)
class ColumnStatistics:
    """Statistics of one column, as the service computed them."""

    name: str
    kind: str
    """For example `string_text`, `string_label`, `class_label`, `int`, `float`, `list`, `bool`."""
    values: Mapping[str, Any]
    """nan_count, min, max, mean, ... ; for texts they are lengths in characters."""


@dataclass(frozen=True)
class Statistics(_Told):
    """Statistics of one split."""

    rows: int
    columns: tuple[ColumnStatistics, ...]


@dataclass(frozen=True)
class Rows(_Told):
    """Rows of one split, at most 100."""

    columns: tuple[str, ...]
    types: Mapping[str, Any]
    """Feature type by column, as `datasets` writes it."""
    rows: tuple[Mapping[str, Any], ...]
    total: int | None
    """Rows of the split; None where the answer does not say."""
    truncated: bool
    """Rows or cells were left out or cut."""


@dataclass(frozen=True)
class ParquetFile:
    """One file of the parquet copy that the service keeps in the dataset's `refs/convert/parquet`."""

    config: str
    split: str
    path: str
    """In the repository, at that revision."""
    size: int


@dataclass(frozen=True)
class Parquet(_Told):
    """The parquet copy of a dataset."""

    files: tuple[ParquetFile, ...]


@dataclass(frozen=True)
class Validity:
    """What the service can do for a dataset."""

    viewer: bool
    preview: bool
    search: bool
    filter: bool
    statistics: bool


class DatasetsServer:
    """A client of the dataset viewer's service.

    Each method raises NotFoundError (no such dataset, configuration or split, or the viewer cannot show it),
    AccessDeniedError (gated or private), ServiceUnavailableError (also while an answer is being computed),
    BadAnswerError, InputError (no dataset name), ServiceError.

    Args:
        service: `Services.datasets_server`.
        pages: address of the Hub, where terms of gated datasets are accepted.
    """

    def __init__(self, service: Service, pages: str = "https://huggingface.co") -> None:
        self._service, self._pages = service, pages.rstrip("/")

    def is_valid(self, dataset: str) -> Validity:
        """What the viewer offers for a dataset; all false: it exists and cannot be shown."""
        raw, _ = self._ask("is-valid", dataset)
        names = ("viewer", "preview", "search", "filter", "statistics")
        if not all(isinstance(raw.get(name), bool) for name in names):
            raise self._bad("is-valid", ", ".join(names))
        return Validity(**{name: raw[name] for name in names})

    def splits(self, dataset: str, config: str | None = None) -> Splits:
        """Configurations and splits."""
        raw, revision = self._ask("splits", dataset, config=config)
        return Splits(*self._told(raw, revision), splits=self._pairs("splits", raw.get("splits")))

    def info(self, dataset: str, config: str) -> tuple[Mapping[str, Any], bool]:
        """`dataset_info` of a configuration (features, splits, sizes) as it is given, and whether it is partial."""
        raw, _ = self._ask("info", dataset, config=config)
        if not isinstance(raw.get("dataset_info"), dict):
            raise self._bad("info", "`dataset_info`")
        return raw["dataset_info"], bool(raw.get("partial"))

    def size(self, dataset: str) -> Size:
        """Rows and bytes."""
        raw, revision = self._ask("size", dataset)
        size = raw.get("size")
        whole = size.get("dataset") if isinstance(size, dict) else None
        if not isinstance(size, dict) or not isinstance(whole, dict) or not isinstance(whole.get("num_rows"), int):
            raise self._bad("size", "`size.dataset.num_rows`")
        by_split: dict[Split, int] = {}
        for each in size.get("splits") or []:
            if isinstance(each, dict) and isinstance(each.get("num_rows"), int):
                by_split[Split(str(each.get("config")), str(each.get("split")))] = each["num_rows"]
        sizes = [whole.get("num_bytes_original_files"), whole.get("num_bytes_parquet_files")]
        known = next((value for value in sizes if isinstance(value, int)), 0)
        return Size(*self._told(raw, revision), rows=whole["num_rows"], bytes=known, by_split=by_split)

    def statistics(self, dataset: str, config: str, split: str) -> Statistics:
        """Statistics of every column of a split."""
        raw, revision = self._ask("statistics", dataset, config=config, split=split)
        columns = raw.get("statistics")
        if not isinstance(raw.get("num_examples"), int) or not isinstance(columns, list):
            raise self._bad("statistics", "`num_examples` and `statistics`")
        found = []
        for each in columns:
            if not isinstance(each, dict) or not isinstance(each.get("column_statistics"), dict):
                raise self._bad("statistics", "`column_statistics` of a column")
            found.append(
                ColumnStatistics(str(each.get("column_name")), str(each.get("column_type")), each["column_statistics"])
            )
        return Statistics(*self._told(raw, revision), rows=raw["num_examples"], columns=tuple(found))

    def first_rows(self, dataset: str, config: str, split: str) -> Rows:
        """The first rows, at most 100; long cells are cut by the service."""
        raw, revision = self._ask("first-rows", dataset, config=config, split=split)
        if raw.get("rows") == [] and raw.get("features"):
            raw, revision = self._ask("first-rows", dataset, config=config, split=split)  # an empty page can pass
        return self._rows("first-rows", raw, revision, total=None)

    def rows(self, dataset: str, config: str, split: str, offset: int = 0, length: int = MAX_ROWS) -> Rows:
        """Rows from `offset`, at most 100. Raises InputError for a length that the service does not serve, too."""
        if offset < 0 or not 1 <= length <= MAX_ROWS:
            raise InputError(f"rows from {offset}, {length} of them: offset is 0 or more, length 1 to {MAX_ROWS}.")
        for attempt in (1, 2):
            raw, revision = self._ask("rows", dataset, config=config, split=split, offset=offset, length=length)
            total = raw.get("num_rows_total")
            if not isinstance(total, int):
                raise self._bad("rows", "`num_rows_total`")
            found = self._rows("rows", raw, revision, total)
            if found.rows or offset >= total:
                return found
            if attempt == 2:
                raise self._bad("rows", f"rows, though it counts {total} of them")
        raise AssertionError("the second attempt returns or raises")

    def parquet(self, dataset: str, config: str | None = None) -> Parquet:
        """The parquet copy's files."""
        raw, revision = self._ask("parquet", dataset, config=config)
        listed = raw.get("parquet_files")
        if not isinstance(listed, list):
            raise self._bad("parquet", "`parquet_files`")
        return Parquet(*self._told(raw, revision), files=tuple(self._file(each, dataset) for each in listed))

    def _ask(self, endpoint: str, dataset: str, **params: str | int | None) -> tuple[dict[str, Any], str | None]:
        """The parsed object and the commit that it is about. An answer that was cut is asked for once more."""
        query = {"dataset": checked_id(dataset), **params}
        try:
            answer = self._service.get(endpoint, query, max_bytes=MAX_ANSWER_BYTES)
            try:
                raw = answer.json()
            except BadAnswerError:
                answer = self._service.get(endpoint, query, max_bytes=MAX_ANSWER_BYTES)
                raw = answer.json()
        except ServiceError as error:
            if (told := self._in_words(error, endpoint, dataset)) is error:
                raise
            raise told from error
        if not isinstance(raw, dict):
            raise self._bad(endpoint, "a JSON object")
        return raw, answer.headers.get("x-revision")

    def _in_words(self, error: ServiceError, endpoint: str, dataset: str) -> ServiceError:
        details: dict[str, Any] = {"service": error.service, "status": error.status, "code": error.code}
        if error.code in _DENIED or isinstance(error, AccessDeniedError):
            return AccessDeniedError(
                f"the viewer may not show {dataset}: it is gated or private, or it does not exist. Look at "
                f"{self._pages}/datasets/{dataset}, accept its terms there, and set HF_TOKEN. ({str(error)[:300]})",
                **details,
            )
        if isinstance(error, NotFoundError):
            return NotFoundError(f"the viewer has no {endpoint} of {dataset}. ({str(error)[:300]})", **details)
        if isinstance(error, ServiceUnavailableError) and error.code not in _NOT_READY:
            return NotFoundError(
                f"the viewer cannot read {dataset} ({error.code}), so it has no {endpoint} of it. ({str(error)[:300]})",
                **details,
            )
        return error

    def _told(
        self, raw: Mapping[str, Any], revision: str | None
    ) -> tuple[str | None, bool, tuple[Split, ...], tuple[Split, ...]]:
        pending, failed = (self._pairs(name, raw.get(name) or [], loosely=True) for name in ("pending", "failed"))
        return revision, bool(raw.get("partial")), pending, failed

    def _pairs(self, name: str, listed: Any, loosely: bool = False) -> tuple[Split, ...]:
        if not isinstance(listed, list):
            raise self._bad(name, f"the list `{name}`")
        pairs = []
        for each in listed:
            if not isinstance(each, dict) or not (loosely or {"config", "split"} <= set(each)):
                raise self._bad(name, "`config` and `split`")
            pairs.append(Split(str(each.get("config") or "")[:200], str(each.get("split") or "")[:200]))
        return tuple(pairs)

    def _rows(self, endpoint: str, raw: Mapping[str, Any], revision: str | None, total: int | None) -> Rows:
        features, listed = raw.get("features"), raw.get("rows")
        if not isinstance(features, list) or not isinstance(listed, list):
            raise self._bad(endpoint, "`features` and `rows`")
        types, rows, cut = dict[str, Any](), [], bool(raw.get("truncated"))
        for feature in features:
            if not isinstance(feature, dict) or "name" not in feature:
                raise self._bad(endpoint, "`name` of a feature")
            types[str(feature["name"])] = feature.get("type")
        for each in listed:
            if not isinstance(each, dict) or not isinstance(each.get("row"), dict):
                raise self._bad(endpoint, "`row` of a row")
            rows.append(each["row"])
            cut = cut or bool(each.get("truncated_cells"))
        return Rows(
            *self._told(raw, revision), columns=tuple(types), types=types, rows=tuple(rows), total=total, truncated=cut
        )

    def _file(self, raw: Any, dataset: str) -> ParquetFile:
        """The path comes out of the URL: the host in it is the public one, whatever mirror is asked here."""
        if not isinstance(raw, dict) or not isinstance(raw.get("url"), str) or not isinstance(raw.get("size"), int):
            raise self._bad("parquet", "`url` and `size` of a file")
        _, found, path = unquote(urlsplit(raw["url"]).path).partition(f"/resolve/{PARQUET_REVISION}/")
        if not found or not path.endswith(".parquet"):
            raise BadAnswerError(
                f"{self._service.name} lists {raw['url'][:300]!r} as a parquet file of {dataset}, which is not in "
                f"{PARQUET_REVISION}.",
                service=self._service.name,
            )
        return ParquetFile(str(raw.get("config"))[:200], str(raw.get("split"))[:200], path[:1000], raw["size"])

    def _bad(self, endpoint: str, lacks: str) -> BadAnswerError:
        return BadAnswerError(
            f"{self._service.name} answered /{endpoint} without {lacks}. Has its API changed? Look for a newer crew.",
            service=self._service.name,
        )
