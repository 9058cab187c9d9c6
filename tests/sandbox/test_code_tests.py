"""Code against tests: what passes, and that no trick does."""

from __future__ import annotations

import time
from typing import Any

import pytest

from posttrain_crew.errors import ConfigError, DatasetError
from posttrain_crew.tools.sandbox.bwrap import Limits
from posttrain_crew.tools.sandbox.tests import Verdict, last_block, plan, run_many, run_tests
from posttrain_crew.tools.training.rewards import (
    CALIBRATION,
    calibrate,
    check_rewards,
    check_rows,
    code_tests,
    code_tests_all,
    scored,
)

ADD_ONE = ["assert f(1) == 2", "assert f(2) == 3"]
TRICKS = {
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "hard exit later": "import os\ndef f(x): os._exit(0)",
    "exit with any status": "raise SystemExit(77)",
    "a line that says so": "print('2 passed')\nprint('{\"passed\": 0}')\ndef f(x): print('{\"passed\": 1}')",
    "a verdict on every descriptor": (
        'import os\nfor n in range(64):\n  try: os.write(n, b\'{"ready": true}\\n{"passed": 0}\\n{"passed": 1}\\n\')\n'
        "  except OSError: pass"
    ),
    "equal to everything": (
        "class Any(int):\n  __eq__ = lambda *_: True\n  __sub__ = __rsub__ = lambda *_: 0\n  __bool__ = __eq__\n"
        "def f(x): return Any()"
    ),
    "equal to everything, no number": "class Any:\n  __eq__ = lambda *_: True\ndef f(x): return Any()",
    "asserts do not raise": ("import builtins, sys\nbuiltins.AssertionError = None\nsys.exit = print\ndef f(x): pass"),
    "unittest does not fail": "import unittest\nunittest.TestCase.run = lambda *_: None\ndef f(x): pass",
    "its own harness": (
        "import sys\nfrom inside import worker, wire\nwire.Peer.encode = lambda *_: True\n"
        "worker._told = lambda *_: {'kinds': ['SkipTest'], 'text': ''}\ndef f(x): raise ValueError"
    ),
    "the judge's answers from its frame": (
        "import gc, socket\ndef f(x):\n  for s in gc.get_objects():\n    if isinstance(s, socket.socket):\n"
        "      s.sendall(b'\\x10\\0\\0\\0{\"passed\": true}')\n  return 0"
    ),
    "fork bomb": "import os\nwhile True: os.fork()",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)\ndef f(x): return x + 1",
    "shell": "import os\nassert os.system('id') == 0\ndef f(x): return x + 1",
    "memory": "x = bytearray(2**32)\ndef f(x): return x + 1",
    "an answer of 100 MB": "def f(x): return 'x' * 10**8",
    "an answer without end": "def f(x):\n  a = []\n  a.append(a)\n  return a",
    "no code": "",
}


@pytest.mark.parametrize("name", TRICKS)
def test_tricks_pass_nothing(sandbox: str, name: str) -> None:
    assert run_tests(TRICKS[name], ADD_ONE, Limits(seconds=20)).passed == 0


def test_endless_code_costs_its_time_and_no_more(sandbox: str) -> None:
    begin = time.monotonic()
    endless = ["while True: pass", "def f(x):\n  while True: print('x' * 10**4)", "def f(x):\n  while True: yield 1"]
    tests = [[*ADD_ONE, "assert list(f(1)) == []"]] * 3
    found = run_many(list(zip(endless, tests, strict=True)), Limits(seconds=1.0), at_a_time=3)
    assert [(verdict.passed, verdict.total) for verdict in found] == [(0, 3)] * 3
    assert [verdict.why for verdict in found[:2]] == ["timeout"] * 2
    assert time.monotonic() - begin < 30


LIBRARY = """
from collections import Counter, deque, namedtuple
from dataclasses import dataclass
import math

class Empty(IndexError):
    pass

class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item)
    def pop(self):
        if not self.items: raise Empty("nothing left")
        return self.items.pop()
    def __len__(self): return len(self.items)

@dataclass(order=True)
class Version:
    major: int
    def __add__(self, other): return Version(self.major + other.major)
    def __str__(self): return f"v{self.major}"

Point = namedtuple("Point", "x y")
def move(p, by): return Point(p[0] + by, p[1])
def sort(items): items.sort()
def turn(rows): rows[:] = [list(row) for row in zip(*rows[::-1])]
def count(n): yield from range(n)
def apply(function, *args, **named): return function(*args, **named)
def letters(text): return Counter(text)
def big(): return 10**5000
def tree(): return {(1, 2): [{3}, frozenset({4}), b"5", 6j, None, range(3), float("inf"), deque([1])]}
LIMIT = 7
"""
STATEMENTS = """
from solution import sort, turn
s = Stack()
s.push([1])
assert s.pop() == [1] and len(s) == 0 and not s
s.items = [4, 5]
assert s.items == [4, 5] and isinstance(s, Stack) and not isinstance(3, Stack)
try:
    Stack().pop()
except Empty as error:
    assert str(error) == "nothing left" and isinstance(error, IndexError)
else:
    assert False
assert Version(1) + Version(2) == Version(3) and Version(1) < Version(2) and Version(1) != Version(2)
assert str(Version(4)) == "v4" and Version(4).major == 4
assert move((1, 2), 3) == (4, 2) and move((1, 2), 3).x == 4
a = [3, 1]
sort(a)
assert a == [1, 3]
rows = [[1, 2], [3, 4]]
turn(rows)
assert rows == [[3, 1], [4, 2]]
assert list(count(3)) == [0, 1, 2] and 2 in count(3) and sum(count(4)) == 6
assert apply(lambda x, y: x + y, 3, y=4) == 7 and apply(len, "abc") == 3
assert letters("aab") == {"a": 2, "b": 1}
assert big() == 10**5000
assert math.isclose(apply(math.sqrt, 4), 2.0)
assert tree()[1, 2] == [{3}, {4}, b"5", 6j, None, range(3), math.inf, __import__("collections").deque([1])]
for value in (LIMIT, 7):
    assert value == 7
def test_of_its_own():
    assert sorted([2, 1]) == [1, 2]
def test_that_fails():
    assert LIMIT == 8
if __name__ == "__main__":
    raise SystemExit
"""
CASES = """
import unittest
from solution import Empty, Stack

class TestStack(unittest.TestCase):
    def setUp(self):
        self.stack = Stack()
    def test_push(self):
        self.stack.push(3)
        self.assertEqual(self.stack.pop(), 3)
    def test_empty(self):
        with self.assertRaises(Empty):
            self.stack.pop()
        self.assertRaisesRegex(IndexError, "nothing", self.stack.pop)
    def test_wrong(self):
        self.assertAlmostEqual(len(self.stack), 1.0)
    @unittest.skip("not yet")
    def test_skipped(self):
        pass

if __name__ == "__main__":
    unittest.main()
"""


def test_honest_code_is_tested_in_every_form(sandbox: str) -> None:
    statements, cases = run_many([(LIBRARY, STATEMENTS), (LIBRARY, CASES)], Limits(seconds=60))
    assert statements.passed == statements.total - 1, statements
    assert cases == Verdict(2, 4)
    human_eval = "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)"
    assert run_tests("def f(x): return x + 1", human_eval) == Verdict(1, 1)


def test_code_does_not_replace_what_the_tests_judge_with(sandbox: str) -> None:
    cheat = "def f(x): return None\ndef sorted(x): return None\nclass math: isclose = lambda *_: True"
    tests = ["assert f([2, 1]) == sorted([2, 1])", "assert math.isclose(f(2), 1.5)"]
    assert run_tests(cheat, tests).passed == 0
    raises = ["try:\n    f(1)\nexcept Exception:\n    pass\nelse:\n    assert False"]
    assert run_tests("def f(x): raise ValueError", raises).passed == 1
    assert run_tests("import os\ndef f(x): os._exit(0)", raises).passed == 0  # its end is no exception
    assert run_tests("def sum(a, b): return a + b", ["assert sum(1, 2) == 3"]).passed == 1  # it is what is tested


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        ("import numpy as np\nassert np.allclose(f(1), 2)", "numpy"),
        ("x = 1", "no test"),
        ([], "no test"),
        ("assert f(1) ==", "no Python"),
        (["assert True\0"], "no Python"),
        ([1], "list of texts"),
        ({"a": 1}, "list of texts"),
    ],
)
def test_tests_that_cannot_be_used_are_told_before_a_launch(sandbox: str, tests: Any, told: str) -> None:
    with pytest.raises(DatasetError, match=told):
        plan(tests)
    with pytest.raises(DatasetError, match="row 2"):
        check_rows(["code_tests"], [{"tests": ADD_ONE}, {"tests": tests}])
    check_rows(["code_tests"], [{"tests": ADD_ONE}, {"tests": None}])


def test_the_last_python_block_counts() -> None:
    assert last_block("```python\na\n```\nor\n```py\nb\n```\nand\n```text\nc\n```") == "b"
    assert last_block("```\na\n```") == "a"
    assert last_block("```text\nx\n```\nso\n```json\n{}\n```") is None
    assert last_block("```python\ncut off") is None
    assert last_block("a = 1") is None


def test_the_reward_separates_and_scores(sandbox: str) -> None:
    assert calibrate("code_tests_all", code_tests_all, CALIBRATION["code_tests_all"]) == (1.0, 0.0)
    half = [{"role": "assistant", "content": "So:\n```python\ndef f(x): return 2\n```"}]
    whole = "```python\ndef f(x): return x + 1\n```"
    completions, tests = [half, whole, "f(x) = x + 1", whole], [ADD_ONE, ADD_ONE, "\n".join(ADD_ONE), None]
    assert scored("code_tests", code_tests, completions=completions, tests=tests) == [0.5, 1.0, 0.0, None]
    assert scored("code_tests_all", code_tests_all, completions=completions, tests=tests) == [0.0, 1.0, 0.0, None]
    lines = check_rewards(["code_tests", "format"], weights=[1.0, 0.1])
    assert lines[0] == "code_tests: good >= 1, bad <= 0"


def test_the_reward_is_refused_without_a_sandbox(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"`code_tests` cannot be used: .*install bubblewrap"):
        check_rewards(["code_tests"])
    with pytest.raises(ConfigError, match="bubblewrap"):
        check_rows(["code_tests"], [{"tests": ADD_ONE}])
    check_rows(["exact"], [{}])
