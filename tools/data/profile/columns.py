"""What is counted of each column over all rows: kinds, nulls, lengths, ranges, values."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow.compute as pc

from posttrain_crew.tools.data.profile.blocks import MAX_PLACES, Block, Cells, Ints, Leaf
from posttrain_crew.tools.data.profile.model import Balance, ColumnProfile, Lengths
from posttrain_crew.tools.data.profile.pii import mask

__all__ = ["Columns"]

MAX_DISTINCT = 100
"""A column with more values than this has no balance to speak of."""
MAX_SHOWN = 30
VALUE_CHARS = 64
EXACT_BELOW = 256
STEPS = 128
"""Parts of each doubling above EXACT_BELOW: a quantile is right to 1/128."""


class _Histogram:
    """Lengths, exact below 256 and to 1 % above."""

    def __init__(self) -> None:
        self._counts: Ints = np.zeros(EXACT_BELOW + STEPS * 40, dtype=np.int64)
        self._n = self._sum = self._maximum = 0
        self._minimum = 2**62

    def add(self, lengths: Ints) -> None:
        if not len(lengths):
            return
        exponents = np.frexp(lengths.astype(np.float64))[1].astype(np.int64) - 1  # floor of log2
        above = EXACT_BELOW + (exponents - 8) * STEPS + (lengths >> np.maximum(exponents - 7, 0)) - STEPS
        places = np.where(lengths < EXACT_BELOW, lengths, above)
        counts = np.bincount(np.minimum(places, len(self._counts) - 1))
        self._counts[: len(counts)] += counts
        self._n += len(lengths)
        self._sum += int(lengths.sum())
        self._minimum = min(self._minimum, int(lengths.min()))
        self._maximum = max(self._maximum, int(lengths.max()))

    def result(self) -> Lengths | None:
        if not self._n:
            return None
        below = np.cumsum(self._counts)

        def quantile(share: float) -> int:
            place = int(np.searchsorted(below, max(1, np.ceil(share * self._n))))
            if place < EXACT_BELOW:
                return place
            octave, step = divmod(place - EXACT_BELOW, STEPS)
            value = (step + STEPS) << (octave + 1)
            return max(self._minimum, min(self._maximum, value + (1 << octave)))

        return Lengths(
            n=self._n,
            minimum=self._minimum,
            mean=self._sum / self._n,
            median=quantile(0.5),
            p95=quantile(0.95),
            p99=quantile(0.99),
            maximum=self._maximum,
        )


class _Column:
    def __init__(self, path: str) -> None:
        self.path = path
        self.cells = Cells()
        self.empty = self.not_finite = 0
        self.lengths = _Histogram()
        self.minimum: float | None = None
        self.maximum: float | None = None
        self.values: Counter[str] | None = Counter() if "[]" not in path else None

    def add_text(self, leaf: Leaf) -> None:
        chars = leaf.chars if leaf.chars is not None else np.zeros(0, np.int64)
        self.lengths.add(chars)
        self.empty += int((chars == 0).sum()) + int(pc.sum(pc.utf8_is_space(leaf.values)).as_py() or 0)
        if self.values is not None:
            if len(chars) and int(chars.max()) <= VALUE_CHARS:
                self._count(leaf)
            else:
                self.values = None

    def add_numbers(self, leaf: Leaf) -> None:
        if leaf.kind != "boolean":
            numbers = np.asarray(leaf.values, dtype=np.float64)
            finite = numbers[np.isfinite(numbers)]
            self.not_finite += len(numbers) - len(finite)
            if len(finite):
                low, high = float(finite.min()), float(finite.max())
                self.minimum = low if self.minimum is None else min(self.minimum, low)
                self.maximum = high if self.maximum is None else max(self.maximum, high)
        if self.values is not None and leaf.kind != "number":
            self._count(leaf)

    def _count(self, leaf: Leaf) -> None:
        if self.values is None:
            return
        found = pc.value_counts(leaf.values)
        if len(found) <= MAX_DISTINCT:
            for value, count in zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True):
                self.values[str(value)] += count
        if len(found) > MAX_DISTINCT or len(self.values) > MAX_DISTINCT:
            self.values = None


class Columns:
    """Collects the columns of all blocks, in the order in which they first occur."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._rows = 0
        self.left_out = 0
        """Places that came after MAX_PLACES."""

    def add(self, block: Block) -> None:
        """Take a block."""
        self._rows += block.rows
        for path, cells in block.cells.items():
            column = self._columns.get(path)
            if column is None:
                if len(self._columns) >= MAX_PLACES:
                    self.left_out += 1
                    continue
                column = self._columns[path] = _Column(path)
            total = column.cells
            total.seen, total.null = total.seen + cells.seen, total.null + cells.null
            total.empty_lists += cells.empty_lists
            for kind, count in cells.kinds.items():
                total.add(kind, count)
        for leaf in block.leaves:
            column = self._columns.get(leaf.path)
            if column is not None and leaf.kind == "text":
                column.add_text(leaf)
            elif column is not None:
                column.add_numbers(leaf)

    def result(self) -> list[ColumnProfile]:
        """All columns."""
        return [self._profile(column) for column in self._columns.values()]

    def balance(self) -> list[Balance]:
        """Columns with few values, each of which occurs more than once on average."""
        return [
            Balance(column=column.path, values=_masked(column.values.most_common(MAX_SHOWN)))
            for column in self._columns.values()
            if column.values and 2 <= len(column.values) <= max(1, column.values.total() // 2)
        ]

    def _profile(self, column: _Column) -> ColumnProfile:
        cells = column.cells
        nested = "[]" in column.path or column.path.rpartition(".")[0] in self._columns  # a name may hold a dot
        missing = 0 if nested else max(0, self._rows - cells.seen)
        whole = cells.seen + missing
        empty = column.empty + cells.empty_lists
        return ColumnProfile(
            path=column.path,
            types={str(kind): count for kind, count in sorted(cells.kinds.items(), key=lambda each: -each[1])},
            missing=missing,
            null=cells.null,
            empty=empty,
            null_rate=(cells.null + missing) / whole if whole else 0.0,
            empty_rate=empty / whole if whole else 0.0,
            chars=column.lengths.result(),
            minimum=column.minimum,
            maximum=column.maximum,
            not_finite=column.not_finite,
        )


def _masked(values: list[tuple[str, int]]) -> dict[str, int]:
    shown: Counter[str] = Counter()
    for value, count in values:
        shown[mask(value)] += count
    return dict(shown)
