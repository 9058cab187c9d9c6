"""Questions from templates whose answers are computed: nothing has to be believed.

`procedural` has word problems with units, in one to three whole-number steps of which one is often a conversion: what a
general model gets wrong. `gpqa_mini_train` has the train side of the embedded benchmark; dev and test instances are
held out by construction (tools/embedded/benchmark.py), and the pipeline checks them against the benchmark like any row.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import yaml
from pydantic import BaseModel, Field

from posttrain_crew.errors import InputError
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.tools.data.formats import LABELS, Example
from posttrain_crew.tools.data.rendering import label_of, render_completion
from posttrain_crew.tools.data.synthesis.base import Parameters, Request, SyntheticRow, parameters_as
from posttrain_crew.tools.data.synthesis.rows import make_row

__all__ = ["EmbeddedTrainSide", "Procedural", "Template", "templates"]

WRONG = 3
MAX_ATTEMPTS = 200
"""Draws of numbers for one row before the template counts as used up."""


@dataclass(frozen=True)
class Template:
    """A kind of word problem; templates.yaml says how a program reads."""

    name: str
    wordings: tuple[str, ...]
    program: str
    ranges: tuple[tuple[int, int], ...]
    unit: str
    slip: str
    """The program of the typical mistake."""


@cache
def templates() -> dict[str, Template]:
    """The shipped templates by name, from templates.yaml."""
    raw = yaml.safe_load(Path(__file__).with_name("templates.yaml").read_text(encoding="utf-8"))
    found = [
        Template(**{**each, "wordings": tuple(each["wordings"]), "ranges": tuple(map(tuple, each["ranges"]))})
        for each in raw
    ]
    return {template.name: template for template in found}


class ProceduralParameters(Parameters):
    """What the templates can be told."""

    templates: str = Field(default="", description="names from templates.yaml, with commas between; empty is all")
    worked: bool = Field(default=True, description="completions show the calculation")


class Procedural:
    """The generator `procedural`."""

    summary: ClassVar[str] = "word problems with units, from templates whose answers are computed"
    parameters: ClassVar[type[BaseModel]] = ProceduralParameters
    needs: ClassVar[tuple[Literal["model", "questions", "specification"], ...]] = ()

    def generate(self, request: Request) -> Iterator[SyntheticRow]:
        """See `Generator`. Counts rows by template; a template whose numbers are used up is told as `used_up`."""
        params = parameters_as(ProceduralParameters, request.params)
        open_templates = _named(params.templates)
        rng = request.rng("procedural")
        used: set[tuple[str, tuple[int, ...]]] = set()
        made = 0
        while made < request.rows and open_templates:
            for template in list(open_templates):
                if made >= request.rows:
                    break
                numbers = _draw(template, rng, used)
                if numbers is None:
                    open_templates.remove(template)
                    request.tally["used_up"] += 1
                    continue
                made += 1
                request.tally[template.name] += 1
                yield _row(template, numbers, rng, request, worked=params.worked)


class EmbeddedParameters(Parameters):
    """What the embedded train side can be told."""

    families: str = Field(default="", description="names of families, with commas between; empty is all 24")
    level: int = Field(default=0, ge=0, le=3, description="only families of this level; 0 is all")
    worked: bool = Field(default=True, description="completions show the calculation")


class EmbeddedTrainSide:
    """The generator `gpqa_mini_train`."""

    summary: ClassVar[str] = "train-side questions of the embedded benchmark gpqa-mini, with computed answers"
    parameters: ClassVar[type[BaseModel]] = EmbeddedParameters
    needs: ClassVar[tuple[Literal["model", "questions", "specification"], ...]] = ()

    def generate(self, request: Request) -> Iterator[SyntheticRow]:
        """See `Generator`. Counts rows by family. Raises InputError for an unknown family, or more rows than it has."""
        from posttrain_crew.tools.embedded.benchmark import train_items
        from posttrain_crew.tools.embedded.families import FAMILIES

        params = parameters_as(EmbeddedParameters, request.params)
        answer = request.target.answer
        if answer.kind != "choice" or len(answer.labels) < 1 + WRONG:
            raise InputError(f"gpqa_mini_train makes four-choice questions, which {request.target.name} does not ask.")
        names = [name.strip() for name in params.families.split(",") if name.strip()] or list(FAMILIES)
        if unknown := [name for name in names if name not in FAMILIES]:
            raise InputError(f"there is no family {', '.join(unknown)}. Families: {', '.join(FAMILIES)}.")
        names = [name for name in names if params.level in (0, FAMILIES[name].level)]
        if not names:
            raise InputError(f"none of the families is of level {params.level}.")
        for item in train_items(request.rows, f"synthesis {request.seed}", names):
            request.tally[item.family] += 1
            example = Example(item.question, item.choices, item.answer, item.solution, None)
            label = label_of(example, answer) or item.answer
            yield make_row(
                example,
                request,
                completion=render_completion(example, label, answer, worked=params.worked),
                label=label,
                solution=item.solution if params.worked else None,
                generator="gpqa_mini_train",
                parent=item.id,
                model="computed",
            )


def _named(names: str) -> list[Template]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = templates()
    if unknown := [name for name in wanted if name not in known]:
        raise InputError(f"there is no template {', '.join(unknown)}. Templates: {', '.join(known)}.")
    return [known[name] for name in wanted] or list(known.values())


def _draw(template: Template, rng: random.Random, used: set[tuple[str, tuple[int, ...]]]) -> tuple[int, ...] | None:
    for _ in range(MAX_ATTEMPTS):
        numbers = tuple(rng.randint(low, high) for low, high in template.ranges)
        if (template.name, numbers) not in used and _steps(template.program, numbers) is not None:
            used.add((template.name, numbers))
            return numbers
    return None


def _steps(program: str, numbers: tuple[int, ...]) -> list[tuple[str, int]] | None:
    """The lines of the calculation with their results; None where one is not a positive whole number."""
    values = dict(zip("abcd", numbers, strict=False))
    steps: list[tuple[str, int]] = []
    for line in program.split("; "):
        left_name, operator, right_name = line.split(" ")
        left = values[left_name] if left_name in values else int(left_name)
        right = values[right_name] if right_name in values else int(right_name)
        if operator == "/" and left % right:
            return None
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // max(1, right)}.get(operator)
        shown = f"{left} {operator} {right}"
        if operator == "^":
            result, shown = left**right, " * ".join([str(left)] * right)
        if result is None or result < 1:
            return None
        steps.append((f"{shown} = {result}", result))
        values[f"r{len(steps)}"] = result
    return steps


def _row(
    template: Template, numbers: tuple[int, ...], rng: random.Random, request: Request, *, worked: bool
) -> SyntheticRow:
    steps = _steps(template.program, numbers) or []
    right = steps[-1][1]
    question = rng.choice(template.wordings).format(**dict(zip("abcd", numbers, strict=False)))
    working = f"{', '.join(text for text, _ in steps)}, so it is {right} {template.unit}."
    answer = request.target.answer
    if answer.kind == "choice":
        values = [right, *_wrong(template, numbers, [value for _, value in steps], rng)]
        rng.shuffle(values)
        letter = LABELS[values.index(right)]
        example = Example(question, tuple(f"{value} {template.unit}" for value in values), letter, working, None)
        label = label_of(example, answer)
        if label is None:
            raise InputError(f"{request.target.name} has too few labels for {1 + WRONG} choices.")
    else:
        label = str(right)
        example = Example(f"{question} Answer with the number alone.", (), label, working, None)
    return make_row(
        example,
        request,
        completion=render_completion(example, label, answer, worked=worked),
        label=label,
        solution=working if worked else None,
        generator="procedural",
        parent=f"{template.name}/{'-'.join(map(str, numbers))}",
        parent_sha256=sha256_text(canonical_json([template.name, template.program, list(numbers)])),
        model="computed",
    )


def _wrong(template: Template, numbers: tuple[int, ...], results: list[int], rng: random.Random) -> list[int]:
    """Wrong choices: the typical mistake, a step too few, and numbers close by."""
    right = results[-1]
    slipped = _steps(template.slip, numbers)
    likely = [slipped[-1][1] if slipped else right, *results[:-1]]
    near = max(1, right // 20)
    likely += rng.sample([right + near, right - near, right * 10, right + 10 * near, max(1, right // 10)], 5)
    chosen = [value for value in dict.fromkeys(likely) if value != right and value > 0]
    step = 1
    while len(chosen) < WRONG:
        if right + step not in chosen:
            chosen.append(right + step)
        step += 1
    return chosen[:WRONG]
