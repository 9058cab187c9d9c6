"""LaTeXML's HTML (arxiv.org/html, ar5iv) as a Document.

Elements are told by their `ltx_` classes, because older pages use `div` where newer ones use `section`. Maths is
kept as
the TeX of its `alttext`. Scripts, styles, comments, hidden text and page furniture are dropped. The page may be cut or
hostile: the walk is a loop and not a recursion, and depth, nodes, cells and text are bounded; `notes` tells of each
cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from posttrain_crew.errors import BadAnswerError
from posttrain_crew.tools.literature.reading.builder import DocumentBuilder
from posttrain_crew.tools.literature.reading.document import Document, Source
from posttrain_crew.tools.literature.reading.grid import GridBuilder
from posttrain_crew.tools.literature.reading.guard import refuse_hostile

__all__ = ["parse_html"]

_MAX_NODES = 600_000
_MAX_DEPTH = 250
_MAX_TEX = 4000

_SECTIONS = {
    "ltx_part": 1,
    "ltx_chapter": 1,
    "ltx_section": 1,
    "ltx_appendix": 1,
    "ltx_bibliography": 1,
    "ltx_subsection": 2,
    "ltx_subsubsection": 3,
    "ltx_paragraph": 4,
    "ltx_subparagraph": 5,
}
_DROPPED_CLASSES = frozenset(
    {
        "ltx_ERROR",
        "ltx_TOC",
        "ltx_authors",
        "ltx_dates",
        "ltx_note_mark",
        "ltx_note_type",
        "ltx_page_footer",
        "ltx_page_header",
        "ltx_page_navbar",
        "ltx_pagination",
        "ltx_rdf",
        "ltx_role_affiliationtext",
        "ltx_tag_item",
        "ltx_tag_note",
        "ltx_hidden",
    }
)
_DROPPED_TAGS = frozenset(
    {"-comment", "button", "canvas", "embed", "form", "head", "iframe", "input", "nav", "noscript", "object", "script"}
    | {"select", "style", "svg", "template", "textarea"}
)
_BLOCKS = frozenset(
    {"article", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6"}
    | {"li", "ol", "p", "pre", "section", "ul"}
)
_HIDDEN = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])|opacity\s*:\s*0(?![.\d])",
    re.IGNORECASE,
)
_HUB_LINK = re.compile(
    r"https?://(?:huggingface\.co|hf\.co)/(?:datasets/)?(?P<id>[A-Za-z0-9][\w.-]{0,60}/[A-Za-z0-9][\w.-]{0,95})",
    re.IGNORECASE,
)
_EQUATIONS = frozenset({"ltx_eqn_cell", "ltx_eqn_row", "ltx_equation", "ltx_equationgroup"})
_BOLD = frozenset({"ltx_font_bold"})


@dataclass
class _Walk:
    """What is open while the tree is walked."""

    out: DocumentBuilder
    nodes: int = 0
    grid: GridBuilder | None = None
    grid_depth: int = 0
    """Tables open inside the table: a nested one is text of its cell."""
    figures: list[list[str]] = field(default_factory=list)
    """Captions of the figures around, the innermost last."""


def parse_html(html: bytes, arxiv_id: str, source: Source = "arxiv-html") -> Document:
    """Parse a page.

    Raises:
        BadAnswerError: it is no LaTeXML page, holds no text, or is made to keep a parser busy.
    """
    refuse_hostile(html)
    try:
        tree = LexborHTMLParser(html.decode("utf-8", errors="replace"))
        root = tree.css_first(".ltx_document")
    except (SelectolaxError, ValueError) as error:
        raise BadAnswerError(f"the page of {arxiv_id} cannot be parsed as HTML: {error}.") from error
    if root is None:
        raise BadAnswerError(f"the page of {arxiv_id} is not the HTML of a paper: it has no element `ltx_document`.")
    walk = _Walk(DocumentBuilder(arxiv_id, source))
    for author in tree.css(".ltx_personname")[:100]:
        walk.out.author(author.text(separator=" "))
    _visit(root, walk)
    if b"</html>" not in html[-4000:].lower():
        walk.out.note("the page ends in the middle: the rest of the paper is missing")
    return walk.out.finish()


def _visit(root: LexborNode, walk: _Walk) -> None:
    """Depth first. What has to happen after an element is put on the stack below its children."""
    stack: list[tuple[LexborNode | Callable[[], None], int]] = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        if not isinstance(node, LexborNode):
            node()
            continue
        walk.nodes += 1
        if walk.nodes > _MAX_NODES:
            walk.out.note(f"only the first {_MAX_NODES:,} elements of the page were read")
            while stack:
                after, _ = stack.pop()
                if not isinstance(after, LexborNode):
                    after()
            return
        if node.tag == "-text":
            walk.out.text(node.text_content or "")
            continue
        classes = frozenset((node.attributes.get("class") or "").split())
        if node.tag in _DROPPED_TAGS or classes & _DROPPED_CLASSES or _is_hidden(node):
            continue
        if node.tag == "math" or "ltx_Math" in classes:
            walk.out.text(_tex(node))
            continue
        if depth > _MAX_DEPTH:
            walk.out.note(f"text that is nested more than {_MAX_DEPTH} elements deep was left out")
            continue
        after_it = _enter(node, classes, walk)
        if after_it is not None:
            stack.append((after_it, depth))
        stack.extend((child, depth + 1) for child in reversed(list(_children(node))))


def _children(node: LexborNode) -> Iterator[LexborNode]:
    child = node.child
    while child is not None:
        yield child
        child = child.next


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or bool(_HIDDEN.search(attributes.get("style") or ""))


def _tex(node: LexborNode) -> str:
    tex = node.attributes.get("alttext") or ""
    if not tex:
        note = node.css_first("annotation")
        tex = (note or node).text()
    # LaTeXML folds long formulas with a TeX comment at the end of the line
    tex = " ".join(tex[:_MAX_TEX].replace("%\n", "").split())
    if not tex:
        return ""
    return f" $${tex}$$ " if node.attributes.get("display") == "block" else f"${tex}$"


def _enter(node: LexborNode, classes: frozenset[str], walk: _Walk) -> Callable[[], None] | None:
    """Tell the builder what begins; returns what has to be told when it ends."""
    out = walk.out
    if walk.grid is not None:
        return _enter_in_table(node, classes, walk, walk.grid)
    kind = next((name for name in _SECTIONS if name in classes), None)
    if kind is not None:
        out.open_section(node.attributes.get("id") or "", _SECTIONS[kind], kind.removeprefix("ltx_"))
        return out.close_section
    if "ltx_abstract" in classes:
        out.open_section("abstract", 1, "abstract")
        return out.close_section
    if "ltx_title_document" in classes:
        return out.capture(out.set_title)
    if "ltx_title" in classes:
        return out.capture(out.set_heading)
    if "ltx_tag_section" in classes or (any(name.startswith("ltx_tag_") for name in classes) and out.in_heading):
        return out.capture(out.set_number)
    if "ltx_bibitem" in classes:
        return out.open_reference(node.attributes.get("id") or "")
    if "ltx_tag_bibitem" in classes:
        return out.capture(out.set_reference_label)
    if "ltx_note_content" in classes:
        return out.capture(out.footnote)
    if node.tag == "figure" or "ltx_table" in classes or "ltx_figure" in classes:
        return _enter_figure(walk)
    if "ltx_caption" in classes or node.tag == "figcaption":
        return out.capture(walk.figures[-1].append if walk.figures else out.paragraph)
    if classes & _EQUATIONS:
        out.text(" ")
        return None
    if "ltx_tag" in classes and "ltx_tag_equation" in classes:
        return out.capture(lambda text: None)
    if "ltx_tabular" in classes or (node.tag == "table" and "ltx_eqn_table" not in classes):
        return _enter_table(node, walk)
    if node.tag in ("b", "strong") or classes & _BOLD:
        return out.open_bold()
    if node.tag == "a" and (link := _hub_link(node)):
        return lambda: out.text(f" ({link}) ")
    if node.tag in _BLOCKS or "ltx_p" in classes:
        out.break_paragraph("- " if node.tag == "li" or "ltx_item" in classes else "")
        return out.break_paragraph
    return None


def _hub_link(node: LexborNode) -> str:
    """Where a link leads on the Hub, when its text does not say so: `available here`."""
    match = _HUB_LINK.match(node.attributes.get("href") or "")
    return match[0].rstrip(".-") if match and match["id"].rstrip(".-") not in node.text(deep=True) else ""


def _enter_figure(walk: _Walk) -> Callable[[], None]:
    walk.out.break_paragraph()
    walk.figures.append([])

    def leave() -> None:
        caption = " ".join(walk.figures.pop())
        if not walk.out.caption_tables(caption) and caption:
            walk.out.paragraph(caption)

    walk.out.open_figure()
    return leave


def _enter_table(node: LexborNode, walk: _Walk) -> Callable[[], None]:
    walk.out.break_paragraph()
    grid = walk.grid = GridBuilder(node.attributes.get("id") or "")

    def leave() -> None:
        walk.grid = None
        walk.out.table(grid)

    return leave


def _enter_in_table(
    node: LexborNode, classes: frozenset[str], walk: _Walk, grid: GridBuilder
) -> Callable[[], None] | None:
    if "ltx_tabular" in classes or node.tag == "table":
        walk.grid_depth += 1
        walk.out.text(" ")

        def leave() -> None:
            walk.grid_depth -= 1

        return leave
    if walk.grid_depth:
        walk.out.text(" ")
        return None
    if "ltx_thead" in classes or node.tag == "thead":
        grid.in_head = True
        return grid.leave_head
    if node.tag == "tr" or "ltx_tr" in classes:
        grid.row()
        return None
    if node.tag in ("td", "th") or "ltx_td" in classes:
        head = node.tag == "th" or "ltx_th" in classes
        grid.cell(node.attributes.get("colspan"), node.attributes.get("rowspan"), head)
        return walk.out.capture(grid.set_text)
    if "ltx_caption" in classes or node.tag == "caption":
        return walk.out.capture(walk.figures[-1].append if walk.figures else walk.out.paragraph)
    if node.tag in _BLOCKS:
        walk.out.text(" ")
    return None
