"""The longest text of a parquet dictionary, from the page itself: how much a list that repeats it could inflate to.

A few bytes can repeat a long text a million times. Texts are written out as they are decoded, so the number of rows
decoded at once must follow from the longest of them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pyarrow as pa

__all__ = ["longest_repeated_text"]

HEADER_BYTES = 4096
"""Headers of dictionary pages hold no statistics and take about 20 bytes."""
MAX_PAGE_BYTES = 16 * 2**20
"""Of a page that is looked into; writers change to plain pages at 1 MiB."""


def longest_repeated_text(path: Path, metadata: Any, column: int) -> tuple[int, float]:
    """(bytes of the longest text in a dictionary of a leaf column, most texts per row of a row group).

    Where a page is not looked into (an uncommon codec, or too large), its whole size stands for its longest text.
    """
    longest, per_row = 0, 0.0
    with path.open("rb") as stream:
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group)
            chunk = rows.column(column)
            per_row = max(per_row, chunk.num_values / max(1, rows.num_rows))
            if chunk.has_dictionary_page and chunk.num_values:
                stream.seek(min(chunk.dictionary_page_offset, chunk.data_page_offset))
                header = stream.read(HEADER_BYTES)
                inflated, packed, length = _sizes(header)
                stream.seek(length - len(header), 1)
                longest = max(longest, _longest(stream.read(min(packed, MAX_PAGE_BYTES)), inflated, chunk.compression))
    return longest, per_row


def _longest(page: bytes, inflated: int, codec: str) -> int:
    if inflated > MAX_PAGE_BYTES:
        return inflated
    try:
        name = {"LZ4": "lz4_raw", "LZ4_RAW": "lz4_raw"}.get(codec, codec.lower())
        data = page if codec == "UNCOMPRESSED" else pa.decompress(page, inflated, codec=name, asbytes=True)
    except (pa.ArrowException, OSError, ValueError):
        return inflated
    longest = at = 0
    while at + 4 <= len(data):
        size = struct.unpack_from("<I", data, at)[0]
        longest, at = max(longest, size), at + 4 + size
    return min(longest, inflated)


def _sizes(header: bytes) -> tuple[int, int, int]:
    """(bytes inflated, bytes packed, bytes of the header) of a page header. Raises ValueError for anything else.

    Thrift's compact protocol; fields 2 and 3 of `PageHeader` are wanted, the others are skipped.
    """
    fields: dict[int, int] = {}
    at = number = depth = 0
    outer: list[int] = []
    while at < len(header):
        byte, at = header[at], at + 1
        if not byte:
            if not depth:
                return fields.get(2, 0), fields.get(3, 0), at
            depth, number = depth - 1, outer.pop()
            continue
        step, kind = byte >> 4, byte & 15
        if not step:
            step, at = _varint(header, at)
            number = 0
        number += step
        if kind in (4, 5, 6):
            value, at = _varint(header, at)
            if not depth:
                fields[number] = (value >> 1) ^ -(value & 1)
        elif kind == 12:
            outer.append(number)
            depth, number = depth + 1, 0
        elif kind not in (1, 2):
            break
    raise ValueError("no dictionary page where one should be")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
    raise ValueError("a number that does not end")
