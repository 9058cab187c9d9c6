"""The verifier that runs code, in the sandbox (tools/sandbox) or not at all.

Where there is none, the verifier is refused with the reason before any row is made.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.synthesis.base import Parameters, SyntheticRow, Verification, parameters_as
from posttrain_crew.tools.data.synthesis.verifiers import OK, Bench, no
from posttrain_crew.tools.sandbox.bwrap import Limits, require_sandbox
from posttrain_crew.tools.sandbox.tests import last_block, run_tests

__all__ = ["CodeTests"]


class CodeParameters(Parameters):
    """Limits of one run."""

    seconds: float = Field(default=10.0, gt=0, le=120, description="wall-clock time")
    memory_mib: int = Field(default=512, ge=64, le=8192, description="address space")


class CodeTests:
    """The verifier `code_tests`. Raises GateError when it is made where no sandbox works."""

    summary: ClassVar[str] = (
        "the row's tests pass with the completion's code, in a bubblewrap sandbox; refused without one"
    )
    parameters: ClassVar[type[BaseModel]] = CodeParameters

    def __init__(self, bench: Bench, params: BaseModel) -> None:
        chosen = parameters_as(CodeParameters, params)
        self._limits = Limits(chosen.seconds, chosen.memory_mib)
        require_sandbox()

    def verify(self, row: SyntheticRow) -> Verification:
        if row.tests is None:
            return no("no tests")
        code = last_block(row.completion)
        if code is None:
            code = row.completion
        try:
            verdict = run_tests(code, row.tests, self._limits)
        except DatasetError:
            return no("unusable tests")
        if verdict.passed == verdict.total:
            return OK
        return no("timeout" if verdict.why == "timeout" else "tests fail")
