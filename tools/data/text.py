"""Words and numbers of a text, as all checks of this folder count them."""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["STOP_WORDS", "content_words", "normalised", "number_of", "numbers", "tokens"]

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+", re.UNICODE)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?!\d|[^\W\d_]{1,8}\d)")
_STOP_TEXT = """
a about after all also an and any are as at be been before both but by can could did do does each either else
every few find following for from give given gives had has have having he her his how i if in into is it its just
let like made make makes many may might more most much must no none not of off on one only or other our out over
per question same she should show so some such than that the their them then there these they this those through
to too two under up upon us use used using was we were what when where which while who whom whose why will with
would you your
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())


def tokens(text: str) -> list[str]:
    """Lower-case words and numbers in order; punctuation is gone, `m/s2` is `m`, `s`, `2`."""
    return _TOKEN.findall(text.lower())


def normalised(text: str) -> str:
    """The tokens as one string: texts that differ in case, spaces or punctuation only become equal."""
    return " ".join(tokens(text))


def numbers(text: str) -> Counter[str]:
    """The numbers of a text as a multiset, 3.0 as 3; digits inside a word or unit (`m/s2`, `H2O`) are no numbers."""
    return Counter(_canonical(found) for found in _NUMBER.findall(text))


def number_of(text: str) -> str | None:
    """The one number of a short text such as a choice (`36`, `36 N`), or None where it has none or several."""
    found = _NUMBER.findall(text)
    return _canonical(found[0]) if len(found) == 1 else None


def content_words(text: str) -> set[str]:
    """Words of two letters or more that are no stop words and no numbers, with a plural s cut off."""
    return {
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
        for word in tokens(text)
        if len(word) > 1 and word not in STOP_WORDS and not word[0].isdigit()
    }


def _canonical(number: str) -> str:
    plain = number.replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
