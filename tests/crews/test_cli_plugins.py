"""What an installed third-party package adds to `crew`: a command, an LLM; and what happens when it is broken."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from posttrain_crew import plugins
from posttrain_crew.agents.llm.factory import make_llm
from posttrain_crew.settings import Settings
from tests.crews.test_cli import crew, refused

PACKAGE = Path(__file__).parents[1] / "plugin_package" / "crew_licences"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, as pip leaves it: the package and its entry points."""
    folder = tmp_path / "site"
    shutil.copytree(PACKAGE, folder / "crew_licences")
    info = folder / "crew_licences-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: crew-licences\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[posttrain_crew]\nlicences = crew_licences.plugin\n")
    return folder


def test_a_command_of_a_plugin(site: Path, tmp_path: Path) -> None:
    card = tmp_path / "sets" / "one" / "README.md"
    card.parent.mkdir(parents=True)
    card.write_text("---\nlicense: cc-by-4.0\n---\n")
    done = crew("licences", "sets", cwd=tmp_path, PYTHONPATH=str(site))
    assert (done.returncode, done.stdout) == (0, "one: license: cc-by-4.0\n"), done.stderr
    refused(crew("licences", "nowhere", cwd=tmp_path, PYTHONPATH=str(site)), "nowhere is not a folder")
    shown = crew("--help", cwd=tmp_path, PYTHONPATH=str(site)).stdout
    assert "Print the licence line" in shown
    own = crew("licences", "--help", cwd=tmp_path, PYTHONPATH=str(site)).stdout
    assert "FOLDER" in own.upper()
    assert "completion" not in own
    absent = crew("licences", "sets", cwd=tmp_path)
    assert absent.returncode == 2
    assert "No such command 'licences'" in absent.stderr


def test_a_broken_plugin_is_named_and_left_out(site: Path, tmp_path: Path) -> None:
    (site / "crew_licences" / "plugin.py").write_text("raise RuntimeError('a release too old')\n")
    done = crew("--help", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 0
    assert "posttrain" in done.stdout
    assert "licences" in done.stderr
    assert "a release too old" in done.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{'status': typer.Typer()}", "`status`, which crew has itself"),
        ("{'mine': print}", "must be a typer.Typer"),
    ],
)
def test_a_command_that_cannot_be_added(site: Path, tmp_path: Path, body: str, words: str) -> None:
    (site / "crew_licences" / "plugin.py").write_text(
        "import typer\nfrom posttrain_crew.plugins import hookimpl\n\n"
        f"@hookimpl\ndef register_commands():\n    return {body}\n"
    )
    refused(crew("mine", cwd=tmp_path, PYTHONPATH=str(site)), words, code=1)
    assert crew("runs", cwd=tmp_path, PYTHONPATH=str(site)).returncode == 0, "our own commands go on working"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(site))
    plugins.manager.cache_clear()
    yield
    plugins.manager.cache_clear()


@pytest.mark.usefixtures("installed")
def test_an_llm_of_a_plugin() -> None:
    assert make_llm("licence-bot/small", Settings()).model == "licence-bot/small"
    assert make_llm("litellm/openai/gpt-5", Settings()).model == "openai/gpt-5"
    assert make_llm("playbook", Settings()).model == "playbook"
