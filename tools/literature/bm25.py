"""A small BM25, so that the shipped library can be searched without an index server or an embedding model.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with field weights as repeated
terms and the non-negative idf of Lucene. Left out: stemming beyond a plural s, phrases, synonyms.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = ["Bm25Index", "tokens"]

_WORD = re.compile(r"[a-z0-9]+(?:\.[0-9]+)*")
_STOP = frozenset(
    re.findall(r"\w+", "a an and are as at be by can do does for from how in is it its of on or that the to what with")
)


def tokens(text: str) -> list[str]:
    """Lower-case words without stop words, a plural s cut off. `Open-R1's` -> open, r1."""
    words = _WORD.findall(text.lower().replace("'s", ""))
    return [_singular(word) for word in words if word not in _STOP]


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


class Bm25Index:
    """Documents by key, each a list of (text, weight) fields; a weight is how often the text counts."""

    def __init__(self, documents: Mapping[str, Sequence[tuple[str, int]]], k1: float = 1.2, b: float = 0.6) -> None:
        self._k1, self._b = k1, b
        self._terms: dict[str, Counter[str]] = {}
        for key, fields in documents.items():
            counts: Counter[str] = Counter()
            for text, weight in fields:
                for term in tokens(text):
                    counts[term] += weight
            self._terms[key] = counts
        self._lengths = {key: counts.total() for key, counts in self._terms.items()}
        self._mean = (sum(self._lengths.values()) / len(self._lengths)) if self._lengths else 1.0
        self._holders: Counter[str] = Counter(term for counts in self._terms.values() for term in counts)

    def scores(self, query: str) -> dict[str, float]:
        """Score of each document that shares a term with the query; documents that share none are absent."""
        result: dict[str, float] = {}
        for term in dict.fromkeys(tokens(query)):
            holders = self._holders[term]
            if not holders:
                continue
            idf = math.log(1 + (len(self._terms) - holders + 0.5) / (holders + 0.5))
            for key, counts in self._terms.items():
                count = counts[term]
                if count:
                    norm = self._k1 * (1 - self._b + self._b * self._lengths[key] / self._mean)
                    result[key] = result.get(key, 0.0) + idf * count * (self._k1 + 1) / (count + norm)
        return result
