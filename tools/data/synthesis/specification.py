"""A specification of edge cases: the axes along which items differ, and the grid that they span.

A YAML file (examples in specs/) says what an item is and names the values of each axis. Not every cell of a large grid
can have an item, so cells are chosen such that each pair of values of two axes meets as early as possible: most faults
of a system show when two conditions meet (pairwise testing, Cohen et al., IEEE TSE 23(7), 1997).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from posttrain_crew.errors import InputError

__all__ = ["SHIPPED", "Cell", "Specification", "chosen_cells", "load_specification", "pair_coverage"]

SHIPPED = Path(__file__).parent / "specs"
MAX_BYTES = 256 * 1024
MAX_CELLS = 100_000
TRIES = 200
"""Random cells among which the one with the most new pairs is taken."""

Text = Annotated[str, Field(min_length=1, max_length=200)]
Cell = dict[str, str]
"""Axis -> value."""


class Specification(BaseModel):
    """What is to be written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    title: str = Field(default="", max_length=200)
    form: Literal["choice", "open"]
    """`choice`: question, one right and some wrong choices, working. `open`: question and reply, nothing to check."""
    instructions: str = Field(min_length=20, max_length=8000)
    axes: dict[str, list[Text]] = Field(min_length=1, max_length=8)
    exclude: list[dict[str, str]] = Field(default=[], max_length=200)
    """Cells that make no sense: each line leaves out all cells that have these values."""
    weights: dict[str, dict[str, float]] = {}
    """Axis -> value -> how often rows of it should be seen, relative to others."""
    wrong_choices: int = Field(default=3, ge=1, le=9)
    max_chars: int = Field(default=2000, ge=20, le=20_000)
    """Of each text of an item."""

    @model_validator(mode="after")
    def _consistent(self) -> Specification:
        if empty := [axis for axis, values in self.axes.items() if not values or len(set(values)) != len(values)]:
            raise ValueError(f"the axes {', '.join(empty)} need values, each once")
        named = [pair for line in self.exclude for pair in line.items()]
        named += [(axis, value) for axis, values in self.weights.items() for value in values]
        for axis, value in named:
            if value not in self.axes.get(axis, ()):
                raise ValueError(f"`{axis}: {value}` is no value of an axis")
        for axis, values in self.weights.items():
            if any(not 0 < weight <= 10 for weight in values.values()):
                raise ValueError(f"the weights of `{axis}` must lie in (0, 10]")
        if math.prod(map(len, self.axes.values())) > MAX_CELLS:
            raise ValueError(f"the grid has more than {MAX_CELLS:,} cells: leave values out")
        return self

    def cells(self) -> Iterator[Cell]:
        """All cells that are not excluded, in the order of the axes."""
        for values in product(*self.axes.values()):
            cell = dict(zip(self.axes, values, strict=True))
            if not any(line.items() <= cell.items() for line in self.exclude):
                yield cell

    def weight(self, cell: Cell) -> float:
        """Product of the weights of a cell's values."""
        return math.prod(self.weights.get(axis, {}).get(value, 1.0) for axis, value in cell.items())


def load_specification(place: str | Path) -> Specification:
    """Read a YAML file, or one of the shipped examples by its name without `.yaml`.

    Raises:
        InputError: there is no such file, it is too large, no YAML, or a key is wrong, naming each.
    """
    path = Path(place).expanduser()
    if not path.is_file() and (SHIPPED / f"{Path(place).name}.yaml").is_file():
        path = SHIPPED / f"{Path(place).name}.yaml"
    known = ", ".join(sorted(each.stem for each in SHIPPED.glob("*.yaml")))
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"the specification {path} is larger than {MAX_BYTES // 1024} KiB.")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(
            f"the specification {path} cannot be read: {str(error)[:300]}. Give a YAML file, or one of: {known}."
        ) from error
    try:
        return Specification.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors()[:10])
        raise InputError(f"the specification {path} is not valid: {problems}. Compare it with {SHIPPED}.") from error


def chosen_cells(spec: Specification, count: int, rng: random.Random) -> list[Cell]:
    """`count` cells: pairs of values that have not met first, and every cell once before any comes again.

    Raises:
        InputError: every cell is excluded.
    """
    everything = list(spec.cells())
    if not everything:
        raise InputError(f"the specification `{spec.name}` excludes all of its cells.")
    chosen: list[Cell] = []
    while len(chosen) < count:
        pool = rng.sample(everything, len(everything))
        met: set[frozenset[tuple[str, str]]] = set()
        breadth = TRIES
        while pool and len(chosen) < count:
            start = max(0, len(pool) - breadth)
            gains = [len(_pairs(cell) - met) for cell in pool[start:]]
            if max(gains) == 0:
                breadth = 1  # all, or nearly all, have met: the rest comes in random order
            cell = pool.pop(start + gains.index(max(gains)))
            met |= _pairs(cell)
            chosen.append(cell)
    return chosen


def pair_coverage(spec: Specification, cells: list[Cell]) -> tuple[int, int]:
    """(pairs of values that met in `cells`, pairs that the specification allows)."""
    allowed = {pair for cell in spec.cells() for pair in _pairs(cell)}
    return len({pair for cell in cells for pair in _pairs(cell)} & allowed), len(allowed)


def _pairs(cell: Cell) -> set[frozenset[tuple[str, str]]]:
    """Pairs of values; of a single axis, its values."""
    if len(cell) == 1:
        return {frozenset(cell.items())}
    return {frozenset(pair) for pair in combinations(cell.items(), 2)}
