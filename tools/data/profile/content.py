"""Which texts of a row are its content, and which its prompt: what duplicates are looked for in."""

from __future__ import annotations

from collections.abc import Iterator

from posttrain_crew.tools.data.formats import Format
from posttrain_crew.tools.data.profile.blocks import Block, Leaf
from posttrain_crew.tools.data.profile.chat import chat_columns, first_user_turns
from posttrain_crew.tools.data.reader import RawRow

__all__ = ["content_leaves", "prompt_leaves", "row_text"]

_LABELS_TEXT = """
id _id ids uid uuid guid idx index row_id example_id question_id problem_id prompt_id item_id sample_id
conversation_id key hash sha sha1 sha256 md5 url uri link source dataset split subset config timestamp date
created_at updated_at role from
"""
_LABELS_OF_ROWS = frozenset(_LABELS_TEXT.split())
"""Columns that tell one row from another, or where it is from, and so hide that two rows say the same."""
_PROMPTS: dict[Format, tuple[str, ...]] = {
    "mcq": ("question", "problem", "query", "input_question", "stem", "prompt"),
    "alpaca": ("instruction",),
    "prompt_completion": ("prompt", "question", "problem", "query", "input_question", "stem"),
    "preference": ("prompt", "question"),
    "messages": ("messages", "conversations", "conversation"),
    "sharegpt": ("conversations", "conversation", "messages"),
}
_CHATS: dict[Format, tuple[str, ...]] = {"preference": ("chosen",)}
"""Where the prompt is the first user turn of another column, if there is no column for it."""


def content_leaves(block: Block) -> list[Leaf]:
    """The text places that say something; all text places where none is left."""
    texts = [leaf for leaf in block.leaves if leaf.kind == "text"]
    return [leaf for leaf in texts if _says_something(leaf.path)] or texts


def prompt_leaves(block: Block, kind: Format) -> list[Leaf]:
    """The texts of what is asked; empty for plain text and unknown formats."""
    chats = chat_columns(block)
    for name in (*_PROMPTS.get(kind, ()), *_CHATS.get(kind, ())):
        for column in {leaf.path.partition("[]")[0]: None for leaf in block.leaves if leaf.kind == "text"}:
            if column.lower() != name:
                continue
            if column in chats:
                turns = first_user_turns(block, column)
                return [turns] if turns is not None else []
            leaf = block.leaf(column)
            if leaf is not None:
                extra = block.leaf("input") if kind == "alpaca" else None
                return [leaf, extra] if extra is not None else [leaf]
    return []


def row_text(row: RawRow) -> str:
    """All content of a sampled row as one text."""
    found = list(_texts(row, ""))
    return "\n".join([text for name, text in found if _says_something(name)] or [text for _, text in found])


def _texts(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, name)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _texts(part, str(key))


def _says_something(path: str) -> bool:
    return path.rsplit(".", 1)[-1].removesuffix("[]").lower() not in _LABELS_OF_ROWS
