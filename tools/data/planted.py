"""A contamination set with known truth: benchmark items in many disguises, and rows that only look like items.

For measuring what the contamination check finds and what it accuses wrongly, on any benchmark:
`python -m benchmarks.contamination`. The rules here share nothing with the check: it knows no synonyms, no names and no
frames of questions. Same items and seed, same rows.

Kinds that must be found: exact, reordered_choices, reworded, arabic_digits, devanagari_digits, fullwidth_digits,
spelled_numbers, thousands_separators, other_units, tex, html, powers_of_ten, lost_superscripts, cyrillic_letters,
greek_letters, styled_letters, invisible_marks. Kinds that must not: other_numbers (the same template with other
numbers).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from posttrain_crew.tools.data.reader import RawRow
from posttrain_crew.tools.sources import BenchmarkItem

__all__ = ["DISGUISES", "LETTERS", "dressed", "other_numbers", "plant", "reordered", "reworded", "spelled"]

LETTERS = "ABCDEFGHIJ"
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\d|[^\W\d_]{1,8}\d)")
_UNIT_POWER = re.compile(r"(?<=/)(s|m|cm)(2|3)\b")

_CYRILLIC = str.maketrans("aceijopsxyABCEHIJKMOPSTXY", "асеіјорѕхуАВСЕНІЈКМОРЅТХУ")
_GREEK = str.maketrans("aoivupkABEHIKMNOPTXYZ", "αοινυρκΑΒΕΗΙΚΜΝΟΡΤΧΥΖ")
_STYLES = (0xFF21, 0x1D400, 0x1D5D4, 0x1D670, 0x24B6)
"""Where capital A stands in full width, bold, bold without serifs, of one width, in circles; the others follow."""
_MARKS = "\u00ad\u200b\u200c\u2060\ufeff\u034f\u061c\u180e\u202c\u2063\U000e0061"

# fmt: off
_SYNONYMS = {
    "find": "determine", "covers": "travels", "cover": "travel", "moves": "travels", "speed": "velocity",
    "contains": "holds", "contain": "hold", "main": "chief", "reason": "cause", "always": "constantly",
    "shows": "presents", "observers": "viewers", "captures": "collects", "energy": "power", "stores": "keeps",
    "keeps": "retains", "ended": "concluded", "war": "conflict", "moved": "transferred", "side": "party",
    "promise": "pledge", "binding": "enforceable", "make": "produce", "makes": "produces", "exposed": "subjected",
    "call": "term", "many": "numerous", "single": "sole", "sets": "fixes", "price": "cost", "became": "turned",
    "nevertheless": "still", "finished": "completed", "famous": "renowned", "released": "given off",
    "reacts": "combines",
    "open": "uncovered", "flows": "runs", "reaches": "arrives at", "carries": "transports", "kind": "type",
    "forms": "arises", "changed": "altered", "deep": "far down", "returns": "gives back", "added": "inserted",
    "painted": "decorated", "reduces": "lowers", "produce": "generate", "drinks": "consumes", "passes": "excretes",
    "likely": "probably", "missing": "absent", "rejected": "discarded", "storm": "tempest", "lasted": "persisted",
    "smallest": "tiniest", "separates": "distinguishes", "explain": "describe", "floats": "swims", "city": "town",
    "lose": "give off", "small": "tiny", "openings": "pores", "says": "states", "wrote": "authored", "play": "drama",
    "avenges": "takes revenge for", "murder": "killing", "spelled": "written", "present": "gift", "gave": "donated",
    "name": "state", "fear": "dread", "narrow": "tight", "spaces": "places", "used": "employed", "old": "ancient",
    "long": "lengthy", "voyages": "journeys", "eat": "consume", "prepares": "readies", "later": "subsequent",
    "often": "frequently", "ends": "finishes", "sells": "offers", "costs": "is priced at", "money": "income",
    "earn": "make", "together": "in all", "rides": "travels", "average": "mean", "rectangular": "oblong",
    "needed": "required", "buys": "purchases", "pays": "settles the bill", "change": "money back", "get": "receive",
    "stretches": "lengthens", "hangs": "is suspended", "heated": "warmed", "rise": "increase", "people": "persons",
    "class": "group", "pupils": "students", "left": "remaining", "plants": "sets", "trees": "saplings", "die": "perish",
    "survive": "live on", "reads": "gets through", "earns": "makes", "worked": "laboured", "week": "seven-day span",
    "tank": "vessel", "fills": "tops up", "loses": "lets out", "shirt": "garment", "lowered": "cut", "new": "reduced",
    "sum": "total", "recipe": "dish", "leans": "rests", "high": "far up", "thrown": "rolled", "probability": "chance",
    "mass": "body", "force": "push", "current": "flow", "voltage": "tension", "object": "thing", "car": "vehicle",
    "box": "crate", "gives": "yields", "drives": "pushes", "cell": "unit", "cells": "units", "grows": "increases",
    "dissolves": "goes into solution", "water": "liquid", "gas": "vapour", "how": "how", "per": "for each",
    "number": "count", "total": "overall", "each": "every", "large": "big", "fast": "quick", "takes": "needs",
}
_NAMES = {
    "Olivia": "Maria", "Daniel": "Ahmed", "Grace": "Yuki", "Henry": "Pavel", "Emma": "Chioma", "Alice": "Ingrid",
    "Bob": "Rahul", "Monday": "Wednesday", "Tuesday": "Thursday",
}
_FRAMES = (
    (r"^What is the ", "Determine the "), (r"^What is ", "State "), (r"^Which ", "Identify which "),
    (r"^How many ", "Find the number of "), (r"^Who ", "Name the person who "), (r"^Why ", "Give the cause why "),
    (r"^What do you call ", "Give the term for "), (r"^What ", "Say what "), (r"^Find ", "What is "),
    (r"^Name ", "What is "), (r"^In ", "Considering "),
)
_POLITE = (
    ("Please help me with this one: ", ""),
    ("Hello! I would be glad if you could answer this. ", " Thank you very much!"),
    ("Here is a task from my revision sheet. ", ""), ("", " Please think it through step by step."),
    ("As a friendly tutor, kindly answer: ", " Thanks in advance."), ("", " I would be grateful for a short reply."),
)
_UNITS = {
    "km": (1000, "m"), "m": (100, "cm"), "cm": (10, "mm"), "kg": (1000, "g"), "grams": (1000, "mg"), "g": (1000, "mg"),
    "hours": (60, "minutes"), "hour": (60, "minutes"), "minutes": (60, "seconds"), "litres": (1000, "ml"),
    "s": (1000, "ms"),
}
# fmt: on
_ONES_TEXT = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_ONES = _ONES_TEXT.split()
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

Disguise = Callable[[BenchmarkItem, random.Random], BenchmarkItem | None]


def reordered(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """The choices in another order; None for an open question."""
    if len(item.choices) < 2:
        return None
    right = item.choices[LETTERS.index(item.answer)]
    choices = list(item.choices)
    while tuple(choices) == item.choices:
        rng.shuffle(choices)
    return replace(item, choices=tuple(choices), answer=LETTERS[choices.index(right)])


def reworded(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem:
    """Other words: synonyms, another frame, other names, clauses moved, politeness; the choices in another order."""
    text = item.question
    for name, other in _NAMES.items():
        text = re.sub(rf"\b{name}\b", other, text)

    def synonym(match: re.Match[str]) -> str:
        other = _SYNONYMS.get(match[0].lower())
        if other is None or rng.random() > 0.7:
            return match[0]
        return other.capitalize() if match[0][0].isupper() else other

    parts = re.split(r"(?<=[.?!;]) ", text)
    for i, part in enumerate(parts):
        for pattern, frame in _FRAMES:
            changed = re.sub(pattern, frame, part)
            if changed != part:
                parts[i] = changed.rstrip("?") + "."
                break
    if len(parts) > 1 and rng.random() < 0.5:
        parts = [*parts[-1:], *parts[:-1]]  # the question first, what is given after it
    elif (
        len(parts) == 1
        and rng.random() < 0.5
        and (cut := re.search(r" (?:when|if|that|so that|before|to|of|in) ", text))
    ):
        body = parts[0].rstrip(".?")
        if (cut := re.search(r" (?:when|if|that|so that|before|with|on) ", body)) is not None:
            parts = [f"Given{body[cut.start() :]}: {body[: cut.start()]}."]
    text = re.sub(r"[A-Za-z]+", synonym, " ".join(parts))
    if rng.random() < 0.5:
        before, after = rng.choice(_POLITE)
        text = before + text + after
    return replace(reordered(item, rng) or item, question=text)


def spelled(number: str) -> str:
    """A number below a thousand million in English words, `40.5` as `forty point five`."""
    whole, _, decimals = number.partition(".")
    text = _spelled_whole(int(whole))
    return f"{text} point {' '.join(_ONES[int(digit)] for digit in decimals)}" if decimals else text


def _spelled_whole(value: int) -> str:
    if value < 20:
        return _ONES[value]
    if value < 100:
        return _TENS[value // 10] + (f"-{_ONES[value % 10]}" if value % 10 else "")
    if value < 1000:
        return f"{_ONES[value // 100]} hundred" + (f" and {_spelled_whole(value % 100)}" if value % 100 else "")
    if value >= 1_000_000:
        rest = value % 1_000_000
        return f"{_spelled_whole(value // 1_000_000)} million" + (f" {_spelled_whole(rest)}" if rest else "")
    rest = value % 1000
    return f"{_spelled_whole(value // 1000)} thousand" + (f" {_spelled_whole(rest)}" if rest else "")


def _in_digits(zero: str) -> Disguise:
    table = {ord("0") + i: chr(ord(zero) + i) for i in range(10)}

    def disguise(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
        question = _NUMBER.sub(lambda found: found[0].translate(table), item.question)
        if question == item.question:
            return None
        choices = tuple(choice.translate(table) for choice in item.choices)
        return replace(item, question=question, choices=choices)

    return disguise


def _spelled_numbers(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    question = _NUMBER.sub(lambda found: spelled(found[0]), item.question)
    return None if question == item.question else replace(item, question=question)


def _separated(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    mark = rng.choice((",", " ", "\u202f", "'"))
    question = re.sub(r"(?<![\d.])\d{4,}(?!\d)", lambda found: f"{int(found[0]):,}".replace(",", mark), item.question)
    return None if question == item.question else replace(item, question=question)


def _other_units(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """Every measure that stands alone (`3 km`, not `3 km per hour`) in a smaller unit."""

    def smaller(found: re.Match[str]) -> str:
        factor, unit = _UNITS[found[2]]
        return f"{float(found[1]) * factor:g} {unit}" if float(found[1]) * factor < 1e6 else found[0]

    names = "|".join(sorted(_UNITS, key=len, reverse=True))
    question = re.sub(rf"(?<![\w.])(\d+(?:\.\d+)?) ({names})\b(?! ?/| per\b)", smaller, item.question)
    return None if question == item.question else replace(item, question=question)


def _in_tex(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """Numbers as formulas, powers of units in braces, choices in dollars."""
    question = _NUMBER.sub(lambda found: f"$\\mathrm{{{found[0]}}}\\,$", item.question)
    question = _UNIT_POWER.sub(r"\1^{\2}", question)
    choices = tuple(f"${choice}$" for choice in item.choices)
    return None if question == item.question else replace(item, question=question, choices=choices)


def _in_html(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    question = _NUMBER.sub(lambda found: f"<b>{found[0]}</b>", item.question).replace(" the ", "&nbsp;<i>the</i> ")
    question = _UNIT_POWER.sub(r"\1<sup>\2</sup>", question)
    return None if question == item.question else replace(item, question=f"<p>{question}</p>")


def _powers_of_ten(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """`48` as `4.8e1`, `4.8 x 10^1` or `$4.8\\times10^{1}$`."""
    forms = ("{}e{}", "{} x 10^{}", "${}\\times10^{{{}}}$", "{}\u00b710<sup>{}</sup>")

    def written(found: re.Match[str]) -> str:
        mantissa, _, exponent = f"{Decimal(found[0]):.12e}".partition("e")
        return rng.choice(forms).format(mantissa.rstrip("0").rstrip("."), int(exponent))

    question = _NUMBER.sub(written, item.question)
    return None if question == item.question else replace(item, question=question)


def _lost_superscripts(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """Numbers of two digits or more as powers of ten out of a printed page: `48` as `4.8 × 101`, `0.12` as `1.2×10-1`.

    Raised digits stand in line after copying; the benchmark itself has them raised in `m/s^2`, or not, as it likes.
    """
    forms = ("{} × 10{}", "{}×10{}", "{}·10{}")

    def written(found: re.Match[str]) -> str:
        mantissa, _, exponent = f"{Decimal(found[0]):.12e}".partition("e")
        return rng.choice(forms).format(mantissa.rstrip("0").rstrip("."), int(exponent)) if int(exponent) else found[0]

    question = _NUMBER.sub(written, item.question)
    return None if question == item.question else replace(item, question=question)


def _letters(item: BenchmarkItem, change: Callable[[str], str]) -> BenchmarkItem | None:
    """The item with letters of question and choices changed, one by one; None where none changes."""
    question, *choices = ("".join(map(change, text)) for text in (item.question, *item.choices))
    return None if question == item.question else replace(item, question=question, choices=tuple(choices))


def _look_alikes(table: dict[int, int]) -> Disguise:
    """A share of the letters, a tenth to all, as letters of another script that look the same."""

    def disguise(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
        share = rng.choice((0.1, 0.5, 1.0))
        return _letters(item, lambda letter: letter.translate(table) if rng.random() < share else letter)

    return disguise


def _styled(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """Letters in full width, as mathematical letters or in circles."""
    capital = rng.choice(_STYLES)

    def change(letter: str) -> str:
        if not (letter.isascii() and letter.isalpha()):
            return letter
        small = 0x20 if capital == 0xFF21 else 26
        return chr(capital + ord(letter.upper()) - ord("A") + (small if letter.islower() else 0))

    return _letters(item, change)


def _with_marks(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """Marks without width between the letters, and a stroke or a dot put upon some."""
    marks = (*_MARKS, "\u0336", "\u0307")
    return _letters(
        item, lambda letter: letter + rng.choice(marks) if letter.isalpha() and rng.random() < 0.3 else letter
    )


def other_numbers(item: BenchmarkItem, rng: random.Random) -> BenchmarkItem | None:
    """The same template with other numbers: another question. None where there are no numbers."""
    # far enough that the row is not by chance the next item of a templated benchmark
    changed = _NUMBER.sub(lambda found: f"{float(found[0]) + rng.randint(150, 400):.10g}", item.question)
    if changed == item.question:
        return None
    choices = tuple(_NUMBER.sub(lambda found: f"{float(found[0]) + rng.randint(2, 9):g}", c) for c in item.choices)
    answer = item.answer if item.choices else _NUMBER.sub(lambda found: f"{float(found[0]) + 7:g}", item.answer)
    return replace(item, question=changed, choices=choices, answer=answer)


DISGUISES: dict[str, Disguise] = {
    "exact": lambda item, rng: item,
    "reordered_choices": reordered,
    "reworded": reworded,
    "arabic_digits": _in_digits("\u0660"),
    "devanagari_digits": _in_digits("\u0966"),
    "fullwidth_digits": _in_digits("\uff10"),
    "spelled_numbers": _spelled_numbers,
    "thousands_separators": _separated,
    "other_units": _other_units,
    "tex": _in_tex,
    "html": _in_html,
    "powers_of_ten": _powers_of_ten,
    "lost_superscripts": _lost_superscripts,
    "cyrillic_letters": _look_alikes(_CYRILLIC),
    "greek_letters": _look_alikes(_GREEK),
    "styled_letters": _styled,
    "invisible_marks": _with_marks,
}


@dataclass(frozen=True)
class _Shown:
    prompt: str
    reply: str


def _shown(item: BenchmarkItem) -> _Shown:
    if not item.choices:
        return _Shown(item.question, item.answer)
    lines = "\n".join(f"({LETTERS[i]}) {choice}" for i, choice in enumerate(item.choices))
    right = item.choices[LETTERS.index(item.answer)]
    return _Shown(f"{item.question}\n{lines}", f"It is {right}.\nAnswer: {item.answer}")


def dressed(item: BenchmarkItem, dress: int) -> RawRow:
    """An item as a row of a dataset, in one of six formats (`dress` modulo 6)."""
    shown = _shown(item)
    rows: tuple[RawRow, ...] = (
        {"question": item.question, "choices": list(item.choices), "answer": item.answer}
        if item.choices
        else {"question": item.question, "answer": item.answer},
        {"messages": [{"role": "system", "content": "You answer questions."}, {"role": "user", "content": shown.prompt},
                      {"role": "assistant", "content": shown.reply}]},
        {"conversations": [{"from": "human", "value": shown.prompt}, {"from": "gpt", "value": shown.reply}]},
        {"prompt": shown.prompt, "completion": shown.reply},
        {"instruction": "Answer the question.", "input": shown.prompt, "output": shown.reply},
        {"prompt": [{"role": "user", "content": shown.prompt}],
         "chosen": [{"role": "assistant", "content": shown.reply}],
         "rejected": [{"role": "assistant", "content": "I do not know."}]},
    )  # fmt: skip
    return rows[dress % len(rows)]


def plant(items: Sequence[BenchmarkItem], kind: str, seed: int) -> list[RawRow]:
    """Rows of one kind from all items that allow it, in six formats by turns. Raises KeyError for an unknown kind."""
    disguise = DISGUISES[kind] if kind != "other_numbers" else other_numbers
    rows: list[RawRow] = []
    for item in items:
        changed = disguise(item, random.Random(f"{seed} {kind} {item.id}"))
        if changed is not None:
            rows.append(dressed(changed, len(rows)))
    return rows
