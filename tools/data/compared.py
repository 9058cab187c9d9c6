"""A question as the contamination check compares it: its words and numbers, its choices, its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache

from posttrain_crew.tools.data.formats import LABELS, Example, split_prompt
from posttrain_crew.tools.data.quantities import Reading, read_text, stems
from posttrain_crew.tools.data.text import STOP_WORDS, compatible, unmasked
from posttrain_crew.tools.sources import BenchmarkItem

__all__ = ["Compared", "item_text", "jaccard"]

TELLING_WORDS = 8
"""A question with fewer words and no number (`Which of these is true?`) needs its choices to be told from others."""
SHORT_ANSWER = 4
"""An answer of more telling words can be put in too many ways to say that another text differs from it."""
NAMED, NOT_NAMED = 0.8, 0.5
"""Share of the words of an item's answer in the row's from which it is the same, and up to which it is another."""

_MAY_HAVE_CHOICES = re.compile(r"(?:^|\s)[(\[]?[B2][)\].:]", re.MULTILINE)
_LABEL = re.compile(r"(?:^|(?<=\s))[(\[]?[^\W\d_a-zA-Z][)\].:]", re.MULTILINE)
_OTHER_LABELS = re.compile(r"(?:^|\s)[(\[]?[\u0411\u0413\u0393\u0394][)\].:]", re.MULTILINE)
"""Labels of an alphabet without B or C in their places: what looks like A and B there are other choices."""


class Compared:
    """One question. Choices and answer are read only when words and numbers make it worthwhile."""

    def __init__(
        self, reading: Reading, choices: Sequence[str] = (), answer: str | None = None, reply: str | None = None
    ) -> None:
        self.reading = reading
        self._choices = choices
        self._answer = answer
        self._reply = reply

    @classmethod
    def of_row(cls, row: Example) -> Compared:
        """A row of a dataset. Choices inside its text are taken out, also those with look-alikes as labels."""
        question, choices, answer = row.question, row.choices, row.answer_text
        if not choices:
            question = _plain_labels(question)
            if _MAY_HAVE_CHOICES.search(question):
                question, choices = split_prompt(question)
                label = unmasked(answer or "").strip()
                if len(label) == 1 and label in LABELS[: len(choices)]:
                    answer = choices[LABELS.index(label)]
        return cls(read_text(question), choices, answer, row.raw_completion)

    @property
    def listed(self) -> Sequence[str]:
        """The choices as they are written."""
        return self._choices

    @cached_property
    def normal(self) -> str:
        return " ".join(self.reading.words)

    @cached_property
    def stems(self) -> frozenset[str]:
        return stems(self.reading.words)

    @cached_property
    def choices(self) -> frozenset[str]:
        return frozenset(_plain(choice) for choice in self._choices)

    @cached_property
    def answer(self) -> str | None:
        return None if self._answer is None else _plain(self._answer)

    @cached_property
    def answer_words(self) -> frozenset[str]:
        return _telling(self.answer or "")

    @cached_property
    def said(self) -> frozenset[str]:
        """The telling words of the row's answer and of its whole reply."""
        reply = " ".join(read_text(self._reply).words) if self._reply else ""
        return self.answer_words | _telling(reply)

    def same_choices(self, item: Compared) -> bool:
        """Whether the choices are those of the item, in any order."""
        return len(item.choices) > 1 and self.choices == item.choices

    def same_answer(self, item: Compared) -> bool:
        """Whether the right answer is the item's, or is named in the reply."""
        if not item.answer:
            return False
        return self.answer == item.answer or self._named(item) >= NAMED

    def answers_otherwise(self, item: Compared) -> bool:
        """Whether the row is known to have another answer than the item: the inverse problem is such a row.

        With the item's own choices and numbers it is the item with a wrong label; without numbers to tell, the same
        choices serve many questions. So two kinds of leaked items are not found: reworded, relabelled and with new
        wrong choices, all three; and, where there are no numbers, reworded and relabelled.
        """
        if not item.answer or len(item.answer_words) > SHORT_ANSWER or not self.said:
            return False
        if self.answer == item.answer or self._named(item) > NOT_NAMED:
            return False
        return not (item.reading.digits and self.same_choices(item))

    def _named(self, item: Compared) -> float:
        """Share of the words of the item's answer that the row's answer or reply has."""
        wanted = item.answer_words
        if self._choices and self.answer is not None:
            # a reply to a question with choices weighs all of them: only the labelled one counts
            said = frozenset[str]() if self.answer in item.choices else self.answer_words
        else:
            said = self.said
        return len(wanted & said) / len(wanted) if wanted else 0.0

    def has_same_choices_where_needed(self, item: Compared) -> bool:
        """Equal words mean the same question; a short one without numbers needs half of its choices, too."""
        telling = bool(item.reading.digits) or len(item.reading.words) >= TELLING_WORDS
        if telling or not item.choices or not self.choices:
            return True
        return len(self.choices & item.choices) * 2 >= len(item.choices)


def _plain_labels(question: str) -> str:
    """The text with Latin labels of choices where they are letters that only look so."""
    if question.isascii():
        return question
    question = compatible(question)
    if _OTHER_LABELS.search(question):
        return question
    return _LABEL.sub(lambda found: unmasked(found[0]), question)


def item_text(item: BenchmarkItem) -> Compared:
    """A benchmark item, its answer as text and not as a label."""
    answer = item.answer
    if item.choices and len(answer) == 1 and 0 <= ord(answer) - ord("A") < len(item.choices):
        answer = item.choices[ord(answer) - ord("A")]
    return Compared(read_text(item.question), item.choices, answer)


def jaccard(one: Sequence[str], other: Sequence[str]) -> float:
    """Words in common over all words, as sets."""
    first, second = set(one), set(other)
    return len(first & second) / len(first | second) if first or second else 0.0


def _telling(plain: str) -> frozenset[str]:
    return frozenset(word for word in plain.split() if word not in STOP_WORDS)


@lru_cache(maxsize=50_000)
def _plain(text: str) -> str:
    """A choice or an answer, in words: the same few come again and again."""
    return " ".join(read_text(text).words)
