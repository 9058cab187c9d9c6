"""The loopback world, and a reader that asks it."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain_crew.settings import Settings
from posttrain_crew.tools.literature.reading.reader import PaperReader
from posttrain_crew.tools.services.services import Services
from tests.loopback.fixtures import world
from tests.loopback.world import Loopback

__all__ = ["world"]


@pytest.fixture
def reader(world: Loopback, tmp_path: Path) -> PaperReader:
    """A reader as `--sources loopback` gives it."""
    return PaperReader(Services.parse("loopback", Settings(loopback_url=world.url), cache=tmp_path / "cache"))
