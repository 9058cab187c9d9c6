"""What the short names in tables stand for: abbreviations that the caption explains, and models told by their size."""

from __future__ import annotations

import re
from collections.abc import Sequence

from posttrain_crew.tools.literature.extraction.mentions import model_key, models_in
from posttrain_crew.tools.literature.extraction.patterns import label_spec
from posttrain_crew.tools.literature.reading.plain import plain

__all__ = ["explained", "legend", "model_of", "models_told", "size_in", "unfolded"]

_ENTRY = re.compile(
    r"(?:^|[.;,(]\s?)(?P<short>[^\s:;,.()=]{1,8}(?:/[^\s:;,.()=]{1,8})?)\s?[:=]\s?(?P<long>[A-Za-z][^.;:=()]{2,60})"
)
_SIZE = re.compile(r"(?<![\w.-])(?P<number>\d{1,4}(?:\.\d{1,3})?)\s?-?(?P<unit>[bBM])(?!\w|\.\d)")
_SIZE_OF_KEY = re.compile(r"(?:^|-)(\d{1,4}(?:\.\d{1,3})?[bm])(?=-|$)")


def legend(caption: str) -> dict[str, str]:
    """Abbreviations that a caption explains: `LR: learning rate; BS: batch size`."""
    return {match["short"]: match["long"].strip() for match in _ENTRY.finditer(plain(caption)[:2000])}


def unfolded(label: str, words: dict[str, str]) -> str:
    """A label with the meaning of its innermost name behind it, for searching in it."""
    leaf = plain(label).split(" / ")[-1].strip()
    return f"{plain(label)} ({words[leaf]})" if leaf in words else plain(label)


def explained(label: str, words: dict[str, str]) -> str:
    """The name of a hyper-parameter that a label or its innermost part is, in lower case; the label if it is none.

    Args:
        words: what `legend` found.
    """
    flat = plain(label)
    leaf = flat.split(" / ")[-1].strip()
    choices = (words.get(leaf, ""), leaf, flat)
    return next((one.lower() for one in choices if one and label_spec(one.lower()) is not None), flat.lower())


def size_in(text: str) -> str | None:
    """`7b` for "7B" or "the 7B model", and only when the text names one size."""
    found = {f"{float(match['number']):g}{match['unit'].lower()}" for match in _SIZE.finditer(text[:2000])}
    return found.pop() if len(found) == 1 else None


def _size_of_key(key: str) -> str | None:
    match = _SIZE_OF_KEY.search(key)
    return f"{float(match[1][:-1]):g}{match[1][-1]}" if match else None


def model_of(name: str, models: Sequence[str]) -> str | None:
    """Which of some models a name means: the same one, or the only one that has all parts of the name.

    Returns:
        The key of the model.
    """
    key = model_key(name)
    keys = list(dict.fromkeys(model_key(one) for one in models))
    if key in keys:
        return key
    parts = set(key.split("-"))
    longer = [one for one in keys if parts <= set(one.split("-"))]
    return longer[0] if len(longer) == 1 else None


def models_told(text: str, models: Sequence[str]) -> frozenset[str] | None:
    """Keys of the models that a text names, by name or by a size that one of them alone has.

    Returns:
        An empty set when the text names none; None when it names another one.
    """
    flat = plain(text)
    if names := models_in(flat):
        known = [model_of(name, models) for name in names]
        return frozenset(key for key in known if key) or None
    size = size_in(flat)
    if size is None:
        return frozenset()
    keys = {key for one in models if _size_of_key(key := model_key(one)) == size}
    return frozenset(keys) if len(keys) == 1 else None
