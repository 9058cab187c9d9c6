"""Whether cited papers state what a recipe says: each value is looked up, and quoted or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from posttrain_crew.entries import Method, RecipeEvidence
from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.extraction.recipe import Evidence, ExtractedRecipe, Stated
from posttrain_crew.tools.literature.extraction.verify import verify
from posttrain_crew.tools.literature.paper import HyperValue
from posttrain_crew.tools.literature.services.ids import parse_ids
from posttrain_crew.tools.literature.shelf import Reading, bare

__all__ = ["Claim", "Quote", "prove"]

_MOST_QUOTED = 300
_SAME = 1e-9


class Quote(BaseModel):
    """A sentence of a paper that states a hyper-parameter, as an agent gives it."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(max_length=60)
    """Name of the hyper-parameter; `method` for the sentence that names the method."""
    arxiv_id: str = Field(max_length=60)
    section: str = Field(max_length=80)
    text: str = Field(min_length=3, max_length=2000)
    """Word for word."""


class Claim(BaseModel):
    """A score that a recipe cites, as draft_recipes gives it."""

    model_config = ConfigDict(extra="forbid")

    benchmark: str = Field(min_length=2, max_length=100)
    arxiv_id: str | None = Field(default=None, max_length=60)
    before: float | None = None
    after: float
    setting: str | None = Field(default=None, max_length=200)
    model: str | None = Field(default=None, max_length=200)
    unit: str | None = Field(default=None, max_length=20)


def prove(
    readings: Sequence[Reading],
    method: Method,
    hyperparameters: Mapping[str, HyperValue],
    reported: Sequence[Claim],
    quotes: Sequence[Quote] = (),
) -> tuple[list[RecipeEvidence], list[str]]:
    """Look up hyper-parameters and scores in papers.

    A value counts as stated when the rules of extraction read it from the text, when a quote holds that is checked word
    for word and number for number, or when the shipped library has it.

    A value of another method's recipe, and a number of another benchmark, another paper or the other side of "before"
    and "after", are not what was stated.

    Returns:
        Quotations for what a full text states (facts of the shipped library have none), and in words what no paper
        states.
    """
    evidence: list[RecipeEvidence] = []
    unfounded: list[str] = []
    for name, value in hyperparameters.items():
        found = next((e for reading in readings for e in _stated(reading, method, name, value)), None)
        reason = ""
        if found is None and not any(_in_library(reading, method, name, value) for reading in readings):
            found, reason = _quoted(readings, method, name, value, quotes)
            if found is None:
                unfounded.append(f"{name} = {value}{f' ({reason})' if reason else ''}")
        evidence += [found] if found is not None else []
    for score in reported:
        benchmark = score.benchmark
        of = [reading for reading in readings if score.arxiv_id in (None, reading.name)]
        for part, number in (("before", score.before), ("after", score.after)):
            if number is None:
                continue
            found = next((e for reading in of for e in _scored(reading, benchmark, part, number)), None)
            if found is not None:
                evidence.append(found)
            elif not any(_reported_in_library(reading, benchmark, part, number) for reading in of):
                unfounded.append(f"{benchmark} {part} {number:g}")
    for reading in readings:
        for recipe in reading.recipes:
            evidence += [
                _quotation("datasets", named.hub_id, reading, named.evidence)
                for named in recipe.datasets
                if named.hub_id is not None
            ]
    return list({(e.field, e.value, e.arxiv_id): e for e in evidence}.values()), unfounded


def _quoted(
    readings: Sequence[Reading], method: Method, name: str, value: HyperValue, quotes: Sequence[Quote]
) -> tuple[RecipeEvidence | None, str]:
    """The quote of a value that holds, or why none does."""
    reason = ""
    for quote in quotes:
        reading = next((r for r in readings if r.name == _bare_name(quote.arxiv_id) and r.document is not None), None)
        if quote.field != name or reading is None or reading.document is None:
            continue
        about = _method_evidence(reading, method, quotes)
        if about is None:
            reason = f"a quote for `method` is needed: where does {reading.name} say that it does {method}?"
            continue
        evidence = Evidence(section=quote.section, kind="sentence", text=quote.text)
        claim = ExtractedRecipe(
            arxiv_id=reading.name,
            method=method,
            method_evidence=about,
            hyperparameters={name: Stated(value=value, evidence=evidence)},
            by="llm",
        )
        checked = verify(reading.document, claim)
        if checked.recipe is not None and name in checked.recipe.hyperparameters:
            return _quotation(name, value, reading, evidence), ""
        reason = "; ".join(rejected.reason for rejected in checked.rejected)
    return None, reason


def _bare_name(text: str) -> str:
    """As readings are named; a text that is no name fits none."""
    try:
        return bare(parse_ids(text).key)
    except InputError:
        return text


def _method_evidence(reading: Reading, method: Method, quotes: Sequence[Quote]) -> Evidence | None:
    for recipe in reading.recipes:
        if recipe.method == method:
            return recipe.method_evidence
    for quote in quotes:
        if quote.field == "method" and _bare_name(quote.arxiv_id) == reading.name:
            return Evidence(section=quote.section, kind="sentence", text=quote.text)
    return None


def _stated(reading: Reading, method: Method, name: str, value: HyperValue) -> Iterator[RecipeEvidence]:
    for recipe in reading.recipes:
        stated = recipe.hyperparameters.get(name) if recipe.method == method else None
        if stated is not None and _equal(stated.value, value):
            yield _quotation(name, value, reading, stated.evidence)


def _scored(reading: Reading, benchmark: str, part: str, value: float) -> Iterator[RecipeEvidence]:
    for recipe in reading.recipes:
        for result in recipe.scores:
            found = result.after if part == "after" else result.before
            where = result.evidence if part == "after" else result.before_evidence or result.evidence
            if found is not None and _equal(found, value) and _same_name(result.benchmark, benchmark):
                yield _quotation("reported", f"{result.benchmark} {part} {found:g}", reading, where)


def _quotation(field: str, value: HyperValue, reading: Reading, evidence: Evidence) -> RecipeEvidence:
    text = " | ".join(part for part in (evidence.row, evidence.column, evidence.text) if part)
    return RecipeEvidence(
        field=field, value=str(value), arxiv_id=reading.name, where=evidence.section, text=text[:_MOST_QUOTED]
    )


def _in_library(reading: Reading, method: Method, name: str, value: HyperValue) -> bool:
    if reading.paper is None or not reading.shipped:
        return False
    return _equal(reading.paper.hyperparameters.get(method, {}).get(name), value)


def _reported_in_library(reading: Reading, benchmark: str, part: str, value: float) -> bool:
    if reading.paper is None or not reading.shipped:
        return False
    return any(
        _equal(getattr(score, part), value) and _same_name(score.benchmark, benchmark)
        for score in reading.paper.reported
    )


def _same_name(one: str, other: str) -> bool:
    """Benchmarks by letters and digits alone: `GSM-8K` is `gsm8k`."""
    first, second = ("".join(c for c in name.casefold() if c.isalnum()) for name in (one, other))
    return first == second


def _equal(one: object, other: object) -> bool:
    if isinstance(one, bool | str) or isinstance(other, bool | str):
        return type(one) is type(other) and str(one).casefold() == str(other).casefold()
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= _SAME * max(abs(one), abs(other), _SAME)
    return False
