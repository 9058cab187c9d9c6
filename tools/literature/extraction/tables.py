"""Settings from tables of hyper-parameters: one column of values, one for each stage or model, or pairs side by
side."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.patterns import Hyper, label_spec, read_cell
from posttrain_crew.tools.literature.extraction.recipe import Evidence
from posttrain_crew.tools.literature.extraction.scope import cites_others, is_comparison
from posttrain_crew.tools.literature.reading.document import Section, Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["CellRead", "is_settings_table", "read_settings"]

_NOT_OURS = re.compile(
    r"baseline|range|search|grid|tried|sweep|default|original|prior|published|candidates", re.IGNORECASE
)
_OURS = re.compile(r"\bours\b|\bfinal\b|\bchosen\b|\bused\b", re.IGNORECASE)


@dataclass(frozen=True)
class CellRead:
    """A setting of one cell."""

    hyper: Hyper
    evidence: Evidence
    column: str
    """Heads of the column: they may name a stage or a model."""
    caption: str


def is_settings_table(table: Table) -> bool:
    """Whether at least two of its names of rows or columns are names of hyper-parameters."""
    return bool(_label_columns(table)) or _is_sideways(table)


def read_settings(table: Table, section: Section) -> Iterator[CellRead]:
    """All settings of one table, or none when it varies something or reports others' settings."""
    if is_comparison(table.caption) or cites_others(table.caption):
        return
    if labels := _label_columns(table):
        yield from _upright(table, section, labels)
    elif _is_sideways(table):
        yield from _sideways(table, section)


def _all_rows(table: Table) -> list[tuple[str, ...]]:
    return [*table.header, *table.rows]


def _label_columns(table: Table) -> list[int]:
    """Columns in which most cells name a hyper-parameter."""
    found = []
    width = max((len(row) for row in table.rows), default=0)
    for at in range(width):
        cells = [row[at] for row in _all_rows(table) if at < len(row) and row[at]]
        named = sum(1 for cell in cells if label_spec(plain(cell).lower()) is not None)
        if named >= 2 and named >= len(cells) * 0.45:
            found.append(at)
    return [at for at in found if at + 1 < width]


def _upright(table: Table, section: Section, labels: list[int]) -> Iterator[CellRead]:
    heads = table.columns()
    width = max(len(row) for row in _all_rows(table))
    values = [at for at in range(labels[0] + 1, width) if at not in labels]
    ours = [at for at in values if at < len(heads) and _OURS.search(heads[at])]
    for row in _all_rows(table):
        for at in values:
            if at >= len(row) or (ours and at not in ours):
                continue
            head = heads[at] if at < len(heads) else ""
            if not ours and (_NOT_OURS.search(head) or cites_others(head)):
                continue
            label = row[max(one for one in labels if one < at)]
            if row in table.header:
                head = ""
            for hyper in read_cell(plain(label).lower(), plain(row[at])):
                evidence = Evidence(section=section.id, kind="cell", text=row[at][:2000], row=label, column=head)
                yield CellRead(hyper, evidence, head, table.caption)


def _is_sideways(table: Table) -> bool:
    heads = [plain(head).lower() for head in table.columns()]
    return sum(1 for head in heads if label_spec(head) is not None) >= 2


def _sideways(table: Table, section: Section) -> Iterator[CellRead]:
    """A row for each stage or model. Where a column measures something, the rows are variants that were compared."""
    heads = table.columns()
    known = [label_spec(plain(head).lower()) is not None for head in heads]
    for at, head in enumerate(heads):
        cells = [plain(row[at]) for row in table.rows if at < len(row)]
        if (
            not known[at]
            and at
            and any(re.fullmatch(r"\d+(?:\.\d+)?\s?%?(?:\s?±.*)?", cell) for cell in cells)
            and head
        ):
            return
    if all(known) and len(table.rows) > 1:
        return
    for row in table.rows:
        name = " ".join(cell for cell, is_setting in zip(row, known, strict=False) if not is_setting)
        if _NOT_OURS.search(name) or cites_others(name):
            continue
        for at, cell in enumerate(row):
            if at < len(known) and known[at]:
                for hyper in read_cell(plain(heads[at]).lower(), plain(cell)):
                    evidence = Evidence(section=section.id, kind="cell", text=cell[:2000], row=name, column=heads[at])
                    yield CellRead(hyper, evidence, name, table.caption)
