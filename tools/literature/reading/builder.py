"""Puts a Document together from what a parser meets, in reading order, within bounds on text and number of parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from posttrain_crew.errors import BadAnswerError
from posttrain_crew.tools.literature.reading.document import (
    Block,
    Document,
    Paragraph,
    Reference,
    Section,
    SectionKind,
    Source,
    Table,
)
from posttrain_crew.tools.literature.reading.grid import MAX_CELL_CHARACTERS, GridBuilder

__all__ = ["DocumentBuilder", "arxiv_id_in"]

_MAX_SECTIONS = 1500
_MAX_TABLES = 300
_MAX_CELLS = 60_000
_MAX_REFERENCES = 3000
_MAX_CHARACTERS = 2_000_000
"""A paper of 300 pages has about 1,000,000."""
_MAX_PARAGRAPH = 60_000
_MOST_NOTED = 400
"""Characters before a footnote's mark that are kept with it."""
_ARXIV = re.compile(r"(?:arXiv\s*:\s*|arxiv\.org/(?:abs|pdf|html)/)(\d{4}\.\d{4,5})", re.IGNORECASE)
_RUN_IN = re.compile(r"^(?:- )?\*\*(.{2,80}?)\*\*")
_SPACE_BEFORE = re.compile(r" +([,.;:)\]])")


def arxiv_id_in(text: str) -> str | None:
    """The first arXiv id that a reference names, without its version."""
    match = _ARXIV.search(text)
    return match[1] if match else None


@dataclass
class _Open:
    """A section while it is read."""

    id: str
    level: int
    kind: SectionKind
    parent: str
    title: str = ""
    number: str = ""
    blocks: list[Block] = field(default_factory=list)


class DocumentBuilder:
    """Sections nest; text goes to the innermost place that takes it."""

    def __init__(self, arxiv_id: str, source: Source) -> None:
        self._arxiv_id, self._source = arxiv_id, source
        self._title = ""
        self._authors: list[str] = []
        self._sections: list[_Open] = []
        self._stack: list[_Open] = []
        self._ids: set[str] = set()
        self._buffers: list[list[str]] = [[]]
        self._characters = 0
        self._tables = 0
        self._cells = 0
        self._figures: list[list[GridBuilder]] = []
        self._footnotes: list[tuple[str, str]] = []
        self._references: list[Reference] = []
        self._reference_label = ""
        self._notes: list[str] = []
        self.in_heading = False

    def note(self, text: str) -> None:
        """Something that a reader must know about the text; told once."""
        if text not in self._notes and len(self._notes) < 20:
            self._notes.append(text)

    def author(self, name: str) -> None:
        """One author."""
        if clean := _clean(name)[:200]:
            self._authors.append(clean)

    def set_title(self, text: str) -> None:
        """The paper's title."""
        self._title = text[:500]

    def text(self, text: str) -> None:
        """Text where the reading stands."""
        self._characters += len(text)
        if self._characters > _MAX_CHARACTERS:
            self.note(f"only the first {_MAX_CHARACTERS:,} characters were read")
            return
        self._buffers[-1].append(text)

    def capture(self, use: Callable[[str], None]) -> Callable[[], None]:
        """Collect the text of an element apart; the returned function ends it and passes the text to `use`."""
        if use in (self.set_heading, self.set_title):
            self.in_heading = True
        self._buffers.append([])

        def end() -> None:
            if use in (self.set_heading, self.set_title):
                self.in_heading = False
            use(_clean("".join(self._buffers.pop())).replace("**", ""))

        return end

    def open_bold(self) -> Callable[[], None]:
        """Bold text; it matters at the start of a paragraph, where it is a run-in head."""
        buffer: list[str] = []
        self._buffers.append(buffer)

        def end() -> None:
            inner = "".join(self._buffers.pop())
            before = "".join(self._buffers[-1]).strip() if len(self._buffers) == 1 else "x"
            mark = "**" if before in ("", "-") and inner.strip() else ""
            self._buffers[-1].append(f"{mark}{inner.strip()}{mark} " if mark else inner)

        return end

    def open_section(self, section_id: str, level: int, kind: str) -> None:
        """A section begins; one without an id, or with one that was given before, gets another."""
        self.break_paragraph()
        if len(self._sections) >= _MAX_SECTIONS:
            self.note(f"only the first {_MAX_SECTIONS} sections were told apart")
        parent = self._stack[-1] if self._stack else None
        told: SectionKind = parent.kind if parent is not None else "body"
        if kind in ("abstract", "appendix", "bibliography"):
            told = kind  # type: ignore[assignment]  # the three words are kinds
        clean_id = re.sub(r"[^\w.:-]", "", section_id)[:60]
        if not clean_id or clean_id in self._ids:
            clean_id = f"{clean_id or 'sec'}-{len(self._sections) + 1}"
        self._ids.add(clean_id)
        opened = _Open(clean_id, level, told, parent.id if parent else "")
        if kind == "abstract":
            opened.title = "Abstract"
        self._stack.append(opened)
        if len(self._sections) < _MAX_SECTIONS:
            self._sections.append(opened)

    def close_section(self) -> None:
        """The innermost section ends."""
        self.break_paragraph()
        self._stack.pop()

    def set_heading(self, text: str) -> None:
        """The title of the innermost section."""
        if self._stack and not self._stack[-1].title:
            self._stack[-1].title = text[:300]

    def set_number(self, text: str) -> None:
        """The number of the innermost section."""
        if self._stack:
            self._stack[-1].number = re.sub(r"^Appendix\s+", "", text).strip(" .")[:20]

    def break_paragraph(self, lead: str = "") -> None:
        """The paragraph ends; `lead` begins the next one."""
        if len(self._buffers) == 1:
            self.paragraph("".join(self._buffers[0]))
            self._buffers[0] = [lead] if lead else []
            while self._footnotes:
                note, noted = self._footnotes.pop(0)
                self.paragraph(note, noted)
        else:
            self._buffers[-1].append(" " + lead)

    def paragraph(self, text: str, noted: str = "") -> None:
        """A whole paragraph; `noted` is what it hangs on, if it is a footnote."""
        clean = _clean(text)
        if len(clean) > _MAX_PARAGRAPH:
            self.note(f"a paragraph was cut after {_MAX_PARAGRAPH:,} characters")
            clean = clean[:_MAX_PARAGRAPH]
        if clean in ("", "-", "•"):
            return
        head = _RUN_IN.match(clean)
        self._place().append(Paragraph(clean.replace("**", ""), head[1].strip(" .:") if head else "", noted))

    def footnote(self, text: str) -> None:
        """A footnote comes after the paragraph that it hangs on."""
        if text:
            before = _clean("".join(self._buffers[-1][-200:]))[-_MOST_NOTED:]
            self._footnotes.append((text, before.replace("**", "")))

    def open_figure(self) -> None:
        """A float begins: its caption belongs to its tables."""
        self._figures.append([])

    def caption_tables(self, caption: str) -> bool:
        """The float ends; whether it had tables."""
        grids = self._figures.pop()
        for grid in grids:
            self._add_grid(grid, caption[:2000])
        return bool(grids)

    def table(self, grid: GridBuilder) -> None:
        """A table ends; inside a float it waits for the caption."""
        self._buffers[-1].append(" ")
        if self._figures:
            self._figures[-1].append(grid)
        else:
            self._add_grid(grid, "")

    def add_table(self, table: Table | None) -> None:
        """A finished table."""
        self._add_table(table)

    def open_reference(self, reference_id: str) -> Callable[[], None]:
        """An entry of the bibliography begins."""
        self._reference_label = ""

        def add(text: str) -> None:
            if len(self._references) < _MAX_REFERENCES and text:
                self._references.append(
                    Reference(reference_id[:60], self._reference_label, text[:1500], arxiv_id_in(text))
                )

        return self.capture(add)

    def set_reference_label(self, text: str) -> None:
        """How the text cites the entry."""
        self._reference_label = text[:200]

    def finish(self) -> Document:
        """The document. Raises BadAnswerError when there is no text."""
        while self._stack:
            self.close_section()
        self.break_paragraph()
        sections = tuple(
            Section(one.id, one.number, one.title, one.level, one.kind, tuple(one.blocks), one.parent)
            for one in self._sections
        )
        if not any(section.blocks for section in sections):
            raise BadAnswerError(f"the full text of {self._arxiv_id} ({self._source}) holds no text.")
        return Document(
            self._arxiv_id,
            self._title,
            self._source,
            sections,
            tuple(self._authors),
            tuple(self._references),
            tuple(self._notes),
        )

    def _place(self) -> list[Block]:
        if self._stack:
            return self._stack[-1].blocks
        if not self._sections or (self._sections[-1].id != "front" and not self._sections[-1].blocks):
            return self._front()
        return self._sections[-1].blocks

    def _front(self) -> list[Block]:
        """Text before the first section."""
        if "front" not in self._ids:
            self._ids.add("front")
            self._sections.insert(0, _Open("front", 1, "body", ""))
        return self._sections[0].blocks

    def _add_grid(self, grid: GridBuilder, caption: str) -> None:
        table = grid.build(caption)
        if grid.cut:
            self.note(f"a table was cut after {grid.cells:,} cells")
        if grid.shortened:
            self.note(f"a cell of a table was cut after {MAX_CELL_CHARACTERS:,} characters")
        self._add_table(table)

    def _add_table(self, table: Table | None) -> None:
        if table is None:
            return
        self._tables += 1
        self._cells += sum(len(row) for row in table.rows)
        if self._tables > _MAX_TABLES or self._cells > _MAX_CELLS:
            self.note(f"only the first {_MAX_TABLES} tables, or {_MAX_CELLS:,} cells of them, were read")
            return
        self._place().append(table)


def _clean(text: str) -> str:
    return _SPACE_BEFORE.sub(r"\1", " ".join(text.split()))
