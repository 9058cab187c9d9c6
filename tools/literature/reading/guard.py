"""Is a page safe to hand to the HTML parser? Lexbor's work grows with the square of some inputs (measured with
selectolax 1.0: 0.5 MB of nested `<div>` take 9 s, one tag with 200,000 attributes takes 3 minutes, and neither can be
interrupted), so size, number of tags, depth, attributes, and the elements that the parser would have to open again and
again are bounded by one linear scan before it.
"""

from __future__ import annotations

import re

from posttrain_crew.errors import BadAnswerError

__all__ = ["MAX_HTML_BYTES", "refuse_hostile"]

MAX_HTML_BYTES = 16 * 2**20
"""The largest pages of arxiv.org/html are papers of several hundred pages with about 10 MB."""
_MAX_TAGS = 1_500_000
_MAX_DEPTH = 600
_MAX_REOPENED = 2_000_000
_MAX_ATTRIBUTES = 6_000_000
_MAX_CROWDED = 200_000_000
"""Sum of the squares of the number of attributes of each tag: the parser compares each attribute with all before."""
_TAG_ATTRIBUTES = 15_000
"""No tag is looked at further: its square alone is too much."""
_TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9-]*)")
# as the HTML standard has it (13.2.5.32 to 40), but for long unquoted values, which count as several attributes
_ATTRIBUTE = re.compile(rb"[\s/]*[^\s/>][^\s/>=]{0,200}(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s>\"'][^\s>]{0,200})?)?")
_VOID = frozenset(b"area base br col embed hr img input link meta source track wbr".split())
# their end tag may be left out, so that counting them says nothing about depth
_IMPLIED = frozenset(b"p li dt dd td th tr tbody thead tfoot option optgroup rp rt html head body colgroup".split())
_FORMATTING = frozenset(b"a b big code em font i nobr s small strike strong tt u".split())


def refuse_hostile(html: bytes) -> None:
    """Raise BadAnswerError for a page that is too large or made to keep a parser busy."""
    if len(html) > MAX_HTML_BYTES:
        raise BadAnswerError(
            f"the page has {len(html) / 2**20:.0f} MiB; at most {MAX_HTML_BYTES / 2**20:.0f} are read."
        )
    depth = tags = formatting = reopened = attributes = crowded = 0
    open_formats: dict[bytes, int] = {}
    for match in _TAG.finditer(html):
        name = match[2].lower()
        own = _attributes(html, match.end())
        attributes += own
        crowded += own * own
        if attributes > _MAX_ATTRIBUTES or crowded > _MAX_CROWDED:
            raise BadAnswerError(
                f"the page is not the HTML of a paper: after {match.start():,} bytes there are {attributes:,} "
                f"attributes, {own:,} of them in one tag."
            )
        if name in _VOID:
            continue
        tags += 1
        if name in _FORMATTING:
            now = open_formats.get(name, 0)
            change = (-1 if now else 0) if match[1] else 1
            open_formats[name] = now + change
            formatting += change
        else:
            reopened += formatting
        if name not in _IMPLIED:
            depth = max(0, depth - 1) if match[1] else depth + 1
        if tags > _MAX_TAGS or depth > _MAX_DEPTH or reopened > _MAX_REOPENED:
            raise BadAnswerError(
                f"the page is not the HTML of a paper: after {match.start():,} bytes there are {tags:,} tags, "
                f"{depth} levels deep, with {formatting} unclosed text styles."
            )


def _attributes(html: bytes, at: int) -> int:
    """Attributes of the tag whose name ends at a byte, of at most `_TAG_ATTRIBUTES`."""
    number = 0
    while number < _TAG_ATTRIBUTES and (match := _ATTRIBUTE.match(html, at)):
        number, at = number + 1, match.end()
    return number
