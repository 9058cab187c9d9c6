"""Markdown and PDF give the same kind of document; what cannot be read is a typed failure."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time

import pytest
from pypdf import PdfReader, PdfWriter

from posttrain_crew.errors import BadAnswerError
from posttrain_crew.tools.literature.reading import pdf_text
from posttrain_crew.tools.literature.reading.markdown import parse_markdown
from posttrain_crew.tools.literature.reading.pdf import parse_pdf
from tests.loopback.pdf import pdf_of

PAGE = """# A Title With $x^2$

## Abstract
We train a thing.

## 1 What we did

**Setup.** We use a learning rate of $2\\times10^{-5}$.
- item one
- item two

Table 1: Settings of both.

| Name | SFT | DPO |
|:---|---:|---:|
| Learning rate | 1e-5 | 5e-7 |
| a \\| b | 2 | |

### 1.1 Deeper

More <b>text</b>.

## Appendix

### A.1 More numbers

| Epochs | Steps |
|---|---|
| 3 | 100 |

## References

- [1] A. Author. A paper. arXiv:2609.90004.
"""
TEXT = [
    "Abstract",
    "We train a small model on worked solutions and we report what came of it in some detail.",
    "1 Introduction",
    "Models below two billion parameters pick the wrong option although they know the facts of the field.",
    "3.1 Training recipe",
    "We use a learning rate of 2e-5 and a batch size of 16 for three epochs on four A100 GPUs in 2.5 hours.",
]


def test_markdown_has_sections_tables_and_references() -> None:
    document = parse_markdown(PAGE.encode(), "2609.90001")
    assert (document.title, document.source) == ("A Title With $x^2$", "hf-markdown")
    heads = [(one.number, one.title, one.level, one.kind) for one in document.sections]
    assert heads == [
        ("", "Abstract", 1, "abstract"),
        ("1", "What we did", 1, "body"),
        ("1.1", "Deeper", 2, "body"),
        ("", "Appendix", 1, "appendix"),
        ("A.1", "More numbers", 2, "appendix"),
        ("", "References", 1, "bibliography"),
    ]
    section = document.sections[1]
    assert [one.text for one in section.paragraphs][:3] == [
        "Setup. We use a learning rate of $2\\times10^{-5}$.",
        "- item one",
        "- item two",
    ]
    assert section.paragraphs[0].head == "Setup"
    (table,) = section.tables
    assert table.caption == "Table 1: Settings of both."
    assert table.rows[1] == ("a | b", "2", "")
    assert document.references[0].arxiv_id == "2609.90004" and document.references[0].label == "[1]"


@pytest.mark.parametrize(
    "body",
    [b"", b"<!doctype html><html><body>Paper page</body></html>", b"\x00\x01\x02", b"# only a title", b"x" * 9_000_000],
    ids=["empty", "html", "bytes", "title", "9MB"],
)
def test_markdown_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadAnswerError):
        parse_markdown(body, "2609.90001")


def test_hostile_markdown_is_bounded() -> None:
    start = time.monotonic()
    document = parse_markdown(b"# T\n\n## S\n" + b"| a | b |\n|---|---|\n" + b"|1|2|\n" * 300_000 + b"#" * 10, "x")
    assert any("200,000 lines" in note for note in document.notes)
    parse_markdown(b"# T\n\n## S\n\ntext\n" + b"| " * 100_000 + b"\n|---|\n" + b"<" * 100_000 + b"[" * 100_000, "x")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "lines",
    [
        b"|a|b|\n--" + b" " * 4_000_000 + b"x",
        b"|a|b|\n|" + b"--|" * 1_000_000 + b"x",
        b"## a" + b" " * 4_000_000 + b"b",
        b"## a" + b"#" * 4_000_000 + b"b",
        b"## a" + b" #" * 2_000_000 + b"b",
        b"|a|b|\n|--|--|\n|" + b"x" * 4_000_000 + b"|1|",
    ],
    ids=["spaces-of-a-rule", "rule", "spaces-of-a-heading", "hashes", "spaced-hashes", "cell"],
)
def test_no_line_of_markdown_keeps_the_reader_busy(lines: bytes) -> None:
    start = time.monotonic()
    document = parse_markdown(b"# T\n\n## S\n\nText is here.\n\n" + lines + b"\n\nMore text.\n", "x")
    assert "Text is here." in document.text()
    assert time.monotonic() - start < 5


def test_columns_that_are_left_out_are_told() -> None:
    table = b"|a" * 70 + b"|\n" + b"|--" * 70 + b"|\n" + b"|1" * 70 + b"|\n"
    document = parse_markdown(b"# T\n\n## S\n\n" + table, "x")
    assert any("60 columns" in note for note in document.notes)


def test_a_heading_is_freed_of_its_closing_hashes() -> None:
    document = parse_markdown(b"# T\n\n## 2 Method ##\n\ntext\n", "x")
    assert [(one.number, one.title) for one in document.sections] == [("2", "Method")]


def test_what_comes_out_of_a_pdf_is_bounded() -> None:
    """The process that asked keeps all of it in memory."""
    body = pdf_of("T", TEXT).replace(b"BT", b"BT /F1 10 Tf " + f"({'word ' * 1000}) Tj ".encode() * 600, 1)
    done = subprocess.run(
        [sys.executable, pdf_text.__file__, "80", str(2**32), "60"], input=body, capture_output=True, check=True
    )
    assert 1_900_000 < sum(map(len, json.loads(done.stdout)["pages"])) <= 2_000_000


def test_a_pdf_has_sections_and_says_that_it_is_one() -> None:
    document = parse_pdf(pdf_of("A Title", ["A Title", *TEXT]), "2609.90001")
    assert document.source == "pdf"
    assert [(one.number, one.title) for one in document.sections if one.kind == "body" and one.number] == [
        ("1", "Introduction"),
        ("3.1", "Training recipe"),
    ]
    assert "small model on worked solutions" in document.abstract
    assert any("PDF" in note for note in document.notes)


def encrypted() -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_of("T", TEXT))))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"<html>", "no PDF"),
        (b"%PDF-1.7\n" + b"\x00" * 1000, "cannot be read"),
        (pdf_of("T", TEXT)[:600], "cannot be read|no text"),
        (pdf_of("T", [""]), "no text"),
    ],
    ids=["html", "broken", "cut", "scan"],
)
def test_a_pdf_that_cannot_be_read_says_why(body: bytes, says: str) -> None:
    with pytest.raises(BadAnswerError, match=says):
        parse_pdf(body, "2609.90001")


def test_an_encrypted_pdf_is_refused() -> None:
    with pytest.raises(BadAnswerError, match="encrypted"):
        parse_pdf(encrypted(), "2609.90001")


def test_a_pdf_that_takes_for_ever_is_given_up() -> None:
    content = b"BT /F1 10 Tf 50 790 Td " + b"(a) Tj T* " * 1_000_000 + b"ET"
    slow = pdf_of("T", TEXT).replace(b"stream\nBT", b"stream\n" + content + b"\nBT", 1)
    start = time.monotonic()
    with pytest.raises(BadAnswerError, match=r"1 s|cannot be read"):
        parse_pdf(slow, "2609.90001", seconds=1)
    assert time.monotonic() - start < 20
