"""The form in which a stretch of rows is profiled: every place of the schema as one array, with the rows it is from.

Parquet and JSON readers both make Blocks, so that everything counted over all rows is counted on arrays, once. All
bounds on memory are here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from posttrain_crew.tools.data.reader import RawRow

__all__ = ["Block", "Cells", "Ints", "Kind", "Leaf", "Pick", "text_leaf"]

BLOCK_ROWS = 8192
BLOCK_CHARS = 4 * 2**20
"""Text per block; work arrays take about ten times as many bytes."""
MAX_PLACES = 512
"""Columns and nested places that are profiled; the others are counted."""
MAX_NAME_CHARS = 200
MAX_DEPTH = 8
MAX_ELEMENTS = 1000
"""Of one list; the rest is left out of the profile."""
MAX_TEXT_CHARS = 100_000
"""A longer text counts with its whole length, and is compared and searched up to here."""

Ints = NDArray[np.int64]
Kind = Literal["text", "integer", "number", "boolean", "binary", "object", "list", "other"]
Pick = Callable[[int], Ints]
"""Given the number of the next rows, the indices of those that the sample wants as Python values."""


@dataclass
class Cells:
    """What was seen at one place, values aside."""

    seen: int = 0
    """Elements, null ones included."""
    null: int = 0
    empty_lists: int = 0
    kinds: dict[Kind, int] = field(default_factory=dict)

    def add(self, kind: Kind, count: int = 1) -> None:
        """Count values of a kind."""
        if count:
            self.kinds[kind] = self.kinds.get(kind, 0) + count


@dataclass(frozen=True)
class Leaf:
    """The values of one kind at one place, without nulls, in row order."""

    path: str
    kind: Kind
    values: Any
    """pyarrow array: string for text and other, int64, float64, bool."""
    rows: Ints
    """Row of each value, in the block."""
    items: Ints | None
    """Element of the outermost list that each value belongs to, in the block; None outside of lists."""
    chars: Ints | None = None
    """Texts: true lengths in characters."""


@dataclass
class Block:
    """A stretch of rows."""

    rows: int = 0
    unreadable: int = 0
    bad_text: int = 0
    """Texts that were no valid UTF-8 and had bytes replaced."""
    left_out: int = 0
    """Values at places beyond the bounds."""
    leaves: list[Leaf] = field(default_factory=list)
    cells: dict[str, Cells] = field(default_factory=dict)
    picked: list[tuple[int, RawRow]] = field(default_factory=list)
    """(row in the block, row) for the sample."""

    def leaf(self, path: str, kind: Kind = "text") -> Leaf | None:
        """The values of a kind at a place."""
        return next((leaf for leaf in self.leaves if leaf.path == path and leaf.kind == kind), None)


def text_leaf(path: str, values: Any, rows: Ints, items: Ints | None, chars: Ints | None = None) -> Leaf:
    """A leaf of texts, each cut at MAX_TEXT_CHARS."""
    if chars is None:
        chars = np.asarray(pc.utf8_length(values), dtype=np.int64)
    if len(chars) and int(chars.max()) > MAX_TEXT_CHARS:
        values = pc.utf8_slice_codeunits(values, 0, MAX_TEXT_CHARS)
    return Leaf(path, "text", values if values.type == pa.string() else values.cast(pa.string()), rows, items, chars)
