"""Parquet files as blocks: arrow batches taken apart into one array per place, without a Python value per cell.

What a few bytes could inflate to is known before anything is decoded (data/parquet_layout.py); a long text that a flat
column repeats stays in its dictionary and is cut there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posttrain_crew.tools.data.parquet_layout import Limits, broken_file, layout
from posttrain_crew.tools.data.profile.blocks import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_NAME_CHARS,
    MAX_PLACES,
    MAX_TEXT_CHARS,
    Block,
    Cells,
    Ints,
    Kind,
    Leaf,
    Pick,
    text_leaf,
)
from posttrain_crew.tools.data.profile.sampling import bounded

__all__ = ["parquet_blocks"]

MAX_ROW_BYTES = 64 * 2**20
"""A row that is larger than this is passed over and counted."""


def parquet_blocks(path: Path, pick: Pick) -> Iterator[Block]:
    """The rows of a parquet file.

    Raises:
        DatasetError: it is damaged, or would inflate without bound.
    """
    found = layout(path, Limits(rows=BLOCK_ROWS, bytes=MAX_ROW_BYTES, per_value=8, cut=MAX_TEXT_CHARS))
    names = found.columns[:MAX_PLACES]
    left_out = len(found.columns) - len(names)
    try:
        for batch in found.batches(names or None):
            for block in _blocks_of(batch, pick):
                block.left_out += left_out * block.rows
                yield block
    except (pa.ArrowException, ValueError, MemoryError) as error:
        raise broken_file(path, error) from error


def _blocks_of(batch: Any, pick: Pick) -> Iterator[Block]:
    """A batch, split in halves until each fits."""
    size = sum(_decoded_bytes(column) for column in batch.columns)
    if size > 2 * BLOCK_CHARS and batch.num_rows > 1:
        half = batch.num_rows // 2
        yield from _blocks_of(batch.slice(0, half), pick)
        yield from _blocks_of(batch.slice(half), pick)
    elif size > MAX_ROW_BYTES:
        yield Block(unreadable=batch.num_rows)
    else:
        yield _Flattened(batch).block(pick(batch.num_rows))


def _decoded_bytes(array: Any) -> int:
    """Bytes of an array with its dictionaries expanded."""
    kind = array.type
    if pa.types.is_dictionary(kind):  # a text of it is cut before it is written out
        lengths = np.minimum(np.asarray(_byte_lengths(array.dictionary), dtype=np.int64), 4 * MAX_TEXT_CHARS)
        indices = np.asarray(array.indices.drop_null(), dtype=np.int64)
        return int(lengths[indices].sum()) + 8 * len(array)
    if pa.types.is_struct(kind):
        return sum(_decoded_bytes(part) for part in array.flatten())
    if _is_list(kind):
        return _decoded_bytes(array.flatten()) + 8 * len(array)
    return int(array.nbytes)


def _byte_lengths(values: Any) -> Any:
    fixed = pa.types.is_string(values.type) or pa.types.is_binary(values.type)
    wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    if not fixed and not wide:
        return np.full(len(values), 8)
    return pc.fill_null(pc.binary_length(values), 0)


class _Flattened:
    """Takes a batch apart."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._block = Block(rows=batch.num_rows)

    def block(self, picked: Ints) -> Block:
        """The block of the batch; its sample holds the rows of the given indices."""
        rows: Ints = np.arange(self._batch.num_rows, dtype=np.int64)
        columns = []
        for name, column in zip(self._batch.schema.names, self._batch.columns, strict=True):
            valid, replaced = _valid(column)
            self._block.bad_text += replaced
            valid, chars = _cut(valid)
            columns.append(valid)
            self._take(valid, name[:MAX_NAME_CHARS], rows, None, 0, chars)
        if len(picked):
            chosen = pa.RecordBatch.from_arrays(columns, names=list(self._batch.schema.names)).take(pa.array(picked))
            values = [column.to_pylist() for column in chosen.columns]
            names = self._batch.schema.names
            self._block.picked = [
                (int(index), bounded(dict(zip(names, row, strict=True))))
                for index, row in zip(picked, zip(*values, strict=True), strict=True)
            ]
        return self._block

    def _take(
        self, array: Any, path: str, rows: Ints, items: Ints | None, depth: int, chars: Ints | None = None
    ) -> None:
        cells = self._block.cells.setdefault(path, Cells())
        cells.seen += len(array)
        cells.null += array.null_count
        if array.null_count:
            mask = np.asarray(array.is_valid())
            array, rows, items = array.drop_null(), rows[mask], None if items is None else items[mask]
        kind = array.type
        if depth > MAX_DEPTH:
            self._block.left_out += len(array)
        elif pa.types.is_struct(kind):
            cells.add("object", len(array))
            for index, child in enumerate(array.flatten()):
                self._take(child, f"{path}.{kind.field(index).name[:MAX_NAME_CHARS]}", rows, items, depth + 1)
        elif _is_list(kind):
            self._list(array, path, rows, items, depth, cells)
        else:
            self._leaf(array, path, rows, items, cells, chars)

    def _list(self, array: Any, path: str, rows: Ints, items: Ints | None, depth: int, cells: Cells) -> None:
        lengths = np.asarray(pc.list_value_length(array), dtype=np.int64)
        cells.add("list", len(array))
        cells.empty_lists += int((lengths == 0).sum())
        elements = array.flatten()
        if len(lengths) and int(lengths.max()) > MAX_ELEMENTS:
            within = np.arange(len(elements)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            keep = np.flatnonzero(within < MAX_ELEMENTS)
            self._block.left_out += len(elements) - len(keep)
            elements, lengths = elements.take(pa.array(keep)), np.minimum(lengths, MAX_ELEMENTS)
        inner: Ints = np.arange(len(elements), dtype=np.int64) if items is None else np.repeat(items, lengths)
        if len(elements):
            self._take(elements, f"{path}[]", np.repeat(rows, lengths), inner, depth + 1)

    def _leaf(self, array: Any, path: str, rows: Ints, items: Ints | None, cells: Cells, chars: Ints | None) -> None:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()  # cut before
        kind = _kind_of(array.type)
        cells.add(kind, len(array))
        if kind == "text":
            self._block.leaves.append(text_leaf(path, array.cast(pa.string()), rows, items, chars))
        elif kind in ("integer", "number", "boolean"):
            wanted = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}[kind]
            values = array.cast(wanted, safe=False)
            self._block.leaves.append(Leaf(path, kind, values, rows, items))


def _cut(array: Any) -> tuple[Any, Ints | None]:
    """A column read as a dictionary with its texts cut, and the true lengths of its values that are not null."""
    if not pa.types.is_dictionary(array.type):
        return array, None
    if _kind_of(array.type.value_type) == "binary":  # which nobody looks into
        return pa.DictionaryArray.from_arrays(array.indices, pc.binary_slice(array.dictionary, 0, 1)), None
    lengths = np.asarray(pc.fill_null(pc.utf8_length(array.dictionary), 0), dtype=np.int64)
    short = pc.utf8_slice_codeunits(array.dictionary, 0, MAX_TEXT_CHARS)
    chars = lengths[np.asarray(array.indices.drop_null(), dtype=np.int64)]
    return pa.DictionaryArray.from_arrays(array.indices, short), chars


def _valid(array: Any) -> tuple[Any, int]:
    """The array with texts that are valid UTF-8, and how many were not. Parquet promises it and nobody checks."""
    try:
        array.validate(full=True)
        return array, 0
    except pa.ArrowInvalid:
        replaced = 0

    def mended(part: Any) -> Any:
        nonlocal replaced
        kind = part.type
        if pa.types.is_dictionary(kind):
            part = part.dictionary_decode()
            kind = part.type
        if pa.types.is_struct(kind):
            fields = [mended(each) for each in part.flatten()]
            return pa.StructArray.from_arrays(fields, names=[each.name for each in kind], mask=part.is_null())
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = np.asarray(pc.fill_null(pc.list_value_length(part), 0), dtype=np.int64)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            return pa.ListArray.from_arrays(offsets, mended(part.flatten()), mask=part.is_null())
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return part
        wide = pa.types.is_large_string(kind)
        texts = part.view(pa.large_binary() if wide else pa.binary()).to_pylist()
        good = [None if text is None else text.decode("utf-8", "replace") for text in texts]
        replaced += sum(a is not None and b is not None and a.encode() != b for a, b in zip(good, texts, strict=True))
        return pa.array(good, pa.string())

    mend = mended(array)
    return mend, replaced


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _kind_of(kind: Any) -> Kind:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_uint64(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return "binary"
    return "other"
