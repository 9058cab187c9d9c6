"""The Hub's and the viewer's clients against each fault: a failed request is an error, never "nothing"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    InputError,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.settings import Settings
from posttrain_crew.tools.data.hub.client import HubDatasets
from posttrain_crew.tools.data.hub.datasets_server import DatasetsServer, Split
from posttrain_crew.tools.services.services import Addresses, Services
from tests.loopback.world import Loopback

GOOD, DUMP, LETTERS = "lab-notebook/quanta-steps", "quizdump/science-mcq-worked", "mcq-fast/letters-only"

HUB: dict[str, Callable[[HubDatasets], Any]] = {
    "search": lambda hub: hub.search("science"),
    "linked": lambda hub: hub.linked("2609.90007"),
    "info": lambda hub: hub.info(DUMP),
    "card": lambda hub: hub.card(DUMP),
    "paper_links": lambda hub: hub.paper_links("2609.90007"),
}
VIEWER: dict[str, Callable[[DatasetsServer], Any]] = {
    "is_valid": lambda viewer: viewer.is_valid(DUMP),
    "splits": lambda viewer: viewer.splits(DUMP),
    "info": lambda viewer: viewer.info(DUMP, "default"),
    "size": lambda viewer: viewer.size(DUMP),
    "statistics": lambda viewer: viewer.statistics(DUMP, "default", "train"),
    "first_rows": lambda viewer: viewer.first_rows(DUMP, "default", "train"),
    "rows": lambda viewer: viewer.rows(DUMP, "default", "train", 5, 7),
    "parquet": lambda viewer: viewer.parquet(DUMP),
}
LASTING = {
    "429_retry_after": RateLimitedError,
    "500": ServiceUnavailableError,
    "502": ServiceUnavailableError,
    "503": ServiceUnavailableError,
    "401": (AccessDeniedError, NotFoundError),  # the Hub says 401 of what is missing, too
    "403": AccessDeniedError,
    "404": NotFoundError,
    "cut": ServiceUnavailableError,
    "bad_json": BadAnswerError,
    "html": BadAnswerError,
    "no_body": BadAnswerError,
    "moved_fields": BadAnswerError,
}
PASSING = ("429_retry_after", "500", "502", "503", "cut", "bad_json", "html", "no_body", "empty", "slow")
NO_JSON = ("bad_json", "html", "no_body", "moved_fields")


@pytest.mark.parametrize(
    ("call", "fault"),
    # a card is text: any text is one
    [(call, fault) for call in HUB for fault in LASTING if call != "card" or fault not in NO_JSON],
)
def test_a_lasting_fault_of_the_hub_is_a_typed_error(call: str, fault: str, world: Loopback, hub: HubDatasets) -> None:
    world.faults.add("hub", fault, times=None)
    with pytest.raises(LASTING[fault]) as caught:  # type: ignore[call-overload]
        HUB[call](hub)
    assert isinstance(caught.value, ServiceError)
    assert caught.value.service == "huggingface"


@pytest.mark.parametrize(
    ("call", "fault"),
    # the fault renames none of the fields of is-valid
    [(call, fault) for call in VIEWER for fault in LASTING if (call, fault) != ("is_valid", "moved_fields")],
)
def test_a_lasting_fault_of_the_viewer_is_a_typed_error(
    call: str, fault: str, world: Loopback, viewer: DatasetsServer
) -> None:
    world.faults.add("datasets_server", fault, times=None)
    with pytest.raises(LASTING[fault]) as caught:  # type: ignore[call-overload]
        VIEWER[call](viewer)
    assert isinstance(caught.value, ServiceError)


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_changes_nothing(fault: str, world: Loopback, hub: HubDatasets, viewer: DatasetsServer) -> None:
    def everything() -> list[object]:
        if fault != "empty":
            return [HUB[name](hub) for name in HUB] + [VIEWER[name](viewer) for name in VIEWER]
        return [hub.search("science"), viewer.rows(DUMP, "default", "train", 5, 7)]

    expected = everything()
    seconds = {"seconds": 0.2} if fault == "slow" else {}
    if fault in NO_JSON:
        world.faults.add("hub", fault, path="/api/datasets", **seconds)  # type: ignore[arg-type]
    else:
        world.faults.add("hub", fault, **seconds)  # type: ignore[arg-type]
    world.faults.add("datasets_server", fault, **seconds)  # type: ignore[arg-type]
    assert everything() == expected
    assert world.faults.pending == 0


def test_a_bomb_is_not_unpacked(world: Loopback, hub: HubDatasets, viewer: DatasetsServer) -> None:
    world.faults.add("hub", "bomb", times=None)
    world.faults.add("datasets_server", "bomb", times=None)
    with pytest.raises(BadAnswerError, match="larger than"):
        hub.search("science")
    with pytest.raises(BadAnswerError, match="larger than"):
        viewer.splits(DUMP)


def test_search_goes_through_all_pages(world: Loopback, hub: HubDatasets) -> None:
    found = hub.search(limit=100)
    assert len(found) > 10 and len({info.id for info in found}) == len(found)
    assert [info.downloads for info in found] == sorted((info.downloads for info in found), reverse=True)
    assert len(hub.search(limit=12)) == 12
    pages = [request for request in world.requests if request.path == "/api/datasets"]
    assert any("cursor=10" in page.query for page in pages) and not world.unknown_parameters


def test_search_filters(hub: HubDatasets) -> None:
    assert [info.id for info in hub.linked("arXiv:2609.90007v2")] == [GOOD]
    assert GOOD not in {info.id for info in hub.search("science", limit=100)}
    assert {info.gated for info in hub.search(gated=True)} == {"manual"}
    assert {info.id for info in hub.search(author="mcq-fast")} == {LETTERS}
    sized = hub.search(task_categories=["question-answering"], size_categories=["n<1K"], language=["en"], limit=100)
    assert sized and all("question-answering" in info.tagged("task_categories") for info in sized)
    assert all(info.tagged("size_categories") == ("n<1K",) for info in sized)
    assert hub.search("no such words anywhere") == []


def test_a_query_cannot_add_parameters(world: Loopback, hub: HubDatasets) -> None:
    hub.search("science & author=evil\n?limit=1#" + "x" * 10_000)
    names = [name for name, _ in world.requests[-1].parameters]
    assert sorted(names) == ["limit", "search", "sort"] and not world.unknown_parameters
    with pytest.raises(InputError, match="sorted by"):
        hub.search("x", sort="downloads&author=evil")
    for bad in ("../../etc/passwd", "a/b/c", "owner/na me", "", "owner/..", "https://huggingface.co/x"):
        with pytest.raises(InputError, match="no dataset name"):
            hub.info(bad)


def test_what_is_known_of_a_dataset(hub: HubDatasets) -> None:
    info = hub.info(GOOD)
    assert info.revision and len(info.revision) == 40 and info.licence == "cc-by-4.0" and info.gated is None
    (data,) = [file for file in info.files if file.path.endswith(".parquet")]
    assert data.size and data.sha256 and info.size and info.size > data.size
    assert hub.card(GOOD, info.revision).startswith("---\nlicense: cc-by-4.0")


def test_gated_and_missing_are_told_apart(world: Loopback, hub: HubDatasets, viewer: DatasetsServer) -> None:
    walled, gone = "walled/physics-olympiad", "gone-lab/lost-set"
    assert hub.info(walled).gated == "manual"
    open_to_all = Addresses.loopback(world.url)
    without_token = HubDatasets(dataclasses.replace(Services(), names=("live",), addresses=open_to_all).hub)
    for client in (hub, without_token):
        with pytest.raises(AccessDeniedError, match=f"accept its terms at {world.url}/datasets/{walled}"):
            client.check_access(walled)
        with pytest.raises(AccessDeniedError, match="is gated"):
            client.card(walled)
        with pytest.raises(NotFoundError, match="gone-lab/lost-set is not on the Hub"):
            client.info(gone)
    assert gone in hub.paper_links("2609.90014")
    for dataset in (walled, gone):
        with pytest.raises(AccessDeniedError, match="ExternalAuthenticatedError"):
            viewer.splits(dataset)


def test_the_viewer(viewer: DatasetsServer, hub: HubDatasets) -> None:
    told = viewer.splits(GOOD)
    assert Split("default", "train") in told.splits and told.revision == hub.info(GOOD).revision
    assert not told.pending and not told.failed and not told.partial
    size = viewer.size(GOOD)
    rows = size.by_split[Split("default", "train")]
    page = viewer.rows(GOOD, "default", "train", rows - 5, 100)
    assert len(page.rows) == 5 and page.total == rows and "question" in page.columns
    assert viewer.rows(GOOD, "default", "train", rows + 5).rows == ()
    assert len(viewer.first_rows(GOOD, "default", "train").rows) == 100
    statistics = viewer.statistics(GOOD, "default", "train")
    assert statistics.rows == rows and "question" in {column.name for column in statistics.columns}
    files = viewer.parquet(GOOD).files
    assert "default/train/0000.parquet" in {file.path for file in files} and all(file.size for file in files)
    with pytest.raises(InputError, match="1 to 100"):
        viewer.rows(GOOD, "default", "train", 0, 101)


def test_what_the_viewer_cannot_show_is_not_found_with_its_code(viewer: DatasetsServer) -> None:
    with pytest.raises(NotFoundError, match="DatasetWithScriptNotSupportedError"):
        viewer.splits("evil/script-loader")
    with pytest.raises(NotFoundError):
        viewer.rows(GOOD, "default", "no-such-split")


def test_without_a_cache_nothing_is_written(world: Loopback, tmp_path: Path) -> None:
    services = Services.parse("loopback", Settings(loopback_url=world.url), tmp_path / "cache")
    HubDatasets(services.hub).info(GOOD)
    assert not list((tmp_path / "cache").rglob("*"))
