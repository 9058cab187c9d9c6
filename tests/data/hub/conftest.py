"""The loopback world, and clients for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from posttrain_crew.settings import Settings
from posttrain_crew.tools.data.hub.client import HubDatasets
from posttrain_crew.tools.data.hub.datasets_server import DatasetsServer
from posttrain_crew.tools.data.hub.fetch import Fetcher
from posttrain_crew.tools.services.http import Service
from posttrain_crew.tools.services.pace import CircuitBreaker
from posttrain_crew.tools.services.services import Services
from tests.loopback.fixtures import world
from tests.loopback.world import Loopback

__all__ = ["world"]


@pytest.fixture
def services(world: Loopback, tmp_path: Path) -> Services:
    return Services.parse("loopback", Settings(loopback_url=world.url), tmp_path / "cache")


@cache
def _service(name: str, url: str) -> Service:
    """As in `Services`, without pauses between tries, and never tired of failures; one for all tests, as it is slow to
    make."""
    token = {"authorization": "Bearer hf_loopback"}
    return Service(name, url, headers=token, backoff_s=0.0, breaker=CircuitBreaker(name, failures=10**9))


@pytest.fixture
def hub(world: Loopback) -> HubDatasets:
    return HubDatasets(_service("huggingface", world.url))


@pytest.fixture
def viewer(world: Loopback) -> DatasetsServer:
    return DatasetsServer(_service("datasets_server", f"{world.url}/datasets-server"), world.url)


MakeFetcher = Callable[..., Fetcher]


@pytest.fixture
def make_fetcher(tmp_path: Path) -> MakeFetcher:
    """A fetcher for a server at a URL, into a folder of the test."""

    def make(url: str, max_bytes: int = 64 * 2**20, max_files: int = 8) -> Fetcher:
        services = Services.parse("loopback", Settings(loopback_url=url), tmp_path / "cache")
        viewer = DatasetsServer(services.datasets_server, url)
        return Fetcher(HubDatasets(services.hub), viewer, tmp_path / "hub", max_bytes, max_files)

    return make
