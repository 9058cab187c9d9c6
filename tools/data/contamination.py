"""Whether rows of a training file are items of the benchmark, word for word or in other words.

Dev and test items are read here and stay here: what leaves are counts, and indices of the caller's own rows.

Five checks, the strictest first; a row counts under the first that it meets:

    exact            same words in the same order
    ngram13          13 consecutive words (GPT-3, arXiv 2005.14165; lm-eval)
    ngram8           8 consecutive words (open-r1)
    near_duplicate   token sets with a Jaccard index of at least 0.8
    reworded         same numbers, and the words that matter: content words weighted by inverse document frequency;
                     the less the choices and the right answer agree, the more the words must

A templated benchmark has many rows that differ in their numbers only, and a row of the same template with other numbers
is another question. Every check but `exact` therefore asks first that the numbers agree (or, in a text much longer than
the item, are contained); for items without numbers, an n-gram that three items share is a template and does not count.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain_crew.entries import ContaminationVerdict
from posttrain_crew.files import sha256_file
from posttrain_crew.target import Target
from posttrain_crew.tools.data.formats import Example, normalise_row
from posttrain_crew.tools.data.reader import open_dataset
from posttrain_crew.tools.data.text import content_words, normalised, numbers, tokens
from posttrain_crew.tools.sources import BenchmarkItem, benchmark_items

__all__ = ["CHECKS", "ContaminationIndex", "Matches"]

CHECKS = ("exact", "ngram13", "ngram8", "near_duplicate", "reworded")
NEAR_DUPLICATE = 0.8
LONGER = 1.5
"""A row with this many times the words of an item may hold further numbers and still contain the item."""
COMMON_GRAM = 3
OVERLAP_SAME_CHOICES, OVERLAP_SAME_ANSWER, OVERLAP_ALONE = 0.4, 0.5, 0.75
"""Least share of idf-weighted content words in common, where there are numbers that agree ..."""
WORDS_SAME_CHOICES, WORDS_SAME_ANSWER, WORDS_ALONE = 0.6, 0.75, 0.9
"""... and where there are none."""

NumberKey = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Matches:
    """Which rows match. `rows` are indices into what was checked, in order."""

    rows: tuple[int, ...]
    by_check: dict[str, int]
    checked: int

    @property
    def rate(self) -> float:
        """Share of rows matched, 0-1."""
        return len(self.rows) / self.checked if self.checked else 0.0


@dataclass(frozen=True)
class _Text:
    """A question as the checks see it."""

    normal: str
    words: tuple[str, ...]
    numbers: Counter[str]
    content: frozenset[str]
    choices: frozenset[str]
    answer: str | None

    @property
    def key(self) -> NumberKey:
        return tuple(sorted(self.numbers.items()))

    @classmethod
    def of(cls, question: str, choices: Iterable[str] = (), answer: str | None = None) -> _Text:
        words = tuple(tokens(question))
        return cls(
            " ".join(words),
            words,
            numbers(question),
            frozenset(content_words(question)),
            frozenset(map(normalised, choices)),
            None if answer is None else normalised(answer),
        )


class ContaminationIndex:
    """The items of a benchmark, ready to be compared with.

    Args:
        items: dev and test items together.
    """

    def __init__(self, items: Sequence[BenchmarkItem]) -> None:
        self.size = len(items)
        self._items = [_item_text(item) for item in items]
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._by_numbers: dict[NumberKey, list[int]] = defaultdict(list)
        self._by_word: dict[str, list[int]] = defaultdict(list)
        self._grams: dict[int, dict[str, list[int]]] = {13: defaultdict(list), 8: defaultdict(list)}
        for number, item in enumerate(self._items):
            self._exact[item.normal].append(number)
            if item.numbers:
                self._by_numbers[item.key].append(number)
            for word in item.content:
                self._by_word[word].append(number)
            for length, index in self._grams.items():
                for gram in set(_grams(item.words, length)):
                    index[gram].append(number)
        self._rarest = {word: math.log(1 + self.size / len(found)) for word, found in self._by_word.items()}
        self._unseen = math.log(1 + self.size)

    @classmethod
    def of_target(cls, target: Target) -> ContaminationIndex:
        """All items of a target. Raises TargetError / DatasetError where they cannot be read."""
        return cls([*benchmark_items(target, "dev"), *benchmark_items(target, "test")])

    def check(self, rows: Iterable[Example]) -> Matches:
        """Compare rows with all items."""
        found: Counter[str] = Counter()
        matched: list[int] = []
        checked = 0
        for index, row in enumerate(rows):
            checked += 1
            if (name := self._match(row)) is not None:
                found[name] += 1
                matched.append(index)
        return Matches(tuple(matched), {name: found[name] for name in CHECKS}, checked)

    def verdict(self, path: Path) -> ContaminationVerdict:
        """Check a finished file, bound to the sha256 of its bytes. A row that cannot be read counts as checked only.

        Raises:
            DatasetError: the file cannot be read.
        """
        sha = sha256_file(path)
        rows = (normalise_row(row, "prompt_completion") for row in open_dataset(path).rows())
        matches = self.check(row if row is not None else Example("", (), None, None, None) for row in rows)
        return ContaminationVerdict(
            sha256=sha,
            passed=not matches.rows,
            rows_checked=matches.checked,
            rows_matched=len(matches.rows),
            benchmark_items=self.size,
            by_check=matches.by_check,
        )

    def _match(self, row: Example) -> str | None:
        text = _Text.of(row.question, row.choices, row.answer_text)
        if any(self._is_same(text, self._items[i]) for i in self._exact.get(text.normal, ())):
            return "exact"
        completion = tuple(tokens(row.raw_completion)) if row.raw_completion else ()
        reply = _Text("", completion, numbers(row.raw_completion or ""), frozenset(), frozenset(), None)
        for length in (13, 8):
            if any(self._shares_gram(part, length) for part in (text, reply) if len(part.words) >= length):
                return f"ngram{length}"
        near = list(self._neighbours(text))
        near = [i for i in near if _may_be_same(text, self._items[i])]
        if any(_jaccard(text.words, self._items[i].words) >= NEAR_DUPLICATE for i in near):
            return "near_duplicate"
        return "reworded" if any(self._is_reworded(text, self._items[i]) for i in near) else None

    @staticmethod
    def _is_same(text: _Text, item: _Text) -> bool:
        """Equal words; `Which of these is true?` needs equal choices, too, before it is the same question."""
        telling = bool(item.numbers) or len(item.words) >= 8 or not item.choices or not text.choices
        return telling or len(text.choices & item.choices) * 2 >= len(item.choices)

    def _shares_gram(self, text: _Text, length: int) -> bool:
        index = self._grams[length]
        for gram in _grams(text.words, length):
            holders = index.get(gram, ())
            for number in holders:
                item = self._items[number]
                if not item.numbers:
                    if len(holders) < COMMON_GRAM:
                        return True
                elif text.numbers == item.numbers or (
                    len(text.words) > LONGER * len(item.words) and item.numbers <= text.numbers
                ):
                    return True
        return False

    def _neighbours(self, text: _Text) -> Iterator[int]:
        """Items worth a closer look: those with the same numbers, or without numbers those that share rare words."""
        if text.numbers:
            yield from self._by_numbers.get(text.key, ())
            return
        shared: Counter[int] = Counter()
        for word in sorted(text.content, key=self._weight, reverse=True)[:12]:
            shared.update(i for i in self._by_word.get(word, ()) if not self._items[i].numbers)
        yield from (i for i, count in shared.most_common(20) if count >= 2)

    def _is_reworded(self, text: _Text, item: _Text) -> bool:
        common = sum(map(self._weight, text.content & item.content))
        less = min(sum(map(self._weight, text.content)), sum(map(self._weight, item.content)))
        if not less or not common:
            return False
        same_choices = len(item.choices) > 1 and text.choices == item.choices
        same_answer = item.answer is not None and text.answer == item.answer
        bounds = (
            (OVERLAP_SAME_CHOICES, OVERLAP_SAME_ANSWER, OVERLAP_ALONE)
            if item.numbers
            else (WORDS_SAME_CHOICES, WORDS_SAME_ANSWER, WORDS_ALONE)
        )
        return common / less >= (bounds[0] if same_choices else bounds[1] if same_answer else bounds[2])

    def _weight(self, word: str) -> float:
        return self._rarest.get(word, self._unseen)


def _item_text(item: BenchmarkItem) -> _Text:
    answer = item.answer
    if item.choices and len(answer) == 1 and 0 <= ord(answer) - ord("A") < len(item.choices):
        answer = item.choices[ord(answer) - ord("A")]
    return _Text.of(item.question, item.choices, answer)


def _may_be_same(text: _Text, item: _Text) -> bool:
    """False where the choices and the right answer both differ: the inverse problem has the same words and numbers.

    So a leaked item that is reworded, relabelled and has new wrong choices, all three, is not found.
    """
    return not text.choices or text.answer is None or text.choices == item.choices or text.answer == item.answer


def _grams(words: Sequence[str], length: int) -> list[str]:
    return [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]


def _jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    first, second = set(one), set(other)
    return len(first & second) / len(first | second) if first or second else 0.0
