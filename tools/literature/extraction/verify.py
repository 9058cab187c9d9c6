"""Is what was extracted really in the paper? Whoever extracted it, rules or an LLM, every field passes here.

A field stands when its cited text is found in its cited section, speaks of the field, and holds the value: numbers are
compared as numbers with the unit that stands at each (`2e-5` is `$2\\times10^{-5}$`, 0.03 is `3%`), names letter by
letter and as a whole (`Qwen3-1.7B` is not `Qwen3-1.7B-Base`). Where the rules can read the field from the text that an
LLM cites, they have to agree: a number of another field is none of this one. All other fields are rejected, each with
its reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.labels import legend, unfolded
from posttrain_crew.tools.literature.extraction.mentions import machine, named_in
from posttrain_crew.tools.literature.extraction.patterns import WORDS_OF, in_words, read_prose
from posttrain_crew.tools.literature.extraction.recipe import (
    FIELDS,
    Compute,
    DatasetNamed,
    Evidence,
    ExtractedRecipe,
    HyperValue,
    Rejected,
    ReportedResult,
    Stated,
)
from posttrain_crew.tools.literature.extraction.scope import methods_in
from posttrain_crew.tools.literature.extraction.scores import FROM_TO
from posttrain_crew.tools.literature.reading.document import Document, Section, Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["Verified", "verify"]

_SCALE = re.compile(r"1e(-?\d+)")
# a digit of a name (`A100`, `β_1`) is no number; that of a count (`x8`) is
_NUMBER = re.compile(r"(?<![A-WYZa-wyz_\d.])\d{1,15}(?:\.\d{1,15})?(?:e-?\d{1,3})?")
_UNIT_BEHIND = re.compile(
    r"\s?(?P<share>%|percent)|\s?(?P<thousand>k)\b|[\s-]?(?P<minutes>min(?:utes?)?)\b|[\s-]?(?P<days>days?)\b", re.I
)
_UNITS_OF_LABEL = {"share": r"%|percent", "thousand": r"\(k\b|k tokens", "minutes": r"minutes?\b", "days": r"\bdays?\b"}
_FACTORS = {"share": 0.01, "thousand": 1000.0, "minutes": 1 / 60, "days": 24.0}
_GPU_WORDS = re.compile(r"[a-z]+\d*[a-z]*|\d+[a-z]*")
_MACHINE_WORDS = {
    "count": r"GPU|[AHLVTB]\d{1,3}|RTX|\d{4}|×|x\b",
    "hours": r"hours?|minutes?|days?|\(h\)|\(d\)|\d\s?h(?:rs?)?\b",
}


@dataclass(frozen=True)
class Verified:
    """What is left of a recipe, and what was taken out."""

    recipe: ExtractedRecipe | None
    """None when not even the method is supported."""
    rejected: tuple[Rejected, ...]


class _Judge:
    """Collects what is rejected."""

    def __init__(self, document: Document, by: str) -> None:
        self.document, self.by = document, by
        self.rejected: list[Rejected] = []

    def believes(self, field: str, reason: str | None) -> bool:
        """Whether there is no reason against a field; keeps the reason."""
        if reason is not None:
            self.rejected.append(Rejected(field=field, reason=reason))
        return reason is None


def verify(document: Document, recipe: ExtractedRecipe) -> Verified:
    """Take out of a recipe what its evidence does not support."""
    judge = _Judge(document, recipe.by)
    if not judge.believes("method", _against_method(judge, recipe)):
        return Verified(None, tuple(judge.rejected))
    base = recipe.base_model
    kept = recipe.model_copy(
        update={
            "base_model": base if base and judge.believes("base_model", _against_name(judge, base)) else None,
            "datasets": tuple(
                one for one in recipe.datasets if judge.believes("datasets", _against_dataset(judge, one))
            ),
            "hyperparameters": {
                name: stated
                for name, stated in recipe.hyperparameters.items()
                if judge.believes(f"hyperparameters.{name}", _against_setting(judge, name, stated))
            },
            "compute": _compute(judge, recipe.compute),
            "scores": tuple(_scores(judge, recipe.scores)),
        }
    )
    return Verified(kept, tuple(judge.rejected))


def _place(judge: _Judge, evidence: Evidence) -> str | None:
    """Why the cited text cannot be found, or None."""
    section = next((one for one in judge.document.sections if one.id == evidence.section), None)
    if section is None or section.kind == "bibliography":
        return f"the paper has no section {evidence.section!r} that could state it"
    if evidence.kind == "cell":
        if any(_has_cell(table, evidence) for table in section.tables):
            return None
        return f"no table of section {section.id} has the cell {evidence.text[:60]!r} in such a row and column"
    if (len(evidence.text.split()) < 2 and "://" not in evidence.text) or not _within(evidence.text, section):
        return f"the cited text is not in section {section.id}: {evidence.text[:80]!r}"
    return None


def _within(text: str, section: Section) -> bool:
    return _flat(text) in _flat(section.text) or any(_flat(text) in _flat(table.caption) for table in section.tables)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _has_cell(table: Table, evidence: Evidence) -> bool:
    heads = table.columns()
    for row in (*table.header, *table.rows):
        for at, cell in enumerate(row):
            if cell != evidence.text:
                continue
            names_row = not evidence.row or all(part in row for part in _parts(evidence.row, row))
            names_column = not evidence.column or (at < len(heads) and evidence.column == heads[at])
            if names_row and names_column:
                return True
    return False


def _parts(label: str, row: tuple[str, ...]) -> list[str]:
    """The cells of the row that make up a label, or the label itself when they do not."""
    cells = [cell for cell in dict.fromkeys(row) if cell and cell in label]
    return cells if " ".join(cells).replace(" ", "") == label.replace(" ", "") or label in cells else [label]


def _context(evidence: Evidence) -> str:
    """The cited text with the names of its row and column."""
    return plain(" ".join(part for part in (evidence.row, evidence.column, evidence.text) if part))


def _holds_number(evidence: Evidence, value: float, tolerance: float = 1e-9) -> bool:
    text = plain(evidence.text)
    names = plain(f"{evidence.row} {evidence.column}") if evidence.kind == "cell" else ""
    return any(
        math.isclose(sign * float(match[0]) * factor, value, rel_tol=tolerance, abs_tol=1e-15)
        for match in _NUMBER.finditer(text)
        for sign in (1.0, *((-1.0,) if text[: match.start()].endswith("-") else ()))
        for factor in _factors(text, match.start(), match.end(), names)
    )


def _factors(text: str, start: int, end: int, names: str) -> Iterator[float]:
    """What a number may be multiplied with: 1, and what the unit behind it or in the name of its row or column says."""
    yield 1.0
    if behind := _UNIT_BEHIND.match(text, end):
        yield from (_FACTORS[kind] for kind, found in behind.groupdict().items() if found)
    # a row that an LLM cites is a line of cells: the last one with letters in it names the number
    before = [cell for cell in text[:start].split("|")[1:] if re.search(r"[A-Za-z]", cell)] if "|" in text else []
    label = f"{names} {before[-1] if before else ''}"
    yield from (_FACTORS[kind] for kind, words in _UNITS_OF_LABEL.items() if re.search(words, label, re.IGNORECASE))
    yield from (float(f"1e{power}") for power in _SCALE.findall(label))


def _against_method(judge: _Judge, recipe: ExtractedRecipe) -> str | None:
    place = _place(judge, recipe.method_evidence)
    if place is None and recipe.method not in methods_in(_context(recipe.method_evidence)):
        return f"the cited text does not name {recipe.method}: {recipe.method_evidence.text[:80]!r}"
    return place


def _named(name: str, evidence: Evidence) -> bool:
    return named_in(name, _context(evidence)) or named_in(name, evidence.text)


def _against_name(judge: _Judge, stated: Stated) -> str | None:
    place = _place(judge, stated.evidence)
    if place is None and not _named(str(stated.value), stated.evidence):
        return f"{str(stated.value)[:80]!r} is not in the cited text: {stated.evidence.text[:80]!r}"
    return place


def _against_dataset(judge: _Judge, one: DatasetNamed) -> str | None:
    for name in (one.name, one.hub_id):
        if name and not _named(name, one.evidence):
            return f"{name[:80]!r} is not in the cited text: {one.evidence.text[:80]!r}"
    if one.arxiv_id and one.arxiv_id not in {reference.arxiv_id for reference in judge.document.references}:
        return f"the bibliography does not list arXiv {one.arxiv_id[:20]}"
    return _place(judge, one.evidence)


def _unfolded(judge: _Judge, evidence: Evidence) -> Evidence:
    """Cited cell whose row or column is an abbreviation: with what the table's caption says that it stands for."""
    if evidence.kind != "cell":
        return evidence
    section = judge.document.section(evidence.section)
    words = {
        short: long
        for table in section.tables
        if _has_cell(table, evidence)
        for short, long in legend(table.caption).items()
    }
    return evidence.model_copy(
        update={"row": unfolded(evidence.row, words)[:4000], "column": unfolded(evidence.column, words)[:4000]}
    )


def _against_setting(judge: _Judge, name: str, stated: Stated) -> str | None:
    if name not in FIELDS:
        return f"{name[:60]!r} is no hyper-parameter of TRL"
    if reason := _place(judge, stated.evidence):
        return reason
    stated = stated.model_copy(update={"evidence": _unfolded(judge, stated.evidence)})
    around = in_words(_context(stated.evidence))
    if not re.search(WORDS_OF[name], around, re.IGNORECASE):
        return f"the cited text does not speak of {name}: {stated.evidence.text[:80]!r}"
    value = stated.value
    if isinstance(value, bool | str):
        words = str(value).lower().replace("_", " ").split()
        found = isinstance(value, str) and all(word[:6] in around.lower() for word in words if word != "with")
    else:
        found = math.isfinite(value) and _holds_number(stated.evidence, float(value))
    if not found:
        return f"{value!r} is not in the cited text: {stated.evidence.text[:80]!r}"
    read = [hyper.value for hyper in read_prose(around) if hyper.field == name] if judge.by == "llm" else []
    if read and not any(_agree(one, value) for one in read):
        return f"the cited text gives {name} as {' and '.join(map(str, read[:3]))}, not {value}"
    return None


def _agree(read: HyperValue, stated: HyperValue) -> bool:
    if isinstance(read, str) or isinstance(stated, str):
        return str(read).lower() == str(stated).lower()
    return math.isclose(read, stated, rel_tol=1e-9, abs_tol=1e-15)


def _compute(judge: _Judge, compute: Compute) -> Compute:
    kept: dict[str, Stated] = {}
    for field in ("gpu", "count", "hours"):
        stated: Stated | None = getattr(compute, field)
        if stated is not None and judge.believes(f"compute.{field}", _against_machine(judge, field, stated)):
            kept[field] = stated
    return Compute(**kept)


def _against_machine(judge: _Judge, field: str, stated: Stated) -> str | None:
    if reason := _place(judge, stated.evidence):
        return reason
    stated = stated.model_copy(update={"evidence": _unfolded(judge, stated.evidence)})
    around, value = _context(stated.evidence), stated.value
    if field == "gpu":
        words = _GPU_WORDS.findall(str(value).lower())
        found = bool(words) and all(word in around.lower().replace(" gb", "gb") for word in words)
    else:
        found = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            # hours from minutes are rounded
            and (_holds_number(stated.evidence, float(value), tolerance=1e-3) or _of_nodes(field, around, value))
            and bool(re.search(_MACHINE_WORDS[field], around, re.IGNORECASE))
        )
    return None if found else f"{value!r} is not in the cited text: {stated.evidence.text[:80]!r}"


def _of_nodes(field: str, around: str, value: float) -> bool:
    """Whether a count is that of the cards of all nodes: 32 for "four nodes of 8 H100"."""
    read = machine(around) if field == "count" else None
    return read is not None and read.count == value and bool(re.search(r"nodes|machines|servers|hosts", around))


def _scores(judge: _Judge, scores: tuple[ReportedResult, ...]) -> Iterator[ReportedResult]:
    for score in scores:
        field = f"scores.{score.benchmark[:60]}"
        if not judge.believes(field, _against_score(judge, score)):
            continue
        if score.before is None:
            yield score
            continue
        evidence = score.before_evidence or score.evidence
        reason = _place(judge, evidence)
        if reason is None and not _holds_number(evidence, score.before):
            reason = f"{score.before} is not in the cited text: {evidence.text[:80]!r}"
        if judge.believes(f"{field}.before", reason):
            yield score
        else:
            yield score.model_copy(update={"before": None, "before_evidence": None})


def _against_score(judge: _Judge, score: ReportedResult) -> str | None:
    if reason := _place(judge, score.evidence):
        return reason
    section = judge.document.section(score.evidence.section)
    captions = " ".join(table.caption for table in section.tables)
    if not _named(score.benchmark, score.evidence) and not named_in(score.benchmark, captions):
        return f"the cited text does not name {score.benchmark[:60]!r}"
    if not _holds_number(score.evidence, score.after):
        return f"{score.after} is not in the cited text: {score.evidence.text[:80]!r}"
    changes = [(float(match["before"]), float(match["after"])) for match in FROM_TO.finditer(_context(score.evidence))]
    if (
        score.before is not None
        and (score.after, score.before) in changes
        and (score.before, score.after) not in changes
    ):
        return f"the cited text says from {score.after:g} to {score.before:g}, not the other way round"
    return None
