"""The fixture `world`, for a conftest to import: `from tests.loopback.fixtures import world`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.loopback.world import Loopback

__all__ = ["world"]


@cache
def _served(config: pytest.Config) -> Loopback:
    """One server for the whole session, started when a test asks for it first."""
    from tests.loopback.world import Loopback  # most tests do without, and it takes a moment to import

    started = Loopback()
    started.start()
    config.add_cleanup(started.stop)
    return started


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[Loopback]:
    """The loopback world without faults and with an empty log; its datasets stay made from test to test."""
    served = _served(request.config)
    served.reset()
    yield served
    mistakes = "\n".join(served.errors)
    served.reset()
    if mistakes:
        pytest.fail(f"the loopback world made a mistake:\n{mistakes}")
