"""Whether rows of a training file are items of the benchmark, word for word or in other words.

Dev and test items are read here and stay here: what leaves are counts, and indices of the caller's own rows.

Five checks, the strictest first; a row counts under the first that it meets:

    exact            same words in the same order, or all words of a short item in a row inside a longer text
    ngram13          13 consecutive words (GPT-3, arXiv 2005.14165; lm-eval), with the numbers of the item, all of its
                     choices, or its answer in several words
    ngram8           8 consecutive words (open-r1)
    near_duplicate   token sets with a Jaccard index of at least 0.8
    reworded         same numbers, and the words that matter: stems weighted by inverse document frequency; the less the
                     choices and the right answer agree, the more the words must

Numbers are compared in one form, whatever their script, spelling, separators, notation or metric unit (quantities.py).
TeX and HTML are taken off (markup.py), letters that look like Latin ones count as these (text.unmasked). A templated
benchmark has many rows that differ in their numbers only, and a row of the same template with other numbers is another
question. Every check but `exact` and that of choices therefore asks first that the numbers agree (or, in a text much
longer than the item, are contained); for items without numbers, an n-gram that three items share is a template and does
not count. A question with another answer is another question, too (an entity swapped, the inverse asked), unless 13
words agree.

Every text of a row is looked at: later turns, system prompts, rejected replies, columns that nobody trains on. What
cannot be looked at (a broken line, a text that was cut, a row without any text) is `unchecked`, and a file with such a
row does not pass. Left out: items translated into another language, items reworded inside a long document, and a power
of ten that stands alone and lost its raised exponent in copying (`10-3 M`, which may be a difference).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from posttrain_crew.entries import ContaminationVerdict
from posttrain_crew.errors import DatasetError
from posttrain_crew.files import sha256_file
from posttrain_crew.target import Target
from posttrain_crew.tools.data.compared import Compared, item_text, jaccard
from posttrain_crew.tools.data.formats import Example, read_row, row_texts
from posttrain_crew.tools.data.quantities import NumberKey, Reading, read_text
from posttrain_crew.tools.data.reader import MAX_FIELD_CHARS, RawRow, open_dataset
from posttrain_crew.tools.sources import BenchmarkItem, benchmark_items

__all__ = ["CHECKS", "UNCHECKED", "ContaminationIndex", "Matches"]

CHECKS = ("exact", "ngram13", "ngram8", "near_duplicate", "reworded")
UNCHECKED = "unchecked"
"""What `match_raw` says of a row that could not be looked at."""
NEAR_DUPLICATE = 0.8
LONGER = 1.5
"""A row with this many times the words of an item may hold further numbers and still contain the item."""
COMMON_GRAM = 3
SHORT_WORDS, SHORT_STEMS = 4, 2
"""An item of fewer than 8 words is looked for as a whole if it has this many words and telling stems."""
SEVERAL_WORDS, TELLING_CHOICES = 3, 16
"""An answer of so many telling words, or choices of so many characters in all, are hardly the same by chance; four
small numbers, the choices of two questions of one template, are."""
RARE_WORDS, CLOSE_ITEMS = 12, 20
"""Without numbers: how many of a row's rarest stems are looked up, and how many items are then compared."""
WITH_NUMBERS = (0.3, 0.4, 0.4, 0.75)
"""Least share of idf-weighted stems in common where there are numbers that agree; by what else agrees: choices and
answer, the answer, the choices, nothing that is known ..."""
WITHOUT_NUMBERS = (0.35, 0.5, 0.8, 0.9)
"""... and where there are no numbers."""
MOST_NUMBERS = 64
"""Of a text with more different numbers, the longest so many are looked up."""
LISTED_CHARS = 20
"""A choice of so many characters may be a question of its own."""
LIST_LIMIT = 1000
"""The reader cuts lists here; what lay behind was not seen."""


@dataclass(frozen=True)
class Matches:
    """Which rows match. `rows` and `unchecked` are indices into what was checked, in order."""

    rows: tuple[int, ...]
    by_check: dict[str, int]
    checked: int
    unchecked: tuple[int, ...] = ()

    @property
    def rate(self) -> float:
        """Share of rows matched, 0-1."""
        return len(self.rows) / self.checked if self.checked else 0.0


@dataclass
class _Holders:
    """Items that have an n-gram."""

    numeric: set[int] = field(default_factory=set)
    plain: set[int] = field(default_factory=set)
    """Those without numbers."""


class ContaminationIndex:
    """The items of a benchmark, ready to be compared with.

    Args:
        items: dev and test items together.

    Raises:
        DatasetError: there are no items, or one has no words: against such a benchmark nothing can be checked.
    """

    def __init__(self, items: Sequence[BenchmarkItem]) -> None:
        self.size = len(items)
        self._items = [item_text(item) for item in items]
        if not items or (empty := sum(not item.reading.words for item in self._items)):
            what = "has no items" if not items else f"has {empty} of {len(items)} items without a word or number"
            raise DatasetError(f"the benchmark {what}: no file can be checked against it. Give its items as text.")
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._by_numbers: dict[NumberKey, list[int]] = defaultdict(list)
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        self._by_anchor: dict[NumberKey, list[int]] = defaultdict(list)
        self._grams: dict[int, dict[str, _Holders]] = {13: defaultdict(_Holders), 8: defaultdict(_Holders)}
        for number, item in enumerate(self._items):
            self._exact[item.normal].append(number)
            for key in item.reading.keys:
                self._by_numbers[key].append(number)
            for stem in item.stems:
                self._by_stem[stem].append(number)
            for length, index in self._grams.items():
                for gram in set(_grams(item.reading.words, length)):
                    (index[gram].numeric if item.reading.digits else index[gram].plain).add(number)
            if item.reading.digits:
                self._by_anchor[_anchor(item.reading)].append(number)
        self._lengths = [len(item.reading.words) for item in self._items]
        self._anchor_sizes = sorted({len(anchor) for anchor in self._by_anchor})
        self._shortest = min((len(i.reading.words) for i in self._items if i.reading.digits), default=0)
        self._all_numeric = all(item.reading.digits for item in self._items)
        self._known = frozenset(word for item in self._items for word in item.reading.words)
        self._weights = {stem: math.log(1 + self.size / len(found)) for stem, found in self._by_stem.items()}
        self._unseen = math.log(1 + self.size)
        self._short: dict[str, list[tuple[int, tuple[str, ...], int]]] = defaultdict(list)
        frequency = Counter(word for item in self._items for word in set(item.reading.words))
        for number, item in enumerate(self._items):
            words = item.reading.words
            if SHORT_WORDS <= len(words) < 8 and len(item.stems) >= SHORT_STEMS:
                anchor = min(words, key=lambda word: (frequency[word], -len(word)))
                self._short[anchor].append((words.index(anchor), words, number))

    @classmethod
    def of_target(cls, target: Target) -> ContaminationIndex:
        """All items of a target. Raises TargetError / DatasetError where they cannot be read."""
        return cls([*benchmark_items(target, "dev"), *benchmark_items(target, "test")])

    def check(self, rows: Iterable[Example]) -> Matches:
        """Compare rows with all items."""
        return self._count(map(self._match, rows))

    def check_raw(self, rows: Iterable[RawRow | None]) -> Matches:
        """Compare rows as they are read from a file, of any format; one pass, nothing is kept in memory but indices."""
        return self._count(map(self.match_raw, rows))

    def match_raw(self, row: RawRow | None) -> str | None:
        """The check that a row meets, None where it meets none, `unchecked` where it cannot be looked at."""
        if row is None or _was_cut(row):
            return UNCHECKED
        example = read_row(row)
        if example is None:
            texts = row_texts(row)
            if not any(map(str.strip, texts)):
                return UNCHECKED
            example = Example("", (), None, None, None, further=tuple(texts))
        return self._match(example)

    def verdict(self, path: Path) -> ContaminationVerdict:
        """Check a finished file, bound to the sha256 of its bytes; passed only if every row was seen and none matches.

        Raises:
            DatasetError: the file cannot be read, or was changed while it was.
        """
        sha = sha256_file(path)
        matches = self.check_raw(open_dataset(path).rows())
        if sha256_file(path) != sha:
            raise DatasetError(f"{path} was changed while it was checked. Check it again when nobody writes to it.")
        unseen = len(matches.unchecked)
        return ContaminationVerdict(
            sha256=sha,
            passed=not matches.rows and not unseen and matches.checked > 0,
            rows_checked=matches.checked - unseen,
            rows_matched=len(matches.rows),
            benchmark_items=self.size,
            by_check=matches.by_check,
            rows_unchecked=unseen,
        )

    def _count(self, results: Iterable[str | None]) -> Matches:
        found: Counter[str] = Counter()
        matched: list[int] = []
        unchecked: list[int] = []
        checked = 0
        for index, name in enumerate(results):
            checked += 1
            if name == UNCHECKED:
                unchecked.append(index)
            elif name is not None:
                found[name] += 1
                matched.append(index)
        return Matches(tuple(matched), {name: found[name] for name in CHECKS}, checked, tuple(unchecked))

    def _match(self, row: Example) -> str | None:
        found: str | None = None
        lists: list[str] = []  # what looks like choices may be a numbered list of questions
        if row.question:
            question = Compared.of_row(row)
            found = self._match_question(question)
            lists += question.listed
        for text in (row.raw_completion, *row.further):
            if text and found != "exact":
                # a benchmark item in a reply or in a later turn counts as much as one in the question; its choices
                # are taken off, for their numbers belong to no question
                part = Compared.of_row(Example(text, (), None, None, None))
                found = _stricter(found, self._match_verbatim(part))
                lists += part.listed
        for text in lists:
            if len(text) >= LISTED_CHARS and found != "exact":
                found = _stricter(found, self._match_verbatim(Compared(read_text(text))))
        return found

    def _match_question(self, text: Compared) -> str | None:
        if (verbatim := self._match_verbatim(text)) is not None:
            return verbatim
        if self._has_words_and_answer(text):
            return "ngram13"
        near = [item for item in self._neighbours(text) if not text.answers_otherwise(item)]
        if any(jaccard(text.reading.words, item.reading.words) >= NEAR_DUPLICATE for item in near):
            return "near_duplicate"
        return "reworded" if any(self._is_reworded(text, item) for item in near) else None

    def _match_verbatim(self, text: Compared) -> str | None:
        if any(text.has_same_choices_where_needed(self._items[i]) for i in self._exact.get(text.normal, ())):
            return "exact"
        words = text.reading.words
        if self._contains_short(text):
            return "exact"
        numeric = self._same_numbers(text) | self._held(text.reading)
        if not numeric and self._all_numeric:
            return None
        runs = list(_runs(words, self._known))
        if not runs or not self._shares_gram(text, runs, 8, numeric, strict=True):
            return None
        if self._shares_gram(text, runs, 13, numeric, strict=True):
            return "ngram13"
        return "ngram8" if self._shares_gram(text, runs, 8, numeric, strict=False) else None

    def _contains_short(self, text: Compared) -> bool:
        words = text.reading.words
        for at, word in enumerate(words):
            for offset, wanted, number in self._short.get(word, ()):
                start = at - offset
                found = start >= 0 and words[start : start + len(wanted)] == wanted
                if found and text.has_same_choices_where_needed(self._items[number]):
                    return True
        return False

    def _shares_gram(
        self, text: Compared, runs: Iterable[Sequence[str]], length: int, numeric: frozenset[int], *, strict: bool
    ) -> bool:
        """Whether a telling n-gram is shared with an item whose numbers agree (`numeric`), or that has no numbers.

        `strict` also counts an item to which the row gives another answer.
        """
        index = self._grams[length]
        for run in runs:
            for gram in _grams(run, length):
                holders = index.get(gram)
                if holders is None:
                    continue
                found = numeric & holders.numeric
                if len(holders.plain) + len(holders.numeric) < COMMON_GRAM:
                    found |= holders.plain
                if found and (strict or not all(text.answers_otherwise(self._items[i]) for i in found)):
                    return True
        return False

    def _has_words_and_answer(self, text: Compared) -> bool:
        """Whether 13 words that few items share come with all choices of the item, or its answer in several words.

        The numbers may then be written in a way that is not known here. Short ones are the same by chance.
        """
        index = self._grams[13]
        for run in _runs(text.reading.words, self._known, 13):
            for gram in _grams(run, 13):
                holders = index.get(gram)
                if holders is None or len(holders.numeric) + len(holders.plain) >= COMMON_GRAM:
                    continue
                for item in (self._items[i] for i in holders.numeric):
                    telling = sum(map(len, item.choices)) >= TELLING_CHOICES
                    if telling and text.same_choices(item):
                        return True
                    if len(item.answer_words) >= SEVERAL_WORDS and text.same_answer(item):
                        return True
        return False

    def _same_numbers(self, text: Compared) -> frozenset[int]:
        """Items with numbers, all of which agree with those of the text."""
        near = {number for key in text.reading.keys for number in self._by_numbers.get(key, ())}
        return frozenset(i for i in near if text.reading.has_the_numbers_of(self._items[i].reading))

    def _held(self, text: Reading) -> frozenset[int]:
        """Items all of whose numbers are in a text that is much longer."""
        values = sorted(text.every_counted, key=_telling, reverse=True)[:MOST_NUMBERS]
        if not values or len(text.words) <= LONGER * self._shortest:
            return frozenset()
        count = len(text.words) / LONGER
        near: set[int] = set()
        for size in self._anchor_sizes:
            for anchor in combinations(values, size):
                near.update(i for i in self._by_anchor.get(anchor, ()) if self._lengths[i] < count)
        counted = text.every_counted
        return frozenset(i for i in near if self._items[i].reading.every_counted <= counted)

    def _neighbours(self, text: Compared) -> Iterator[Compared]:
        """Items worth a closer look: those with the same numbers, and those without that share rare stems."""
        same = sorted(self._same_numbers(text))
        yield from (self._items[i] for i in same)
        if text.reading.digits:
            return
        shared: Counter[int] = Counter()
        for stem in sorted(text.stems, key=lambda stem: (-self._weight(stem), stem))[:RARE_WORDS]:
            shared.update(i for i in self._by_stem.get(stem, ()) if not self._items[i].reading.digits)
        for number, count in shared.most_common(CLOSE_ITEMS):
            item = self._items[number]
            if count >= 2 and number not in same and text.reading.has_the_numbers_of(item.reading):
                yield item

    def _is_reworded(self, text: Compared, item: Compared) -> bool:
        choices, answer = text.same_choices(item), text.same_answer(item)
        common = sum(map(self._weight, text.stems & item.stems))
        less = min(sum(map(self._weight, text.stems)), sum(map(self._weight, item.stems)))
        if not less or not common:
            return False
        bounds = WITH_NUMBERS if item.reading.digits else WITHOUT_NUMBERS
        least = bounds[0 if choices and answer else 1 if answer else 2 if choices else 3]
        return common / less >= least

    def _weight(self, stem: str) -> float:
        return self._weights.get(stem, self._unseen)


def _stricter(one: str | None, other: str | None) -> str | None:
    return min((name for name in (one, other) if name is not None), key=CHECKS.index, default=None)


def _was_cut(row: RawRow) -> bool:
    """Whether the reader cut a text or a list of this row."""
    waiting: list[object] = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if len(value) >= MAX_FIELD_CHARS:
                return True
        elif isinstance(value, dict | list):
            if len(value) >= LIST_LIMIT:
                return True
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return False


def _runs(words: Sequence[str], known: frozenset[str], least: int = 8) -> Iterator[Sequence[str]]:
    """Stretches of at least so many words that all occur in the benchmark: its n-grams can only lie in one of them."""
    start = 0
    for at, word in enumerate(words):
        if word not in known:
            if at - start >= least:
                yield words[start:at]
            start = at + 1
    if len(words) - start >= least:
        yield words[start:]


def _telling(number: str) -> tuple[int, str]:
    """Long numbers are rarer than short ones."""
    return len(number), number


def _anchor(reading: Reading) -> NumberKey:
    """The two most telling numbers of an item, by which it is looked up in a text that may hold it."""
    return tuple(sorted(reading.every_counted, key=_telling, reverse=True)[:2])


def _grams(words: Sequence[str], length: int) -> list[str]:
    return [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]
