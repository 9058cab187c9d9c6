"""Tests that run code need a sandbox, as crew does; where there is none they are skipped, with the reason."""

from __future__ import annotations

import pytest

from posttrain_crew.errors import GateError
from posttrain_crew.tools.sandbox.bwrap import require_sandbox


@pytest.fixture(scope="session")
def sandbox() -> str:
    try:
        return require_sandbox()
    except GateError as error:
        pytest.skip(str(error))
