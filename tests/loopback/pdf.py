"""A small writer of PDF files with text: one font, no compression, pages of 54 lines (ISO 32000-1, sections 7, 9)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["pdf_of"]

COLUMNS, LINES = 92, 54
LEADING = 13


def pdf_of(title: str, blocks: Iterable[str]) -> bytes:
    """A PDF of texts with an empty line between them; their long lines are wrapped."""
    pages = list(_pages([line for text in blocks for line in _lines(text)]))
    objects: list[bytes] = []
    font, tree = 3, 2
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(b"<< /Type /Catalog /Pages %d 0 R >>" % tree)
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>")
    for number, page in enumerate(pages):
        content = _content(page)
        objects.append(
            b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 %d 0 R >> >> "
            b"/Contents %d 0 R >>" % (tree, font, 5 + 2 * number)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
    objects.append(b"<< /Title (%s) >>" % _escaped(title))
    return _file(objects)


def _lines(text: str) -> Iterator[str]:
    for line in text.split("\n"):
        yield from textwrap.wrap(line, COLUMNS) or [""]
    yield ""


def _pages(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, max(1, len(lines)), LINES):
        yield lines[start : start + LINES]


def _content(lines: Sequence[str]) -> bytes:
    shown = b"\n".join(b"(%s) Tj T*" % _escaped(line) for line in lines)
    return b"BT /F1 10 Tf %d TL 50 790 Td\n%s\nET" % (LEADING, shown)


def _escaped(text: str) -> bytes:
    raw = text.encode("cp1252", errors="replace")
    return raw.replace(b"\\", rb"\\").replace(b"(", rb"\(").replace(b")", rb"\)")


def _file(objects: Sequence[bytes]) -> bytes:
    """Objects numbered from 1 (the first is the catalogue, the last the information), and the table of their places."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size + 1, size, table)
    return bytes(out)
