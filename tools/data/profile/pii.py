"""Hints at personal data and secrets in texts. What is matched is counted and replaced, and never kept or shown.

A first pass over an array (RE2, linear in the text) finds the few texts worth a closer look; then checksums decide
where there are some: Luhn for cards (ISO/IEC 7812), modulo 97 for IBANs (ISO 13616). These are hints: a phone number
cannot be told from other numbers with certainty, and names and addresses are not looked for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

import pyarrow.compute as pc

from posttrain_crew.redact import redact
from posttrain_crew.tools.data.profile.blocks import Leaf
from posttrain_crew.tools.data.profile.model import PiiHint

__all__ = ["PiiCounter", "mask"]

PiiKind = Literal["e-mail", "phone", "iban", "card number", "api key"]

_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}(?![\w-])"
)
_PHONE = re.compile(
    r"(?<![\w)+.])(?:\+\d{1,3}(?:[ .()/-]{1,2}\d{2,8}){1,5}|\+\d{9,15}|\(\d{3}\) ?\d{3}-\d{4}|\d{3}-\d{3}-\d{4})"
    r"(?![\w-])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,15}(?![\d-])")
_FIRST_LOOK: dict[PiiKind, str] = {
    "e-mail": r"[\w+-]@[A-Za-z0-9]",
    "phone": r"\+\d{1,3}[ .()/-]|\+\d{9}|\d{3}\)? ?-?\d{3}-\d{4}",
    "iban": r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11}",
    "card number": r"\d(?:[ -]?\d){12}",
    "api key": r"hf_[A-Za-z0-9]{20}|sk-[A-Za-z0-9_-]{16}|gh[pousr]_|github_pat_|A[KS]IA[A-Z0-9]{16}|"
    r"eyJ[A-Za-z0-9_-]{10}|earer |write_token=|api-key: |://[^/\s:@]+:[^/\s@]+@",
}
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20,
    "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27,
    "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "QA": 29,
    "RO": 24, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TR": 26, "UA": 29,
}  # fmt: skip


class PiiCounter:
    """Counts texts with hints, per kind and column, over all rows."""

    def __init__(self) -> None:
        self._found: Counter[tuple[PiiKind, str]] = Counter()

    def add(self, leaf: Leaf) -> None:
        """Look through the texts of a place."""
        for kind, pattern in _FIRST_LOOK.items():
            suspects = leaf.values.filter(pc.match_substring_regex(leaf.values, pattern))
            if len(suspects):
                self._found[kind, leaf.path] += sum(has(kind, text) for text in suspects.to_pylist())

    def result(self) -> list[PiiHint]:
        """Hints, most frequent first."""
        return [
            PiiHint(kind=kind, column=path, rows=count) for (kind, path), count in self._found.most_common() if count
        ]


def has(kind: PiiKind, text: str) -> bool:
    """Whether a text has a hint of a kind."""
    if kind == "api key":
        return redact(text, {}) != text
    pattern, check = _RULES[kind]
    return any(check(match[0]) for match in pattern.finditer(text))


def mask(text: str) -> str:
    """The text with every hint replaced by its kind in brackets."""
    for kind, (pattern, check) in _RULES.items():
        text = pattern.sub(lambda match, kind=kind, check=check: f"[{kind}]" if check(match[0]) else match[0], text)  # type: ignore[misc]
    return redact(text)


def _is_card(text: str) -> bool:
    digits = [int(char) for char in text if char.isdigit()]
    number = "".join(map(str, digits))
    known = (
        (len(digits) == 16 and (number[0] == "4" or "51" <= number[:2] <= "55" or "2221" <= number[:4] <= "2720"))
        or (len(digits) == 16 and (number[:4] == "6011" or number[:2] == "65"))
        or (len(digits) == 15 and number[:2] in ("34", "37"))
    )
    doubled = [digit if i % 2 == 0 else digit * 2 - 9 * (digit > 4) for i, digit in enumerate(reversed(digits))]
    return known and sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _is_iban(text: str) -> bool:
    compact = text.replace(" ", "")
    length = _IBAN_LENGTHS.get(compact[:2], 0)
    if not length or len(compact) < length:
        return False
    compact = compact[:length]
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    return 9 <= sum(char.isdigit() for char in text) <= 15


_RULES: dict[PiiKind, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "e-mail": (_EMAIL, lambda _: True),
    "iban": (_IBAN, _is_iban),
    "card number": (_CARD, _is_card),
    "phone": (_PHONE, _is_phone),
}
