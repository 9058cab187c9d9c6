"""What a parquet file of strangers would take to read, known before it is read; and how to read it in flat memory.

A few kilobytes of parquet can hold gigabytes: in a compressed page, in one long text that a dictionary repeats, in a
row whose list never ends, or in a billion rows of nothing. The footer may lie about all of it, so page headers are
walked, dictionaries are searched for their longest text, and, where the lists of a row group could inflate, the
repetition levels tell how many entries each row has. From that follows how many rows are decoded at once.

Columns are read as what Parquet says they are. The Arrow schema that a writer may have left in the footer is set aside:
it can ask for types that pyarrow cannot build for nested columns (dictionaries), and for others that nobody checks.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.parquet_pages import Page, longest_text, pages_of, row_starts

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BATCH_ROWS", "MAX_COLUMNS", "Layout", "Limits", "broken_file", "layout"]

MAX_COLUMNS = 1000
"""Columns, fields of nested ones counted; a table for training has ten, and each costs time in every row."""
MAX_FOOTER_BYTES = 32 * 2**20
MAX_CHUNKS = 200_000
"""Row groups times columns."""
MAX_PAGES = 2_000_000
MAX_PAGE_BYTES = 128 * 2**20
"""Of one page when it is unpacked; writers make pages of about 1 MiB."""
MAX_OPEN_BYTES = 2**30
"""Of the largest pages of all columns of a row group together: the reader holds one of each."""
MAX_LIST_VALUES = 64_000_000
"""Values of lists in one row group."""
MAX_ROW_BYTES = 512 * 2**20
CALM_BYTES = 64 * 2**20
"""Lists of a row group that cannot take more, however they are spread over its rows, are not looked into."""
SEARCHED_FROM = 2**20
"""A dictionary that could make this much of a chunk is searched for its longest text."""
FREE_ROWS = 5_000_000
MAX_ROWS_PER_BYTE = 100.0
"""A few bytes can say `the same value, 10^9 times`; beyond FREE_ROWS such a file is refused and not counted out."""
BATCH_ROWS = 512
BUFFER_BYTES = 1 << 20
_STORED_SCHEMA = b"\x0cARROW:schema"
"""The key with its length, as the footer has it."""
_FIXED_BYTES = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}


@dataclass(frozen=True)
class Limits:
    """What a reader wants to have in memory at once."""

    rows: int = BATCH_ROWS
    bytes: int = 256 * 2**20
    per_value: int = 64
    """Bytes of a value besides its content: of a Python object, or an offset."""
    cut: int | None = None
    """Texts in flat columns are cut to this many bytes before they are written out, which takes reading them as
    dictionaries."""


@dataclass(frozen=True)
class Run:
    """Row groups that are read in one go."""

    groups: tuple[int, ...]
    rows: int
    """Rows that are decoded at once."""


@dataclass(frozen=True)
class Layout:
    """What a file is made of, and how it is read."""

    path: Path
    rows: int
    columns: tuple[str, ...]
    """Paths of its leaf columns."""
    runs: tuple[Run, ...]
    long_texts: tuple[str, ...]
    """Flat columns whose dictionary holds a text longer than `Limits.cut`: they come as dictionaries."""
    metadata: Any = field(repr=False)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows, as many at a time as fit. Raises DatasetError when the file is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(
                self.path,
                metadata=self.metadata,
                read_dictionary=list(self.long_texts),
                pre_buffer=False,
                buffer_size=BUFFER_BYTES,
            ) as file:
                for run in self.runs:
                    yield from file.iter_batches(run.rows, row_groups=run.groups, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise broken_file(self.path, error) from error


def layout(path: Path, limits: Limits = Limits()) -> Layout:
    """Look at footer and pages. Raises DatasetError for what is damaged or inflates."""
    import pyarrow as pa

    try:
        metadata = _metadata(path)
        if metadata.num_columns > MAX_COLUMNS:
            raise DatasetError(
                f"{path} has {metadata.num_columns} columns, and {MAX_COLUMNS} are read at most. Leave it out, or "
                "convert it to the few columns that training needs."
            )
        if (chunks := metadata.num_columns * metadata.num_row_groups) > MAX_CHUNKS:
            raise DatasetError(f"{path} is cut into {chunks} pieces, more than {MAX_CHUNKS}: it is not read.")
        size = path.stat().st_size
        if metadata.num_rows > FREE_ROWS and metadata.num_rows > size * MAX_ROWS_PER_BYTE:
            raise DatasetError(
                f"{path} is refused: {metadata.num_rows:,} rows in {size:,} bytes hold nothing to train on."
            )
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Walk(path, metadata, data, limits).layout()
    except (pa.ArrowException, OSError, ValueError, IndexError, MemoryError) as error:
        raise broken_file(path, error) from error


def broken_file(path: Path, error: Exception) -> DatasetError:
    """What is told of a file that cannot be read."""
    return DatasetError(
        f"the data file {path} cannot be read: {type(error).__name__}: {str(error)[:300]}. It is damaged, cut, or not "
        "what its suffix says; fetch it again, or leave the dataset out."
    )


def _metadata(path: Path) -> Any:
    """The footer without the stored Arrow schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length + 12 > size:
            raise ValueError("it does not end as a parquet file does")
        if length > MAX_FOOTER_BYTES:
            raise DatasetError(
                f"{path}: the description of its columns alone takes {length / 2**20:.0f} MiB. A table of so many "
                "columns is not read; leave it out, or fetch a version with fewer."
            )
        stream.seek(size - 8 - length)
        footer = stream.read(length).replace(_STORED_SCHEMA, _STORED_SCHEMA.lower())
    return pq.read_metadata(pa.BufferReader(b"PAR1" + footer + tail))


@dataclass
class _Chunk:
    """What one column of one row group could take."""

    column: int
    pages: list[tuple[Page, float]] = field(default_factory=list)
    """Data pages, each with the bytes that an entry takes at most (on average, where they stand in the page)."""
    largest: int = 0
    dictionary: int = 0
    longest: int = 0

    @property
    def bytes(self) -> float:
        """Of all entries."""
        return sum(page.values * cost for page, cost in self.pages)


class _Walk:
    """Goes through the row groups of a file."""

    def __init__(self, path: Path, metadata: Any, data: mmap.mmap, limits: Limits) -> None:
        self._path, self._metadata, self._data, self._limits = path, metadata, data, limits
        self._columns = [metadata.schema.column(number) for number in range(metadata.num_columns)]
        self._long: dict[str, None] = {}
        self._pages = 0

    def layout(self) -> Layout:
        """Raises DatasetError where rows could not be read in bounded memory."""
        plans = [self._group(number) for number in range(self._metadata.num_row_groups)]
        runs: list[Run] = []
        for together, each in groupby(range(len(plans)), key=lambda number: plans[number][1]):
            groups = list(each)
            if together:
                runs.append(Run(tuple(groups), min(plans[number][0] for number in groups)))
            else:
                runs += [Run((number,), plans[number][0]) for number in groups]
        names = tuple(column.path for column in self._columns)
        return Layout(self._path, self._metadata.num_rows, names, tuple(runs), tuple(self._long), self._metadata)

    def _group(self, number: int) -> tuple[int, bool]:
        """(rows to decode at once, whether neighbours may be read along with it)."""
        group, limits = self._metadata.row_group(number), self._limits
        rows = max(1, group.num_rows)
        chunks = [self._chunk(group.column(column), column, rows) for column in range(len(self._columns))]
        if (held := sum(chunk.largest + chunk.dictionary for chunk in chunks)) > MAX_OPEN_BYTES:
            raise DatasetError(
                f"{self._path}: {len(chunks)} columns of {held / 2**20:.0f} MiB a page would have to be held at once. "
                "It is a zip bomb, or no table of rows for training; leave it out."
            )
        listed = sorted((c for c in chunks if self._is_list(c)), key=lambda chunk: chunk.bytes)
        dense = sum(max((cost for _, cost in c.pages), default=0.0) for c in chunks if not self._is_list(c))
        rest, precise = sum(chunk.bytes for chunk in listed), np.zeros(0)
        together = rest <= CALM_BYTES
        while rest > CALM_BYTES:
            chunk = listed.pop()
            rest -= chunk.bytes
            each = self._row_bytes(chunk, group)
            if len(each) > len(precise):
                each, precise = precise, each
            precise[: len(each)] += each
        if len(precise) and (most := float(precise.max())) > MAX_ROW_BYTES:
            raise DatasetError(
                f"{self._path}: one row would take {most / 2**20:.0f} MiB of memory: its lists repeat one long text, "
                "or have no end. This is no dataset for training; leave it out."
            )
        sums = np.concatenate([[0.0], np.cumsum(precise)])
        take = limits.rows
        while take > 1 and take * (dense + rest / rows) + _most(sums, take) > limits.bytes:
            take = (take + 1) // 2
        return take, together

    def _chunk(self, meta: Any, number: int, rows: int) -> _Chunk:
        column, made = self._columns[number], _Chunk(number)
        text, own = column.physical_type == "BYTE_ARRAY", self._limits.per_value
        width = max(column.length or 0, _FIXED_BYTES.get(column.physical_type, 8))
        values = 0
        for page in pages_of(self._data, meta):
            self._pages += 1
            if self._pages > MAX_PAGES:
                raise DatasetError(f"{self._path} is cut into more than {MAX_PAGES} pages: it is not read.")
            if page.size > MAX_PAGE_BYTES:
                raise DatasetError(
                    f"{self._path}: a page of column {meta.path_in_schema[:80]!r} inflates from {page.packed} bytes to "
                    f"{page.size / 2**20:.0f} MiB, and {MAX_PAGE_BYTES / 2**20:.0f} are read at most. It is a zip "
                    "bomb, or holds something other than rows of text; leave it out."
                )
            if page.is_dictionary:
                made.dictionary = max(made.dictionary, page.size)
                if text:
                    searched = page.size * meta.num_values > SEARCHED_FROM
                    found = longest_text(self._data, page, meta.compression) if searched else page.size
                    made.longest = max(made.longest, found)
                continue
            values += page.values
            made.largest = max(made.largest, page.size)
            cost: float = width
            if text and page.repeats_dictionary:
                cost = made.longest
            elif text:
                cost = page.size if page.shares_beginnings else page.size / max(1, page.values)
            made.pages.append((page, own + cost))
        cut = self._limits.cut
        if self._is_list(made):
            if values > MAX_LIST_VALUES:
                raise DatasetError(
                    f"{self._path}: lists of column {meta.path_in_schema[:80]!r} hold {values} values, and "
                    f"{MAX_LIST_VALUES} are read at most of one row group. Leave it out, or write it in smaller ones."
                )
        elif text and cut is not None and made.longest > cut and column.path == column.name and _is_plain(column):
            self._long[column.path] = None
            made.pages = [
                (page, min(cost, own + cut) if page.repeats_dictionary else cost) for page, cost in made.pages
            ]
        return made

    def _is_list(self, chunk: _Chunk) -> bool:
        return bool(self._columns[chunk.column].max_repetition_level > 0)

    def _row_bytes(self, chunk: _Chunk, group: Any) -> NDArray[np.float64]:
        """What each row takes at most; where that cannot be told, all of the chunk in one row."""
        meta, level = group.column(chunk.column), self._columns[chunk.column].max_repetition_level
        found: deque[NDArray[np.float64]] = deque()
        carried = 0.0
        for page, cost in chunk.pages:
            starts = row_starts(self._data, page, meta.compression, level)
            if starts is None:
                return np.array([chunk.bytes])
            first = np.flatnonzero(starts)
            if not len(first):  # a row that goes on from page to page
                carried += page.values * cost
                continue
            found.append(np.array([carried + first[0] * cost]))
            entries = np.diff(first, append=page.values).astype(np.float64)
            found.append(entries[:-1] * cost)
            carried = float(entries[-1]) * cost
        return np.concatenate([*found, [carried]]) if found else np.array([carried])


def _most(sums: NDArray[np.float64], rows: int) -> float:
    """The most that so many rows in a row take, from the running sums of all."""
    return float(sums[-1]) if len(sums) <= rows else float((sums[rows:] - sums[:-rows]).max())


def _is_plain(column: Any) -> bool:
    """Whether a column of bytes holds texts or blobs, and not numbers in disguise."""
    return str(column.logical_type.type) != "DECIMAL"
