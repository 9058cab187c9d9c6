"""The shape of a model that is on the Hub and not here: the client is the real one, the Hub the loopback one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from posttrain_crew.crews.cli import app
from posttrain_crew.errors import BadAnswerError, CrewError, ModelError, ServiceUnavailableError
from posttrain_crew.tools.training.shape import find_shape, model_shape
from tests.loopback.fixtures import world  # noqa: F401 - a fixture
from tests.loopback.hub_upload import UploadRepo

if TYPE_CHECKING:
    from tests.loopback.world import Loopback

REPO = "lab/made-1m"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture
def hub(world: Loopback, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loopback:  # noqa: F811
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_ENDPOINT", world.url)
    world.uploads.repos[REPO] = UploadRepo(private=False)
    world.uploads.repos[REPO].files |= {path.name: path.read_bytes() for path in folder.iterdir()}
    return world


def test_a_model_on_the_hub_is_read_like_its_folder(hub: Loopback, folder: Path) -> None:
    assert find_shape(REPO) == model_shape(folder)
    fetched = [request.path for request in hub.requests]
    assert not any("safetensors" in path for path in fetched), "no weights are brought"


def test_a_plan_for_a_model_on_the_hub(hub: Loopback) -> None:
    done = CliRunner().invoke(app, ["plan", "--model", REPO, "--method", "sft", "--gpu", "h100", "--json"])
    assert done.exit_code == 0, done.output
    assert REPO in done.output


@pytest.mark.parametrize("kind", ["429", "500", "502", "503", "504", "cut", "bad_json", "html", "no_body"])
def test_a_hub_that_is_down_is_not_a_missing_model(hub: Loopback, kind: str) -> None:
    hub.faults.add("hub", kind, times=None, path=f"/api/models/{REPO}")
    wanted = ServiceUnavailableError if kind == "cut" or kind.isdecimal() else BadAnswerError
    with pytest.raises(wanted, match=REPO):
        find_shape(REPO)


def test_what_the_hub_does_not_give(hub: Loopback) -> None:
    def told(error: type[CrewError], match: str, repo: str = REPO) -> None:
        with pytest.raises(error, match=match):
            find_shape(repo)

    told(ModelError, "no model `lab/none`", "lab/none")
    made = dict(hub.uploads.repos[REPO].files)
    for changes, words in (
        ({"model.safetensors": None}, "no safetensors"),
        ({"config.json": None}, "no config.json"),
        ({"config.json": b"[1"}, "no JSON"),
        ({"config.json": b"[1]"}, "numbers"),
        ({"config.json": b'{"hidden_size": "wide"}'}, "numbers"),
    ):
        files = {**made, **changes}
        hub.uploads.repos[REPO].files = {path: content for path, content in files.items() if content is not None}
        hub.uploads.repos[REPO].commits.append("a change")  # a commit of its own: the client keeps what it was given
        told(ModelError, words)
    hub.uploads.repos[REPO].private = True
    told(ModelError, "private")


def test_a_base_model_has_the_shape_of_its_chat_model() -> None:
    assert find_shape("Qwen/Qwen3-1.7B-Base") is find_shape("qwen3-1.7b")
