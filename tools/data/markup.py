"""A text without its markup: the same formula in TeX, in HTML and in plain signs becomes the same characters.

Copies of a benchmark differ in this before anything else: `$3.2\\,\\mathrm{m/s^2}$`, `3.2 m/s<sup>2</sup>` and
`3.2 m/s^2` are one text. Powers of ten are written out, whatever their notation (`1.5 \\times 10^{-3}`, `1.5e-3`,
`0.0015`), and also where the copy of a page lost the raised place of the exponent (`1.5×10-3`). What is not known stays
as it is. Takes text in lower case.
"""

from __future__ import annotations

import html
import re
from decimal import Decimal

from posttrain_crew.tools.data.text import unmasked

__all__ = ["unmarked", "written_out"]

_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});?")
_BREAKS = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|td|th|table|h[1-6])\b[^<>]{0,200}>")
_RAISED = re.compile(r"<sup\b[^<>]{0,200}>")
_INLINE = re.compile(r"</?(?:b|i|u|em|strong|sub|sup|span|small|font|code|tt|a|q|mark|var)\b[^<>]{0,200}>")
_TIMES = re.compile(r"\\(?:times|cdot|ast)(?![a-z])")
_SPACE = re.compile(r"\\(?:[,;:! ]|q?quad(?![a-z]))|(?<![\\~])~(?!~)")
_DEGREES = re.compile(r"\^?\{?\\(?:circ|degree)(?![a-z])\}?")
_FONT = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|tt|up)?|math(?:rm|bf|it|sf|tt)|rm|ce|mbox|operatorname|unit|si|displaystyle|left|right|[dt]?frac)"
    r"(?![a-z])\s*"
)
_LOWERED = re.compile(r"(?<=[\w)\]}])_\{([^{}]{0,40})\}")
_LOWERED_SIGN = re.compile(r"(?<=[a-z])_(?=\d)")
_BRACES = re.compile(r"[{}]")
_MARKUP = re.compile(r"[<\\&~]|_[{\d]")
MOST_DIGITS = 60
"""A power of ten with a greater exponent stays as it is: written out it would be longer than any text says it."""
_SIGNED = r"\s*(?:\^|\*\*)\s*[({]?\s*([+-]?\d{1,3})(?!\d|\.\d)\s*[)}]?"
_POWER_OF_TEN = re.compile(rf"(?<![\w.])(-?\d+(?:\.\d+)?)\s*(?:x|×|\*|·|⋅|∙)\s*10{_SIGNED}")
_TEN = re.compile(rf"(?<![\w.])10{_SIGNED}")
_SHORT = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([+-]?\d{1,3})(?!\w|\.\d)")
_LOST_PLACE = re.compile(r"(?<![\w.-])([1-9](?:\.\d+)?)\s*[x×·⋅∙]\s*10([-–]?[1-9]\d?)(?!\d|\.\d|[-–]\d)")
"""`3×108` with a first number as powers of ten have it. A product of the kind is read the same in item and row."""
_MAY_HAVE_POWER = re.compile(r"10\s*(?:\^|\*\*)|\de[+-]?\d|[x×·⋅∙]\s*10[-–]?[1-9]")


def unmarked(plain: str) -> str:
    """The text without HTML tags and entities, without TeX commands for fonts, spaces and signs, subscripts in line."""
    if _MARKUP.search(plain) is None:
        return plain
    if "&" in plain:
        plain = _ENTITY.sub(lambda found: unmasked(html.unescape(found[0])).lower(), plain)
    if "<" in plain:
        plain = _INLINE.sub("", _RAISED.sub("^", _BREAKS.sub(" ", plain)))
    if "\\" in plain or "~" in plain:
        plain = _DEGREES.sub("°", _SPACE.sub(" ", _TIMES.sub(" x ", plain)))
        if (bare := _FONT.sub("", plain)) != plain:
            plain = _BRACES.sub(" ", _LOWERED.sub(r"\1", _powers_kept(bare)))
    return _LOWERED_SIGN.sub("", _LOWERED.sub(r"\1", plain))


def written_out(plain: str) -> str:
    """The text with its powers of ten as plain decimals: `3 x 10^8`, `3×108` and `3e8` become `300000000`."""
    if _MAY_HAVE_POWER.search(plain) is None:
        return plain
    plain = _POWER_OF_TEN.sub(lambda found: _decimal(found[0], found[1], found[2]), plain)
    plain = _TEN.sub(lambda found: _decimal(found[0], "1", found[1]), plain)
    plain = _LOST_PLACE.sub(lambda found: _decimal(found[0], found[1], found[2].replace("–", "-")), plain)
    return _SHORT.sub(lambda found: _decimal(found[0], found[1], found[2]), plain)


def _powers_kept(text: str) -> str:
    """Braces of exponents without them: `10^{-3}` keeps its sign and digits together."""
    return re.sub(r"\^\{\s*([^{}]{0,40})\}", r"^\1", text)


def _decimal(whole: str, mantissa: str, exponent: str) -> str:
    if abs(int(exponent)) > MOST_DIGITS or len(mantissa) > MOST_DIGITS:
        return whole
    value = format(Decimal(mantissa).scaleb(int(exponent)), "f")
    # what followed the exponent's bracket stays apart from the number
    return (value.rstrip("0").rstrip(".") if "." in value else value) + (" " if whole[-1] in " )}" else "")
