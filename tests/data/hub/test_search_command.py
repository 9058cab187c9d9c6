"""`crew data search`: a table with reasons, problems and failures, JSON, and exit code 5 when the Hub is down."""

from __future__ import annotations

import json
from urllib.parse import unquote_plus

import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.crews import cli_data_search
from posttrain_crew.errors import InputError, ServiceUnavailableError
from tests.loopback.world import Loopback

GOOD = "lab-notebook/quanta-steps"


@pytest.fixture
def app(world: Loopback, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("CREW_LOOPBACK_URL", world.url)
    made = typer.Typer()
    made.callback()(lambda: None)
    cli_data_search.register(made)
    return made


def test_table(app: typer.Typer) -> None:
    arguments = ["search", "science physics", "--paper", "2609.90007", "--sources", "loopback", "--limit", "5"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    assert GOOD in done.stdout and "linked to arXiv 2609.90007" in done.stdout
    assert "walled/physics-olympiad (gated, cannot be used)" in done.stdout and "failures" not in done.stdout


def test_json_and_filters(app: typer.Typer) -> None:
    arguments = ["search", "--task", "question-answering", "--size", "n<1K", "--licence", "mit"]
    done = CliRunner().invoke(app, [*arguments, "--sources", "loopback", "--json"])
    result = json.loads(done.stdout.splitlines()[-1])
    assert [each["dataset"] for each in result["candidates"]] == ["everyday-qa/howto-quiz"] and result["complete"]


def test_nothing_found_is_said(app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["search", "zzzzzz", "--sources", "loopback"])
    assert done.exit_code == 0 and "no dataset that meets this" in done.stdout


def test_a_part_that_failed_is_shown(app: typer.Typer, world: Loopback) -> None:
    world.faults.add("hub", "503", times=None, path="/api/papers/")
    done = CliRunner().invoke(app, ["search", "--paper", "2609.90007", "--sources", "loopback"])
    assert done.exit_code == 0 and GOOD in done.stdout
    assert "may lack" in done.stdout and "ServiceUnavailableError" in done.stdout


def test_a_hub_that_is_down_ends_with_code_5(app: typer.Typer, world: Loopback) -> None:
    world.faults.add("hub", "502", times=None)
    done = CliRunner().invoke(app, ["search", "science", "--sources", "loopback"])
    assert isinstance(done.exception, ServiceUnavailableError) and done.exception.exit_code == 5
    done = CliRunner().invoke(app, ["search", "science", "--sources", "shipped"])
    assert isinstance(done.exception, InputError)


def test_a_query_without_a_telling_word_is_no_empty_hub(app: typer.Typer, world: Loopback) -> None:
    world.requests.clear()
    for query in ("x", "the data set", "?? &&"):
        done = CliRunner().invoke(app, ["search", query, "--sources", "loopback"])
        assert isinstance(done.exception, InputError) and "tells one dataset from another" in str(done.exception), query
    assert not world.requests
    done = CliRunner().invoke(app, ["search", "数学 médecine", "--sources", "loopback"])
    asked = {unquote_plus(str(request.query)) for request in world.requests}
    assert done.exit_code == 0 and any("数学 médecine" in query for query in asked), asked


def test_nothing_found_because_a_part_failed_is_code_5(app: typer.Typer, world: Loopback) -> None:
    world.faults.add("hub", "503", times=None, path="/api/papers/")
    done = CliRunner().invoke(app, ["search", "--paper", "2609.99999", "--sources", "loopback"])
    assert done.exit_code == 5 and "not all questions were answered" in done.stdout
