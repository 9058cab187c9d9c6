"""When several sources know the same paper: one record out of many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce

from posttrain_crew.tools.literature.services.base import PaperRecord
from posttrain_crew.tools.literature.services.ids import clash, merge_ids, normal_title

__all__ = ["MergedPapers", "fused", "merge_records"]

RRF_K = 60
"""Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet ..." (SIGIR 2009)."""


def merge_records(first: PaperRecord, second: PaperRecord) -> PaperRecord:
    """One record of the same paper: what `first` says, filled up by `second`; datasets and models of both."""
    counts = first.citation_count, first.influential_citation_count
    return PaperRecord(
        ids=merge_ids(first.ids, second.ids),
        title=first.title or second.title,
        abstract=first.abstract or second.abstract,
        year=first.year if first.year is not None else second.year,
        published=first.published or second.published,
        authors=first.authors or second.authors,
        venue=first.venue or second.venue,
        citation_count=counts[0] if counts[0] is not None else second.citation_count,
        influential_citation_count=counts[1] if counts[1] is not None else second.influential_citation_count,
        summary=first.summary or second.summary,
        datasets=tuple(dict.fromkeys((*first.datasets, *second.datasets))),
        models=tuple(dict.fromkeys((*first.models, *second.models))),
        code=first.code or second.code,
        sources=tuple(dict.fromkeys((*first.sources, *second.sources))),
    )


class MergedPapers:
    """Papers by who they are: equal are those that share any id, and those whose long titles and years agree.

    Add the most trusted source first: where records differ, the one that came first is believed.
    """

    def __init__(self) -> None:
        self._records: list[PaperRecord] = []
        """As they came in."""
        self._parents: list[int] = []
        self._members: dict[int, list[int]] = {}
        """Of each paper that is told apart now, in the order of trust."""
        self._whole: dict[int, PaperRecord] = {}
        self._named: dict[str, int] = {}
        self._titled: dict[str, list[int]] = {}

    def add(self, record: PaperRecord) -> int:
        """Take a record in. Returns a number of its paper; `which` says what it has become after further ones."""
        number = len(self._records)
        self._records.append(record)
        self._parents.append(number)
        self._members[number] = [number]
        for name in record.ids.names:
            self._join(self._named.setdefault(name, number), number)
        if title := normal_title(record.title):
            for other in self._titled.setdefault(title, []):
                if self._same_work(self.which(other), self.which(number)):
                    self._join(other, number)
            self._titled[title].append(number)
        return self.which(number)

    def which(self, number: int) -> int:
        """The number that the paper has now."""
        while self._parents[number] != number:
            number = self._parents[number]
        return number

    def __getitem__(self, number: int) -> PaperRecord:
        here = self.which(number)
        if here not in self._whole:
            self._whole[here] = reduce(merge_records, (self._records[member] for member in self._members[here]))
        return self._whole[here]

    def _same_work(self, one: int, other: int) -> bool:
        first, second = self[one], self[other]
        if clash(first.ids, second.ids):
            return False
        # a preprint of December appears in the proceedings of the next year
        return first.year is None or second.year is None or abs(first.year - second.year) <= 1

    def _join(self, one: int, other: int) -> None:
        first, second = sorted((self.which(one), self.which(other)))
        if first != second:
            self._parents[second] = first
            self._members[first] = sorted(self._members[first] + self._members.pop(second))
            self._whole.pop(first, None)
            self._whole.pop(second, None)


def fused(rankings: Iterable[Sequence[int]]) -> list[int]:
    """One ranking of several by reciprocal rank fusion: score = sum of 1 / (60 + rank). Ties go to the earlier one."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(dict.fromkeys(ranking), start=1):
            scores[number] = scores.get(number, 0.0) + 1.0 / (RRF_K + rank)
    return sorted(scores, key=lambda number: -scores[number])  # sorted is stable: first come, first served
