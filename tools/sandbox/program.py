"""Run one program in the sandbox and get what it wrote, up to a limit."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from dataclasses import dataclass
from typing import Literal

from posttrain_crew.tools.sandbox.bwrap import START_SECONDS, Limits, require_sandbox, running

__all__ = ["Ran", "run_program"]


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    ended: Literal["ok", "failed", "timeout", "too much output"]
    output: str
    """stdout and stderr together, up to the limit."""


def run_program(code: str, limits: Limits | None = None) -> Ran:
    """Run Python source with the standard library only. Raises GateError where no sandbox works."""
    limits = limits or Limits()
    require_sandbox()
    found = b""
    with running("program", {"code": code}, limits, output=subprocess.PIPE) as process:
        if process.stdout is None:
            raise AssertionError("a pipe was asked for")
        deadline = time.monotonic() + limits.seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                part = os.read(process.stdout.fileno(), 65536)
                if not part:
                    ended = process.wait(START_SECONDS)
                    return Ran("ok" if ended == 0 else "failed", found.decode(errors="replace"))
                found += part
                if len(found) > limits.output_bytes:
                    return Ran("too much output", found[: limits.output_bytes].decode(errors="replace"))
    return Ran("timeout", found.decode(errors="replace"))
