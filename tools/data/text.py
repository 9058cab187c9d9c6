"""Words and numbers of a text, as all checks of this folder count them.

Texts are folded first: compatibility forms (full-width letters, ligatures), the digits of every script, invisible
characters. Chinese and Japanese are counted by characters, for want of spaces. For looking through a disguise there is
`unmasked`, which also makes one letter of all that look alike; where a Greek letter is a quantity of its own (`hν` is
not `hv`), as among the choices of a question, `folded` keeps them apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

__all__ = [
    "STOP_WORDS",
    "compatible",
    "content_words",
    "folded",
    "normalised",
    "number_of",
    "numbers",
    "tokens",
    "unmasked",
]

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"\d+(?:\.\d+)?|[{_CJK}]|[^\W\d_{_CJK}]+", re.UNICODE)
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?!\d|[^\W\d_]{1,8}\d)")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
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

# Small letters that look like a Latin one or whose capital does: Cyrillic, Greek, Armenian, Latin small capitals and
# strokes, Cherokee. From the confusables of Unicode (UTS 39), less those that would make two letters of one language
# the same (but for the rare Cyrillic shha): a text of another script keeps its words apart. Without the Greek mu, the
# sign of a millionth: 5 μm are not 5 mm.
_TWINS = {
    "a": "\u0430\u03b1\u0251\u1d00\u13aa", "b": "\u0432\u03b2\u0185\u0299\u13f4", "c": "\u0441\u1d04\u13df",
    "d": "\u0501\u0111\u1d05\u13a0", "e": "\u0435\u03b5\u1d07\u13ac", "f": "\u0192\ua730",
    "g": "\u0261\u0262\u0581\u13c0", "h": "\u04bb\u043d\u0127\u029c\u0570\u13bb",
    "i": "\u0456\u03b9\u0131\u0269\u026a\u13a5", "j": "\u0458\u03f3\u1d0a\u0575\u13ab",
    "k": "\u043a\u03ba\u1d0b\u13e6", "l": "\u04cf\u0142\u01c0\u029f\u056c\u13de", "m": "\u043c\u1d0d\u13b7",
    "n": "\u03b7\u043f\u0274\u0578", "o": "\u043e\u03bf\u00f8\u1d0f\u0585", "p": "\u0440\u03c1\u1d18\u13e2",
    "q": "\u051b\u0566", "r": "\u0433\u0280\u13d2", "s": "\u0455\ua731\u13da", "t": "\u0442\u03c4\u0167\u1d1b\u13a2",
    "u": "\u03c5\u028b\u1d1c\u057d", "v": "\u03bd\u0475\u1d20\u13d9", "w": "\u051d\u0461\u03c9\u1d21\u13b3",
    "x": "\u0445\u03c7", "y": "\u0443\u03b3\u028f", "z": "\u03b6\u1d22\u13c3",
}  # fmt: skip
_AMONG_LATIN = str.maketrans("\u0397\u039c\u039d\u03a5\u03c2", "HMNYc")
"""Greek letters that are left alone or are like another Latin letter where the word is Greek."""
_MIXED = re.compile("[^\\W\\d_]*[\u0397\u039c\u039d\u03a5\u03c2][^\\W\\d_]*")
_LATIN = re.compile("[A-Za-z]")
_PUT_UPON = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")


class _Unmasking(dict[int, str]):
    """A translation table that is filled as characters come: a Latin letter for its twins and for itself with marks
    upon it, in the same case; nothing for a mark that stands for itself."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        parts = unicodedata.normalize("NFD", letter)
        bare = _PUT_UPON.sub("", parts)
        found = bare and letter
        if len(bare) == 1 and (bare == letter or bare != parts):
            small = _LATIN_TWINS.get(bare.lower(), bare.lower())
            if small.isascii():
                found = small.upper() if bare != bare.lower() else small
        self[code] = found
        return found


# Cherokee letters are capitals in Unicode, and have small forms
_LATIN_TWINS = {twin.lower(): latin for latin, twins in _TWINS.items() for twin in twins}
_UNMASKING = _Unmasking()


def folded(text: str) -> str:
    """The text in lower case and in plain characters: `Ｆ = ٤٢ m·s⁻²` becomes `f = 42 m·s^-2`."""
    return compatible(text).lower()


def unmasked(text: str) -> str:
    """The text in plain characters and with Latin letters for all that look like them, marks upon letters gone:
    `Hοw fаst` in part Greek and Cyrillic, `H̶o̶w̶ fäst` and `Ｈow fast` become `How fast`.

    Text of another script changes alike wherever it stands: for comparing only, and not to be done twice.
    """
    plain = compatible(text)
    if plain.isascii():
        return plain
    plain = _MIXED.sub(lambda word: word[0].translate(_AMONG_LATIN) if _LATIN.search(word[0]) else word[0], plain)
    return plain.translate(_UNMASKING)


def compatible(text: str) -> str:
    """The text with its case and its letters, in plain signs and digits: `Ｆ = ٤٢ m·s⁻²` becomes `F = 42 m·s^-2`."""
    if text.isascii():
        return text
    raised = _RAISED.sub(lambda run: "^" + unicodedata.normalize("NFKC", run[0]), text)
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", raised)).translate(_PLAIN)


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
