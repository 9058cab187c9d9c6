"""A LaTeXML page becomes sections, maths, tables and references; a hostile or cut one ends quickly and typed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from posttrain_crew.errors import BadAnswerError, InputError
from posttrain_crew.tools.literature.reading.document import Document
from posttrain_crew.tools.literature.reading.html import parse_html

PAPERS = Path(__file__).parents[2] / "loopback" / "papers"
ALL = sorted(path.parent.name for path in PAPERS.glob("*/paper.html"))
HEAD = b"<article class='ltx_document'><h1 class='ltx_title ltx_title_document'>T</h1><section class=ltx_section id=S1>"


def paper(number: int) -> Document:
    return parse_html((PAPERS / f"2609.{number}" / "paper.html").read_bytes(), f"2609.{number}")


def test_sections_have_ids_numbers_levels_and_kinds() -> None:
    document = paper(90004)
    assert document.title == "A Short Cold Start Before Reinforcement Learning"
    assert document.authors == ("Sofia Petrenko", "Arjun Nair", "Luc Moreau")
    heads = {section.id: (section.number, section.title, section.level, section.kind) for section in document.sections}
    assert heads["abstract"] == ("", "Abstract", 1, "abstract")
    assert heads["S2.SS1"] == ("2.1", "Stage 1: supervised", 2, "body")
    assert heads["A1"] == ("A", "All hyper-parameters", 1, "appendix")
    assert heads["bib"][3] == "bibliography"
    assert "worked solutions" in document.abstract
    assert [section.id for section in document.within("S2")] == ["S2", "S2.SS1", "S2.SS2"]
    with pytest.raises(InputError, match=r"S2\.SS1"):
        document.section("S99")


def test_maths_stays_tex() -> None:
    text = paper(90001).section("S4").text
    assert "$2\\times 10^{-5}$" in text
    assert "$$\\mathcal{L}_{\\mathrm{SFT}}=-\\sum_{t=1}^{T}\\log\\pi_{\\theta}(y_{t}\\mid x,y_{<t}).$$" in text
    assert "(1)" not in text, "the number of an equation is no text"


def test_tables_are_rectangles_with_header_caption_and_spans() -> None:
    (stages,) = paper(90003).section("S3").tables
    assert stages.caption == "Table 1: Hyper-parameters of both stages."
    assert stages.columns() == ("", "Stage / SFT", "Stage / DPO")
    assert stages.rows[0] == ("Learning rate", "1e-5", "5e-7")
    (settings,) = paper(90002).section("S2.SS2").tables
    assert settings.row_heads == 2
    assert settings.rows[3] == ("Optimiser", "gradient norm clip", "0.2", "1.0"), "a cell that spans rows is repeated"
    (results,) = paper(90004).section("S3").tables
    assert results.header == (("Start", "Training", "SciQ", "ARC-Easy", "OpenBookQA"),)
    assert results.rows[0] == ("SmolLM2-1.7B", "none", "44.0", "61.5", "33.2"), "LaTeXML takes this row for a header"


def test_references_keep_their_arxiv_ids_and_labels() -> None:
    by_id = {reference.arxiv_id: reference.label for reference in paper(90001).references}
    assert by_id["2609.90007"] == "Lindholm et al. [2026]"
    assert {reference.label for reference in paper(90002).references} >= {"[1]", "[4]"}


@pytest.mark.parametrize(
    ("number", "method", "experiments"),
    [
        (90001, "Training recipe", "Results"),
        (90003, "How we trained", "Evaluation"),
        (90005, "Tuning.", "Does it work?"),
        (90006, "Experimental details", "Results"),
        (90008, "Final configuration", "Main results"),
        (90009, "Configuration", "Evaluation protocol and results"),
        (90011, "DPO.", "Outcome"),
    ],
)
def test_methodology_and_experiments_are_found_by_what_they_hold(number: int, method: str, experiments: str) -> None:
    document = paper(number)
    assert method in [section.title for section in document.methodology()]
    assert experiments in [section.title for section in document.experiments()]
    assert "Related work" not in [section.title for section in document.methodology()]


@pytest.mark.parametrize("name", ALL)
def test_pages_cover_the_whole_text_once(name: str) -> None:
    document = parse_html((PAPERS / name / "paper.html").read_bytes(), name)
    first, count = document.page(1, characters=1000)
    assert len(first) <= 1000
    pages = [document.page(number, characters=1000)[0] for number in range(1, count + 1)]
    assert "".join(pages).replace("\n", "") == f"# {document.title}\n\n{document.text()}".replace("\n", "")
    with pytest.raises(InputError, match=f"pages 1 to {count}"):
        document.page(count + 1, characters=1000)
    assert not document.notes


def test_older_pages_use_div_for_section() -> None:
    page = (
        (PAPERS / "2609.90001" / "paper.html")
        .read_bytes()
        .replace(b"<section", b"<div")
        .replace(b"</section", b"</div")
    )
    old = parse_html(page, "2609.90001", "ar5iv")
    assert old.sections == paper(90001).sections
    assert old.source == "ar5iv"


def test_scripts_styles_comments_and_hidden_text_are_dropped() -> None:
    page = (
        HEAD + b"<p class=ltx_p>seen<script>alert('s1')</script><style>s2{}</style><!-- s3 --><span hidden>s4</span>"
        b"<span style='display: none'>s5</span><span style='FONT-SIZE:0px'>s6</span>"
        b"<span class=ltx_ERROR>s7</span><iframe>s8</iframe> on</p></section></article></html>"
    )
    assert parse_html(page, "x").section("S1").text == "seen on"


def test_footnotes_and_run_in_heads_are_kept() -> None:
    page = (
        HEAD + b"<p class=ltx_p><span class='ltx_text ltx_font_bold'>Data.</span> We use it.<span class='ltx_note'>"
        b"<sup class=ltx_note_mark>1</sup><span class=ltx_note_outer><span class=ltx_note_content>Batch size "
        b"8.</span></span>"
        b"</span> Then more.</p></section></article></html>"
    )
    first, second = parse_html(page, "x").section("S1").paragraphs
    assert (first.text, first.head) == ("Data. We use it. Then more.", "Data")
    assert second.text == "Batch size 8."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body><h1>No HTML for this paper</h1></body></html>",
        b"\x00\xff" * 1000,
        HEAD + b"</section></article>",
        HEAD + b"<div>" * 100_000 + b"x",
        HEAD + b"<p>x</p>" * 4_000_000,  # 32 MB
        HEAD + b"<p>x</p>" * 1_600_000,
        HEAD + b"".join(b"<b id=%d>" % n for n in range(500)) + b"<p>x" * 1_000_000,
        HEAD + b"<select>" * 100_000,
        HEAD + b"<p " + b" ".join(b"a%d=1" % n for n in range(200_000)) + b">x",
        HEAD + b'<p ="' + b" ".join(b"a%d" % n for n in range(200_000)) + b'">x',
        HEAD + b"<p " + b" ".join(b'a%d="<br>"' % n for n in range(200_000)) + b">x",
        HEAD + (b"<p " + b" ".join(b"a%d=1" % n for n in range(2000)) + b">x") * 500,
    ],
    ids=[
        "empty",
        "no-paper",
        "bytes",
        "no-text",
        "deep",
        "32MB",
        "many-tags",
        "reopened",
        "select",
        "attributes",
        "attributes-in-quotes",
        "attributes-with-tags",
        "many-tags-of-attributes",
    ],
)
def test_what_is_no_paper_is_refused_quickly(body: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(BadAnswerError):
        parse_html(body, "2609.90001")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (HEAD + b"<p class=ltx_p>seen</p>" + b"<span>" * 400 + b"x", "deep"),
        (HEAD + b"<p class=ltx_p>seen</p><table class=ltx_tabular>" + b"<tr><td>1<td>2" * 30_000, "cells"),
        (
            HEAD + b"<p class=ltx_p>seen</p><figure class=ltx_table><figcaption class=ltx_caption>Table 1</figcaption>"
            b"<table class=ltx_tabular>" + b"<tr><td>1<td>2" * 30_000 + b"</table></figure>",
            "cells",
        ),
        (
            HEAD + b"<p class=ltx_p>seen</p><table class=ltx_tabular><tr><td>" + b"A" * 300_000 + b"/<td>2",
            "a cell of a table was cut",
        ),
        (HEAD + b"<p class=ltx_p>seen</p>" + b"<section class=ltx_section>x</section>" * 20_000, "sections"),
        (HEAD + b"<p class=ltx_p>seen</p><p>" + b"x" * 5_000_000, "characters"),
        (HEAD + b"<p class=ltx_p>seen</p><p>" + b"x " * 100_000, "paragraph"),
    ],
    ids=["deep", "cells", "cells-in-a-figure", "long-cell", "sections", "text", "paragraph"],
)
def test_what_a_bound_leaves_out_is_told(body: bytes, note: str) -> None:
    start = time.monotonic()
    document = parse_html(body, "2609.90001")
    assert "seen" in document.section("S1").text
    assert any(note in told for told in document.notes)
    assert time.monotonic() - start < 5


def test_spans_of_a_lying_table_are_bounded() -> None:
    cells = b"<tr><td colspan=1000000 rowspan=65000>a</td><td colspan=-1>b</td><td colspan=x>c</td></tr>" * 50
    (table,) = parse_html(HEAD + b"<table class=ltx_tabular>" + cells + b"</table>", "x").section("S1").tables
    assert len(table.rows) <= 50 and max(len(row) for row in table.rows) < 20_000


@pytest.mark.parametrize("at", [2000, 5000, 7000, 9000, 11_111, 13_000])
def test_a_page_that_is_cut_gives_what_there_is_and_says_so(at: int) -> None:
    page = (PAPERS / "2609.90002" / "paper.html").read_bytes()
    document = parse_html(page[:at], "2609.90002")
    assert document.title == "Verifiable Rewards Are Enough for Small Reasoners"
    assert any("ends in the middle" in note for note in document.notes)
