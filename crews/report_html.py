"""The bricks of the report's page: everything that is no `Html` is escaped on its way in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from posttrain_crew.crews.status_view import percent

__all__ = ["Html", "badge", "details", "figure", "join", "paragraph", "points", "score", "section", "table", "text"]


_ENTRY_ID = re.compile(r"[a-z]{2,6}-[0-9]+")
_STAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+\+00:00")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Any value as HTML: escaped, numbers shortened, nothing as a dash."""
    if isinstance(value, Html):
        return value
    if value is None or value == "":
        return Html("–")
    if isinstance(value, float):
        return Html(f"{value:.4g}")
    escaped = escape(str(value), quote=True)
    if _ENTRY_ID.fullmatch(escaped):
        return Html(f'<span class="id">{escaped}</span>')
    if _STAMP.fullmatch(escaped):
        return Html(f'<time class="id" datetime="{escaped}">{escaped[:10]} {escaped[11:19]}</time>')
    return Html(escaped)


def join(parts: Iterable[str]) -> Html:
    """Pieces of HTML one after the other."""
    return Html("".join(parts))


def table(head: Iterable[str], rows: Iterable[Iterable[Any]], caption: str = "") -> Html:
    """A table; without rows, nothing."""
    body = [join(["<tr>", *(f"<td>{text(cell)}</td>" for cell in row), "</tr>\n"]) for row in rows]
    if not body:
        return Html("")
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    named = f"<caption>{text(caption)}</caption>" if caption else ""
    return Html(
        f'<div class="scroll"><table>{named}<thead><tr>{top}</tr></thead><tbody>\n{"".join(body)}</tbody></table></div>'
    )


def section(title: str, *parts: str) -> Html:
    """A section of the page; without content it says so."""
    filled = [part for part in parts if part]
    anchor = title.lower().replace(" ", "-").replace(",", "")
    content = "\n".join(filled) or '<p class="none">Nothing on record.</p>'
    return Html(f'<section id="{anchor}"><h2>{text(title)}</h2>\n{content}</section>\n')


def figure(svg: str | None, caption: str) -> Html:
    """A picture with its caption; without a picture, nothing."""
    if svg is None:
        return Html("")
    return Html(f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>")


def paragraph(value: Any, kind: str = "") -> Html:
    """A paragraph; without text, nothing."""
    css = f' class="{kind}"' if kind else ""
    return Html(f"<p{css}>{text(value)}</p>") if value else Html("")


def badge(word: str, kind: str) -> Html:
    """A small coloured word: good, bad, open or plain."""
    return Html(f'<span class="badge {kind}">{text(word)}</span>')


def details(title: str, value: Any) -> Html:
    """A part that is folded away: a value as indented JSON."""
    shown = json.dumps(value, indent=2, ensure_ascii=False)
    return Html(f"<details><summary>{text(title)}</summary><pre>{text(shown)}</pre></details>")


def score(part: Mapping[str, Any] | None, prefix: str = "") -> Html:
    """A score with its 95 % interval."""
    if part is None:
        return text(None)
    low, high = percent(part[f"{prefix}ci_low"]), percent(part[f"{prefix}ci_high"])
    return Html(f'{percent(part[f"{prefix}score"])} <span class="ci">{low} to {high}</span>')


def points(comparison: Mapping[str, Any] | None) -> Html:
    """A paired difference in points, with interval and p-value."""
    if comparison is None:
        return text(None)
    low, high = comparison["ci_low"] * 100, comparison["ci_high"] * 100
    return Html(
        f'{comparison["delta"] * 100:+.1f} <span class="ci">{low:+.1f} to {high:+.1f}, p = '
        f"{comparison['p_value']:.2g}</span>"
    )
