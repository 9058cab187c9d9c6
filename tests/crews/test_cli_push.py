"""`crew push`: what leaves the machine, when, and where to. The Hub is the loopback one, the client the real one."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from posttrain_crew.crews import cli_push
from posttrain_crew.entries import Decision
from posttrain_crew.errors import (
    AccessDeniedError,
    BadAnswerError,
    CrewError,
    GateError,
    InputError,
    ModelError,
    RunBusyError,
    ServiceError,
    ServiceUnavailableError,
)
from posttrain_crew.state import RunState
from tests.loopback.fixtures import world  # noqa: F401 - a fixture

from .conftest import RunMaker

if TYPE_CHECKING:
    from tests.loopback.world import Loopback

REPO = "me/quanta-1b"
CARD = "---\nlibrary_name: transformers\nbase_model: builtin:gpqa-mini\nlicense: mit\n---\n\n# A model\n\nIt gained.\n"
TOKEN = "hf_" + "t" * 34


def write_model(maker: RunMaker, subject: str) -> Path:
    """final_model/ as a run leaves it."""
    folder = maker.run.final_model
    folder.mkdir()
    parts = {"config.json": b"{}", "tokenizer_config.json": b'{"a": 1}', "model.safetensors": bytes(range(256)) * 20}
    for name, content in parts.items():
        (folder / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    (folder / "crew.json").write_text(json.dumps({"run": maker.run.id, "subject": subject, "sha256": hashes}))
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def model(finished: RunMaker) -> Path:
    return write_model(finished, RunState.of(finished.board).best)


@pytest.fixture
def hub(world: Loopback, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loopback:  # noqa: F811
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_ENDPOINT", world.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return world


def push(maker: RunMaker, *options: str, to: str = REPO) -> Any:
    """The command as the console script runs it, without its outermost frame."""
    app = typer.Typer()
    cli_push.register(app)
    arguments = [str(maker.run.root), "--to", to, *options]
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, CrewError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def nothing_sent(hub: Loopback) -> None:
    assert [r.path for r in hub.requests if r.method in ("POST", "PUT")] == []
    assert not hub.uploads.repos


def test_an_approved_push_sends_the_model_alone_and_checks_it(
    finished: RunMaker, model: Path, hub: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = push(finished, "--yes", "--json")
    told = json.loads(done.stdout.splitlines()[-1])
    repo = hub.uploads.repos[REPO]
    assert repo.private and not told["public"] and len(repo.commits) == 1
    sent = {name: content for name, content in repo.files.items() if name != ".gitattributes"}
    assert sent.keys() == {path.name for path in model.iterdir()}, "nothing else of the run"
    assert told["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in sent.items()}
    for name in ("config.json", "model.safetensors", "crew.json"):
        assert sent[name] == (model / name).read_bytes()
    card = sent["README.md"].decode()
    assert "builtin:" not in card and "license: mit" in card and card.endswith("# A model\n\nIt gained.\n")
    assert "builtin:" in (model / "README.md").read_text(), "the folder itself stays as it is"
    assert "without `base_model: builtin:gpqa-mini`" in done.stderr
    assert TOKEN not in done.output
    push(finished, "--yes")  # once more: the same files, no refusal
    assert {name: content for name, content in repo.files.items() if name != ".gitattributes"} == sent


def test_without_approval_it_shows_everything_and_sends_nothing(
    finished: RunMaker, model: Path, hub: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GateError, match="--yes"):
        push(finished)
    nothing_sent(hub)
    app = typer.Typer()
    cli_push.register(app)
    shown = CliRunner().invoke(app, [str(finished.run.root), "--to", REPO]).stdout
    for word in (
        "private", "improved: the interval is above zero",
        "licence:    this model's card: mit", "data clean: not known",
        "model.safetensors", "5.0 KiB", hashlib.sha256((model / "config.json").read_bytes()).hexdigest()[:16],
        "  | license: mit", "  | # A model",
    ):  # fmt: skip
        assert word in shown
    nothing_sent(hub)


@pytest.mark.parametrize(("answer", "sent"), [("n", False), ("y", True)])
def test_on_a_terminal_it_asks(finished: RunMaker, model: Path, hub: Loopback, answer: str, sent: bool) -> None:
    program = (
        "import typer\nfrom posttrain_crew.crews.cli_push import register\napp = typer.Typer()\nregister(app)\napp()"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(finished.run.root), "--to", REPO],
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True,
    ) as process:  # fmt: skip
        os.write(ours, f"{answer}\n".encode())
        said = process.communicate(timeout=60)[0]
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, REPO in hub.uploads.repos) == (0 if sent else 1, sent), said
    assert "Upload this to" in said
    if not sent:
        nothing_sent(hub)


def test_only_a_proven_gain_is_published_unless_told(maker: RunMaker, hub: Loopback) -> None:
    maker.begin()
    maker.baseline()
    write_model(maker, "base")
    with pytest.raises(GateError, match=r"not finished.*--anyway"):
        push(maker, "--yes")
    run = RunState.of(maker.board).run
    assert run is not None
    reject = Decision(action="reject", subject="base", reason="nothing was better")
    maker.board.post(reject, author="crew", refs=[run.id], status="decision", key="decision:final")
    with pytest.raises(GateError, match=r"no significant gain.*nothing was better.*--anyway"):
        push(maker, "--yes")
    nothing_sent(hub)
    push(maker, "--yes", "--anyway", "--public")
    repo = hub.uploads.repos[REPO]
    assert not repo.private and "no significant gain" in repo.commits[0]


def test_what_is_not_the_measured_model_stays_here(finished: RunMaker, model: Path, hub: Loopback) -> None:
    (model / "notes.txt").write_text("private")
    with pytest.raises(ModelError, match=r"notes\.txt"):
        push(finished, "--yes")
    (model / "notes.txt").unlink()
    (model / "config.json").write_text('{"changed": 1}')
    with pytest.raises(ModelError, match=r"config\.json.*changed"):
        push(finished, "--yes")
    (model / "config.json").unlink()
    (model / "config.json").symlink_to("/etc/hostname")
    with pytest.raises(ModelError, match=r"config\.json"):
        push(finished, "--yes")
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match="missing"):
        push(finished, "--yes")
    (model / "crew.json").unlink()
    with pytest.raises(ModelError, match="crew resume"):
        push(finished, "--yes")
    nothing_sent(hub)


def test_a_run_at_work_is_not_pushed(finished: RunMaker, model: Path, hub: Loopback) -> None:
    with finished.run.locked(), pytest.raises(RunBusyError):
        push(finished, "--yes")
    nothing_sent(hub)


def test_places_that_are_refused(
    finished: RunMaker, model: Path, hub: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no-owner", "a/b/c", "../x", "me/a b", "me/x.git"):
        with pytest.raises(InputError, match="OWNER/NAME"):
            push(finished, "--yes", to=name)
    with pytest.raises(AccessDeniedError, match=r"403.*token"):
        push(finished, "--yes", to="somebody-else/model")
    push(finished, "--yes", "--public")
    with pytest.raises(InputError, match="public"):
        push(finished, "--yes")
    hub.uploads.repos[REPO].files["model-00001-of-00002.safetensors"] = b"of another model"
    with pytest.raises(InputError, match="model-00001"):
        push(finished, "--yes", "--public")
    assert len(hub.uploads.repos[REPO].commits) == 1
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match=r"HF_TOKEN.*hf auth login"):
        push(finished, "--yes", to="me/other")
    monkeypatch.setenv("HF_TOKEN", "not-a-token")
    with pytest.raises(AccessDeniedError, match="HF_TOKEN"):
        push(finished, "--yes", to="me/other")


@pytest.mark.parametrize(("path", "kind"), [("/commit/", "500"), ("/tree/", "403"), ("/api/whoami", "503")])
def test_a_hub_that_fails_is_told_as_that(finished: RunMaker, model: Path, hub: Loopback, path: str, kind: str) -> None:
    hub.faults.add("hub", kind, times=20, path=path)
    with pytest.raises(ServiceUnavailableError, match=kind):
        push(finished, "--yes")
    hub.faults.clear()
    push(finished, "--yes")  # goes on
    assert hub.uploads.repos[REPO].files["config.json"] == (model / "config.json").read_bytes()


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/lfs-upload/", "403"), ("/validate-yaml", "502"), ("/preupload/", "bad_json"), ("/commit/", "cut")],
)
def test_a_hub_that_answers_strangely_is_a_typed_failure(
    finished: RunMaker, model: Path, hub: Loopback, path: str, kind: str
) -> None:
    hub.faults.add("hub", kind, times=20, path=path)
    with pytest.raises(ServiceError):
        push(finished, "--yes")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_arrived_otherwise_is_noticed(finished: RunMaker, model: Path, hub: Loopback, name: str) -> None:
    hub.uploads.corrupt.add(name)
    with pytest.raises(BadAnswerError, match=f"{name} has sha256"):
        push(finished, "--yes")
