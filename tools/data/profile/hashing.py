"""Normalised texts of rows, their digests, and how many rows repeat an earlier one: 8 bytes a row, bounded."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from posttrain_crew.tools.data.profile.blocks import Leaf
from posttrain_crew.tools.data.profile.model import Repeats

__all__ = ["Digests", "RepeatCounter", "digests", "normal_texts"]

MAX_DISTINCT = 1 << 21
"""32 MiB; with more distinct texts, only digests below a limit are kept: every copy of a text is on one side of it."""
_KEPT = b"0123456789abcdefghijklmnopqrstuvwxyz"
_TABLE = bytes(
    byte if byte >= 0x80 or byte in _KEPT else byte + 32 if chr(byte).isalpha() else 0x20 for byte in range(256)
)
"""ASCII letters in lower case, digits, and everything beyond ASCII; the rest becomes a space."""

Digests = NDArray[np.uint64]


def normal_texts(leaves: Sequence[Leaf], rows: int) -> list[bytes]:
    """The texts of each row in one, in lower case, without ASCII punctuation, words parted by single spaces."""
    if not leaves:
        return [b""] * rows
    values = pa.concat_arrays([leaf.values for leaf in leaves])
    of_row = np.concatenate([leaf.rows for leaf in leaves])
    if not _buffers(values)[2].isascii():
        values = pc.utf8_lower(values)
    order = np.argsort(of_row, kind="stable")
    starts, ends, data = _buffers(values)
    bounds = np.searchsorted(of_row[order], np.arange(rows + 1))
    clean = data.translate(_TABLE)
    begin, end = starts[order].tolist(), ends[order].tolist()
    found: list[bytes] = []
    for row in range(rows):
        first, last = int(bounds[row]), int(bounds[row + 1])
        if last - first == 1:
            words = clean[begin[first] : end[first]].split()
        else:
            words = [word for i in range(first, last) for word in clean[begin[i] : end[i]].split()]
        found.append(b" ".join(words))
    return found


def digests(texts: Sequence[bytes]) -> Digests:
    """8-byte BLAKE2b digests; empty texts are left out."""
    joined = b"".join([blake2b(text, digest_size=8).digest() for text in texts if text])
    return np.frombuffer(joined, dtype=np.uint64)


class RepeatCounter:
    """Counts digests that occurred before: a sorted run of distinct ones with their counts, and those not in it yet."""

    def __init__(self, capacity: int = MAX_DISTINCT) -> None:
        self._capacity = capacity
        self._limit = 2**64
        self._distinct: Digests = np.zeros(0, np.uint64)
        self._counts = np.zeros(0, np.int64)
        self._new: list[Digests] = []
        self._new_size = 0

    def add(self, found: Digests) -> None:
        """Take the digests of the next rows."""
        if self._limit < 2**64:
            found = found[found < np.uint64(self._limit)]
        self._new.append(found)
        self._new_size += len(found)
        if self._new_size > self._capacity // 2:
            self._merge()

    def result(self) -> Repeats | None:
        """What was counted; None without any text."""
        self._merge()
        rows = int(self._counts.sum())
        if not rows:
            return None
        return Repeats(
            rows=rows,
            exact=self._limit == 2**64,
            rate=1 - len(self._distinct) / rows,
            largest_group=int(self._counts.max()),
        )

    def _merge(self) -> None:
        found, times = np.unique(np.concatenate([*self._new, np.zeros(0, np.uint64)]), return_counts=True)
        self._new, self._new_size = [], 0
        at = np.searchsorted(self._distinct, found)
        known = np.zeros(len(found), bool)
        inside = at < len(self._distinct)
        known[inside] = self._distinct[at[inside]] == found[inside]
        self._counts[at[known]] += times[known]
        self._distinct = np.insert(self._distinct, at[~known], found[~known])
        self._counts = np.insert(self._counts, at[~known], times[~known])
        while len(self._distinct) > self._capacity:
            self._limit //= 2
            kept = int(np.searchsorted(self._distinct, np.uint64(self._limit)))
            self._distinct, self._counts = self._distinct[:kept].copy(), self._counts[:kept].copy()


def _buffers(values: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], bytes]:
    """(starts, ends, bytes) of a string array without nulls."""
    _, offsets, data = values.buffers()
    edges = np.frombuffer(offsets, dtype=np.int32)[values.offset : values.offset + len(values) + 1].astype(np.int64)
    if data is None or not len(values):
        return edges[:-1], edges[1:], b""
    base = int(edges[0])
    return edges[:-1] - base, edges[1:] - base, data[base : int(edges[-1])].to_pybytes()
