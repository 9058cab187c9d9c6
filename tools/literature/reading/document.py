"""A paper's full text as data: sections with ids, prose with maths as TeX, tables as rows, references.

Whatever it was read from (HTML, markdown, PDF), the form is the same. All text is quoted material of unknown authors:
it is searched and shown, never followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.reading.structure import experiment_weight, method_weight

__all__ = ["Attempt", "Block", "Document", "Paragraph", "Reference", "Section", "SectionKind", "Source", "Table"]

SectionKind = Literal["abstract", "body", "appendix", "bibliography"]
Source = Literal["arxiv-html", "ar5iv", "hf-markdown", "pdf"]

_SHARE_OF_BEST = 0.35
"""A section belongs to the methodology (or the experiments) when it weighs this share of the weightiest one."""


@dataclass(frozen=True)
class Paragraph:
    """One paragraph, list item or caption, on one line."""

    text: str
    head: str = ""
    """A run-in head such as `Data.` in bold at its start; it is part of `text`, too."""
    noted: str = ""
    """For a footnote: the end of the text that it hangs on."""


@dataclass(frozen=True)
class Table:
    """A table as a rectangle of text: cells that span are repeated in every place that they cover."""

    id: str
    caption: str
    header: tuple[tuple[str, ...], ...]
    """Rows of column heads, the outermost first; empty where none could be told."""
    rows: tuple[tuple[str, ...], ...]
    row_heads: int = 1
    """How many columns from the left name the row."""

    def columns(self) -> tuple[str, ...]:
        """One name for each column: its heads from the outermost to the innermost, repeats left out."""
        width = max((len(row) for row in (*self.header, *self.rows)), default=0)
        heads = ([row[at] for row in self.header if at < len(row) and row[at]] for at in range(width))
        return tuple(" / ".join(dict.fromkeys(column)) for column in heads)

    def markdown(self) -> str:
        """As people read it."""
        head = self.columns()
        lines = [_row(head), "|" + "---|" * len(head)] if any(head) else []
        return "\n".join([*([self.caption] if self.caption else []), *lines, *(_row(row) for row in self.rows)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


Block = Paragraph | Table


@dataclass(frozen=True)
class Section:
    """A section without its subsections."""

    id: str
    number: str
    """`3.1`, `A`, or empty."""
    title: str
    level: int
    """1 for a section, 2 for a subsection, 4 for a titled paragraph."""
    kind: SectionKind
    blocks: tuple[Block, ...] = ()
    parent: str = ""
    """Id of the section that it is part of."""

    @property
    def text(self) -> str:
        """Prose and tables in reading order."""
        return "\n\n".join(block.markdown() if isinstance(block, Table) else block.text for block in self.blocks)

    @property
    def paragraphs(self) -> tuple[Paragraph, ...]:
        """The prose."""
        return tuple(block for block in self.blocks if isinstance(block, Paragraph))

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables."""
        return tuple(block for block in self.blocks if isinstance(block, Table))

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"{self.number} {self.title}".strip()


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography."""

    id: str
    label: str
    """As the text cites it: `[3]`, `Lindholm et al. [2026]`."""
    text: str
    arxiv_id: str | None = None


@dataclass(frozen=True)
class Attempt:
    """A place where the full text was asked for."""

    source: Source
    outcome: str
    """`read`, or why not."""
    error: str = ""
    """Class of the ServiceError, where it was one; `NotFoundError` where the place does not have the paper."""
    stale: bool = False
    """Read from an outdated copy, because the place was down."""

    @property
    def failed(self) -> bool:
        """Whether the place may have the text, and could not be asked."""
        return self.stale or self.error not in ("", "NotFoundError")


@dataclass(frozen=True)
class Document:
    """The full text of a paper."""

    arxiv_id: str
    title: str
    source: Source
    sections: tuple[Section, ...]
    authors: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out or looks wrong, for example that the page ends early."""
    tried: tuple[Attempt, ...] = ()

    @property
    def abstract(self) -> str:
        """Text of the abstract, or nothing."""
        return "\n\n".join(section.text for section in self.sections if section.kind == "abstract")

    def outline(self) -> list[dict[str, str | int]]:
        """One row for each section: id, heading, level, kind, number of characters and of tables."""
        return [
            {
                "id": section.id,
                "heading": section.heading,
                "level": section.level,
                "kind": section.kind,
                "characters": len(section.text),
                "tables": len(section.tables),
            }
            for section in self.sections
        ]

    def section(self, section_id: str) -> Section:
        """One section without its subsections. Raises InputError that names the sections there are."""
        for section in self.sections:
            if section.id == section_id:
                return section
        known = ", ".join(section.id for section in self.sections[:60])
        raise InputError(f"paper {self.arxiv_id} has no section {section_id[:80]!r}; it has {known}.")

    def ancestors(self, section: Section) -> Iterator[Section]:
        """The sections around one, the innermost first."""
        by_id = {one.id: one for one in self.sections}
        seen = {section.id}
        while section.parent in by_id and section.parent not in seen:
            section = by_id[section.parent]
            seen.add(section.id)
            yield section

    def within(self, section_id: str) -> tuple[Section, ...]:
        """A section and everything under it, in reading order. Raises InputError."""
        self.section(section_id)
        return tuple(
            one for one in self.sections if one.id == section_id or section_id in {up.id for up in self.ancestors(one)}
        )

    def text(self, section_ids: Sequence[str] | None = None) -> str:
        """Chosen sections, or all but the bibliography, with headings as markdown."""
        chosen = [
            section
            for section in self.sections
            if (section.kind != "bibliography" if section_ids is None else section.id in section_ids)
        ]
        return "\n\n".join(
            f"{'#' * min(section.level + 1, 6)} {section.heading} [{section.id}]\n\n{section.text}".rstrip()
            for section in chosen
        )

    def page(self, number: int, characters: int = 8000) -> tuple[str, int]:
        """A page of the whole text, cut between lines where that is possible.

        Args:
            number: from 1.
            characters: at most so many on a page.

        Returns:
            The text and how many pages there are. Raises InputError for a page that is not there.
        """
        pages = _pages(f"# {self.title}\n\n{self.text()}", max(characters, 200))
        if not 1 <= number <= len(pages):
            raise InputError(f"paper {self.arxiv_id} has pages 1 to {len(pages)}; there is no page {number}.")
        return pages[number - 1], len(pages)

    def methodology(self) -> tuple[Section, ...]:
        """Sections that say how something was trained, told by what they hold and not by their titles."""
        return self._heaviest([method_weight(section.text, len(section.tables)) for section in self.sections])

    def experiments(self) -> tuple[Section, ...]:
        """Sections that report measurements, told by what they hold and not by their titles."""
        return self._heaviest(
            [
                experiment_weight(
                    " ".join(paragraph.text for paragraph in section.paragraphs),
                    [table.markdown() for table in section.tables],
                )
                for section in self.sections
            ]
        )

    def _heaviest(self, weights: Sequence[float]) -> tuple[Section, ...]:
        usable = [
            weight if section.kind in ("body", "appendix") else 0.0
            for section, weight in zip(self.sections, weights, strict=True)
        ]
        least = max(max(usable, default=0.0) * _SHARE_OF_BEST, 1.0)
        return tuple(section for section, weight in zip(self.sections, usable, strict=True) if weight >= least)


def _pages(text: str, size: int) -> list[str]:
    pages: list[str] = []
    start = 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            cut = text.rfind("\n", start + size // 2, end)
            end = cut if cut > start else end
        pages.append(text[start:end].strip("\n"))
        start = end
    return pages or [""]
