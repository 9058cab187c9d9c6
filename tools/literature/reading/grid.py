"""From rows of cells with spans to a rectangle, with its header told apart.

LaTeXML guesses which cells are heads (`ltx_th`, `thead`) and often does not; then the first row is the header when it
holds fewer numbers than the rows below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from posttrain_crew.tools.literature.reading.document import Table
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["MAX_CELL_CHARACTERS", "GridBuilder", "table_of"]

_MAX_CELLS = 20_000
_MAX_SPAN = 60
MAX_CELL_CHARACTERS = 2000
"""Of one cell: a longer one holds no number and no name."""
_MAX_HEADER_ROWS = 4
_AMOUNT = re.compile(r"^~?\d[\d.,]*\s?[kKM]$")
_HEAD_OF_NAMES = re.compile(
    r"^(?:model|method|system|benchmark|size|data|task|setting|name|approach|variant)", re.IGNORECASE
)
_NUMERIC = re.compile(r"^[^A-Za-z]*\d[^A-Za-z]*(?:e-?\d+)?[^A-Za-z]*$")


@dataclass
class _Cell:
    columns: int
    rows: int
    head: bool
    text: str = ""


@dataclass
class GridBuilder:
    """Takes a table as the page has it, row by row."""

    id: str
    in_head: bool = False
    cells: int = 0
    cut: bool = False
    shortened: bool = False
    """A cell was longer than is kept."""
    _rows: list[tuple[bool, list[_Cell]]] = field(default_factory=list)

    def row(self) -> None:
        """A row begins."""
        self._rows.append((self.in_head, []))

    def leave_head(self) -> None:
        """The header ends."""
        self.in_head = False

    def cell(self, colspan: str | None, rowspan: str | None, head: bool) -> None:
        """A cell begins."""
        if not self._rows:
            self.row()
        self._rows[-1][1].append(_Cell(_span(colspan), _span(rowspan), head))

    def set_text(self, text: str) -> None:
        """The text of the cell that began last."""
        self._rows[-1][1][-1].text = text[:MAX_CELL_CHARACTERS]
        self.shortened = self.shortened or len(text) > MAX_CELL_CHARACTERS

    def build(self, caption: str) -> Table | None:
        """The table, or None when it holds nothing."""
        grid = self._expanded()
        grid = [(head, row) for head, row in grid if any(cell.text for cell in row)]
        if not grid:
            return None
        texts = [tuple(cell.text for cell in row) for _, row in grid]
        marked = 0
        for head, row in grid[:_MAX_HEADER_ROWS]:
            if not (head or (len(row) > 1 and all(cell.head or not cell.text for cell in row))):
                break
            # LaTeXML also guesses the row of an untrained model, set apart by a line, to be a second header
            if marked and sum(_is_number(cell.text) for cell in row) * 2 >= len(row):
                break
            if marked and _is_complete(texts[:marked], texts[marked]):
                break
            marked += 1
        if marked == len(texts):
            marked = 0
        return table_of(self.id, caption, texts, marked)

    def _expanded(self) -> list[tuple[bool, list[_Cell]]]:
        """Repeat cells over their spans, within the bound on cells."""
        grid: list[tuple[bool, list[_Cell]]] = []
        pending: dict[int, tuple[int, _Cell]] = {}  # column -> rows left, cell
        for head, cells in self._rows:
            row: list[_Cell] = []
            queue = list(reversed(cells))
            while queue or pending.get(len(row)):
                held = pending.pop(len(row), None)
                if held is not None:
                    left, cell = held
                    if left > 1:
                        pending[len(row)] = (left - 1, cell)
                    row.append(cell)
                    continue
                cell = queue.pop()
                for _ in range(cell.columns):
                    if cell.rows > 1:
                        pending[len(row)] = (cell.rows - 1, cell)
                    row.append(cell)
            self.cells += len(row)
            if self.cells > _MAX_CELLS:
                self.cut = True
                break
            grid.append((head, row))
        return grid


def table_of(table_id: str, caption: str, rows: list[tuple[str, ...]], marked: int = 0) -> Table | None:
    """A Table from a rectangle of text.

    Args:
        marked: how many rows from the top the source marks as header; 0 lets the numbers tell.
    """
    rows = [row for row in rows if any(row)]
    if not rows:
        return None
    header = marked or _guessed_header(rows)
    return Table(table_id, caption, tuple(rows[:header]), tuple(rows[header:]), _row_heads(rows[header:]))


def _guessed_header(rows: list[tuple[str, ...]]) -> int:
    """Rows at the top in which no cell beyond the first is a number, when rows with numbers follow them."""
    numeric = [any(_is_number(cell) for cell in row[1:]) for row in rows]
    if not any(numeric):
        return 1 if len(rows) > 2 else 0
    first = numeric.index(True)
    if not (0 < first <= _MAX_HEADER_ROWS and first < len(rows)):
        return 0
    return next((depth for depth in range(1, first) if _is_complete(rows[:depth], rows[depth])), first)


def _is_complete(header: list[tuple[str, ...]], following: tuple[str, ...]) -> bool:
    """Whether a header needs no further row: each column has its own head, and the next row has a name of its own.

    `Initial checkpoint | A | B` below `Hyper-parameter | SFT | DPO` is a row of words, not a second row of heads.
    """
    last = header[-1]
    heads = last[1:]
    if not heads or not all(heads) or len(set(heads)) < len(heads):
        return False
    if not following or not following[0] or following[0] == last[0]:
        return False
    return bool(last[0]) or not _HEAD_OF_NAMES.match(following[0])


def _row_heads(rows: list[tuple[str, ...]]) -> int:
    """Columns from the left that hold names and no numbers."""
    width = max((len(row) for row in rows), default=1)
    heads = 0
    for at in range(width - 1):
        cells = [row[at] for row in rows if at < len(row) and row[at] and row[at].strip("-–—− ")]
        # `395K` behind a name is a number of examples; at the very left `7B` is a name
        if cells and sum(1 for cell in cells if _is_number(cell) or (at and _AMOUNT.match(cell))) > len(cells) / 2:
            break
        heads += 1
        if heads == 2:
            break
    return max(heads, 1)


def _is_number(cell: str) -> bool:
    return bool(_NUMERIC.match(plain(cell)))


def _span(text: str | None) -> int:
    return min(max(int(text), 1), _MAX_SPAN) if text and text.isascii() and text.isdigit() and len(text) < 5 else 1
