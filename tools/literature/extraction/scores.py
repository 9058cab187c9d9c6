"""Scores before and after training, from tables of results and from sentences such as "rises from 54.6 to 71.3".

A table gives a result when a row (or column) is the untrained model and another is the paper's own: rows that cite
others,
baselines and partial variants are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.mentions import benchmark_in, model_key, models_in
from posttrain_crew.tools.literature.extraction.recipe import Evidence, ReportedResult, TrainingMethod
from posttrain_crew.tools.literature.extraction.scope import Said, cites_others, is_comparison, methods_in
from posttrain_crew.tools.literature.extraction.tables import is_settings_table
from posttrain_crew.tools.literature.reading.document import Section, Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["FROM_TO", "Found", "Wanted", "scores_in_prose", "scores_in_table"]

_BASE_WORDS = frozenset(
    {
        "base",
        "base model",
        "none",
        "start",
        "starting model",
        "before",
        "before training",
        "untrained",
        "untuned",
        "initial",
    }
    | {
        "zero-shot",
        "no training",
        "original",
        "not trained",
        "w/o training",
        "no tuning",
        "no fine-tuning",
        "pretrained",
    }
)
_AFTER_WORDS = frozenset({"after", "after training", "trained", "tuned", "fine-tuned"})
_BASE_SIDE = re.compile(r"\b(?:start|base|none|before|initial|zero-shot|original|untuned|no training)\b", re.IGNORECASE)
_OURS = re.compile(r"\bours?\b|\bthis (?:work|paper)\b", re.IGNORECASE)
_PARTIAL = re.compile(r"\bonly\b|w/o|without|ablat|baseline|\brandom\b|\bstandard\b|\bnaive\b|\*", re.IGNORECASE)
_METRIC = re.compile(
    r"^(?:acc(?:uracy|\.)?|em|exact match|pass@\d+|avg@\d+|maj@\d+|f1|score|win rate|strict|prompt|%)\W*(?:\(%\))?$",
    re.IGNORECASE,
)
_NO_METRIC = re.compile(
    r"length|items?|memory|tokens|time|cost|params|size|steps|hours|epochs|seed|readable|rate$", re.IGNORECASE
)
_SPLIT = re.compile(r"\b(test|dev|development|validation|val)\b", re.IGNORECASE)
_METRIC_IN_CAPTION = re.compile(r"accuracy|pass@\d+|avg@\d+|exact match|win rate|\bF1\b", re.IGNORECASE)
_FIRST_NUMBER = re.compile(r"^\D{0,3}(\d+(?:\.\d+)?)")
FROM_TO = re.compile(
    r"\bfrom (?P<before>\d+(?:\.\d+)?)\s?(?:%|percent)?(?:[^.;\d]|\.(?=\d)){0,60}?\bto (?P<after>\d+(?:\.\d+)?)(?!\d)"
)


@dataclass(frozen=True)
class Wanted:
    """A recipe whose results are looked for."""

    method: TrainingMethod
    model: str | None
    final: bool
    """It is the last stage of the paper's pipeline: what is `ours` without a method is its result."""


@dataclass(frozen=True)
class Found:
    """A result and the recipe that it belongs to."""

    wanted: Wanted
    result: ReportedResult


@dataclass(frozen=True)
class _Column:
    at: int
    benchmark: str
    metric: str | None
    split: str | None
    parts: tuple[str, ...]


def scores_in_table(table: Table, section: Section, wanted: Sequence[Wanted]) -> Iterator[Found]:
    """Results of one table, read as it stands and, if that gives none, with rows and columns exchanged."""
    if is_comparison(table.caption) or is_settings_table(table):
        return
    found = list(_read(table, section, wanted))
    yield from found or _read(_turned(table), section, wanted, turned=True)


def _turned(table: Table) -> Table:
    """Rows and columns exchanged; heads of columns become names of rows."""
    width = max((len(row) for row in (*table.header, *table.rows)), default=0)
    heads = table.row_heads
    if not table.header or width <= heads:
        return Table(table.id, table.caption, (), ())

    def at(row: tuple[str, ...], column: int) -> str:
        return row[column] if column < len(row) else ""

    depth = len(table.header)
    header = tuple(("",) * depth + tuple(at(row, head) for row in table.rows) for head in range(heads))
    rows = tuple(
        tuple(at(head, column) for head in table.header) + tuple(at(row, column) for row in table.rows)
        for column in range(heads, width)
    )
    return Table(table.id, table.caption, header, rows, depth)


def _read(table: Table, section: Section, wanted: Sequence[Wanted], turned: bool = False) -> Iterator[Found]:
    columns = list(_columns(table))
    rows = [(tuple(plain(cell) for cell in row[: table.row_heads]), row) for row in table.rows]
    if not columns or not rows:
        return
    for want in wanted:
        after, before = _pick_after(rows, want, wanted), _pick_before(rows, want, wanted)
        if after is None or after is before:
            continue
        for column in columns:
            if not _same_model(column.parts, want, wanted):
                continue
            value = _number(after[1], column.at)
            if value is None:
                continue
            earlier = _number(before[1], column.at) if before else None
            result = ReportedResult(
                benchmark=column.benchmark,
                split=column.split,
                metric=column.metric,
                before=earlier,
                after=value,
                evidence=_evidence(table, section, after, column, turned),
                before_evidence=_evidence(table, section, before, column, turned)
                if before and earlier is not None
                else None,
            )
            yield Found(want, result)


def _evidence(
    table: Table, section: Section, row: tuple[tuple[str, ...], tuple[str, ...]], column: _Column, turned: bool
) -> Evidence:
    names = " ".join(dict.fromkeys(name for name in row[1][: table.row_heads] if name))
    head = table.columns()[column.at]
    if turned:
        names, head = head, " / ".join(dict.fromkeys(name for name in row[1][: table.row_heads] if name))
    return Evidence(section=section.id, kind="cell", text=row[1][column.at][:2000], row=names, column=head)


def _columns(table: Table) -> Iterator[_Column]:
    split = _SPLIT.search(table.caption)
    metric = _METRIC_IN_CAPTION.search(table.caption)
    width = max((len(row) for row in (*table.header, *table.rows)), default=0)
    for at in range(table.row_heads, width):
        parts = tuple(dict.fromkeys(plain(row[at]) for row in table.header if at < len(row) and row[at]))
        if not parts:
            continue
        leaf = parts[-1]
        named = [part for part in parts if benchmark_in(part) is not None]
        if not named or (_NO_METRIC.search(leaf) and leaf not in named):
            continue
        own_metric = leaf if _METRIC.match(leaf) else None
        bench = benchmark_in(named[-1])
        own_split = _SPLIT.search(named[-1])
        if bench is not None:
            told = own_split or split
            yield _Column(
                at,
                bench,
                (own_metric or (metric[0].lower() if metric else None)),
                told[1].lower() if told else None,
                parts,
            )


def _same_model(parts: Sequence[str], want: Wanted, wanted: Sequence[Wanted]) -> bool:
    """False when a head names the model of another recipe of the paper."""
    keys = {model_key(name) for part in parts for name in models_in(part)}
    others = {model_key(one.model) for one in wanted if one.model and one.model != want.model}
    own = model_key(want.model) if want.model else ""
    return not keys & others or own in keys


def _pick_before(
    rows: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], want: Wanted, wanted: Sequence[Wanted]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    for row in rows:
        parts = [part for part in row[0] if part]
        if parts and _same_model(parts, want, wanted) and not cites_others(" ".join(row[1][: len(row[0])])):
            last = parts[-1].lower().strip(" .:")
            keys = {model_key(name) for part in parts for name in models_in(part)}
            mine = bool(want.model) and any(_related(key, model_key(want.model or "")) for key in keys)
            trained = methods_in(" ".join(parts)) or _OURS.search(" ".join(parts)) or "+" in last
            if last in _BASE_WORDS or re.match(r"(?:none|base)\b", last):
                return row
            if mine and not trained and (_only_model(last) or _BASE_SIDE.search(last)):
                return row
    return None


def _only_model(label: str) -> bool:
    """A name of a model and nothing else."""
    names = models_in(label)
    return len(names) == 1 and len(label.replace(names[0].lower(), "").replace(names[0], "").strip(" ()*")) < 3


def _related(key: str, own: str) -> bool:
    return bool(own) and (key == own or key.startswith(own) or own.startswith(key))


def _pick_after(
    rows: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], want: Wanted, wanted: Sequence[Wanted]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """The row of the finished recipe: `ours` first, then its method after earlier stages, then its method alone."""
    methods = {one.method for one in wanted}
    ranked: list[tuple[int, int]] = []
    for at, (names, row) in enumerate(rows):
        parts = [part for part in names if part]
        label = " ".join(parts)
        if not parts or not _same_model(parts, want, wanted) or cites_others(" ".join(row[: len(names)])):
            continue
        named = {method for method, weight in methods_in(label).items() if weight == 2 or len(methods) == 1}
        ours, partial = bool(_OURS.search(label)), bool(_PARTIAL.search(label))
        if parts[-1].lower().strip(" .:") in _AFTER_WORDS:
            ranked.append((3, at))
        elif ours and (want.method in named or (not named & methods and want.final)):
            ranked.append((4, at))
        elif want.method in named and named - {want.method} and want.final and not partial and named <= methods:
            ranked.append((3, at))
        elif named == {want.method} and (not partial or (_is_first(want, wanted) and _just_only(label))):
            ranked.append((2, at))
    if not ranked:
        return None
    best = max(rank for rank, _ in ranked)
    chosen = [at for rank, at in ranked if rank == best]
    if len(chosen) > 1 and best < 4:
        return None
    return rows[chosen[-1]]


def _is_first(want: Wanted, wanted: Sequence[Wanted]) -> bool:
    return not want.final and len(wanted) > 1


def _just_only(label: str) -> bool:
    return not re.search(r"w/o|without|ablat|baseline|\*|answers? only", label, re.IGNORECASE)


def _number(row: Sequence[str], at: int) -> float | None:
    if at >= len(row):
        return None
    match = _FIRST_NUMBER.match(plain(row[at]))
    return float(match[1]) if match else None


def scores_in_prose(one: Said, wanted: Sequence[Wanted], named: Sequence[str]) -> Iterator[Found]:
    """A result that a sentence tells with the score before it.

    Args:
        named: names of the paper's own test sets.
    """
    if one.cited or one.caption:
        return
    for clause in re.split(r";\s|,? and to \d[^,;.]*", one.plain):
        match = FROM_TO.search(clause)
        bench = benchmark_in(clause, named)
        if match is None or bench is None:
            continue
        found = {method for method, weight in methods_in(clause).items() if weight == 2}
        for want in wanted:
            if want.final if not found else found == {want.method}:
                evidence = Evidence(section=one.section.id, kind="sentence", text=one.raw[:4000])
                yield Found(
                    want,
                    ReportedResult(
                        benchmark=bench,
                        metric="accuracy" if "ccuracy" in clause else None,
                        before=float(match["before"]),
                        after=float(match["after"]),
                        evidence=evidence,
                        before_evidence=evidence,
                    ),
                )
