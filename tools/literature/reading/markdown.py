"""Markdown of a paper, as `huggingface.co/papers/{id}.md` gives it, as a Document.

Headings are `#` lines, tables are pipe tables with an optional `Table 3: ...` line before or after, maths
stays as it is.
"""

from __future__ import annotations

import re

from posttrain_crew.errors import BadAnswerError
from posttrain_crew.tools.literature.reading.builder import DocumentBuilder
from posttrain_crew.tools.literature.reading.document import Document
from posttrain_crew.tools.literature.reading.grid import MAX_CELL_CHARACTERS, table_of

__all__ = ["parse_markdown"]

_MAX_BYTES = 8 * 2**20
_MAX_LINES = 200_000
_MAX_COLUMNS = 60
_MAX_CELLS = 20_000
_HEADING = re.compile(r"(#{1,6})\s+(\S.*)")
_NUMBERED = re.compile(r"((?:Appendix )?[A-Z]?\d*(?:\.\d+)*)\.?\s+(?=\S)")
_RULE_CELL = re.compile(r":?-{2,}:?")
_CAPTION = re.compile(r"^\W{0,3}(?:Table|Tab\.)\s+[\dA-Z.]+\s*[:.]", re.IGNORECASE)
_PIPE = re.compile(r"(?<!\\)\|")
_TAGS = re.compile(r"<[^<>]{0,300}>")
_REFERENCES = frozenset({"references", "bibliography"})


def parse_markdown(body: bytes, arxiv_id: str) -> Document:
    """Parse a page.

    Raises:
        BadAnswerError: it is HTML, too large, or holds no text under any heading.
    """
    if len(body) > _MAX_BYTES:
        raise BadAnswerError(f"the markdown of {arxiv_id} has {len(body) / 2**20:.0f} MiB; at most 8 are read.")
    text = body.decode("utf-8", errors="replace")
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype", "<html")) or "\x00" in start:
        raise BadAnswerError(f"what came as the markdown of {arxiv_id} is no markdown; it begins {start[:60]!r}.")
    lines = text.splitlines()
    out = DocumentBuilder(arxiv_id, "hf-markdown")
    if len(lines) > _MAX_LINES:
        out.note(f"only the first {_MAX_LINES:,} lines were read")
        del lines[_MAX_LINES:]
    return _Lines(out, lines).read()


class _Lines:
    def __init__(self, out: DocumentBuilder, lines: list[str]) -> None:
        self._out, self._lines, self._at = out, lines, 0
        self._levels: list[int] = []
        self._kind = "section"
        self._titled = False
        self._caption = ""

    def read(self) -> Document:
        fenced = False
        while self._at < len(self._lines):
            line = self._lines[self._at].strip()
            self._at += 1
            if line.startswith(("```", "~~~")):
                fenced = not fenced
            elif fenced:
                self._out.text(line + " ")
            elif (heading := _HEADING.match(line)) is not None:
                self._heading(len(heading[1]), heading[2].rstrip("# "))
            elif line.startswith("|") and self._at < len(self._lines) and _is_rule(self._lines[self._at]):
                self._table(line)
            elif not line:
                self._out.break_paragraph()
            elif _CAPTION.match(line):
                self._caption_line(line)
            elif self._kind == "bibliography" and line[:1] in "-*[":
                self._reference(line)
            else:
                if line.startswith(("- ", "* ")):
                    self._out.break_paragraph()
                    line = "- " + line[2:]
                self._out.text(_TAGS.sub("", line) + " ")
        return self._out.finish()

    def _heading(self, level: int, text: str) -> None:
        self._out.break_paragraph()
        text = text.replace("**", "").strip()
        if level == 1 and not self._titled:
            self._titled = True
            self._out.set_title(text)
            return
        while self._levels and self._levels[-1] >= level:
            self._levels.pop()
            self._out.close_section()
        number = _NUMBERED.match(text)
        name = text[number.end() :] if number and number[1] else text
        word = name.strip(" .:").lower()
        if len(self._levels) == 0:
            lettered = bool(number and number[1][:1].isalpha())
            appended = self._kind == "appendix" or word.startswith("appendi") or lettered
            self._kind = "appendix" if appended else "section"
            if word in ("abstract", *_REFERENCES):
                self._kind = "abstract" if word == "abstract" else "bibliography"
        self._levels.append(level)
        self._out.open_section("", max(level - 1, 1), self._kind)
        self._out.set_heading(name)
        if number and number[1]:
            self._out.set_number(number[1])

    def _caption_line(self, line: str) -> None:
        self._out.break_paragraph()
        following = next((one.strip() for one in self._lines[self._at : self._at + 3] if one.strip()), "")
        if following.startswith("|"):
            self._caption = line.replace("**", "")
        else:
            self._out.paragraph(line)

    def _table(self, first: str) -> None:
        self._out.break_paragraph()
        rows = [self._cells(first)]
        self._at += 1
        while self._at < len(self._lines) and self._lines[self._at].strip().startswith("|"):
            rows.append(self._cells(self._lines[self._at]))
            self._at += 1
        if not self._caption:
            for ahead in range(self._at, min(self._at + 3, len(self._lines))):
                line = self._lines[ahead].strip()
                if line and _CAPTION.match(line):
                    self._caption, self._at = line.replace("**", ""), ahead + 1
                if line:
                    break
        width = max(len(row) for row in rows)
        most = max(_MAX_CELLS // max(width, 1), 2)
        if len(rows) > most:
            self._out.note(f"a table was cut after {most:,} rows")
            del rows[most:]
        padded = [tuple(row + [""] * (width - len(row))) for row in rows]
        marked = 1 if any(padded[0]) and len(padded) > 1 else 0
        self._out.add_table(table_of("", self._caption, padded, marked))
        self._caption = ""

    def _cells(self, line: str) -> list[str]:
        parts = _PIPE.split(line.strip().removeprefix("|").removesuffix("|"))
        cells = [
            " ".join(_TAGS.sub("", cell).replace("\\|", "|").replace("**", "").split()) for cell in parts[:_MAX_COLUMNS]
        ]
        if len(parts) > _MAX_COLUMNS:
            self._out.note(f"a table was cut after {_MAX_COLUMNS} columns")
        if any(len(cell) > MAX_CELL_CHARACTERS for cell in cells):
            self._out.note(f"a cell of a table was cut after {MAX_CELL_CHARACTERS:,} characters")
        return [cell[:MAX_CELL_CHARACTERS] for cell in cells]

    def _reference(self, line: str) -> None:
        end = self._out.open_reference("")
        self._out.text(line.lstrip("-* "))
        label = re.match(r"\[[^\[\]]{1,60}\]", line.lstrip("-* "))
        if label:
            self._out.set_reference_label(label[0])
        end()


def _is_rule(line: str) -> bool:
    """Whether a line parts the head of a table from its rows: `|---|:--:|`."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    return all(_RULE_CELL.fullmatch(cell.strip()) for cell in inner.split("|"))
