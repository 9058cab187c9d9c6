"""A text as the contamination check reads it: its words with every number in one form, and the numbers themselves.

`Forty-two`, `４２`, `٤٢` and `42.0` are the same word, so are `12,000`, `12 000` and `12'000`, `1.5e-3`, `1.5 x 10^-3`
and `0.0015`, and `kilograms` after a number is `kg`; TeX and HTML are taken off (markup.py), and letters that look like
Latin ones are Latin (text.unmasked). Values are kept in three
ways, because a text in other words may spell a number or change its unit:

    digits   written with digits
    spelled  written as words; `one` is a pronoun as often as a number, so that a 1 counts among digits only
    scaled   all of them, in the base unit where a metric unit follows: `3 km` and `3000 m` are both 3000
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property, lru_cache

from posttrain_crew.tools.data.markup import unmarked, written_out
from posttrain_crew.tools.data.text import STOP_WORDS, unmasked

__all__ = ["NumberKey", "Reading", "read_text", "stems"]

NumberKey = tuple[str, ...]
"""Numbers in canonical form, sorted, with repeats."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"\d+(?:\.\d+)?|[{_CJK}]|[^\W\d_{_CJK}]+")
_VALUE = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\d|[^\W\d_]{1,8}\d)")
_GROUPED = re.compile(r"(?<=\d)[,'_](?=\d{3}(?!\d))")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d|[.,]\d{3})")
_DOTTED = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{3}){2,}(?![\d.])")
_DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d{1,2}\s?[a-z%°])")
_POWER = re.compile(r"(?<=[a-z])\^\{?[+-]?(\d+)\}?")
_LOST_POWER = re.compile(r"(?<![a-z])(mol|cm|dm|mm|nm|km|kg|hz|ms|ml)-([1-4])(?![\w.-])")
"""`mol-1`: a power that lost its raised place. Units of one letter stay: `k-1` is a number less than k."""
_JOINT = re.compile(r"\d[,'_. ]\d|\^|[lmgzs]-\d")
_DIGIT = re.compile(r"\d")

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_ONES.split())}
_SMALL |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_GREAT = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_NUMBER_WORDS = frozenset(_SMALL) | frozenset(_GREAT)

_PREFIXES = {"n": 1e-9, "u": 1e-6, "μ": 1e-6, "m": 1e-3, "c": 1e-2, "d": 1e-1, "": 1.0, "k": 1e3}
_PREFIX_NAMES = {"nano": "n", "micro": "u", "milli": "m", "centi": "c", "deci": "d", "": "", "kilo": "k"}
_BASES = {
    "m": ("metre", "meter"), "g": ("gram", "gramme"), "s": ("second", "sec"), "l": ("litre", "liter"), "j": ("joule",),
    "w": ("watt",), "v": ("volt",), "a": ("ampere", "amp"), "n": ("newton",), "pa": ("pascal",), "hz": ("hertz",),
    "mol": ("mole",), "ohm": ("ohm",),
}  # fmt: skip
_SCALE: dict[str, float] = {prefix + base: factor for base in _BASES for prefix, factor in _PREFIXES.items()} | {
    "min": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "day": 86400.0,
    "week": 604800.0,
    "t": 1e6,
}
_SYMBOLS: dict[str, str] = {
    long_prefix + name + plural: prefix + base
    for base, names in _BASES.items()
    for name in names
    for long_prefix, prefix in _PREFIX_NAMES.items()
    for plural in ("", "s")
} | {"minute": "min", "minutes": "min", "hour": "h", "hours": "h", "hrs": "h", "days": "day", "weeks": "week",
     "tonne": "t", "tonnes": "t", "kgs": "kg", "secs": "s", "mins": "min"}  # fmt: skip
_UNIT = "|".join(sorted(map(re.escape, _SCALE.keys() | _SYMBOLS.keys()), key=len, reverse=True))
_MEASURED = re.compile(
    rf"(?<![\d.])(-?\d+(?:\.\d+)?)\s*({_UNIT})(?![a-z])(?:\s*(?:/|\bper\b)\s*({_UNIT})(?![a-z])\d?)?"
)
_RESCALED = re.compile(
    r"\d\s*(?:{0})(?![a-z])|(?:/|\bper)\s*(?:{0})(?![a-z])".format(
        "|".join(unit for unit in _UNIT.split("|") if _SCALE[_SYMBOLS.get(unit, unit)] != 1.0)
    )
)
STEM = 6


@dataclass(frozen=True)
class Reading:
    """A text for comparison."""

    words: tuple[str, ...]
    digits: NumberKey
    spelled: NumberKey
    scaled: NumberKey

    @cached_property
    def every(self) -> NumberKey:
        """All numbers, however they are written, but for 1."""
        return tuple(sorted(value for value in (*self.digits, *self.spelled) if value != "1"))

    @cached_property
    def every_counted(self) -> Counter[str]:
        """`every` as a multiset."""
        return Counter(self.every)

    @property
    def keys(self) -> tuple[NumberKey, ...]:
        """The number keys under which another text may have the same numbers; empty without numbers."""
        if not self.digits and not self.spelled:
            return ()
        return tuple(dict.fromkeys(key for key in (self.digits, self.every, self.scaled) if key))

    def has_the_numbers_of(self, other: Reading) -> bool:
        """Whether both texts may speak of the same numbers: each has the other's digits, in digits or in words.

        A number that only one of them spells (`which two ...`) does not matter, one that each has for itself does.
        """
        if self.digits == other.digits and self.spelled == other.spelled:
            return True
        mine, its = self.every_counted, other.every_counted
        one_sided = not mine - its or not its - mine
        if one_sided and not (_without_one(self.digits) - its) and not (_without_one(other.digits) - mine):
            return True
        return bool(self.scaled) and self.scaled == other.scaled


def read_text(text: str) -> Reading:
    """Words and numbers of a text."""
    plain = unmarked(unmasked(text).lower())
    digits: NumberKey = ()
    spelled: list[str] = []
    if _DIGIT.search(plain) is not None:
        plain = written_out(_digits_joined(plain))
        digits = tuple(sorted(map(_canonical, _VALUE.findall(plain))))
    words = _TOKEN.findall(plain)
    if not _NUMBER_WORDS.isdisjoint(words):
        plain, spelled = _unspelled(plain)
        words = _TOKEN.findall(plain)
    if not digits and not spelled:
        return Reading(tuple(words), (), (), ())
    if not _SYMBOLS.keys().isdisjoint(words):
        words = [_SYMBOLS.get(w, w) if words[i - 1][0].isdigit() and i else w for i, w in enumerate(words)]
    found = tuple(_canonical(word) if "." in word else word for word in words)
    scaled = _scaled(plain, [*digits, *spelled])
    return Reading(found, digits, tuple(sorted(value for value in spelled if value != "1")), scaled)


def _without_one(values: NumberKey) -> Counter[str]:
    return Counter(value for value in values if value != "1")


def stems(words: tuple[str, ...]) -> frozenset[str]:
    """The words that carry meaning, by their stems: no stop words, no numbers, endings cut, six letters at most."""
    return frozenset(
        _stem(word)
        for word in words
        if word not in STOP_WORDS and not word[0].isdigit() and (len(word) > 1 or word > "\u3040")
    )


@lru_cache(maxsize=200_000)
def _stem(word: str) -> str:
    """`moves`, `moved`, `moving` become `mov`; `acceleration` and `accelerates` become `accele`."""
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            return word[: -len(ending)][:STEM]
    return word[:STEM]


def _digits_joined(plain: str) -> str:
    """Thousands separators gone, decimal commas as points, powers of units as in `s2`."""
    if _JOINT.search(plain) is None:
        return plain
    plain = _GROUPED.sub("", plain)
    plain = _SPACED.sub(lambda run: run[0].replace(" ", ""), plain)
    plain = _DOTTED.sub(lambda run: run[0].replace(".", ""), plain)
    return _LOST_POWER.sub(r"\1\2", _POWER.sub(r"\1", _DECIMAL_COMMA.sub(".", plain)))


_RUN = re.compile(
    r"\b(?:{0})(?:(?:[\s-]+|\s+and\s+)(?:{0})){{0,12}}(?:\s+point(?:\s+(?:{1})){{1,12}})?\b".format(
        "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True)),
        "|".join(word for word, value in _SMALL.items() if value < 10),
    )
)


def _unspelled(plain: str) -> tuple[str, list[str]]:
    """The text with its number words as digits, and their values."""
    values: list[str] = []

    def digits(run: re.Match[str]) -> str:
        whole, _, decimals = run[0].partition(" point ")
        found = _values(re.split(r"[\s-]+", whole))
        texts = [str(value) for value in found]
        if decimals:
            texts[-1] = _canonical(f"{texts[-1]}.{''.join(str(_SMALL[word]) for word in decimals.split())}")
        values.extend(texts)
        return " ".join(texts)

    return _RUN.sub(digits, plain), values


def _values(words: list[str]) -> list[int]:
    """`two hundred and five` is [205]; `three five` is [3, 5]."""
    found: list[int] = []
    total, part, last = 0, -1, 0  # part -1: nothing yet; last: the value of the word before
    for word in words:
        if word == "and":
            if last < 100:  # `twenty and nine` are two numbers, `two hundred and nine` is one
                found.append(total + part)
                total, part, last = 0, -1, 0
            continue
        if word in _GREAT:
            if _GREAT[word] == 100:
                part = max(part, 1) * 100
            else:
                total, part = total + max(part, 1) * _GREAT[word], 0
            last = _GREAT[word]
            continue
        value = _SMALL[word]
        follows = part < 0 or last >= 100 or (20 <= last < 100 and 0 < value < 10)
        if not follows:
            found.append(total + part)
            total, part = 0, -1
        part, last = max(part, 0) + value, value
    return [*found, total + max(part, 0)]


def _scaled(plain: str, every: list[str]) -> NumberKey:
    """All numbers, those before a metric unit in its base unit, ten digits."""
    if _RESCALED.search(plain) is None:
        return tuple(sorted(_ten_digits(value) for value in every if value != "1"))
    values: list[str] = []

    def base(match: re.Match[str]) -> str:
        unit, per = (_SYMBOLS.get(name, name) if name else "" for name in (match[2], match[3]))
        values.append(f"{float(match[1][:300]) * _SCALE.get(unit, 1.0) / _SCALE.get(per, 1.0):.10g}")
        return " "

    rest = _MEASURED.sub(base, plain)
    values += map(_ten_digits, _VALUE.findall(rest))
    return tuple(sorted(value for value in values if value != "1"))


def _ten_digits(number: str) -> str:
    """A number as those with a unit are written: `0.000000001` is `1e-09`."""
    return f"{float(number[:300]):.10g}"


def _canonical(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number
