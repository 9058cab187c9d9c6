"""JSON Lines and JSON files as blocks: parsed value by value, so that no file and no list of rows is held.

A file is read in pieces; a line or an object longer than reader.MAX_LINE_BYTES is passed over and counted, mixed types
in a column are kept apart by kind, and places beyond the bounds are counted and not kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from posttrain_crew.errors import DatasetError
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
    Leaf,
    Pick,
    text_leaf,
)
from posttrain_crew.tools.data.profile.sampling import bounded
from posttrain_crew.tools.data.reader import MAX_LINE_BYTES

__all__ = ["Schema", "json_blocks", "row_blocks"]

PIECE = 1 << 20
MAX_KEYS = 10_000
"""Keys of one object that are looked at."""
HOPELESS = 100
"""A file whose first rows, this many, are all unreadable is refused."""
INT64 = 2**63
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_LIST_IN_OBJECT = re.compile(rb'\s*\{\s*"[^"\\]{0,200}"\s*:\s*\[')

Row = dict[str, object]


class _Values:
    """Values of one kind, with their rows and list elements."""

    __slots__ = ("items", "rows", "values")

    def __init__(self) -> None:
        self.values: list[object] = []
        self.rows: list[int] = []
        self.items: list[int] = []


class _Place:
    """A place of the schema: its children live as long as the reading, its values for one block."""

    __slots__ = ("cells", "children", "element", "kinds", "long", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.children: dict[str, _Place] = {}
        self.element: _Place | None = None
        self.clear()

    def clear(self) -> None:
        self.cells = Cells()
        self.kinds: dict[str, _Values] = {}
        self.long: list[tuple[int, int]] = []


class Schema:
    """Collects rows into a block; remembers the places, so that their number is bounded over a whole dataset."""

    def __init__(self) -> None:
        self._root = _Place("")
        self._places = 0
        self._fresh()

    def _fresh(self) -> None:
        self.rows = self.chars = self._left_out = 0

    def add(self, row: Row) -> None:
        """Take the values of one row."""
        self._object(self._root, row, self.rows, -1, 0)
        self.rows += 1

    def block(self) -> Block:
        """The rows since the last call."""
        block = Block(rows=self.rows, left_out=self._left_out)
        for place in self._walk(self._root):
            if place.cells.seen:
                block.cells[place.path] = place.cells
            for kind, found in place.kinds.items():
                block.leaves.append(_leaf(place, kind, found, block))
            place.clear()
        self._fresh()
        return block

    def _walk(self, place: _Place) -> Iterator[_Place]:
        for child in [*place.children.values(), *([place.element] if place.element else [])]:
            yield child
            yield from self._walk(child)

    def _child(self, place: _Place, name: str) -> _Place | None:
        if self._places >= MAX_PLACES or len(name) > MAX_NAME_CHARS:
            return None
        self._places += 1
        made = _Place(f"{place.path}.{name}" if place.path else name)
        place.children[name] = made
        return made

    def _object(self, place: _Place, value: Row, row: int, item: int, depth: int) -> None:
        if len(value) > MAX_KEYS:
            self._left_out += len(value) - MAX_KEYS
        for name, part in islice(value.items(), MAX_KEYS):
            child = place.children.get(name) or self._child(place, name)
            if child is None:
                self._left_out += 1
            else:
                self._put(child, part, row, item, depth + 1)

    def _put(self, place: _Place, value: object, row: int, item: int, depth: int) -> None:
        cells = place.cells
        cells.seen += 1
        kind = type(value)
        if value is None:
            cells.null += 1
        elif kind is str:
            self._text(place, value, row, item)  # type: ignore[arg-type]
        elif kind is bool:
            self._keep(place, "boolean", value, row, item)
        elif kind is int:
            fits = -INT64 <= value < INT64  # type: ignore[operator]
            self._keep(place, "integer" if fits else "number", value if fits else _as_float(value), row, item)
        elif kind is float:
            self._keep(place, "number", value, row, item)
        elif depth >= MAX_DEPTH:
            cells.add("other")
            self._left_out += 1
        elif kind is dict:
            cells.add("object")
            self._object(place, value, row, item, depth)  # type: ignore[arg-type]
        else:
            self._list(place, value, row, item, depth)  # type: ignore[arg-type]

    def _list(self, place: _Place, value: list[object], row: int, item: int, depth: int) -> None:
        place.cells.add("list")
        if not value:
            place.cells.empty_lists += 1
            return
        if place.element is None:
            if self._places >= MAX_PLACES:
                self._left_out += 1
                return
            self._places += 1
            place.element = _Place(f"{place.path}[]")
        element = place.element
        self._left_out += max(0, len(value) - MAX_ELEMENTS)
        for part in value[:MAX_ELEMENTS]:
            self._put(element, part, row, element.cells.seen if item < 0 else item, depth + 1)

    def _text(self, place: _Place, value: str, row: int, item: int) -> None:
        self.chars += min(len(value), MAX_TEXT_CHARS)
        if len(value) > MAX_TEXT_CHARS:
            found = place.kinds.get("text")
            place.long.append((len(found.values) if found else 0, len(value)))
            value = value[:MAX_TEXT_CHARS]
        self._keep(place, "text", value, row, item)

    def _keep(self, place: _Place, kind: str, value: object, row: int, item: int) -> None:
        found = place.kinds.get(kind)
        if found is None:
            found = place.kinds[kind] = _Values()
        found.values.append(value)
        found.rows.append(row)
        found.items.append(item)
        self.chars += 8  # numbers and references take room, too


def json_blocks(path: Path, pick: Pick, schema: Schema) -> Iterator[Block]:
    """The rows of a .jsonl or .json file.

    Raises:
        DatasetError: it cannot be read, or is no JSON.
    """
    try:
        with path.open("rb") as stream:
            values = _lines(stream, path) if path.suffix == ".jsonl" else _json_values(stream, path)
            yield from row_blocks(values, pick, schema)
    except OSError as error:
        raise DatasetError(f"the data file {path} cannot be read: {error.strerror or error}.") from error


def row_blocks(rows: Iterator[Row | None], pick: Pick, schema: Schema) -> Iterator[Block]:
    """Blocks of rows; None stands for one that cannot be read."""
    wanted = set(pick(BLOCK_ROWS).tolist())
    picked: list[tuple[int, Row]] = []
    unreadable = taken = 0
    for row in rows:
        if row is None:
            unreadable += 1
        else:
            if taken in wanted:
                picked.append((taken, bounded(row)))
            schema.add(row)
            taken += 1
        if taken + unreadable >= BLOCK_ROWS or schema.chars >= BLOCK_CHARS:
            yield _finished(schema, picked, unreadable)
            picked, unreadable, taken = [], 0, 0
            wanted = set(pick(BLOCK_ROWS).tolist())
    if taken or unreadable:
        yield _finished(schema, picked, unreadable)


def _finished(schema: Schema, picked: list[tuple[int, Row]], unreadable: int) -> Block:
    block = schema.block()
    block.picked, block.unreadable = picked, unreadable
    return block


def _lines(stream: BinaryIO, path: Path) -> Iterator[Row | None]:
    readable = unreadable = 0
    while line := stream.readline(MAX_LINE_BYTES):
        row: Row | None = None
        if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
            del line
            _skip_line(stream)
        elif line.isspace():
            continue
        else:
            row = _parsed(line if readable or unreadable else line.removeprefix(b"\xef\xbb\xbf"))
        readable, unreadable = readable + (row is not None), unreadable + (row is None)
        if not readable and unreadable >= HOPELESS:
            raise DatasetError(
                f"{path}: none of the first {unreadable} lines is a JSON object. Is it JSON Lines at all? "
                "Leave the dataset out, or convert it."
            )
        yield row


def _skip_line(stream: BinaryIO) -> None:
    """Go to the next line. By pieces in one buffer: a line of gigabytes is skipped as fast as the disk reads."""
    piece = bytearray(PIECE)
    while size := stream.readinto(piece):  # type: ignore[attr-defined]
        if (at := piece.find(b"\n", 0, size)) >= 0:
            stream.seek(at + 1 - size, 1)
            return


def _parsed(line: bytes) -> Row | None:
    try:
        row = json.loads(line.decode("utf-8", errors="surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _json_values(stream: BinaryIO, path: Path) -> Iterator[Row | None]:
    """Rows of a .json file: a list of objects, an object whose first value is such a list, or JSON Lines."""
    head = stream.read(PIECE).lstrip(b"\xef\xbb\xbf \t\r\n")
    stream.seek(0)
    if head.startswith(b"[") or (nested := _LIST_IN_OBJECT.match(head)):
        skipped = 1 if head.startswith(b"[") else nested.end()  # type: ignore[union-attr]
        yield from _elements(stream, path, skipped)
    elif head.startswith(b"{"):
        whole = stream.read(MAX_LINE_BYTES + 1)
        row = _parsed(whole) if len(whole) <= MAX_LINE_BYTES else None
        if row is not None:  # one object: the first list of objects in it, else a single row
            parts = next((part for part in row.values() if isinstance(part, list)), [row])
            yield from (part if isinstance(part, dict) else None for part in parts)
        else:
            del whole, row
            stream.seek(0)
            yield from _lines(stream, path)
    else:
        raise DatasetError(f"{path} must hold a list of objects, or an object with such a list in it.")


def _elements(stream: BinaryIO, path: Path, skipped: int) -> Iterator[Row | None]:
    """The elements of a JSON list that is read in pieces; `skipped` bytes after the first visible one it begins."""
    decoder = json.JSONDecoder()
    begin = stream.read(PIECE)
    offset = len(begin) - len(begin.lstrip(b"\xef\xbb\xbf \t\r\n"))
    stream.seek(offset + skipped)
    text, at, wanted = "", 0, PIECE
    pending = b""
    while True:
        piece = stream.read(wanted)
        pending += piece
        usable = len(pending) if not piece else _whole_characters(pending)
        text, pending, at = text[at:] + pending[:usable].decode("utf-8", "surrogateescape"), pending[usable:], 0
        while True:
            at = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
            if at < len(text) and text[at] == "]":
                return
            try:
                value, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                if not piece or isinstance(error, RecursionError):
                    raise _broken(path, error) from error
                break
            if end >= len(text) - 1 and piece:  # a number may go on in the next piece
                break
            at = end
            yield value if isinstance(value, dict) else None
        if len(text) - at > MAX_LINE_BYTES:
            raise _broken(path, f"one element is no JSON, or longer than {MAX_LINE_BYTES / 2**20:.0f} MiB")
        wanted = max(PIECE, len(text) - at)  # doubling, so that a long element is not parsed again for every piece


def _whole_characters(data: bytes) -> int:
    """How many bytes do not end in the middle of a character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            need = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if back < need else len(data)
        if byte < 0x80:
            break
    return len(data)


def _leaf(place: _Place, kind: str, found: _Values, block: Block) -> Leaf:
    rows: Ints = np.array(found.rows, dtype=np.int64)
    items: Ints | None = np.array(found.items, dtype=np.int64)
    if items is not None and len(items) and items[0] < 0:
        items = None
    place.cells.add(kind, len(rows))  # type: ignore[arg-type]
    if kind == "text":
        try:
            values = pa.array(found.values, pa.string())
        except (UnicodeEncodeError, pa.ArrowInvalid):  # lone surrogates, or bytes that are no UTF-8
            encoded = [str(value).encode("utf-8", "replace") for value in found.values]
            block.bad_text += sum(a.decode() != b for a, b in zip(encoded, found.values, strict=True))
            values = pa.array([text.decode() for text in encoded], pa.string())
        leaf = text_leaf(place.path, values, rows, items)
        for index, true in place.long:
            if leaf.chars is not None:
                leaf.chars[index] = true
        return leaf
    types = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    return Leaf(place.path, kind, pa.array(found.values, types[kind]), rows, items)  # type: ignore[arg-type]


def _as_float(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return float("inf")


def _broken(path: Path, why: object) -> DatasetError:
    return DatasetError(
        f"the data file {path} cannot be read: {str(why)[:300]}. It is damaged, cut, or no JSON; fetch it again, or "
        "leave the dataset out."
    )
