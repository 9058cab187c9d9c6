"""The question families of gpqa-mini, as data: wordings, formula and calculation of 24 kinds of science question.

A family is a template with up to four whole numbers; eight families in each of three domains. Level 1 takes one step,
level 2 two; level 3 takes two or three in an order that no level-1 or level-2 family has, and the base model's
pre-training documents (corpus.py) never show it: a model that answers level 3 has learnt it in post-training.

A calculation is a little program, `"a + b; r1 * c"`: letters are the parameters, `r1` is the result of the first step.
A parameter tuple belongs to a family when every step is one of the table facts (`is_fact`), so that all arithmetic is
recall of a closed table and what is measured is which facts to combine, and in which order.

Left out on purpose: fractions, decimals, units that need conversion, anything beyond 150.

    python -m posttrain_crew.tools.embedded.families      # one example of each family
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

__all__ = ["BIGGEST", "FAMILIES", "Family", "Step", "facts", "instances", "is_fact"]

BIGGEST = 150
"""No number in a question, a working or a choice is above this."""


@dataclass(frozen=True)
class Step:
    """One line of a working: `left operator right = result`, all whole numbers in 1..BIGGEST."""

    left: int
    operator: str
    """`+`, `-`, `*` or `/` (exact division)."""
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right} = {self.result}"


@dataclass(frozen=True)
class Family:
    """A kind of question: everything needed to write any of its instances."""

    name: str
    domain: str
    """`physics`, `chemistry` or `biology`."""
    level: int
    """1, 2 or 3, see the module docstring."""
    formula: str
    """The rule in words, as a textbook has it."""
    program: str
    """The calculation over the parameters, e.g. `"a + b; r1 * c"`."""
    ranges: tuple[tuple[int, int], ...]
    """First and last value of each parameter, in order a, b, c, d."""
    wordings: tuple[str, ...]
    """At least three phrasings of the same question, with `{a}` .. `{d}` for the numbers."""

    def steps(self, params: tuple[int, ...]) -> tuple[Step, ...] | None:
        """The working for `params`, or None when one of its steps is not a table fact."""
        values = dict(zip("abcd", params, strict=False))
        steps: list[Step] = []
        for line in self.program.split("; "):
            left, operator, right = line.split(" ")
            step = _step(values[left], operator, values[right])
            if step is None:
                return None
            steps.append(step)
            values[f"r{len(steps)}"] = step.result
        return tuple(steps)

    def question(self, params: tuple[int, ...], wording: int) -> str:
        """The question text in one of the wordings."""
        return self.wordings[wording].format(**dict(zip("abcd", params, strict=False)))


def _step(left: int, operator: str, right: int) -> Step | None:
    if not is_fact(left, operator, right):
        return None
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[operator]
    return Step(left, operator, right, result)


def is_fact(left: int, operator: str, right: int) -> bool:
    """Whether `left operator right` is in the arithmetic table that the base model has read."""
    if operator == "*":
        return 2 <= left <= 12 and 2 <= right <= 12
    if operator == "/":
        return 2 <= right <= 12 and left % right == 0 and 2 <= left // right <= 12
    if operator == "+":
        return 2 <= left <= 40 and 2 <= right <= 9
    return 2 <= right <= 9 and 2 <= left - right <= 40


@cache
def facts(operator: str) -> tuple[Step, ...]:
    """All table facts of one operator, in a fixed order."""
    steps = (_step(left, operator, right) for left, right in product(range(2, BIGGEST + 1), range(2, 13)))
    return tuple(step for step in steps if step is not None)


@cache
def instances(family: Family) -> tuple[tuple[int, ...], ...]:
    """Every parameter tuple of a family with a working made of facts, in lexicographic order."""
    spans = [range(first, last + 1) for first, last in family.ranges]
    return tuple(params for params in product(*spans) if family.steps(params) is not None)


SMALL = (2, 12)
DIGIT = (2, 9)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        # ---- level 1: one step
        Family(
            "force", "physics", 1, "force = mass * acceleration", "a * b", (SMALL, SMALL),
            (
                "A {a} kg mass accelerates at {b} m/s2. What is the force in N?",
                "What force in N gives a {a} kg mass an acceleration of {b} m/s2?",
                "Find the force in N on a {a} kg mass that accelerates at {b} m/s2.",
            ),
        ),
        Family(
            "ohm", "physics", 1, "voltage = current * resistance", "a * b", (SMALL, SMALL),
            (
                "A current of {a} A flows in a {b} ohm resistor. What is the voltage in V?",
                "What voltage in V drives {a} A in a {b} ohm resistor?",
                "Find the voltage in V over a {b} ohm resistor if the current is {a} A.",
            ),
        ),
        Family(
            "speed", "physics", 1, "speed = distance / time", "a / b", ((4, 144), SMALL),
            (
                "A car covers {a} m in {b} s. What is the speed in m/s?",
                "What is the speed in m/s of a car that covers {a} m in {b} s?",
                "In {b} s a car covers {a} m. Find the speed in m/s.",
            ),
        ),
        Family(
            "density", "chemistry", 1, "density = mass / volume", "a / b", ((4, 144), SMALL),
            (
                "A sample of {a} g fills {b} mL. What is the density in g/mL?",
                "What is the density in g/mL of a {a} g sample that fills {b} mL?",
                "Find the density in g/mL if {b} mL of a sample have {a} g.",
            ),
        ),
        Family(
            "nucleons", "chemistry", 1, "mass number = protons + neutrons", "a + b", ((2, 40), DIGIT),
            (
                "An atom has {a} protons and {b} neutrons. What is the mass number?",
                "What is the mass number of an atom with {a} protons and {b} neutrons?",
                "Find the mass number if an atom has {b} neutrons and {a} protons.",
            ),
        ),
        Family(
            "neutrons", "chemistry", 1, "neutrons = mass number - protons", "a - b", ((4, 49), DIGIT),
            (
                "An atom has mass number {a} and {b} protons. How many neutrons does it have?",
                "How many neutrons does an atom with mass number {a} and {b} protons have?",
                "An atom has {b} protons and mass number {a}. Find the neutrons.",
            ),
        ),
        Family(
            "copies", "biology", 1, "copies = cells * copies per cell", "a * b", (SMALL, SMALL),
            (
                "A colony has {a} cells and each cell makes {b} copies. How many copies are made?",
                "How many copies are made by {a} cells if each makes {b} copies?",
                "Each of {a} cells makes {b} copies. Find the copies made.",
            ),
        ),
        Family(
            "dose", "biology", 1, "dose = rate * mass", "a * b", (SMALL, SMALL),
            (
                "A dose is {a} mg per kg. What is the dose in mg for a {b} kg animal?",
                "What dose in mg is needed for a {b} kg animal at {a} mg per kg?",
                "Find the dose in mg that a {b} kg animal gets at {a} mg per kg.",
            ),
        ),
        # ---- level 2: two steps
        Family(
            "series", "physics", 2, "voltage = (r1 + r2) * current", "a + b; r1 * c", (DIGIT, DIGIT, SMALL),
            (
                "Resistors of {a} ohm and {b} ohm are in series with a current of {c} A. What is the voltage in V?",
                "What voltage in V drives {c} A in resistors of {a} ohm and {b} ohm in series?",
                "Find the voltage in V if {c} A flow in series resistors of {a} ohm and {b} ohm.",
            ),
        ),
        Family(
            "netforce", "physics", 2, "acceleration = (f1 + f2) / mass", "a + b; r1 / c", ((2, 40), DIGIT, SMALL),
            (
                "Forces of {a} N and {b} N push the same way on a {c} kg mass. What is the acceleration in m/s2?",
                "What is the acceleration in m/s2 of a {c} kg mass if {a} N and {b} N push the same way?",
                "Find the acceleration in m/s2 that forces of {a} N and {b} N give a {c} kg mass.",
            ),
        ),
        Family(
            "vfinal", "physics", 2, "final speed = acceleration * time + start speed", "a * b; r1 + c",
            (SMALL, SMALL, DIGIT),
            (
                "A car at {c} m/s accelerates at {a} m/s2 for {b} s. What is the final speed in m/s?",
                "What is the final speed in m/s of a car at {c} m/s that accelerates at {a} m/s2 for {b} s?",
                "For {b} s a car at {c} m/s accelerates at {a} m/s2. Find the final speed in m/s.",
            ),
        ),
        Family(
            "titrate", "chemistry", 2, "total = drops * amount + start", "a * b; r1 + c", (SMALL, SMALL, DIGIT),
            (
                "A beaker with {c} mol gets {a} drops of {b} mol each. How many mol are there in total?",
                "How many mol are in a beaker with {c} mol after {a} drops of {b} mol each?",
                "After {a} drops of {b} mol each, find the total mol in a beaker that had {c} mol.",
            ),
        ),
        Family(
            "mixture", "chemistry", 2, "concentration = (n1 + n2) / volume", "a + b; r1 / c", ((2, 40), DIGIT, SMALL),
            (
                "Solutions with {a} mol and {b} mol are mixed to {c} L. What is the concentration in mol/L?",
                "What is the concentration in mol/L if {a} mol and {b} mol are mixed to {c} L?",
                "Find the concentration in mol/L of {c} L mixed from {a} mol and {b} mol.",
            ),
        ),
        Family(
            "plates", "biology", 2, "cells = (n1 + n2) * cells per colony", "a + b; r1 * c", (DIGIT, DIGIT, SMALL),
            (
                "Plates with {a} and {b} colonies have {c} cells per colony. How many cells are there?",
                "How many cells are on plates with {a} and {b} colonies of {c} cells each?",
                "Find the cells on two plates if {a} and {b} colonies have {c} cells each.",
            ),
        ),
        # ---- level 3: two or three steps in orders of their own
        Family(
            "impulse", "physics", 3, "impulse = (v1 - v2) * mass", "a - b; r1 * c", ((4, 21), DIGIT, SMALL),
            (
                "A ball of {c} kg slows from {a} m/s to {b} m/s. What is the impulse in N s?",
                "What impulse in N s slows a ball of {c} kg from {a} m/s to {b} m/s?",
                "Find the impulse in N s on a ball of {c} kg that slows from {a} m/s to {b} m/s.",
            ),
        ),
        Family(
            "power", "physics", 3, "power = (u1 + u2) * current - loss", "a + b; r1 * c; r2 - d",
            (DIGIT, DIGIT, DIGIT, DIGIT),
            (
                "Batteries of {a} V and {b} V in series give {c} A, and {d} W are lost. What power in W is left?",
                "What power in W is left if {d} W are lost from {c} A at {a} V and {b} V in series?",
                "Find the power in W left of {c} A from batteries of {a} V and {b} V in series if {d} W are lost.",
            ),
        ),
        Family(
            "molar", "chemistry", 3, "molar mass = n1 * m1 + n2 * m2", "a * b; c * d; r1 + r2",
            (SMALL, SMALL, (2, 4), (2, 4)),
            (
                "A molecule has {a} atoms of {b} g/mol and {c} atoms of {d} g/mol. What is the molar mass in g/mol?",
                "What is the molar mass in g/mol of {a} atoms of {b} g/mol with {c} atoms of {d} g/mol?",
                "Find the molar mass in g/mol if a molecule has {a} atoms of {b} g/mol and {c} of {d} g/mol.",
            ),
        ),
        Family(
            "rate", "chemistry", 3, "rate = (n1 - n2) / time", "a - b; r1 / c", ((6, 49), DIGIT, SMALL),
            (
                "In a reaction {a} mol fall to {b} mol in {c} s. What is the rate in mol/s?",
                "What is the rate in mol/s of a reaction where {a} mol fall to {b} mol in {c} s?",
                "Find the rate in mol/s if a reaction takes {c} s to bring {a} mol down to {b} mol.",
            ),
        ),
        Family(
            "aliquot", "chemistry", 3, "amount = mass / volume * part", "a / b; r1 * c", ((4, 144), SMALL, SMALL),
            (
                "A flask has {a} g of salt in {b} L. How many g of salt are in {c} L of it?",
                "How many g of salt are in {c} L from a flask with {a} g in {b} L?",
                "Find the g of salt in {c} L if a flask of {b} L has {a} g.",
            ),
        ),
        Family(
            "nests", "biology", 3, "left = nests * eggs - lost", "a * b; r1 - c", (SMALL, SMALL, DIGIT),
            (
                "Birds lay {b} eggs in each of {a} nests and {c} eggs are lost. How many eggs are left?",
                "How many eggs are left if {a} nests have {b} eggs each and {c} are lost?",
                "Find the eggs left after {c} are lost from {a} nests of {b} eggs each.",
            ),
        ),
        Family(
            "feed", "biology", 3, "days = (sacks * mass) / daily feed", "a * b; r1 / c", (SMALL, SMALL, SMALL),
            (
                "A herd has {a} sacks of {b} kg and eats {c} kg per day. For how many days is there feed?",
                "For how many days do {a} sacks of {b} kg feed a herd that eats {c} kg per day?",
                "Find the days of feed in {a} sacks of {b} kg for a herd that eats {c} kg per day.",
            ),
        ),
        Family(
            "leaves", "biology", 3, "uptake = (u1 + u2) / time * new time", "a + b; r1 / c; r2 * d",
            ((2, 40), DIGIT, SMALL, DIGIT),
            (
                "Two leaves take up {a} mg and {b} mg of gas in {c} min. How many mg do they take up in {d} min?",
                "How many mg of gas do two leaves take up in {d} min if they take up {a} mg and {b} mg in {c} min?",
                "In {c} min two leaves take up {a} mg and {b} mg of gas. Find the mg taken up in {d} min.",
            ),
        ),
        Family(
            "pond", "biology", 3, "fish = broods * young + start - caught", "b * c; r1 + a; r2 - d",
            (DIGIT, DIGIT, DIGIT, DIGIT),
            (
                "A pond of {a} fish gets {b} broods of {c} young, and {d} fish are caught. How many fish are there?",
                "How many fish are in a pond of {a} fish after {b} broods of {c} young if {d} are caught?",
                "Find the fish in a pond of {a} that gets {b} broods of {c} young when {d} fish are caught.",
            ),
        ),
        Family(
            "seeds", "biology", 3, "seedlings = seeds / pots - dead", "a / b; r1 - c", ((4, 144), SMALL, DIGIT),
            (
                "A tray of {a} seeds is shared by {b} pots and {c} die in each pot. How many live in each pot?",
                "How many live in each pot if {a} seeds are shared by {b} pots and {c} die in each?",
                "Find how many seeds live in each of {b} pots that share {a} seeds if {c} die in each.",
            ),
        ),
    )
}  # fmt: skip


def _examples() -> Iterator[str]:
    for family in FAMILIES.values():
        all_params = instances(family)
        params = all_params[len(all_params) // 2]
        working = ", ".join(map(str, family.steps(params) or ()))
        yield f"{family.name} ({len(all_params)} instances): {family.question(params, 0)} {family.formula}. {working}."


if __name__ == "__main__":
    for example in _examples():
        sys.stdout.write(example + "\n")
