"""A uniform, seeded sample of rows in bounded memory, drawn while they pass by."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import numpy as np

from posttrain_crew.tools.data.profile.blocks import MAX_DEPTH, MAX_ELEMENTS, MAX_TEXT_CHARS, Ints
from posttrain_crew.tools.data.reader import RawRow, bytes_of

__all__ = ["RowSample", "bounded"]

SAMPLE_BYTES = 32 * 2**20
"""Text of all sampled rows; rows longer than SAMPLE_BYTES / size make the sample smaller, never uneven."""
ROW_CHARS = 200_000
"""Text of one sampled row; later texts of it are cut."""


class RowSample:
    """Keeps the rows with the smallest of random keys, as many as asked for or as fit in SAMPLE_BYTES.

    Each row draws a key from the seed alone, so the sample does not depend on what rows say, and is the same for the
    same seed and order of rows.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._limit = 1.0
        self._bytes = 0
        self._kept: list[tuple[float, int, RawRow]] = []
        self._keys = np.zeros(0)

    def pick(self, rows: int) -> Ints:
        """Draw keys for the next rows; the indices of those that may enter."""
        self._keys = self._random.random(rows)
        return np.flatnonzero(self._keys < self._limit)

    def offer(self, picked: list[tuple[int, RawRow]]) -> None:
        """Take rows with the indices that `pick` gave."""
        for index, row in picked:
            key, size = float(self._keys[index]), bytes_of(row)
            if key < self._limit:
                self._kept.append((key, size, row))
                self._bytes += size
        while len(self._kept) > 2 * self._size or (self._bytes > SAMPLE_BYTES and len(self._kept) > 1):
            self._shrink(max(1, min(self._size, len(self._kept) // 2)))

    def rows(self) -> list[RawRow]:
        """The sample, in random order."""
        self._shrink(self._size)
        return [row for _, _, row in self._kept]

    def _shrink(self, size: int) -> None:
        self._kept.sort(key=lambda each: each[0])
        if len(self._kept) > size:
            self._limit = self._kept[size][0]
            del self._kept[size:]
            self._bytes = sum(size for _, size, _ in self._kept)


def bounded(row: Mapping[str, object]) -> RawRow:
    """A copy with bounded texts, lists, keys and depth, and no binary value."""
    left = [ROW_CHARS]
    return {str(name)[:200]: _bounded(part, 1, left) for name, part in islice(row.items(), MAX_ELEMENTS)}


def _bounded(value: object, depth: int, left: list[int]) -> object:
    left[0] -= 8
    if left[0] <= 0:
        return None
    if isinstance(value, str):
        text = value[: min(MAX_TEXT_CHARS, left[0])]
        left[0] -= len(text)
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # lone surrogates cannot be written anywhere
        return text
    if isinstance(value, bytes | bytearray) or depth > MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_bounded(part, depth + 1, left) for part in value[:MAX_ELEMENTS]]
    if isinstance(value, dict):
        return {str(name)[:200]: _bounded(part, depth + 1, left) for name, part in islice(value.items(), MAX_ELEMENTS)}
    return value
