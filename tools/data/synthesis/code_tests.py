"""The verifier that runs code, in a sandbox or not at all.

The code is a model's: it runs only inside bubblewrap (`bwrap`), with no network, no home, no environment, a read-only
/usr and limits of memory, time and output. Where bubblewrap is missing or may not make name spaces, the verifier is
refused with that reason before any row is made.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field

from posttrain_crew.errors import GateError
from posttrain_crew.redact import child_environment
from posttrain_crew.tools.data.synthesis.base import Parameters, SyntheticRow, Verification, parameters_as
from posttrain_crew.tools.data.synthesis.verifiers import OK, Bench, no

__all__ = ["CodeTests"]

_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL)
_PYTHON = "/usr/bin/python3"
_LIMITED = (
    "import resource, runpy\n"
    "resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))\n"
    "resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))\n"
    "runpy.run_path('/job/check.py', run_name='__main__')\n"
    "raise SystemExit({passed})\n"
)
PASSED = 77
"""Exit status after the last test; code that ends the program early, with status 0, has passed nothing."""


class CodeParameters(Parameters):
    """Limits of one run."""

    seconds: float = Field(default=10.0, gt=0, le=120, description="wall-clock time")
    memory_mib: int = Field(default=512, ge=32, le=8192, description="address space")


class CodeTests:
    """The verifier `code_tests`. Raises GateError when it is made where no sandbox works."""

    summary: ClassVar[str] = (
        "the row's tests pass with the completion's code, in a bubblewrap sandbox; refused without one"
    )
    parameters: ClassVar[type[BaseModel]] = CodeParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        self._params = parameters_as(CodeParameters, params)
        self._command = _sandbox()

    def verify(self, row: SyntheticRow) -> Verification:
        if row.tests is None:
            return no("no tests")
        blocks = _BLOCK.findall(row.completion)
        code = blocks[-1] if blocks else row.completion
        with tempfile.TemporaryDirectory(prefix="crew-code-") as folder:
            Path(folder).chmod(0o755)
            (Path(folder) / "check.py").write_text(f"{code}\n\n{row.tests}\n", encoding="utf-8")
            limited = _LIMITED.format(memory=self._params.memory_mib * 2**20, passed=PASSED)
            (Path(folder) / "start.py").write_text(limited, encoding="utf-8")
            command = [*self._command, "--ro-bind", folder, "/job", "--chdir", "/job", _PYTHON, "-I", "start.py"]
            try:
                # output is thrown away: it could be endless, and nothing in it counts
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=child_environment(),
                    timeout=self._params.seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return no("timeout")
        return OK if done.returncode == PASSED else no("tests fail")


def _sandbox() -> list[str]:
    """The bubblewrap command in front of a program. Raises GateError where it does not work."""
    found = shutil.which("bwrap")
    if found is None:
        raise GateError(
            "`code_tests` runs code that a model wrote, and this machine has no sandbox for it: install bubblewrap "
            "(`bwrap`), or leave the verifier out. Code is never run without one."
        )
    command = [found, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]
    command += [
        "--die-with-parent",
        "--new-session",
        "--uid",
        "1000",
        "--gid",
        "1000",
        "--cap-drop",
        "ALL",
        "--clearenv",
    ]
    for place in ("/usr", "/etc/alternatives", "/etc/ld.so.cache"):
        command += ["--ro-bind-try", place, place]
    for target, link in (("usr/bin", "/bin"), ("usr/lib", "/lib"), ("usr/lib64", "/lib64")):
        command += ["--symlink", target, link]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--setenv", "PATH", "/usr/bin:/bin"]
    try:
        done = subprocess.run(
            [*command, _PYTHON, "-c", "pass"], capture_output=True, text=True, timeout=30, check=False
        )
        problem = (done.stderr.strip()[:300] or f"status {done.returncode}") if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)[:300]
    if problem:
        raise GateError(f"`code_tests` needs a sandbox, and bubblewrap does not work here: {problem}. Leave it out.")
    return command
