"""The loopback world, and sources that ask it without pauses."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from posttrain_crew.settings import Settings
from posttrain_crew.tools.services.http import Service
from posttrain_crew.tools.services.pace import CircuitBreaker
from posttrain_crew.tools.services.services import Services
from tests.loopback.fixtures import world
from tests.loopback.world import Loopback

__all__ = ["world"]

PATHS = {"s2": "/s2", "arxiv": "/arxiv", "hub": ""}


@cache
def _eager(url: str, name: str, timeout_s: float, tries: int) -> Service:
    """Kept over tests: to make one reads the certificates of this machine, which takes longer than most tests."""
    return Service(
        name,
        url + PATHS[name],
        timeout_s=timeout_s,
        tries=tries,
        headers={"connection": "close"},  # on a kept connection head and body of an answer are 40 ms apart (Nagle)
        breaker=CircuitBreaker(name, failures=10**9),
        sleep=lambda _seconds: None,
    )


@pytest.fixture
def eager(world: Loopback) -> Callable[..., Service]:
    """Makes services of the world by name that do not pause between tries, have no cache, and are never left alone."""

    def make(name: str, timeout_s: float = 20.0, tries: int = 3) -> Service:
        return _eager(world.url, name, timeout_s, tries)

    return make


@pytest.fixture
def services(world: Loopback, tmp_path: Path) -> Services:
    """What `--sources loopback,shipped` gives."""
    return Services.parse("loopback,shipped", Settings(loopback_url=world.url), cache=tmp_path / "cache")
