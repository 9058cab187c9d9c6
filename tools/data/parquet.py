"""Reading parquet files of strangers: what a file would inflate to is known before it is read, so memory stays flat.

A few kilobytes of parquet can hold gigabytes: in one compressed page, or in one long text that a dictionary repeats.
The footer may lie about both, so the page headers themselves are walked (Parquet format, `PageHeader` in Thrift's
compact protocol), and the number of rows that are decoded at once follows from them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain_crew.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MAX_COLUMNS", "Layout", "broken_file", "layout", "parquet_rows"]

MAX_COLUMNS = 1000
"""Columns, fields of nested ones counted; a table for training has ten, and each costs time in every row."""
MAX_FOOTER_BYTES = 32 * 2**20
MAX_CHUNKS = 200_000
"""Row groups times columns."""
MAX_PAGE_BYTES = 128 * 2**20
"""Of one page when it is unpacked; writers make pages of about 1 MiB."""
MAX_LIST_VALUES = 64_000_000
"""Values of lists in one row group."""
BATCH_BYTES = 256 * 2**20
"""What the rows that are decoded at once may take, at most."""
BATCH_ROWS = 512
_BOOLEANS = (1, 2)


@dataclass(frozen=True)
class Layout:
    """What a file is made of."""

    rows: int
    columns: int
    batch_rows: int
    """Rows that can be decoded at once within BATCH_BYTES."""
    repeated_texts: tuple[str, ...]
    """Texts inside lists whose dictionary could inflate: read as dictionaries, and measured before they are decoded."""


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file. Raises DatasetError when it is damaged or would take too much memory."""
    import pyarrow as pa  # slow to import, and half of all datasets do without
    import pyarrow.parquet as pq

    plan = layout(path)
    try:
        with pq.ParquetFile(path, read_dictionary=list(plan.repeated_texts)) as file:
            for batch in file.iter_batches(batch_size=plan.batch_rows):
                if plan.repeated_texts and (size := sum(map(_decoded_bytes, batch.columns))) > 2 * BATCH_BYTES:
                    raise DatasetError(
                        f"{path}: {batch.num_rows} rows would take {size / 2**20:.0f} MiB of memory: lists repeat one "
                        "long text. This is no dataset for training; leave it out."
                    )
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise broken_file(path, error) from error


def layout(path: Path) -> Layout:
    """Read footer and page headers. Raises DatasetError for what is damaged or inflates."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 8))
            tail = stream.read(8)
            if tail[4:] == b"PAR1" and (footer := int.from_bytes(tail[:4], "little")) > MAX_FOOTER_BYTES:
                raise DatasetError(
                    f"{path}: the description of its columns alone takes {footer / 2**20:.0f} MiB. A table of so many "
                    "columns is not read; leave it out, or fetch a version with fewer."
                )
            metadata = pq.read_metadata(path)
            if metadata.num_columns > MAX_COLUMNS:
                raise DatasetError(
                    f"{path} has {metadata.num_columns} columns, and {MAX_COLUMNS} are read at most. Leave it out, or "
                    "convert it to the few columns that training needs."
                )
            if (chunks := metadata.num_columns * metadata.num_row_groups) > MAX_CHUNKS:
                raise DatasetError(f"{path} is cut into {chunks} pieces, more than {MAX_CHUNKS}: it is not read.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _walked(path, metadata, data)
    except (pa.ArrowException, OSError, ValueError, IndexError) as error:
        raise broken_file(path, error) from error


def _walked(path: Path, metadata: Any, data: mmap.mmap) -> Layout:
    row_bytes = dict.fromkeys(range(metadata.num_columns), 0.0)
    risky: dict[str, None] = {}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for number in range(metadata.num_columns):
            chunk, column = row_group.column(number), metadata.schema.column(number)
            texts = column.physical_type == "BYTE_ARRAY"
            listed = column.max_repetition_level > 0
            dictionary, values, densest = 0, 0, 0.0
            for page in _pages(data, chunk):
                if page.size > MAX_PAGE_BYTES:
                    raise DatasetError(
                        f"{path}: a page of column {chunk.path_in_schema[:80]!r} inflates from {page.packed} bytes to "
                        f"{page.size / 2**20:.0f} MiB, and {MAX_PAGE_BYTES / 2**20:.0f} are read at most. It is a zip "
                        "bomb, or holds something other than rows of text; leave it out."
                    )
                if page.is_dictionary:
                    dictionary = max(dictionary, page.size)
                else:
                    values += page.values
                    densest = max(densest, page.size / max(1, page.values))
            if listed and values > MAX_LIST_VALUES:
                raise DatasetError(f"{path}: lists of column {chunk.path_in_schema[:80]!r} hold {values} values.")
            if listed and texts and values * dictionary > BATCH_BYTES:
                risky[chunk.path_in_schema] = None
            mean = values / max(1, row_group.num_rows) if listed else 1.0
            row_bytes[number] = max(row_bytes[number], densest * mean, dictionary if texts and not listed else 0)
    total = sum(row_bytes.values())
    rows = BATCH_ROWS if total == 0 else max(1, min(BATCH_ROWS, int(BATCH_BYTES / total)))
    return Layout(metadata.num_rows, metadata.num_columns, rows, tuple(risky))


@dataclass(frozen=True)
class _Page:
    is_dictionary: bool
    size: int
    """Unpacked, bytes."""
    packed: int
    values: int


def _pages(data: mmap.mmap, chunk: Any) -> Iterator[_Page]:
    """The headers of a column chunk's pages."""
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None]
    place = min(start for start in starts if start is not None)
    end = min(len(data), place + chunk.total_compressed_size)
    while 4 <= place < end:
        header, place = _struct(data, place)
        packed = int(header.get(3, 0))
        details: dict[int, Any] = next(
            (header[field] for field in (5, 7, 8) if isinstance(header.get(field), dict)), {}
        )
        if packed < 0:
            raise ValueError("a page of negative size")
        yield _Page(header.get(1) == 2, int(header.get(2, 0)), packed, int(details.get(1, 0)))
        place += packed


def _struct(data: mmap.mmap, place: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A Thrift struct in the compact protocol, as values by field number, and the place behind it."""
    if depth > 4:
        raise ValueError("page headers are not nested so deeply")
    fields: dict[int, Any] = {}
    field = 0
    while head := data[place]:
        place += 1
        if head >> 4:
            field += head >> 4
        else:
            number, place = _varint(data, place)
            field = (number >> 1) ^ -(number & 1)
        fields[field], place = _value(data, place, head & 15, depth)
        if len(fields) > 50:
            raise ValueError("page headers have fewer fields")
    return fields, place + 1


def _value(data: mmap.mmap, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _BOOLEANS:
        return kind == 1, place
    if kind == 3:
        return None, place + 1
    if kind in (4, 5, 6):
        number, place = _varint(data, place)
        return (number >> 1) ^ -(number & 1), place
    if kind == 7:
        return None, place + 8
    if kind == 8:
        size, place = _varint(data, place)
        return None, place + size
    if kind == 12:
        return _struct(data, place, depth + 1)
    raise ValueError(f"no page header has a field of type {kind}")


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number that does not end")


def _decoded_bytes(array: pa.Array) -> int:
    """Bytes of the texts that an array holds as dictionaries, once each of them is written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        lengths = pc.binary_length(array.dictionary)
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _decoded_bytes(array.flatten())
    if pa.types.is_struct(array.type):
        return sum(_decoded_bytes(part) for part in array.flatten())
    return 0


def broken_file(path: Path, error: Exception) -> DatasetError:
    """What is told of a file that cannot be read."""
    return DatasetError(
        f"the data file {path} cannot be read: {type(error).__name__}: {str(error)[:300]}. It is damaged, cut, or not "
        "what its suffix says; fetch it again, or leave the dataset out."
    )
