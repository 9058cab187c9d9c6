"""How many rows are nearly equal to another row: MinHash LSH on a sample that near duplicates enter together.

Of a uniform sample of 1 % of the rows, the partner of a row would be there in 1 % of all cases, and the rate would be
told a hundred times too small. So rows are chosen by content: a row is taken when the pair of its two smallest shingle
hashes falls below a limit. Two rows with Jaccard index J share that pair with probability J^2 (Broder 1997), so both
are taken or none; a pair that is found counts 1 / J^2 for those that are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posttrain_crew.tools.data.profile.model import NearDuplicates, wilson

__all__ = ["NearSketch", "shingles"]

THRESHOLD = 0.55
"""With word 3-shingles, two changed words in sixty leave a Jaccard index of about 0.8, one word in ten about 0.55."""
PERMUTATIONS = 128
WORDS = 3
TEXT_BYTES = 20_000
SKETCH_BYTES = 32 * 2**20
PIECE_BYTES = 1 << 20
BUCKET_ROWS = 64
"""Rows kept that share a pair of smallest hashes; the others of such a group are counted, so that a template that half
of the rows share does not fill the sample."""
CHECKED = 32
"""Candidates of a row that are compared exactly, the most similar signatures first."""
SLACK = 0.12
"""Signatures of 128 values err by 0.044 (one sigma) at J = 0.55."""

Hashes = NDArray[np.uint64]

_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_SALT = np.uint64(0xD6E8FEB86659FD93)


@dataclass
class _Kept:
    bucket: int
    text: bytes


class NearSketch:
    """Collects the sample.

    Args:
        capacity: most rows in it.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self._capacity, self._seed = capacity, np.uint64(seed % 2**32)
        self._limit = 2**64
        self._seen: dict[int, int] = {}
        self._kept: dict[int, list[_Kept]] = {}
        self._rows = self._bytes = 0

    def add(self, texts: Sequence[bytes]) -> None:
        """Take rows, as `hashing.normal_texts` gives them."""
        chosen = [text[:TEXT_BYTES] for text in texts if text]
        start = 0
        while start < len(chosen):
            end, size = start, 0
            while end < len(chosen) and size < PIECE_BYTES:
                size += len(chosen[end])
                end += 1
            self._piece(chosen[start:end])
            start = end

    def _piece(self, texts: list[bytes]) -> None:
        hashes, begins = shingles(texts)
        first = np.minimum.reduceat(_mixed(hashes ^ self._seed), begins)
        second = np.minimum.reduceat(_mixed(hashes ^ self._seed ^ _SALT), begins)
        keys = _mixed(first * _BASE ^ second)
        wanted = np.arange(len(keys)) if self._limit == 2**64 else np.flatnonzero(keys < np.uint64(self._limit))
        for index in wanted.tolist():
            self._take(int(keys[index]), texts[index])

    def _take(self, bucket: int, text: bytes) -> None:
        if bucket >= self._limit:  # lowered since the keys were chosen
            return
        group = self._kept.setdefault(bucket, [])
        if any(text == other.text for other in group):
            return
        self._seen[bucket] = self._seen.get(bucket, 0) + 1
        if len(group) >= BUCKET_ROWS:
            return
        group.append(_Kept(bucket, text))
        self._rows, self._bytes = self._rows + 1, self._bytes + len(text)
        while len(self._kept) > 1 and (self._rows > self._capacity or self._bytes > SKETCH_BYTES):
            self._limit //= 2
            for key in [key for key in self._kept if key >= self._limit]:
                for each in self._kept.pop(key):
                    self._rows, self._bytes = self._rows - 1, self._bytes - len(each.text)
                del self._seen[key]

    def result(self) -> NearDuplicates | None:
        """The estimate; None without any text."""
        rows = [each for group in self._kept.values() for each in group]
        if not rows:
            return None
        weights = np.array([self._seen[each.bucket] / len(self._kept[each.bucket]) for each in rows])
        similar = _similarities([each.text for each in rows])
        found = similar > 0
        total = float(weights.sum())
        seen = float(weights[found].sum()) / total
        rate = min(1.0, float((weights[found] / similar[found] ** 2).sum()) / total)
        effective = total**2 / float((weights**2).sum())  # Kish 1965
        low, high = wilson(rate, effective * (seen / rate if rate else 1.0))
        return NearDuplicates(sample=len(rows), threshold=THRESHOLD, rate=rate, low=low, high=high, seen_rate=seen)


def shingles(texts: Sequence[bytes]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of the word 3-shingles of texts (no empty ones), and where those of each text begin.

    The last two shingles of a text have two words and one. The hash is a polynomial over the bytes, modulo 2^64, from
    prefix sums: it is for choosing and comparing, and no defence against made-up collisions.
    """
    data = np.frombuffer(b"\n".join(texts) + b"\n", dtype=np.uint8)
    ends = np.flatnonzero(data <= 0x20)
    starts = np.concatenate([[0], ends[:-1] + 1])
    last = np.flatnonzero(data[ends] == 0x0A)  # the last word of each text
    begins = np.concatenate([[0], last[:-1] + 1])
    last_of = np.repeat(last, np.diff(np.concatenate([begins, [len(ends)]])))
    until = ends[np.minimum(np.arange(len(ends)) + WORDS - 1, last_of)]
    powers, inverses = _powers(len(data) + 1)
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers[:-1], out=sums[1:])
    return _mixed((sums[until] - sums[starts]) * inverses[starts]), begins


_tables: dict[str, Hashes] = {}


def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse modulo 2^64."""
    if len(_tables.get("powers", ())) < size:
        length = max(size, PIECE_BYTES + TEXT_BYTES + 2)
        inverse = np.uint64(pow(int(_BASE), -1, 2**64))
        for name, base in (("powers", _BASE), ("inverses", inverse)):
            table = np.full(length, base, np.uint64)
            table[0] = 1
            _tables[name] = np.cumprod(table)
    return _tables["powers"][:size], _tables["inverses"][:size]


def _mixed(values: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def _similarities(texts: list[bytes]) -> NDArray[np.float64]:
    """For each text the Jaccard index with an earlier one that it nearly repeats, 0 where it repeats none.

    Only texts that repeat none are put into the index, so that a set made of one template costs no more than another.
    """
    from datasketch import MinHash, MinHashLSH  # 0.4 s

    prototype = MinHash(num_perm=PERMUTATIONS, hashfunc=int)
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    signatures = np.zeros((len(texts), PERMUTATIONS), np.uint32)
    sets: list[Hashes] = [_shingle_set(text) for text in texts]
    similar = np.zeros(len(texts))
    for number, own in enumerate(sets):
        made = prototype.copy()  # shares the permutations, which take long to draw
        made.update_batch((own & np.uint64(0xFFFFFFFF)).tolist())
        signatures[number] = made.hashvalues
        candidates = np.array(index.query(made), dtype=np.int64)
        if len(candidates):
            agreement = (signatures[candidates] == signatures[number]).mean(axis=1)
            best = np.argsort(-agreement, kind="stable")[:CHECKED]
            for which in best[agreement[best] >= THRESHOLD - SLACK]:
                other = sets[int(candidates[which])]
                common = len(np.intersect1d(own, other, assume_unique=True))
                similar[number] = max(similar[number], common / (len(own) + len(other) - common))
        if similar[number] < THRESHOLD:
            similar[number] = 0.0
            index.insert(number, made, check_duplication=False)
    return similar


def _shingle_set(text: bytes) -> Hashes:
    """The distinct 3-shingles of a text; the whole text where it has fewer words."""
    hashes, _ = shingles([text])
    return np.unique(hashes[: max(1, len(hashes) - WORDS + 1)])
