"""The side of the sandbox that runs the code: it does what the judge asks, and its answers are only ever data.

Nothing here is trusted: the code that runs in this process can change all of it. The most that it can do with that is
to answer wrongly.
"""

from __future__ import annotations

import json
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from .limits import limit
from .wire import Peer

__all__ = ["main"]

MODULE = "solution"

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda what, *args, **named: what(*args, **named),
    "getattr": getattr,
    "setattr": setattr,
    "delattr": delattr,
    "len": len,
    "iter": iter,
    "next": next,
    "str": str,
    "repr": repr,
    "bool": bool,
    "isinstance": lambda kind, value: isinstance(value, kind),
    "enter": lambda manager: manager.__enter__(),
    "exit": lambda manager: manager.__exit__(None, None, None),
    **{
        name: getattr(operator, name)
        for name in (
            "getitem", "setitem", "delitem", "eq", "ne", "lt", "le", "gt", "ge", "add", "sub", "mul", "matmul",
            "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor",
        )
    },
}  # fmt: skip


class _Worker:
    def __init__(self, descriptor: int) -> None:
        self._objects: list[Any] = []
        self._callbacks: dict[int, _Callback] = {}
        self._module = types.ModuleType(MODULE)
        self.peer = Peer(descriptor, self._answer, self._refer, self._resolve)

    def run(self, code: str) -> None:
        """Execute the code as a module of its own, say whether it went through, and serve the judge."""
        self.peer.send({"hello": True})
        sys.modules[MODULE] = self._module
        try:
            exec(compile(code, f"{MODULE}.py", "exec"), self._module.__dict__)  # noqa: S102 - inside the sandbox
        except BaseException as error:  # noqa: BLE001 - whatever the code does is its own failure
            self.peer.send({"failed": _told(error)})
            return
        self.peer.send({"loaded": True})
        self.peer.serve()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if request["op"] == "names":
                return {"names": self._names(request["names"])}
            what = self._objects[request["on"]]
            args = [self.peer.decode(item) for item in request["args"]]
            named = {name: self.peer.decode(item) for name, item in request["named"].items()}
            value = self.peer.encode(_OPERATIONS[request["op"]](what, *args, **named))
            after = [self._changed(arg, sent) for arg, sent in zip(args, request["args"], strict=True)]
        except BaseException as error:  # noqa: BLE001 - as above; the judge raises it on its side
            return {"raised": _told(error)}
        return {"value": value, "args": after}

    def _changed(self, arg: Any, sent: Any) -> Any:
        """The new contents of an argument that was changed in place, in a list of one; None where it was not."""
        if not isinstance(arg, list | dict | set | bytearray):
            return None
        after = self.peer.encode(arg)
        return None if after == sent else [after]

    def _names(self, wanted: list[str]) -> dict[str, Any]:
        """Those of the wanted names that the code defines, by what they are."""
        found: dict[str, Any] = {}
        for name in wanted:
            if name not in self._module.__dict__:
                continue
            value = self._module.__dict__[name]
            if isinstance(value, types.ModuleType):
                continue
            error = isinstance(value, type) and issubclass(value, BaseException)
            found[name] = {"error": _lineage(value)} if error else {}
            found[name]["value"] = self._refer(value) if error else self.peer.encode(value)
        return found

    def _refer(self, value: Any) -> dict[str, Any]:
        if isinstance(value, _Callback):
            return {"k": value.number}
        self._objects.append(value)
        return {"h": len(self._objects) - 1}

    def _resolve(self, data: dict[str, Any]) -> Any:
        if "h" in data:
            return self._objects[data["h"]]
        number = data["k"]
        return self._callbacks.setdefault(number, _Callback(self.peer, number))


class _Callback:
    """A function of the tests, called over the channel."""

    def __init__(self, peer: Peer, number: int) -> None:
        self.number = number
        self._peer = peer

    def __call__(self, *args: Any, **named: Any) -> Any:
        answer = self._peer.ask(
            {
                "op": "callback",
                "on": self.number,
                "args": [self._peer.encode(arg) for arg in args],
                "named": {name: self._peer.encode(arg) for name, arg in named.items()},
            }
        )
        if "raised" in answer:
            raise RuntimeError(str(answer["raised"]))
        return self._peer.decode(answer["value"])


def _told(error: BaseException) -> dict[str, Any]:
    text = error.args[0] if len(error.args) == 1 and isinstance(error.args[0], str) else str(error)
    return {"kinds": _lineage(type(error)), "text": text[:500]}


def _lineage(kind: type) -> list[str]:
    return [base.__name__ for base in kind.__mro__]


def main() -> None:
    """Read the code from stdin and serve the channel whose descriptor is the first argument."""
    order = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    limit(int(order["memory"]), float(order["seconds"]))
    _Worker(int(sys.argv[1])).run(str(order["code"]))
