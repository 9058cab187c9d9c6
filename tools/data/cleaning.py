"""Which rows of a dataset must go, and why: what the audit counts, the builder drops and the label probe avoids."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

from posttrain_crew.tools.data.contamination import ContaminationIndex, Matches
from posttrain_crew.tools.data.formats import Example, Format, detect_format, normalise_row
from posttrain_crew.tools.data.labels import Consistency, conflicting_rows, working_supports_label
from posttrain_crew.tools.data.reader import Dataset, RawRow, bytes_of
from posttrain_crew.tools.data.text import normalised, numbers, tokens

__all__ = ["DropReason", "Examination", "Reading", "duplicates", "examine", "read"]

DropReason = Literal[
    "unreadable", "missing_answer", "contaminated", "wrong_label", "conflicting_answers", "duplicate", "near_duplicate"
]
DETECTION_ROWS = 200
MAX_BYTES = 256 * 2**20
"""Of all rows that are in memory at once: 50,000 rows of 5 kB."""
_END = object()
COMPARED_WITH = 200
"""Earlier rows of equal numbers and answer that a row is compared with: bounds the cost on a set of one template."""


@dataclass(frozen=True)
class Reading:
    """A dataset in memory, in the internal form."""

    dataset: Dataset
    format: Format
    columns: tuple[str, ...]
    examples: tuple[Example | None, ...]
    """None where a row cannot be read."""
    whole: bool = True
    """False where the dataset has more rows than were asked for, or than fit into memory."""
    bytes: int = 0
    """Of the rows as they were read, about."""


@dataclass(frozen=True)
class Examination:
    """What was found row by row."""

    reading: Reading
    readable: tuple[int, ...]
    """Indices of readable rows; the fields below use the same indices, into `reading.examples`."""
    duplicate: dict[int, Literal["duplicate", "near_duplicate"]]
    consistency: dict[int, Consistency]
    conflicting: frozenset[int]
    contaminated: frozenset[int]
    matches: Matches
    drops: dict[int, DropReason]
    """Rows that must go, each under its first reason."""

    def clean(self) -> list[Example]:
        """The rows that may be used."""
        return [self.example(i) for i in self.readable if i not in self.drops]

    def example(self, index: int) -> Example:
        """The row at an index of `readable`."""
        found = self.reading.examples[index]
        assert found is not None, index
        return found

    def dropped(self) -> dict[str, int]:
        """Number of rows per reason."""
        return dict(Counter(self.drops.values()))


def read(dataset: Dataset, limit: int | None = None, max_bytes: int = MAX_BYTES) -> Reading:
    """Read and normalise the first rows of a dataset, as many as asked for and as fit into memory.

    Raises:
        DatasetError: a file is broken.
    """
    rows = dataset.rows()
    first = list(islice(_within(rows, max_bytes), DETECTION_ROWS if limit is None else min(limit, DETECTION_ROWS)))
    kind = detect_format(row for row, _ in first)
    columns = list(dict.fromkeys(name for row, _ in first[:50] if row is not None for name in row))
    size = sum(each for _, each in first)
    examples = [normalise_row(row, kind) for row, _ in first]
    more = None if limit is None else limit - len(first)
    for row, each in islice(_within(rows, max_bytes - size), more):  # the raw rows are not kept
        examples.append(normalise_row(row, kind))
        size += each
    whole = next(rows, _END) is _END
    return Reading(dataset, kind, tuple(columns[:100]), tuple(examples), whole, size)


def _within(rows: Iterator[RawRow | None], max_bytes: int) -> Iterator[tuple[RawRow | None, int]]:
    """Rows with their sizes, up to the one that fills the room."""
    while max_bytes > 0 and (row := next(rows, _END)) is not _END:
        size = bytes_of(row)
        max_bytes -= size
        yield row, size  # type: ignore[misc]  # not _END


def examine(reading: Reading, index: ContaminationIndex, similarity: float) -> Examination:
    """Run all row checks.

    Args:
        similarity: Jaccard index of word pairs from which rows are near duplicates.
    """
    pairs = [(i, example) for i, example in enumerate(reading.examples) if example is not None]
    readable = [i for i, _ in pairs]
    examples = [example for _, example in pairs]
    matches = index.check(examples)
    contaminated = frozenset(readable[i] for i in matches.rows)
    conflicting = frozenset(readable[i] for i in conflicting_rows(examples))
    consistency = dict(zip(readable, map(working_supports_label, examples), strict=True))
    repeated = {readable[i]: kind for i, kind in duplicates(examples, similarity).items()}
    drops: dict[int, DropReason] = dict.fromkeys(
        (i for i, example in enumerate(reading.examples) if example is None), "unreadable"
    )
    for i, example in pairs:
        if i in contaminated:
            drops[i] = "contaminated"
        elif example.answer_text is None and example.rejected is None:
            drops[i] = "missing_answer"  # of a preference pair the replies are wanted, not a label
        elif consistency[i] in ("contradicts", "unsupported"):
            drops[i] = "wrong_label"
        elif i in conflicting:
            drops[i] = "conflicting_answers"
        elif i in repeated:
            drops[i] = repeated[i]
    return Examination(reading, tuple(readable), repeated, consistency, conflicting, contaminated, matches, drops)


def duplicates(examples: Sequence[Example], similarity: float) -> dict[int, Literal["duplicate", "near_duplicate"]]:
    """Rows that repeat an earlier row.

    `duplicate`: same words of question and choices. `near_duplicate`: Jaccard index of the question's word pairs of at
    least `similarity`, with equal numbers and the same answer. The two conditions stand in for MinHash's
    buckets: they are exact, cheaper, and keep apart rows of one template that differ in a number. Synthetic rows that
    are repeated because of their weight (`copy`) repeat nothing.
    """
    found: dict[int, Literal["duplicate", "near_duplicate"]] = {}
    seen: dict[str, set[int]] = {}
    near: set[str] = set()
    blocks: dict[tuple[object, ...], deque[frozenset[str]]] = defaultdict(lambda: deque(maxlen=COMPARED_WITH))
    for i, example in enumerate(examples):
        words = tokens(example.question)
        choices = sorted(map(normalised, example.choices))
        key = " ".join([*words, "|", *choices])
        copies = seen.setdefault(key, set())
        if example.copy in copies:
            found[i] = "duplicate"
            continue
        again = bool(copies)
        copies.add(example.copy)
        if again:
            if key in near:
                found[i] = "near_duplicate"
            continue
        pairs = frozenset(f"{a} {b}" for a, b in pairwise(words)) or frozenset(words)
        block = blocks[
            (tuple(sorted(numbers(example.question).items())), normalised(example.answer_text or ""), len(choices))
        ]
        if pairs and any(len(pairs & other) >= similarity * len(pairs | other) for other in block):
            found[i] = "near_duplicate"
            near.add(key)
        block.append(pairs)
    return found
