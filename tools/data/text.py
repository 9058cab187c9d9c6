"""Words and numbers of a text, as all checks of this folder count them.

Texts are folded first: compatibility forms (full-width letters, ligatures), the digits of every script, invisible
characters. Chinese and Japanese are counted by characters, for want of spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

__all__ = ["STOP_WORDS", "content_words", "folded", "normalised", "number_of", "numbers", "tokens"]

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"\d+(?:\.\d+)?|[{_CJK}]|[^\W\d_{_CJK}]+", re.UNICODE)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?!\d|[^\W\d_]{1,8}\d)")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_RAISED = re.compile(r"[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_STOP_TEXT = """
a about after all also an and any are as at be been before both but by can could did do does each either else
every few find following for from give given gives had has have having he her his how i if in into is it its just
let like made make makes many may might more most much must no none not of off on one only or other our out over
per question same she should show so some such than that the their them then there these they this those through
to too two under up upon us use used using was we were what when where which while who whom whose why will with
would you your
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())


class _Plain(dict[int, str]):
    """A translation table that is filled as characters come: digits of any script, and signs with a plain twin."""

    def __missing__(self, code: int) -> str:
        digit = unicodedata.decimal(chr(code), None)
        self[code] = found = chr(code) if digit is None else str(digit)
        return found


_PLAIN = _Plain({0x2212: "-", 0x2010: "-", 0x2011: "-", 0x066B: ".", 0x066C: ",", 0x2019: "'", 0x2018: "'"})


def folded(text: str) -> str:
    """The text in lower case and in plain characters: `Ｆ = ٤٢ m·s⁻²` becomes `f = 42 m·s^-2`."""
    if text.isascii():
        return text.lower()
    raised = _RAISED.sub(lambda run: "^" + unicodedata.normalize("NFKC", run[0]), text)
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", raised)).translate(_PLAIN).lower()


def tokens(text: str) -> list[str]:
    """Lower-case words and numbers in order; punctuation is gone, `m/s2` is `m`, `s`, `2`."""
    return _TOKEN.findall(folded(text))


def normalised(text: str) -> str:
    """The tokens as one string: texts that differ in case, spaces or punctuation only become equal."""
    return " ".join(tokens(text))


def numbers(text: str) -> Counter[str]:
    """The numbers of a text as a multiset, 3.0 as 3; digits inside a word or unit (`m/s2`, `H2O`) are no numbers."""
    return Counter(_canonical(found) for found in _NUMBER.findall(folded(text)))


def number_of(text: str) -> str | None:
    """The one number of a short text such as a choice (`36`, `36 N`), or None where it has none or several."""
    found = _NUMBER.findall(folded(text))
    return _canonical(found[0]) if len(found) == 1 else None


def content_words(text: str) -> set[str]:
    """Words of two letters or more that are no stop words and no numbers, with a plural s cut off."""
    return {
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
        for word in tokens(text)
        if (len(word) > 1 or word > "\u3040") and word not in STOP_WORDS and not word[0].isdigit()
    }


def _canonical(number: str) -> str:
    plain = number.replace(",", "")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain
