"""Settings from tables of hyper-parameters: one column of values, one for each stage or model, or pairs side by side,
or one row for each stage or model. The machine that such a table names is read as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from posttrain_crew.tools.literature.extraction.labels import explained, legend, unfolded
from posttrain_crew.tools.literature.extraction.mentions import machine
from posttrain_crew.tools.literature.extraction.patterns import Hyper, label_spec, read_cell
from posttrain_crew.tools.literature.extraction.recipe import Evidence
from posttrain_crew.tools.literature.extraction.scope import cites_others, is_comparison
from posttrain_crew.tools.literature.reading.document import Section, Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["CellRead", "is_settings_table", "read_settings"]

_NOT_OURS = re.compile(
    r"baseline|ablat|variant|alternative|range|search|grid|tried|sweep|default|original|prior|published|candidates"
    r"|\bRM\b|\bPRM\b|\bORM\b|reward model|\bjudge\b|teacher|verifier|evaluat|\btest\b",
    re.IGNORECASE,
)
_OURS = re.compile(r"\bours\b|\bfinal\b|\bchosen\b|\bused\b", re.IGNORECASE)
_GPU_LABEL = re.compile(r"^(?:gpus?|hardware|devices?|accelerators?|machine|compute)(?: (?:type|model|used))?$", re.I)
_COUNT_LABEL = re.compile(
    r"^(?:#|no\.?|num\w*\.?|n\.?|number of)\s?(?:of )?(?:gpus?|devices|accelerators)$|^gpus$", re.I
)
_HOURS_LABEL = re.compile(
    r"^(?:wall|training time|train time|run ?time|duration|time\b|hours|h$)(?!.*gpu)|^training (?:hours|days)", re.I
)
_HOURS = {"h": 1.0, "m": 1 / 60, "d": 24.0}


@dataclass(frozen=True)
class CellRead:
    """A setting of one cell, or part of the machine (`compute.gpu`, `compute.count`, `compute.hours`)."""

    hyper: Hyper
    evidence: Evidence
    column: str
    """Heads of the column (or names of the row): they may name a stage or a model."""
    caption: str
    peers: tuple[str, ...] = ()
    """The other columns (or rows) of values."""


def is_settings_table(table: Table) -> bool:
    """Whether at least two of its names of rows or columns are names of hyper-parameters."""
    words = legend(table.caption)
    return bool(_label_columns(table, words)) or _is_sideways(table, words)


def read_settings(table: Table, section: Section) -> Iterator[CellRead]:
    """All settings of one table, or none when it varies something or reports others' settings."""
    if is_comparison(table.caption) or cites_others(table.caption):
        return
    words = legend(table.caption)
    if labels := _label_columns(table, words):
        yield from _upright(table, section, labels, words)
    elif _is_sideways(table, words):
        yield from _sideways(table, section, words)


def _all_rows(table: Table) -> list[tuple[str, ...]]:
    return [*table.header, *table.rows]


def _names_setting(label: str, words: dict[str, str]) -> bool:
    return label_spec(explained(label[:300], words)) is not None


def _label_columns(table: Table, words: dict[str, str]) -> list[int]:
    """Columns in which most cells name a hyper-parameter."""
    found = []
    width = max((len(row) for row in table.rows), default=0)
    for at in range(width):
        cells = [row[at] for row in _all_rows(table) if at < len(row) and row[at]]
        named = sum(1 for cell in cells if _names_setting(cell, words))
        machine_rows = sum(1 for cell in cells if _is_hardware(cell, words))
        if named >= 2 and named + machine_rows >= len(cells) * 0.45:
            found.append(at)
    return [at for at in found if at + 1 < width]


def _upright(table: Table, section: Section, labels: list[int], words: dict[str, str]) -> Iterator[CellRead]:
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
            named_by = max(one for one in labels if one < at)
            label = row[named_by]
            peers = tuple(
                heads[one] for one in values if one != at and one < len(heads) and one > named_by and heads[one] != head
            )
            if row in table.header:
                head = ""
            for hyper in _of_cell(label, row[at], words):
                evidence = Evidence(section=section.id, kind="cell", text=row[at][:2000], row=label, column=head)
                yield CellRead(hyper, evidence, head, table.caption, peers)


def _of_cell(label: str, cell: str, words: dict[str, str]) -> list[Hyper]:
    found = read_cell(explained(label[:300], words), plain(cell)) if len(label) <= 300 else []
    return found or list(_hardware(label, cell, words))


def _hardware(label: str, cell: str, words: dict[str, str]) -> Iterator[Hyper]:
    """What a labelled cell says of the machine."""
    if len(label) > 80 or len(cell) > 80:
        return
    flat = unfolded(label, words)
    leaf = re.sub(r"\s?\([^()]*\)", "", flat.split(" / ")[-1]).strip(" :")
    value, number = (
        plain(cell),
        re.fullmatch(r"~?(\d{1,5}(?:\.\d{1,3})?)\s?(hours?|h|minutes?|min|days?|d)?", plain(cell)),
    )
    if _COUNT_LABEL.search(leaf) and number and not number[2] and float(number[1]).is_integer():
        yield Hyper("compute.count", int(float(number[1])), "")
    elif _GPU_LABEL.search(leaf) and (read := machine(value)) is not None:
        if read.gpu:
            yield Hyper("compute.gpu", read.gpu, "")
        if read.count:
            yield Hyper("compute.count", read.count, "")
    elif number and (_HOURS_LABEL.search(leaf) or re.search(r"\(wall|\(training time|\(time of training", flat)):
        told = re.search(r"\b(hours?|h|minutes?|min|days?)\b", flat, re.IGNORECASE)
        unit = number[2] or (told[1].lower() if told else "")
        if unit and not re.search(r"gpu[- ]?h", flat, re.IGNORECASE):
            yield Hyper("compute.hours", round(float(number[1]) * _HOURS[unit[0]], 4), "hours")


def _is_hardware(label: str, words: dict[str, str]) -> bool:
    return any(list(_hardware(label, cell, words)) for cell in ("1", "1 hour", "A100"))


def _is_sideways(table: Table, words: dict[str, str]) -> bool:
    return sum(1 for head in table.columns() if head and _names_setting(head, words)) >= 2


def _sideways(table: Table, section: Section, words: dict[str, str]) -> Iterator[CellRead]:
    """A row for each stage or model. Where a column measures something, the rows are variants that were compared."""
    heads = table.columns()
    known = [_names_setting(head, words) or _is_hardware(head, words) for head in heads]
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
    names = [
        " ".join(dict.fromkeys(cell for cell, is_setting in zip(row, known, strict=False) if not is_setting))
        for row in table.rows
    ]
    for row, name in zip(table.rows, names, strict=True):
        if _NOT_OURS.search(name[:2000]) or cites_others(name[:2000]):
            continue
        for at, cell in enumerate(row):
            if at < len(known) and known[at]:
                for hyper in _of_cell(heads[at], cell, words):
                    evidence = Evidence(
                        section=section.id, kind="cell", text=cell[:2000], row=name[:2000], column=heads[at]
                    )
                    peers = tuple(other for other in names[:40] if other != name)
                    yield CellRead(hyper, evidence, name, table.caption, peers)
