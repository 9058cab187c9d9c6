"""`crew data synthesize` from its arguments to a dataset that `crew audit` reads; with a third-party plugin."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.crews import cli_data_synthesize
from posttrain_crew.errors import CrewError, InputError, ModelError, TargetError
from posttrain_crew.plugins import manager
from posttrain_crew.target import Target
from posttrain_crew.tools.data.audit import audit_path

Crew = Callable[..., Any]


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Crew:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.callback()(lambda: None)
    cli_data_synthesize.register(app)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["synthesize", *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


def test_list_shows_names_and_parameters(crew: Crew) -> None:
    text = crew("--list").output
    for name in (
        "rejection_sampling",
        "specification",
        "procedural",
        "gpqa_mini_train",
        "self_consistency",
        "code_tests",
    ):
        assert f"  {name}: " in text
    assert "samples = 4" in text and "spec = (needed)" in text
    found = json.loads(crew("--list", "--json").output.splitlines()[-1])
    assert {each["name"] for each in found["verifiers"]} >= {"answer_match", "llm_judge", "arithmetic_check"}


def test_computed_rows_from_the_command_line(crew: Crew, tmp_path: Path, target: Target) -> None:
    arguments = ("--generator", "gpqa_mini_train", "--target", "gpqa-mini", "-n", "150", "--param", "level=3",
                 "--verifier", "answer_match", "--verifier", "format:working=true", "--verifier",
                 "language:allowed=en,de,minimum_letters=60", "--out", "made")  # fmt: skip
    result = json.loads(crew(*arguments, "--json").output.splitlines()[-1])
    assert (result["rows"], result["counts"]["verified"]["out"], result["contamination"]["passed"]) == (150, 150, True)
    assert result["plan"]["verifiers"][2]["params"] == {"allowed": "en,de", "minimum_letters": "60"}
    profile = audit_path(tmp_path / "made", target)
    assert (profile.rows, profile.measures["rows_clean"], profile.measures["working_contradiction_rate"]) == (
        150,
        150,
        0,
    )
    assert profile.verdict in ("usable", "usable_after_cleaning")
    words = crew(*arguments).output  # the same call again: the same dataset
    assert "150 rows (150 different)" in words and "crew audit made --target gpqa-mini" in words
    checks = ("--verifier", "answer_match", "--verifier", "arithmetic_check:need_equation=true", "--json")
    done = crew("--generator", "procedural", "--target", "gpqa-mini", "-n", "150", *checks)
    other = json.loads(done.output.splitlines()[-1])
    assert other["out"] == "synthetic-procedural-0" and other["counts"]["verified"]["out"] == 150


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("--generator", "procedural"), InputError, "--target"),
        (("--generator", "magic", "--target", "gpqa-mini"), InputError, "no generator `magic`"),
        (("--generator", "procedural", "--target", "gpqa-maxi"), TargetError, "gpqa-maxi"),
        (("--generator", "procedural", "--target", "gpqa-mini", "--param", "worked"), InputError, "key=value"),
        (("--generator", "procedural", "--target", "gpqa-mini", "--param", "colour=red"), InputError, "colour"),
        (("--generator", "procedural", "--target", "gpqa-mini", "--param", "templates=x"), InputError, "no template x"),
        (("--generator", "rejection_sampling", "--target", "gpqa-mini"), InputError, "--model"),
        (("--generator", "rejection_sampling", "--target", "gpqa-mini", "--model", "/none"), ModelError, "/none"),
        (("--generator", "specification", "--target", "gpqa-mini", "--llm", "x/y"), InputError, "spec"),
        (("--generator", "procedural", "--target", "gpqa-mini", "--verifier", "llm_judge"), InputError, "--llm"),
        (("--generator", "procedural", "--target", "gpqa-mini", "--student", "/none"), ModelError, "/none"),
    ],
)
def test_bad_input_is_one_paragraph(crew: Crew, arguments: tuple[str, ...], error: type[CrewError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        crew(*arguments)
    assert caught.value.exit_code == 2


@pytest.fixture
def installed_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """tests/plugin_package as an installer leaves it: its files and its entry point on sys.path."""
    site = tmp_path / "site"
    package = Path(__file__).parents[2] / "plugin_package" / "crew_licences"
    shutil.copytree(package, site / "crew_licences", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "crew_licences-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crew-licences\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[posttrain_crew]\nlicences = crew_licences.plugin\n")
    monkeypatch.syspath_prepend(str(site))
    manager.cache_clear()
    yield
    manager.cache_clear()


@pytest.mark.usefixtures("installed_plugin")
def test_a_plugin_brings_a_generator_and_a_verifier(crew: Crew) -> None:
    assert "licence_questions: questions on the end of" in crew("--list").output
    arguments = ("--generator", "licence_questions", "--target", "gpqa-mini", "-n", "40", "--param", "first_year=1950")
    checks = ("--verifier", "no_licence_text", "--verifier", "answer_match", "--verifier", "arithmetic_check")
    result = json.loads(crew(*arguments, *checks, "--json").output.splitlines()[-1])
    assert result["rows"] == 40 and result["plan"]["generator"] == "licence_questions"
    with pytest.raises(InputError, match="first_year"):
        crew("--generator", "licence_questions", "--target", "gpqa-mini", "--param", "first_year=1", "--out", "x")
