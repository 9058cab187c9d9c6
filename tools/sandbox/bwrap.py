"""Bubblewrap around a Python process: name spaces, an empty root, limits, and no other way to run foreign code.

A process in the sandbox sees a read-only /usr and the Python that crew runs on, an empty work directory in memory, no
home, no network, no environment, no other process, and has no capability. Where bubblewrap is missing or does not work
it is refused: nothing falls back to running without it.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain_crew.errors import GateError
from posttrain_crew.tools.sandbox.seccomp import program

__all__ = ["START_SECONDS", "Limits", "require_sandbox", "running"]

START_SECONDS = 60.0
"""A sandbox that has not started after this time, on however loaded a machine, does not work."""
_INSIDE = Path(__file__).parent / "inside"
_WORK_BYTES = 16 * 2**20
_BOOT = "import sys; sys.path.insert(0, '/crew'); from inside import {module}; {module}.main()"


@dataclass(frozen=True)
class Limits:
    """Of one process in the sandbox."""

    seconds: float = 10.0
    """Wall-clock time, from when the sandbox stands; processor time is bounded by the same."""
    memory_mib: int = 512
    """Address space. Files in the work directory have 16 MiB besides."""
    output_bytes: int = 64 * 1024
    """Most of stdout and stderr together; a program that writes more is ended."""


def require_sandbox() -> str:
    """Version of the bubblewrap that works here. Raises GateError with the reason where none does."""
    found = shutil.which("bwrap")
    if found is None:
        raise GateError(
            "code that a model wrote is run only in a sandbox, and this machine has none: install bubblewrap (`apt-get "
            "install bubblewrap`), or leave out what runs code (`code_tests`). Code is never run without one."
        )
    return _works(found)


@contextmanager
def running(
    module: str,
    order: Mapping[str, Any],
    limits: Limits,
    arguments: Sequence[str] = (),
    descriptors: Sequence[int] = (),
    output: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of `inside.MODULE` in the sandbox; it is gone when the block ends. Needs `require_sandbox` before.

    Args:
        order: what it reads from stdin, as JSON; the limits are added.
        descriptors: open files that it gets, under the same numbers.
        output: where stdout and stderr go.
    """
    with tempfile.TemporaryFile() as stdin, _filter() as seccomp:
        told = {**order, "memory": limits.memory_mib * 2**20, "seconds": limits.seconds}
        stdin.write(json.dumps(told).encode())
        stdin.seek(0)
        command = [*_command(shutil.which("bwrap") or "bwrap", seccomp), _BOOT.format(module=module), *arguments]
        try:
            # bwrap's own environment can be read in the sandbox, as that of its first process
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.DEVNULL if output == subprocess.DEVNULL else subprocess.STDOUT,
                env={},
                pass_fds=[*descriptors, seccomp],
                cwd="/",
            )
        except OSError as error:
            raise GateError(f"the sandbox cannot be started: {error}. Nothing was run.") from error
    try:
        yield process
    finally:
        process.kill()  # with --die-with-parent all that it started goes too
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@functools.cache
def _works(found: str) -> str:
    """Try it once in the life of this process; a failure is tried again."""
    try:
        told = subprocess.run([found, "--version"], capture_output=True, text=True, env={}, timeout=30, check=False)
        with running("program", {"code": "print(6 * 7)"}, Limits(), output=subprocess.PIPE) as process:
            answer = process.communicate(timeout=START_SECONDS)[0].decode(errors="replace").strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        answer = str(error)
    if answer != "42":
        raise GateError(
            f"the sandbox does not work here: bubblewrap says {answer[:300] or 'nothing'!r}. In a container it needs "
            "user name spaces (`sysctl user.max_user_namespaces`, or the container's seccomp profile). Code is never "
            "run without a sandbox: leave out what runs code (`code_tests`)."
        )
    return told.stdout.strip()


@contextmanager
def _filter() -> Iterator[int]:
    """A descriptor from which the system call filter can be read."""
    reading, writing = os.pipe()
    try:
        os.write(writing, program())
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


def _command(bwrap: str, seccomp: int) -> list[str]:
    """As root `--unshare-all` would leave all capabilities, so what is unshared and dropped is named one by one."""
    command = [bwrap, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--uid", "1000", "--gid", "1000"]
    command += ["--cap-drop", "ALL", "--clearenv", "--hostname", "sandbox", "--seccomp", str(seccomp)]
    command += ["--as-pid-1"]  # bubblewrap's own first process is not under the filter, and could be written into
    for place in ("/usr", "/etc/alternatives", "/etc/ld.so.cache"):
        command += ["--ro-bind-try", place, place]
    for link in ("bin", "lib", "lib64", "sbin"):
        command += ["--symlink", f"usr/{link}", f"/{link}"]
    python = _python()
    if not python.is_relative_to("/usr"):
        for folder in (python.parent, python.parent.parent / "lib"):
            command += ["--ro-bind", str(folder), str(folder)]
    command += ["--ro-bind", str(_INSIDE), "/crew/inside", "--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", str(_WORK_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"]
    for name, value in (("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("LANG", "C.UTF-8")):
        command += ["--setenv", name, value]
    return [*command, str(python), "-I", "-B", "-c"]


def _python() -> Path:
    """The interpreter that crew runs on, outside of any virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
