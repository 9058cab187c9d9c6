"""Questions about geography, history and the kitchen: real facts, but not what gpqa-mini asks.

They fill one dataset of the catalogue, whose rows are clean, worked and useless for the target.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

__all__ = ["questions"]

Question = tuple[str, list[str], str, str]
"""Question, four choices, letter of the right one, one sentence of explanation without its full stop."""

CAPITALS = {
    "Argentina": "Buenos Aires", "Austria": "Vienna", "Belgium": "Brussels", "Bulgaria": "Sofia", "Chile": "Santiago",
    "Cuba": "Havana", "Denmark": "Copenhagen", "Egypt": "Cairo", "Estonia": "Tallinn", "Finland": "Helsinki",
    "France": "Paris", "Ghana": "Accra", "Greece": "Athens", "Hungary": "Budapest", "Iceland": "Reykjavik",
    "India": "New Delhi", "Ireland": "Dublin", "Italy": "Rome", "Japan": "Tokyo", "Kenya": "Nairobi",
    "Latvia": "Riga", "Lithuania": "Vilnius", "Mongolia": "Ulaanbaatar", "Nepal": "Kathmandu", "Norway": "Oslo",
    "Peru": "Lima", "Poland": "Warsaw", "Portugal": "Lisbon", "Romania": "Bucharest", "Serbia": "Belgrade",
    "Spain": "Madrid", "Sweden": "Stockholm", "Thailand": "Bangkok", "Tunisia": "Tunis", "Uruguay": "Montevideo",
}  # fmt: skip
EVENTS = {
    "the printing press of Gutenberg": 1450, "the first voyage of Columbus": 1492, "the theses of Luther": 1517,
    "the defeat of the Spanish Armada": 1588, "the Great Fire of London": 1666, "the storming of the Bastille": 1789,
    "the battle of Waterloo": 1815, "the opening of the Suez Canal": 1869, "the first modern Olympic Games": 1896,
    "the sinking of the Titanic": 1912, "the founding of the United Nations": 1945, "the first Moon landing": 1969,
    "the fall of the Berlin Wall": 1989, "the battle of Hastings": 1066, "the sealing of Magna Carta": 1215,
    "the fall of Constantinople": 1453,
}  # fmt: skip
METHODS = {
    "soften dried beans": "soak them overnight", "keep cut apples pale": "brush them with lemon juice",
    "thicken a sauce": "stir in starch and simmer", "peel tomatoes": "dip them into boiling water",
    "prove yeast dough": "leave it in a warm place", "test a cake": "prick it with a skewer",
    "clear a stock": "skim the foam off", "toast nuts": "stir them in a dry pan", "rest a roast": "cover it a while",
    "poach eggs": "slide them into hot water", "whip cream": "chill the bowl first", "ripen pears": "bag them up",
}  # fmt: skip
SPOONS = (
    ("teaspoons", "tablespoons", 3),
    ("tablespoons", "cups", 16),
    ("cups", "quarts", 4),
    ("pinches", "teaspoons", 8),
)


def _shuffled(right: str, wrong: list[str], rng: random.Random) -> tuple[list[str], str]:
    choices = [right, *wrong]
    rng.shuffle(choices)
    return choices, "ABCD"[choices.index(right)]


def _capital(rng: random.Random) -> Question:
    country = rng.choice(sorted(CAPITALS))
    right = CAPITALS[country]
    wrong = rng.sample(sorted(set(CAPITALS.values()) - {right}), 3)
    choices, letter = _shuffled(right, wrong, rng)
    asked = rng.choice(("What is the capital of {0}?", "Which city is the seat of government of {0}?"))
    return asked.format(country), choices, letter, f"The capital of {country} is {right}"


def _date(rng: random.Random) -> Question:
    event = rng.choice(sorted(EVENTS))
    right = EVENTS[event]
    wrong = rng.sample(sorted(set(EVENTS.values()) - {right}), 3)
    choices, letter = _shuffled(str(right), [str(year) for year in wrong], rng)
    asked = rng.choice(("In which year was {0}?", "When was {0}?"))
    return asked.format(event), choices, letter, f"History books date {event} to {right}"


def _method(rng: random.Random) -> Question:
    aim = rng.choice(sorted(METHODS))
    right = METHODS[aim]
    wrong = rng.sample(sorted(set(METHODS.values()) - {right}), 3)
    choices, letter = _shuffled(right, wrong, rng)
    asked = rng.choice(("How does a cook best {0}?", "What does a recipe advise to {0}?"))
    return asked.format(aim), choices, letter, f"To {aim}, {right}"


def _spoons(rng: random.Random) -> Question:
    small, large, factor = rng.choice(SPOONS)
    count = rng.randint(2, 12)
    right = count * factor
    wrong = rng.sample(sorted({right + factor, right - 1, right + 2, right - factor, right + 5} - {right}), 3)
    choices, letter = _shuffled(str(right), [str(number) for number in wrong], rng)
    asked = rng.choice(("How many {1} are in {0} {2}?", "A recipe needs {0} {2}. How many {1} is that?"))
    reason = f"There are {factor} {small} to the measure, so {count} {large} make {right}"
    return asked.format(count, small, large), choices, letter, reason


KINDS: tuple[Callable[[random.Random], Question], ...] = (_capital, _date, _method, _spoons)


def questions(count: int, rng: random.Random) -> Iterator[Question]:
    """`count` different questions (different in wording, facts or choices)."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while len(seen) < count:
        question = rng.choice(KINDS)(rng)
        key = (question[0], tuple(question[1]))
        if key not in seen:
            seen.add(key)
            yield question
