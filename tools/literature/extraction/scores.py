"""Scores before and after training, from tables of results and from sentences such as "rises from 54.6 to 71.3".

A table gives a result when a row (or column) is the untrained model and another is the paper's own: rows that cite
others, baselines and partial variants are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.labels import models_told
from posttrain_crew.tools.literature.extraction.mentions import benchmark_in, model_key
from posttrain_crew.tools.literature.extraction.recipe import Evidence, ReportedResult
from posttrain_crew.tools.literature.extraction.scope import Said, is_comparison, methods_in
from posttrain_crew.tools.literature.extraction.score_rows import (
    Row,
    Wanted,
    pick_after,
    pick_before,
    rows_for,
    rows_of,
)
from posttrain_crew.tools.literature.extraction.tables import is_settings_table
from posttrain_crew.tools.literature.reading.document import Section, Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["FROM_TO", "Found", "Wanted", "scores_in_prose", "scores_in_table"]

_METRIC = re.compile(
    r"^(?:acc(?:uracy|\.)?|em|exact match|(?:pass|avg|maj|mean|cons)@\d+|f1|token f1|score|win rate"
    r"|lc(?: win rate)?|strict"
    r"|loose|prompt|rouge-?l|bleu|chrf|%)\W*(?:\(%\))?$",
    re.IGNORECASE,
)
_K = re.compile(r"^[kn] ?= ?(\d{1,5})$", re.IGNORECASE)
_NO_METRIC = re.compile(
    r"length|items?|memory|tokens|time|cost|params|size|steps|hours|epochs|seed|readable|rate$|flops|gain|[Δδ]"
    r"|average|\bavg\b\.?$"
    r"|\bmean\b|overall",
    re.IGNORECASE,
)
_SPLIT = re.compile(r"\b(test|dev|development|validation|val)\b", re.IGNORECASE)
_METRIC_IN_CAPTION = re.compile(r"accuracy|pass@\d+|avg@\d+|exact match|win rate|\bF1\b", re.IGNORECASE)
_FIRST_NUMBER = re.compile(r"^[^\d-]{0,3}(-?\d+(?:\.\d+)?)")
_NAMED = re.compile(r"^(?=[\w+-]*[A-Z][\w+-]*[A-Z0-9])[A-Z][A-Za-z0-9+-]{2,30}(?: \d{1,4}| [A-Z][A-Za-z]{2,12})?$")
_CAPTION_END = re.compile(r"(?<=[a-z)\]])[.:]\s")
FROM_TO = re.compile(
    r"\bfrom (?P<before>\d+(?:\.\d+)?)\s?(?:%|percent)?(?:[^.;\d]|\.(?=\d)){0,60}?\bto (?P<after>\d+(?:\.\d+)?)(?!\d)"
)


@dataclass(frozen=True)
class Found:
    """A result and the recipe that it belongs to."""

    wanted: Wanted
    result: ReportedResult
    own_metric: bool = False
    """The column itself names the metric."""


@dataclass(frozen=True)
class _Column:
    at: int
    benchmark: str
    metric: str | None
    split: str | None
    parts: tuple[str, ...]
    own_metric: bool


def scores_in_table(
    table: Table, section: Section, wanted: Sequence[Wanted], names: Sequence[str] = ()
) -> Iterator[Found]:
    """Results of one table, read as it stands and, if that gives none, with rows and columns exchanged.

    Args:
        names: what the paper calls its own method or model.
    """
    if is_comparison(table.caption) or is_settings_table(table):
        return
    found = list(_read(table, section, wanted, names))
    yield from found or _read(_turned(table), section, wanted, names, turned=True)


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


def _read(
    table: Table, section: Section, wanted: Sequence[Wanted], names: Sequence[str], turned: bool = False
) -> Iterator[Found]:
    columns, rows = list(_columns(table)), rows_of(table)
    if not columns or not rows:
        return
    models = list(dict.fromkeys(one.model for one in wanted if one.model))
    caption = models_told(table.caption[:600], models)
    for want in wanted:
        key = model_key(want.model) if want.model else ""
        if len(models) > 1 and (caption or caption is None) and key not in (caption or (key,)):
            continue
        for column in columns:
            told = models_told(" ; ".join(column.parts), models)
            if told is None or (told and key not in told):
                continue
            mine = rows_for(rows, want, wanted, bool(told) or bool(caption and len(caption) == 1))
            after, before = pick_after(mine, want, wanted, names), pick_before(mine, want)
            if after is None or after is before:
                continue
            value = _number(after.cells, column.at)
            if value is None:
                continue
            earlier = _number(before.cells, column.at) if before else None
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
            yield Found(want, result, column.own_metric)


def _evidence(table: Table, section: Section, row: Row, column: _Column, turned: bool) -> Evidence:
    cells = list(dict.fromkeys(name for name in row.cells[: table.row_heads] if name))
    head = table.columns()[column.at]
    if turned:
        heads = list(dict.fromkeys(line[column.at] for line in table.header if line[column.at]))
        cells, head = heads, " / ".join(cells)
    return Evidence(
        section=section.id, kind="cell", text=row.cells[column.at][:2000], row=" ".join(cells)[:2000], column=head
    )


def _columns(table: Table) -> Iterator[_Column]:
    split = _SPLIT.search(table.caption)
    metric = _METRIC_IN_CAPTION.search(table.caption)
    width = max((len(row) for row in (*table.header, *table.rows)), default=0)
    heads = {
        at: tuple(dict.fromkeys(plain(row[at])[:300] for row in table.header if at < len(row) and row[at]))
        for at in range(table.row_heads, width)
    }
    known = any(benchmark_in(part) is not None for parts in heads.values() for part in parts)
    told_once = _benchmark_of_caption(table.caption)
    for at, parts in heads.items():
        if not parts:
            continue
        leaf = parts[-1]
        sized = _K.match(leaf)
        own_metric = f"pass@{sized[1]}" if sized else leaf if _METRIC.match(leaf) else None
        if sized and "pass@" not in table.caption.lower():
            continue
        named = [part for part in parts if benchmark_in(part) is not None]
        if not named and known and at >= table.row_heads:
            named = [part for part in parts if _NAMED.match(part) and not _METRIC.match(part)]
        if _NO_METRIC.search(leaf) and leaf not in named:
            continue
        if named:
            bench = _full_name(named[-1])
        elif told_once and own_metric and not known:
            bench = told_once
        else:
            continue
        told = _SPLIT.search(named[-1] if named else "") or split
        yield _Column(
            at,
            bench,
            own_metric or (metric[0].lower() if metric else None),
            told[1].lower() if told else None,
            parts,
            own_metric is not None,
        )


def _full_name(head: str) -> str:
    """The benchmark of a head, with what belongs to its name: `Minerva Math`, not `Minerva`."""
    if _NAMED.match(head):
        found = benchmark_in(head)
        rest = head[len(found) :].split() if found and head.startswith(found) else []
        if found is None or (rest and all(_NAMED_REST.match(word) for word in rest)):
            return head
    return benchmark_in(head) or head


_NAMED_REST = re.compile(
    r"^(?!Acc|EM\b|F1|Avg|Test|Dev|Val|Pass|Strict|Prompt|Score|LC\b|Win"
    r"|Hard\b)[A-Z][a-z]{2,12}$"
)


def _benchmark_of_caption(caption: str) -> str | None:
    """The only benchmark that a caption's first sentence names."""
    first = _CAPTION_END.split(re.sub(r"^Table \d+[.:]\s*", "", plain(caption[:600])))[0]
    bench = benchmark_in(first)
    if bench is None or benchmark_in(first.replace(bench, " ")) is not None:
        return None
    return bench


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
