"""A whole program, with its output."""

from __future__ import annotations

import json
import os
import sys
import types

from .limits import limit

__all__ = ["main"]


def main() -> None:
    """Read the program from stdin and run it as `__main__`."""
    order = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    limit(int(order["memory"]), float(order["seconds"]))
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(str(order["code"]), "program.py", "exec"), module.__dict__)  # noqa: S102 - inside the sandbox
