"""`crew data profile` as a person sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.crews import cli_data_profile
from posttrain_crew.errors import CrewError, InputError
from tests.data.profile.planted import as_jsonl, mcq
from tests.loopback.world import Loopback


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    cli_data_profile.register(made)
    return made


def test_table_and_json(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = mcq(60, answers="AAB")
    rows[0]["note"] = "[red]jane@example.org[/red]"
    path = as_jsonl(tmp_path / "rows.jsonl", [*rows, *rows[:6]])
    shown = CliRunner().invoke(app, [str(path), "--sample", "50"])
    assert shown.exit_code == 0, shown.output
    for part in (
        "66 rows",
        "format mcq",
        "choices[]",
        "repeated rows: 9.09%",
        "right choice: A",
        "warning: ",
        "Cramer",
    ):
        assert part in shown.output
    assert "jane@" not in shown.output
    as_json = CliRunner().invoke(app, [str(path), "--json"])
    found = json.loads(as_json.output.strip().splitlines()[-1])
    assert (found["rows"], found["format"], found["repeated_rows"]["rate"]) == (66, "mcq", pytest.approx(6 / 66))
    assert found["pii"] == [{"kind": "e-mail", "column": "note", "rows": 2}]


def test_a_hub_id(app: typer.Typer, world: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREW_LOOPBACK_URL", world.url)
    words = ["lab-notebook/quanta-steps", "--sources", "loopback", "--sample", "100", "--json"]
    found = json.loads(CliRunner().invoke(app, words).output.strip().splitlines()[-1])
    assert found["source"] == "datasets_server" and found["rows"] > 100


@pytest.mark.parametrize("data", ["no/such/folder", "../up", "nothing", "a b/c", "/tmp/none.jsonl", "x/y?z"])
def test_what_is_neither_path_nor_id(data: str, app: typer.Typer) -> None:
    result = CliRunner().invoke(app, [data])
    assert isinstance(result.exception, InputError) and isinstance(result.exception, CrewError)


def test_a_hub_id_without_a_service(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["owner/name", "--sources", "shipped"])
    assert isinstance(result.exception, InputError)
    assert "--sources live" in str(result.exception)
