"""Text with TeX as text with numbers: `$2\\times10^{-5}$` -> `2e-5`, `1,024` -> `1024`, `three epochs` -> `3 epochs`.

For finding things only; evidence keeps the text as it is in the paper.
"""

from __future__ import annotations

import re

__all__ = ["LOOSE_NUMBER", "numbers_in", "plain", "sentences"]

_MATH = re.compile(r"\$\$?([^$]*)\$\$?")
_WRAPPED = re.compile(
    r"\\(?:mathrm|mathbf|mathit|mathsf|mathcal|text|textbf|textit|texttt|operatorname|boldsymbol|bm)\s*\{([^{}]*)\}"
)
_SYMBOLS = {
    "times": "×",
    "cdot": "×",
    "pm": "±",
    "beta": "β",
    "epsilon": "ε",
    "varepsilon": "ε",
    "alpha": "α",
    "lambda": "λ",
    "gamma": "γ",
    "in": "∈",
    "approx": "≈",
    "sim": "~",
    "leq": "≤",
    "le": "≤",
    "geq": "≥",
    "ldots": "…",
    "dots": "…",
}
_COMMAND = re.compile(r"\\([A-Za-z]+)\s?")
_SCIENTIFIC = re.compile(r"(?<![\d.])(\d{1,15}(?:\.\d{1,15})?)\s?[×·x*]\s?10\s?\^?\s?\(?\s*(-\s?\d+|\d{1,2}(?!\d))\)?")
_POWER = re.compile(r"(?<![\d.])10\s?\^\s?(-?\s?\d{1,3})")
_CAPITAL_E = re.compile(r"(?<=\d)E(?=-?\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "sixteen": 16, "twenty": 20,
}  # fmt: skip
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)}|a single)\b(?=[ -]\w)", re.IGNORECASE)
LOOSE_NUMBER = re.compile(r"(?<![\w.])-?\d{1,15}(?:\.\d{1,15})?(?:e-?\d{1,3})?")
_ABBREVIATION = re.compile(
    r"(?:\b(?:al|e\.g|i\.e|vs|Fig|Figs|Tab|Eq|Sec|App|cf|max|min|approx|resp|No|ca|etc|Dr|Prof|St)|\b[A-Z])\.$"
)
_END = re.compile(r"(?<=[.!?])[)\]”\"]?\s+(?=[A-Z0-9(\[$“\"\\])")


def plain(text: str) -> str:
    """One line without TeX, with numbers as Python writes them."""
    text = _MATH.sub(lambda match: _untexed(match[1]), text)
    text = text.replace("−", "-").replace("–", "-").replace("\u2009", " ").replace("\xa0", " ").replace("\\%", "%")
    text = _THOUSANDS.sub("", text)
    text = _SCIENTIFIC.sub(lambda match: f"{match[1]}e{match[2].replace(' ', '')}", text)
    text = _POWER.sub(lambda match: f"1e{match[1].replace(' ', '')}", text)
    text = _CAPITAL_E.sub("e", text)
    text = _WORD.sub(lambda match: str(_WORDS.get(match[0].lower(), 1)), text)
    return " ".join(text.split())


def _untexed(tex: str) -> str:
    tex = tex.replace("\\%", "%").replace("{,}", ",").replace("\\,", " ").replace("\\ ", " ").replace("\\{", "(")
    tex = tex.replace("\\}", ")")
    for _ in range(4):
        tex, count = _WRAPPED.subn(r"\1", tex)
        if not count:
            break
    tex = _COMMAND.sub(lambda match: _SYMBOLS.get(match[1], " "), tex)
    tex = re.sub(r"\\[^A-Za-z]", " ", tex)
    return tex.replace("{", "").replace("}", "")


def numbers_in(text: str) -> list[float]:
    """All numbers of a text, after `plain`."""
    return [float(match) for match in LOOSE_NUMBER.findall(plain(text))]


def sentences(paragraph: str) -> list[str]:
    """Sentences of a paragraph; abbreviations and initials end none."""
    result: list[str] = []
    start = 0
    for match in _END.finditer(paragraph):
        # the last characters tell; to look at the whole piece again and again would take for ever on "A. A. A."
        if _ABBREVIATION.search(paragraph[max(start, match.end() - 24) : match.end()].strip().rstrip(')]”" ')):
            continue
        result.append(paragraph[start : match.end()].strip())
        start = match.end()
    if tail := paragraph[start:].strip():
        result.append(tail)
    return result
