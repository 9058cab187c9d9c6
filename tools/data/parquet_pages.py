"""Pages of a parquet file, from the bytes: how large each is unpacked, what its dictionary holds, which rows it spans.

The footer may lie about sizes, page headers cannot: the reader unpacks what they say. Layouts after the Parquet format
specification (`PageHeader` in Thrift's compact protocol; the RLE / bit-packing hybrid of repetition levels).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Page", "longest_text", "pages_of", "row_starts"]

MAX_SEARCHED_BYTES = 16 * 2**20
"""Of a dictionary page that is looked into; writers change to plain pages at 1 MiB."""
MAX_RUNS = 1_000_000
"""Runs of repetition levels in one page; writers make at most one for eight values."""
_BOOLEANS = (1, 2)
_PLAIN_DICTIONARY, _RLE, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 2, 3, 7, 8


@dataclass(frozen=True)
class Page:
    """One page, not yet unpacked."""

    is_dictionary: bool
    at: int
    """Where its body begins in the file."""
    size: int
    """Unpacked, bytes."""
    packed: int
    values: int
    """Entries: values and nulls."""
    encoding: int
    """Of the values, by the number in the specification."""
    levels_bytes: int | None
    """Version 2: bytes of the repetition levels, which stand unpacked at the beginning."""
    levels_encoding: int

    @property
    def repeats_dictionary(self) -> bool:
        """Whether its values are numbers of texts in the dictionary."""
        return self.encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY)

    @property
    def shares_beginnings(self) -> bool:
        """Whether a value can repeat the whole of the one before it for nothing."""
        return self.encoding == _DELTA_BYTE_ARRAY


def pages_of(data: mmap.mmap, chunk: Any) -> Iterator[Page]:
    """The pages of a column chunk, the dictionary first.

    Raises:
        ValueError, IndexError: there are no page headers where they should be.
    """
    starts = [chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None]
    place = min(start for start in starts if start is not None)
    end = min(len(data), place + chunk.total_compressed_size)
    while 4 <= place < end:
        header, place = _struct(data, place)
        packed, size = int(header.get(3, 0)), int(header.get(2, 0))
        first, dictionary, second = (found if isinstance(found := header.get(n), dict) else {} for n in (5, 7, 8))
        details = first or dictionary or second
        if min(packed, size, values := int(details.get(1, 0))) < 0:
            raise ValueError("a page of negative size")
        yield Page(
            is_dictionary=header.get(1) == 2,
            at=place,
            size=size,
            packed=packed,
            values=values,
            encoding=int(details.get(4 if second else 2, 0)),
            levels_bytes=max(0, int(second.get(6, 0))) if second else None,
            levels_encoding=int(first.get(4, _RLE)),
        )
        place += packed


def longest_text(data: mmap.mmap, page: Page, codec: str) -> int:
    """Bytes of the longest text in a dictionary page; of one that cannot be looked into, its whole size."""
    if page.size > MAX_SEARCHED_BYTES or (body := _unpacked(data, page, codec)) is None:
        return page.size
    longest = at = 0
    while at + 4 <= len(body):
        size = struct.unpack_from("<I", body, at)[0]
        longest, at = max(longest, size), at + 4 + size
    return min(longest, page.size)


def row_starts(data: mmap.mmap, page: Page, codec: str, max_level: int) -> NDArray[np.bool_] | None:
    """For each entry of a data page of a list column, whether a row begins with it. None where it cannot be told.

    Args:
        max_level: the column's greatest repetition level; an entry of level 0 begins a row.
    """
    if page.levels_bytes is not None:
        levels = data[page.at : page.at + min(page.levels_bytes, page.packed)]
    elif page.levels_encoding != _RLE or (body := _unpacked(data, page, codec)) is None or len(body) < 4:
        return None
    else:
        levels = body[4 : 4 + struct.unpack_from("<I", body)[0]]
    return _zeros(levels, max_level.bit_length(), page.values)


def _zeros(data: bytes, width: int, count: int) -> NDArray[np.bool_] | None:
    """Which of `count` levels are 0; None where the data end too soon."""
    found = np.zeros(count, dtype=np.bool_)
    at = have = 0
    for _ in range(MAX_RUNS):
        if have >= count:
            return found
        try:
            header, at = _varint(data, at)
        except IndexError:
            return None
        if header & 1:  # groups of eight levels, `width` bits each
            size = min((header >> 1) * width, -(-(count - have) // 8) * width, len(data) - at)
            bits = np.unpackbits(np.frombuffer(data, np.uint8, size, at), bitorder="little")
            levels = bits[: len(bits) // width * width].reshape(-1, width).max(axis=1)[: count - have]
            if not len(levels):
                return None
            found[have : have + len(levels)] = levels == 0
            at, have = at + (header >> 1) * width, have + len(levels)
        else:
            size = (width + 7) // 8
            if at + size > len(data) or not header:
                return None
            run = min(header >> 1, count - have)
            found[have : have + run] = not any(data[at : at + size])
            at, have = at + size, have + run
    return None


def _unpacked(data: mmap.mmap, page: Page, codec: str) -> bytes | None:
    """The body of a page of version 1, or of a dictionary; None where it cannot be unpacked."""
    import pyarrow as pa

    body = data[page.at : page.at + page.packed]
    if codec == "UNCOMPRESSED":
        return body
    name = {"LZ4": "lz4_raw", "LZ4_RAW": "lz4_raw"}.get(codec, codec.lower())
    try:
        made = pa.decompress(body, page.size, codec=name, asbytes=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return bytes(made)


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


def _varint(data: mmap.mmap | bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("a number that does not end")
