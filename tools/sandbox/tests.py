"""Code against tests, in two sandboxes: the code runs in one, the tests in the other.

Between them goes data. So nothing that the code does to itself changes the verdict: not a line that it prints, not an
exit with status 0, not a changed `assertEqual` or `sys.exit`, not an object that is equal to everything. What it can do
is answer the tests' calls, and end.

Tests are a list of assert statements, or Python source: statements with asserts, functions `test_*`, or classes of
unittest. They call what the code defines by its name, with or without `from solution import ...`. They hand over and
get data (numbers, text, lists, tuples, dicts, sets, bytes, ...), functions, and objects of the code's own classes.
Objects of classes that the tests define cannot be handed over, arithmetic between data and an object of the code's own
class is refused, and the standard library is all that there is to import. A helper that the tests neither import nor
define is looked for in the code, as everything is that they use.
"""

from __future__ import annotations

import ast
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from posttrain_crew.errors import DatasetError, GateError
from posttrain_crew.tools.sandbox.bwrap import START_SECONDS, Limits, require_sandbox, running
from posttrain_crew.tools.sandbox.inside.judge import CODE_MODULES

__all__ = ["Verdict", "last_block", "plan", "run_many", "run_tests"]

MOST_TEXT = 200_000
"""Characters of code or of tests."""
MOST_AT_A_TIME = 8
STARTS = 3
"""How often a sandbox that does not start is started."""
Tests = str | Sequence[str]


@dataclass(frozen=True)
class Verdict:
    """How many of a row's tests passed."""

    passed: int
    total: int
    why: str = ""
    """`timeout`, or what went wrong before a test; "" where the tests simply ran."""

    @property
    def share(self) -> float:
        """Of the tests that passed, 0 to 1."""
        return self.passed / self.total


def last_block(text: str) -> str | None:
    """The last complete fenced block of a text that is marked as Python or not marked; None where there is none."""
    found, lines, inside = None, [""], None
    for line in text.splitlines():
        mark = line.strip()
        if inside is None:
            if mark.startswith("```") and "`" not in mark[3:]:
                lines, inside = [], mark[3:].strip().lower()
        elif mark == "```":
            if inside in ("", "python", "py", "python3"):
                found = "\n".join(lines)
            inside = None
        else:
            lines.append(line)
    return found


def plan(tests: Tests) -> tuple[list[dict[str, Any]], int]:
    """The pieces of the tests in their order, and how many tests they are.

    Raises:
        DatasetError: they are no Python, hold no test, or import what the sandbox has not.
    """
    pieces: list[dict[str, Any]] = []
    total = 0
    for source, nodes in _sources(tests):
        cases = [name for node in nodes for name in _cases(node)]
        whole = any(_is_test(node) for node in nodes)
        numbers = range(total, total + whole + len(cases))
        pieces.append(
            {
                "source": source,
                "number": numbers[0] if whole else None,
                "cases": list(zip(numbers[int(whole) :], cases, strict=True)),
            }
        )
        total += len(numbers)
        for node in nodes:
            _check_imports(node)
    if not total:
        raise DatasetError(
            "the tests hold no test: give assert statements, functions `test_*` without arguments, or classes of "
            "unittest with methods `test*`."
        )
    return pieces, total


def run_tests(code: str, tests: Tests, limits: Limits | None = None) -> Verdict:
    """Judge code by tests.

    Args:
        limits: of each of the two processes; the time is for all tests together.

    Raises:
        DatasetError: the tests cannot be used. GateError: no sandbox works here; that is no verdict on the code.
    """
    require_sandbox()
    pieces, total = plan(tests)
    if len(code) > MOST_TEXT:
        return Verdict(0, total, "the code is too long")
    for _ in range(STARTS - 1):
        try:
            return _judged(code, pieces, total, limits or Limits())
        except GateError:  # no process, no memory: a job of hours should not end for a moment of that
            continue
    return _judged(code, pieces, total, limits or Limits())


def run_many(
    pairs: Sequence[tuple[str | None, Tests]], limits: Limits | None = None, at_a_time: int = 0
) -> list[Verdict]:
    """As `run_tests` for each pair, several side by side; no code (None) passes no test.

    Args:
        at_a_time: 0 for one per core of this process's share, at most 8.
    """

    def one(pair: tuple[str | None, Tests]) -> Verdict:
        code, tests = pair
        return Verdict(0, plan(tests)[1], "no code") if code is None else run_tests(code, tests, limits)

    require_sandbox()
    cores = len(os.sched_getaffinity(0)) // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    workers = at_a_time or max(1, min(MOST_AT_A_TIME, cores))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(one, pairs))


def _judged(code: str, pieces: list[dict[str, Any]], total: int, limits: Limits) -> Verdict:
    ends = socket.socketpair()
    numbers = os.pipe()
    with (
        ends[0] as for_judge,
        ends[1] as for_worker,
        os.fdopen(numbers[0], "rb", 0) as verdicts,
        os.fdopen(numbers[1], "wb") as told,
    ):
        channel, answers, verdict = for_worker.fileno(), for_judge.fileno(), told.fileno()
        with (
            running("worker", {"code": code}, limits, [str(channel)], [channel]),
            running("judge", {"plan": pieces}, limits, [str(answers), str(verdict)], [answers, verdict]),
        ):
            for mine in (for_judge, for_worker, told):
                mine.close()  # the processes have their own: when one ends, the other sees it
            return _read(verdicts.fileno(), total, limits)


def _read(verdicts: int, total: int, limits: Limits) -> Verdict:
    """What the judge says, until it is done or the time is over."""
    passed: set[int] = set()
    ready, why, rest = False, "", b""
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(verdicts, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            block = os.read(verdicts, 65536)
            *lines, rest = (rest + block).split(b"\n")
            for message in map(json.loads, lines):
                if "ready" in message:  # a slow start is the machine's and not the code's
                    ready, deadline = True, time.monotonic() + limits.seconds
                if "passed" in message:
                    passed.add(message["passed"])
                why = message.get("broken", why)
            if not block:
                break
        else:
            why = "timeout"
    if not ready:
        raise GateError(f"the sandbox did not start ({why or 'it ended at once'}), so no test was run.")
    return Verdict(len(passed & set(range(total))), total, why)


def _sources(tests: Tests) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Each piece with its statements: an item of a list, or a statement of a text."""
    whole = isinstance(tests, str)
    texts = [tests] if isinstance(tests, str) else tests
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise DatasetError("`tests` must be a list of texts with assert statements, or one text.")
    for text in texts:
        if len(text) > MOST_TEXT:
            raise DatasetError(f"the tests are longer than {MOST_TEXT:,} characters.")
        try:
            nodes = ast.parse(text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise DatasetError(f"the tests are no Python ({error}): {text[:200]!r}") from error
        if not whole:
            yield text, nodes
            continue
        for node in nodes:
            yield ast.unparse(node), [node]


_SET_UP = (
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
    ast.AnnAssign,
    ast.AugAssign,
    ast.FunctionDef,
    ast.ClassDef,
    ast.Pass,
)


def _is_test(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return False
    if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
        return False
    return not isinstance(node, _SET_UP)


def _cases(node: ast.stmt) -> list[str]:
    """The tests that a definition holds."""
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
        arguments = node.args
        needed = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
        return [node.name] if not needed else []
    if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("TestCase") for base in node.bases):
        methods = (item.name for item in node.body if isinstance(item, ast.FunctionDef))
        return [f"{node.name}.{name}" for name in methods if name.startswith("test")]
    return []


def _check_imports(node: ast.stmt) -> None:
    for item in ast.walk(node):
        names: list[str] = []
        if isinstance(item, ast.Import):
            names = [alias.name for alias in item.names]
        elif isinstance(item, ast.ImportFrom):
            names = [item.module or "."]
        for name in names:
            root = name.split(".")[0]
            if root not in sys.stdlib_module_names and root not in CODE_MODULES:
                raise DatasetError(
                    f"the tests import `{name}`, but the sandbox has only the standard library, and the code under the "
                    f"name `{CODE_MODULES[0]}`."
                )
