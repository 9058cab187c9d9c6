"""The side of the sandbox that runs the tests, and the only one that says whether they passed.

The tests run here, in a process that the code has no way into; what the code defines is here a `Remote`, which passes
calls on to the worker and gets data back. A comparison with what the tests expect is made here, by Python's own types.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from .limits import limit
from .wire import Gone, Peer

__all__ = ["CODE_MODULES", "main"]

CODE_MODULES = ("solution", "main", "code", "answer", "submission", "your_module", "your_code")
"""Names under which tests import the code that they test."""


class Remote:
    """Something that lives in the worker.

    It is equal to another `Remote` where the worker says so, and never to data: otherwise code could answer with an
    object that is equal to everything. For the same reason arithmetic and order work between two of them alone.
    """

    __slots__ = ("_crew_ask", "_crew_id")

    _crew_ask: Callable[..., Any]
    _crew_id: int

    def __init__(self, ask: Callable[..., Any], number: int) -> None:
        object.__setattr__(self, "_crew_ask", ask)
        object.__setattr__(self, "_crew_id", number)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._crew_ask("call", self, *args, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__name__":
            raise AttributeError(name)
        return self._crew_ask("getattr", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._crew_ask("setattr", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._crew_ask("delattr", self, name)

    def __hash__(self) -> int:
        return hash(self._crew_id)

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Remote) and self._crew_ask("isinstance", self, value) is True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        return self._crew_id == other._crew_id or self._crew_ask("eq", self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __len__(self) -> int:
        return self._crew_ask("len", self)  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return self._crew_ask("bool", self) is True

    def __iter__(self) -> Any:
        found = self._crew_ask("iter", self)
        return found if isinstance(found, Remote) else iter(found)

    def __next__(self) -> Any:
        return self._crew_ask("next", self)

    def __getitem__(self, key: Any) -> Any:
        return self._crew_ask("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._crew_ask("setitem", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._crew_ask("delitem", self, key)

    def __str__(self) -> str:
        return str(self._crew_ask("str", self))

    def __repr__(self) -> str:
        return str(self._crew_ask("repr", self))

    def __enter__(self) -> Any:
        return self._crew_ask("enter", self)

    def __exit__(self, *error: object) -> None:
        self._crew_ask("exit", self)


def _between(name: str) -> Callable[[Remote, object], Any]:
    def operation(self: Remote, other: object) -> Any:
        return self._crew_ask(name, self, other) if isinstance(other, Remote) else NotImplemented

    return operation


for _name in ("lt", "le", "gt", "ge", "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow"):
    setattr(Remote, f"__{_name}__", _between(_name))
for _name, _operation in (("__and__", "and_"), ("__or__", "or_"), ("__xor__", "xor")):
    setattr(Remote, _name, _between(_operation))


class _Judge:
    def __init__(self, descriptor: int) -> None:
        self._functions: list[Any] = []
        self._errors: dict[str, type[BaseException]] = {}
        self.peer = Peer(descriptor, self._called_back, self._refer, self._resolve)
        self._ask = self._request
        self.scope: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}

    def started(self) -> bool:
        """Whether there is a worker at all."""
        return self.peer.receive().get("hello") is True

    def loaded(self) -> bool:
        """Whether the code ran through. Raises Gone."""
        return self.peer.receive().get("loaded") is True

    def take_names(self, sources: list[str]) -> None:
        """Bring the names that the tests use and do not bind themselves, as far as the code defines them.

        A builtin or a module of the standard library is never the code's to replace, unless the tests use nothing else
        that the code defines: then it is what is tested.
        """
        used, bound, modules = _names_of(sources)
        wanted = used - bound
        own = {name for name in wanted if hasattr(builtins, name)}
        own |= {name for name in wanted & modules if name in sys.stdlib_module_names}
        for name in wanted & modules & own - set(dir(builtins)):
            self.scope[name] = importlib.import_module(name)
        names = self._named(sorted(wanted - own)) or self._named(sorted(wanted))
        self.scope.update(names)
        for name in CODE_MODULES:
            sys.modules[name] = _CodeModule(name, self._named)

    def _named(self, wanted: list[str]) -> dict[str, Any]:
        answer = self.peer.ask({"op": "names", "names": wanted}).get("names")
        found = {}
        for name, about in (answer if isinstance(answer, dict) else {}).items():
            if name in wanted and isinstance(about, dict):
                lineage = about.get("error")
                found[name] = self._error(lineage) if lineage else self.peer.decode(about.get("value"))
        return found

    def _request(self, operation: str, what: Remote, *args: Any, **named: Any) -> Any:
        answer = self.peer.ask(
            {
                "op": operation,
                "on": what._crew_id,
                "args": [self.peer.encode(arg) for arg in args],
                "named": {name: self.peer.encode(arg) for name, arg in named.items()},
            }
        )
        raised = answer.get("raised")
        if isinstance(raised, dict):
            kind = self._error(raised.get("kinds"))
            error = kind.__new__(kind)  # some classes want more arguments than a text
            error.args = (str(raised.get("text", "")),)
            raise error
        changed = answer.get("args")
        if isinstance(changed, list) and len(changed) == len(args):
            for arg, new in zip(args, changed, strict=True):
                if new:
                    _refill(arg, self.peer.decode(new[0]))
        return self.peer.decode(answer.get("value"))

    def _error(self, lineage: Any) -> type[BaseException]:
        """An exception class of this process for one of the worker's: the builtin of that name, or a new one below the
        nearest builtin."""
        names = [str(name) for name in lineage] if isinstance(lineage, list) and lineage else ["Exception"]
        known = getattr(builtins, names[0], None)
        if isinstance(known, type) and issubclass(known, BaseException):
            return known
        key = "/".join(names)
        if key not in self._errors:
            base = self._error(names[1:]) if len(names) > 1 else Exception
            self._errors[key] = type(names[0], (base,), {})
        return self._errors[key]

    def _called_back(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            function = self._functions[request["on"]]
            args = [self.peer.decode(item) for item in request["args"]]
            named = {name: self.peer.decode(item) for name, item in request["named"].items()}
            return {"value": self.peer.encode(function(*args, **named))}
        except Exception as error:  # noqa: BLE001 - told to the code, which asked for it
            return {"raised": f"{type(error).__name__}: {error}"[:500]}

    def _refer(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            return {"h": value._crew_id}
        if isinstance(value, type) and issubclass(value, BaseException):
            raise TypeError("an exception class of the tests cannot be handed to the code")
        if not callable(value):
            raise TypeError(f"a {type(value).__name__} of the tests cannot be handed to the code")
        self._functions.append(value)
        return {"k": len(self._functions) - 1}

    def _resolve(self, data: dict[str, Any]) -> Any:
        if isinstance(data.get("h"), int):
            return Remote(self._ask, data["h"])
        return self._functions[data["k"]]


class _CodeModule(types.ModuleType):
    """What `import solution` gives the tests."""

    def __init__(self, name: str, named: Callable[[list[str]], dict[str, Any]]) -> None:
        super().__init__(name)
        self.__dict__["_crew_named"] = named

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self.__dict__["_crew_named"]([name])
        if name not in found:
            raise AttributeError(f"the code defines no `{name}`")
        return found[name]


def _refill(arg: Any, new: Any) -> None:
    """Do to an argument what the code did to its copy."""
    if isinstance(arg, list | bytearray) and isinstance(new, list | bytearray):
        arg[:] = new
    elif isinstance(arg, dict | set) and isinstance(new, dict | set):
        arg.clear()
        arg.update(new)


def _names_of(sources: list[str]) -> tuple[set[str], set[str], set[str]]:
    """Names that are used, names that are bound, and names of which an attribute is used."""
    used: set[str] = set()
    bound: set[str] = set()
    modules: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                modules.add(node.value.id)
    return used, bound, modules


def _runs(scope: dict[str, Any], source: str) -> bool:
    exec(compile(source, "<tests>", "exec"), scope)  # noqa: S102 - this is inside the sandbox
    return True


def _passes(scope: dict[str, Any], case: str) -> bool:
    """Whether one test passes: `TestX.test_y` of unittest, or a function without arguments."""
    owner, _, method = case.rpartition(".")
    if not owner:
        scope[case]()
        return True
    import unittest  # the judge of plain asserts starts faster without it

    result = unittest.TestResult()
    unittest.TestSuite([scope[owner](method)]).run(result)
    return result.testsRun == 1 and result.wasSuccessful() and not result.skipped and not result.expectedFailures


def _judged(judge: _Judge, plan: list[dict[str, Any]]) -> Iterator[int]:
    """The numbers of the tests that pass, as they do. Raises Gone."""
    for piece in plan:
        if _holds(_runs, judge.scope, piece["source"]):
            if piece["number"] is not None:
                yield piece["number"]
            for number, case in piece["cases"]:
                if _holds(_passes, judge.scope, case):
                    yield number


def _holds(test: Callable[[dict[str, Any], str], bool], scope: dict[str, Any], what: str) -> bool:
    try:
        return test(scope, what)
    except Gone:
        raise
    except BaseException:  # noqa: BLE001 - a test that raises has not passed, whatever it is
        return False


def main() -> None:
    """Read the plan from stdin; arguments: descriptors of the channel and of the verdict's pipe."""
    order = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    limit(int(order["memory"]), float(order["seconds"]))
    tell = functools.partial(_tell, int(sys.argv[2]))
    judge = _Judge(int(sys.argv[1]))
    try:
        if not judge.started():
            return
        tell({"ready": True})
        if judge.loaded():
            judge.take_names([piece["source"] for piece in order["plan"]])
            for number in _judged(judge, order["plan"]):
                tell({"passed": number})
    except (Gone, ValueError, TypeError, KeyError) as error:
        tell({"broken": str(error)[:500]})
    tell({"done": True})


def _tell(descriptor: int, message: dict[str, Any]) -> None:
    os.write(descriptor, json.dumps(message).encode() + b"\n")
