"""Roles and turn order of conversations, over all rows, on arrays."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from posttrain_crew.tools.data.profile.blocks import Block, Ints, Leaf
from posttrain_crew.tools.data.profile.model import ChatShape
from posttrain_crew.tools.data.roles import role_of

__all__ = ["ChatCounter", "chat_columns", "first_user_turns"]

_KEYS = (("role", "content"), ("from", "value"))
_USER, _ASSISTANT, _SYSTEM, _TOOL, _UNKNOWN, _NONE = range(6)
MAX_ROLES = 30
HALF = {"prompt", "completion", "chosen", "rejected"}
"""Columns with a part of a conversation: it need not begin with the user, and a prompt not end with the assistant."""


def chat_columns(block: Block) -> dict[str, tuple[str, str]]:
    """Top-level columns that hold conversations, with the paths of their roles and contents."""
    found: dict[str, tuple[str, str]] = {}
    for leaf in block.leaves:
        for role, content in _KEYS:
            column, mark, rest = leaf.path.partition("[].")
            if leaf.kind == "text" and mark and rest == role and "." not in column:
                found.setdefault(column, (leaf.path, f"{column}[].{content}"))
    return found


def first_user_turns(block: Block, column: str) -> Leaf | None:
    """The text of the first user turn of each conversation."""
    paths = chat_columns(block).get(column)
    roles, contents = (block.leaf(paths[0]), block.leaf(paths[1])) if paths else (None, None)
    if roles is None or contents is None or roles.items is None or contents.items is None:
        return None
    of_item = _role_of_items(roles, _items(block, column, roles, contents))
    asked = np.flatnonzero(of_item[contents.items] == _USER)
    _, first = np.unique(contents.rows[asked], return_index=True)
    chosen = asked[first]
    return Leaf(contents.path, "text", contents.values.take(pa.array(chosen)), contents.rows[chosen], None)


class ChatCounter:
    """Counts the roles and defects of one column of conversations."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._roles: Counter[str] = Counter()
        self._defects: Counter[str] = Counter()
        self._conversations = self._turns = self._defective = 0

    def add(self, block: Block, paths: tuple[str, str]) -> None:
        """Take the conversations of a block."""
        roles, contents = block.leaf(paths[0]), block.leaf(paths[1])
        empty = block.cells[self.column].empty_lists if self.column in block.cells else 0
        self._conversations += empty
        self._defects["empty"] += empty
        self._defective += empty
        if roles is None or roles.items is None:
            return
        for value in pc.value_counts(roles.values).to_pylist():
            name = str(value["values"])[:40]
            if name in self._roles or len(self._roles) < MAX_ROLES:
                self._roles[name] += int(value["counts"])
        items = _items(block, self.column, roles, contents)
        rows: Ints = np.full(items, -1, dtype=np.int64)
        filled: NDArray[np.bool_] = np.zeros(items, dtype=bool)
        for leaf in (contents, roles):
            if leaf is not None and leaf.items is not None:
                rows[leaf.items] = leaf.rows
        if contents is not None and contents.items is not None:
            filled[contents.items] = np.asarray(contents.chars) > 0
        else:  # contents of another shape, such as parts with images
            filled[:] = True
        part = f"{paths[1]}[]"
        for leaf in block.leaves:
            if leaf.path.startswith(part) and leaf.items is not None:
                filled[leaf.items] = True
        kinds = _role_of_items(roles, items)
        inside = rows >= 0
        self._count(kinds[inside], rows[inside], filled[inside])

    def result(self) -> ChatShape:
        """What was counted."""
        n = self._conversations
        return ChatShape(
            column=self.column,
            conversations=n,
            roles=dict(self._roles.most_common()),
            turns_mean=self._turns / n if n else 0.0,
            defects={name: count for name, count in self._defects.most_common() if count},
            defect_rate=self._defective / n if n else 0.0,
        )

    def _count(self, kinds: Ints, rows: Ints, filled: NDArray[np.bool_]) -> None:
        if not len(rows):
            return
        conversations, first = np.unique(rows, return_index=True)
        n = len(conversations)
        last = np.concatenate([first[1:], [len(rows)]]) - 1
        self._conversations += n
        self._turns += len(rows)
        of = np.repeat(np.arange(n), last - first + 1)
        place = np.arange(len(rows)) - first[of]
        found: dict[str, NDArray[np.bool_]] = {}

        def mark(name: str, turns: NDArray[np.bool_]) -> None:
            found[name] = np.bincount(of[turns], minlength=n) > 0

        mark("unknown role", kinds == _UNKNOWN)
        mark("turn without role", kinds == _NONE)
        mark("empty turn", ~filled & ((kinds == _USER) | (kinds == _SYSTEM) | _final_assistant(kinds, last)))
        mark("system not first", (kinds == _SYSTEM) & (place > 0))
        spoken = np.flatnonzero((kinds != _SYSTEM) & (kinds != _TOOL))
        follows = np.flatnonzero((of[spoken[1:]] == of[spoken[:-1]]) & (spoken[1:] == spoken[:-1] + 1))
        twice = np.zeros(len(rows), dtype=bool)
        twice[spoken[1:][follows[kinds[spoken[1:]][follows] == kinds[spoken[:-1]][follows]]]] = True
        mark("same role twice", twice & (kinds <= _ASSISTANT))
        if self.column not in HALF:
            opening = np.zeros(len(rows), dtype=bool)
            _, begin = np.unique(of[spoken], return_index=True)
            opening[spoken[begin]] = True
            mark("does not begin with the user", opening & (kinds == _ASSISTANT))
        if self.column != "prompt":
            closing = np.zeros(len(rows), dtype=bool)
            closing[last] = True
            mark("does not end with the assistant", closing & (kinds != _ASSISTANT))
        for name, conversations_with in found.items():
            self._defects[name] += int(conversations_with.sum())
        self._defective += int(np.logical_or.reduce(list(found.values())).sum())


def _final_assistant(kinds: Ints, last: Ints) -> NDArray[np.bool_]:
    """Last turns by the assistant: earlier ones may be empty where they only call a tool."""
    final = np.zeros(len(kinds), dtype=bool)
    final[last] = True
    of_assistant: NDArray[np.bool_] = final & (kinds == _ASSISTANT)
    return of_assistant


def _items(block: Block, column: str, *leaves: Leaf | None) -> int:
    """Number of turns in the block."""
    cells = block.cells.get(f"{column}[]")
    most = max(
        (int(leaf.items.max()) + 1 for leaf in leaves if leaf and leaf.items is not None and len(leaf.items)), default=0
    )
    return max(most, cells.seen if cells else 0)


def _role_of_items(roles: Leaf, items: int) -> Ints:
    encoded = roles.values.dictionary_encode()
    kinds = np.array([_kind(str(name)) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    of_item: Ints = np.full(items, _NONE, dtype=np.int64)
    if len(kinds) and roles.items is not None:
        of_item[roles.items] = kinds[np.asarray(encoded.indices)]
    return of_item


def _kind(name: str) -> int:
    return {"user": _USER, "assistant": _ASSISTANT, "system": _SYSTEM, "tool": _TOOL}.get(role_of(name) or "", _UNKNOWN)
