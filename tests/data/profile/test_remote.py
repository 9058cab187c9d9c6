"""Profiles of datasets on the Hub, in the loopback world: from the viewer, from the files, and what stops either."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain_crew.errors import AccessDeniedError, NotFoundError, ServiceUnavailableError
from posttrain_crew.settings import Settings
from posttrain_crew.tools.data.profile.profiler import Options
from posttrain_crew.tools.data.profile.remote import Remote
from posttrain_crew.tools.services.services import Services
from tests.loopback.world import Loopback

GOOD, NO_VIEWER, TURNS, GATED = (
    "lab-notebook/quanta-steps",
    "mcq-fast/letters-only",
    "stemdialogs/tutor-turns",
    "walled/physics-olympiad",
)


@pytest.fixture
def remote(world: Loopback, tmp_path: Path) -> Remote:
    services = Services.parse("loopback", Settings(loopback_url=world.url), cache=tmp_path / "cache")
    return Remote.of(services, root=tmp_path / "datasets")


def test_the_viewer_answers_for_a_part_of_the_rows(remote: Remote, world: Loopback, tmp_path: Path) -> None:
    found = remote.profile(GOOD, Options(sample=200))
    whole = remote.profile(GOOD, full=True)
    assert (found.source, whole.source) == ("datasets_server", "files")
    assert found.rows == whole.rows > 200 == found.rows_read
    assert found.format == whole.format
    assert found.licence == whole.licence is not None
    assert found.repeated_rows is None and found.near_duplicates is None
    assert any("--full" in text for text in found.warnings)
    assert whole.repeated_rows is not None and whole.near_duplicates is not None
    top = {each.path: each for each in whole.columns if "[]" not in each.path}
    for column in found.columns:
        if column.path in top and column.chars and top[column.path].chars:
            assert column.null == top[column.path].null
            assert column.chars.maximum == top[column.path].chars.maximum  # type: ignore[union-attr]
    assert found.place.startswith(f"{GOOD}@")
    pages = [request for request in world.requests if request.path.endswith("/rows")]
    assert len(pages) == 2


def test_pages_are_seeded(remote: Remote, world: Loopback) -> None:
    def offsets(seed: int) -> list[str]:
        world.reset()
        remote.profile(GOOD, Options(sample=300, seed=seed))
        return sorted(dict(r.parameters)["offset"] for r in world.requests if r.path.endswith("/rows"))

    first = offsets(1)
    assert offsets(1) == first
    assert any(offsets(seed) != first for seed in (2, 3, 4))


def test_without_a_viewer_the_files_are_read_and_it_is_told(remote: Remote) -> None:
    found = remote.profile(NO_VIEWER)
    assert found.source == "files" and found.rows_read == found.rows > 0
    assert any("viewer could not be used" in text for text in found.warnings)


@pytest.mark.parametrize("kind", ["500", "503", "bad_json", "429", "moved_fields"])
def test_a_viewer_that_is_down_is_told_and_never_an_empty_profile(kind: str, remote: Remote, world: Loopback) -> None:
    world.faults.add("datasets_server", kind, times=50)
    found = remote.profile(TURNS)
    assert found.source == "files" and found.rows > 100 and found.format == "sharegpt"
    assert any("viewer could not be used" in text for text in found.warnings)
    assert found.chat[0].conversations == found.rows


def test_no_hub_no_profile(remote: Remote, world: Loopback) -> None:
    world.faults.add("hub", "503", times=50)
    with pytest.raises(ServiceUnavailableError):
        remote.profile(GOOD)


def test_gated_and_missing_are_told_apart(remote: Remote) -> None:
    with pytest.raises(AccessDeniedError, match=GATED):
        remote.profile(GATED)
    with pytest.raises(NotFoundError):
        remote.profile("gone-lab/lost-set")
