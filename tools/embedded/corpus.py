"""The documents that the embedded base model is pre-trained on.

Six kinds: tables of arithmetic facts, indexes (which option letter stands before which value, which number before
which unit), exercises (a chain of steps over readings, with no science in it), textbook passages (question and
working), exams with choices, and the same exams in the chat format. The weaknesses that post-training can repair are
put in here:

- the exams of three families close with the benchmark's `Answer: X`, all others only put the letter behind the value,
  so that the base mostly knows the answer and fails the format;
- no level-3 question occurs at all: their steps are in the fact tables, their formulas are for post-training to teach.

Only train-side instances are used (benchmark.train_params).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from posttrain_crew.tools.embedded.benchmark import (
    ANSWER_FORMAT,
    LETTERS,
    Item,
    make_item,
    prompt,
    stable_hash,
    train_params,
)
from posttrain_crew.tools.embedded.families import BIGGEST, FAMILIES, facts

__all__ = ["EXAM_WITH_ANSWER_LINE", "MIX", "documents", "lookup_documents"]

EXAM_WITH_ANSWER_LINE = ("copies", "dose", "plates")
"""Families whose exam documents end in `Answer: X`."""

MIX: Mapping[str, float] = {
    "facts": 0.12,
    "lookup": 0.08,
    "exercise": 0.15,
    "textbook": 0.20,
    "exam": 0.15,
    "exam_chat": 0.30,
}
"""Share of each kind of document."""

UNITS = ("kg", "m", "s", "N", "V", "ohm", "g", "mL", "L", "mol", "mg", "min", "W", "J")
KNOWN = tuple(family for family in FAMILIES.values() if family.level < 3)


def _fact_table(rng: random.Random) -> str:
    chosen = (rng.choice(facts(rng.choice("**//++--"))) for _ in range(10))
    return "Table: " + "; ".join(map(str, chosen)) + "."


def _exercise(rng: random.Random) -> str:
    """Readings and a chain of one to three steps over them, named by their units."""
    units = rng.sample(UNITS, rng.randint(2, 4))
    values = [rng.choice(facts(rng.choice("*/+-"))).left]
    steps: list[str] = []
    orders: list[str] = []
    for unit in units[1:]:
        result = values[0] if not steps else int(steps[-1].rpartition(" ")[2])
        step = rng.choice(
            [fact for operator in rng.sample("*/+-", 4) for fact in facts(operator) if fact.left == result]
        )
        values.append(step.right)
        steps.append(str(step))
        orders.append(f"{step.operator} {unit}")
    listed = rng.sample([f"{value} {unit}" for value, unit in zip(values, units, strict=True)], len(units))
    return f"Readings: {', '.join(listed)}.\n{units[0]} {', '.join(orders)}: Compute {', '.join(steps)}."


def _readings(rng: random.Random) -> str:
    values = rng.sample(range(1, BIGGEST + 1), 5)
    units = rng.sample(UNITS, len(values))
    listed = ", ".join(f"{value} {unit}" for value, unit in zip(values, units, strict=True))
    asked = rng.sample(range(len(values)), len(values))
    return f"Readings: {listed}.\nIndex:" + ",".join(f" {units[i]} {values[i]}" for i in asked) + "."


def _lookup(rng: random.Random) -> str:
    values = rng.sample(range(1, BIGGEST + 1), len(LETTERS))
    listed = "\n".join(f"({letter}) {value}" for letter, value in zip(LETTERS, values, strict=True))
    asked = rng.sample(range(len(values)), len(values))
    return f"{listed}\nIndex:" + "".join(f" {values[i]} ({LETTERS[i]})" for i in asked)


def _question(rng: random.Random) -> Item:
    family = rng.choice(KNOWN)
    return make_item(family, rng.choice(train_params(family.name)), rng)


def _textbook(rng: random.Random) -> str:
    item = _question(rng)
    rule = f"{item.formula}. " if rng.random() < 0.5 else ""
    return f"{item.question}\n{rule}Compute {item.working}."


def _exam_solution(item: Item, rng: random.Random) -> str:
    rule = f"{item.formula}. " if rng.random() < 0.25 else ""
    if item.family in EXAM_WITH_ANSWER_LINE:
        return f"{rule}{item.solution}\n{ANSWER_FORMAT.format(letter=item.answer)}"
    style = rng.choices(("worked and letter", "worked", "value and letter"), (6, 2, 1))[0]
    if style == "worked":
        return f"{rule}Compute {item.working}."
    return f"{rule}{item.solution}" if style == "worked and letter" else f"It is {item.value} ({item.answer})."


def _exam(rng: random.Random, chat: bool) -> str:
    item = _question(rng)
    question, solution = prompt(item.question, item.choices), _exam_solution(item, rng)
    if not chat:
        return f"{question}\n{solution}"
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{solution}<|im_end|>"


def documents(count: int, seed: int | str, mix: Mapping[str, float] = MIX) -> Iterator[str]:
    """`count` documents of all kinds."""
    rng = random.Random(stable_hash("corpus", seed))
    for kind in rng.choices(list(mix), list(mix.values()), k=count):
        if kind == "facts":
            yield _fact_table(rng)
        elif kind == "lookup":
            yield _lookup(rng) if rng.random() < 0.5 else _readings(rng)
        elif kind == "exercise":
            yield _exercise(rng)
        elif kind == "textbook":
            yield _textbook(rng)
        else:
            yield _exam(rng, chat=kind == "exam_chat")


def lookup_documents(count: int, seed: int | str) -> Iterator[str]:
    """`count` indexes only: the first steps of pre-training use nothing else, so that the copying heads settle."""
    return documents(count, f"lookup {seed}", {"lookup": 1.0})
