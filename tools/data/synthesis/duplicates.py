"""Rows that repeat an earlier one: word for word, or nearly (MinHash, then the exact index)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from posttrain_crew.tools.data.synthesis.base import SyntheticRow
from posttrain_crew.tools.data.text import normalised, numbers, tokens

__all__ = ["repeats"]

PERMUTATIONS = 128
MARGIN = 0.15
"""MinHash looks for this much less than the wanted similarity, so that few true pairs are missed; what it finds is then
computed exactly."""


def repeats(rows: Sequence[SyntheticRow], similarity: float) -> dict[int, Literal["exact", "near"]]:
    """Indices of rows that repeat an earlier one that stays.

    `exact`: same words of question, choices and completion. `near`: a Jaccard index of the word pairs of question and
    completion of at least `similarity`, with the same numbers in the question, the same answer and as many choices:
    rows of one template that differ in a number are different rows.
    """
    from datasketch import MinHash, MinHashLSH  # half a second to import

    found: dict[int, Literal["exact", "near"]] = {}
    seen: set[str] = set()
    sets = [_pairs(row) for row in rows]
    blocks = [_block(row) for row in rows]
    index = MinHashLSH(threshold=max(0.1, similarity - MARGIN), num_perm=PERMUTATIONS)
    # a pair of another block is another element: rows of different blocks then never meet in the index
    elements = (
        [f"{block} {pair}".encode() for pair in pairs] or [b""] for block, pairs in zip(blocks, sets, strict=True)
    )
    hashes = MinHash.generator(elements, num_perm=PERMUTATIONS, seed=1)
    for i, (row, minhash) in enumerate(zip(rows, hashes, strict=True)):
        key = " | ".join([normalised(row.question), *sorted(map(normalised, row.choices)), normalised(row.completion)])
        if key in seen:
            found[i] = "exact"
            continue
        seen.add(key)
        if sets[i] and any(_is_near(sets[i], sets[other], similarity) for other in index.query(minhash)):
            found[i] = "near"
            continue
        index.insert(i, minhash)
    return found


def _block(row: SyntheticRow) -> str:
    counted = sorted(numbers(row.question).items())
    return f"{counted} {normalised(row.example().answer_text or '')} {len(row.choices)}"


def _pairs(row: SyntheticRow) -> frozenset[str]:
    words = tokens(f"{row.question}\n{row.completion}")
    return frozenset(f"{one} {other}" for one, other in pairwise(words)) or frozenset(words)


def _is_near(one: frozenset[str], other: frozenset[str], similarity: float) -> bool:
    return len(one & other) >= similarity * len(one | other)
