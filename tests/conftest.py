"""What all tests share: a clean environment, no network but loopback, and real parts of a run in a temporary folder."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import posttrain_crew
from posttrain_crew.blackboard import Blackboard
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.entries import RunStarted
from posttrain_crew.events import Events
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.target import Target, load_target
from tests.loopback.fixtures import world  # noqa: F401 - a fixture of all tests

if TYPE_CHECKING:
    from posttrain_crew.tools.workspace import Workspace

_OWN = ("CREW_", "HF_", "HUGGING_FACE_", "TRACKIO_", "WANDB_", "OPENAI_", "ANTHROPIC_", "LITELLM_")
_KEEP = ("LITELLM_LOCAL_MODEL_COST_MAP",)
BASE_CACHE = Path(os.environ.get("CREW_TEST_CACHE") or Path.home() / ".cache" / "posttrain-crew")
"""The embedded base model takes minutes to make: tests share the user's copy, which is verified at each use."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting, token or proxy of the machine reaches a test; nothing is written outside its temporary folder."""
    for name in list(os.environ):
        if (name.startswith(_OWN) and name not in _KEEP) or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CREW_CACHE", str(tmp_path / "crew-cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting anywhere but to this machine is an error that names the address."""

    def guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
        def checked(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(str(address[0])):
                raise OSError(f"a test tried to connect to {address!r}; tests may use loopback only")
            return connect(self, address)

        return checked

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(scope="session")
def base_model() -> Path:
    """The embedded base model, made once per machine."""
    from posttrain_crew.tools.embedded.base_model import ensure_base

    return ensure_base(BASE_CACHE)


@pytest.fixture
def shared_cache(base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, also for child processes, that has the base model already."""
    cache = tmp_path / "crew-cache"
    cache.mkdir(exist_ok=True)
    (cache / "embedded-base").symlink_to(base_model.parent)
    monkeypatch.setenv("CREW_CACHE", str(cache))
    return cache


@pytest.fixture
def target() -> Target:
    """gpqa-mini as it is shipped."""
    return load_target(Path(posttrain_crew.__file__).parent / "targets" / "gpqa-mini.yaml")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Blackboard]:
    """An empty blackboard in a file."""
    made = Blackboard(tmp_path / "board.db", create=True)
    yield made
    made.close()


@pytest.fixture
def workspace(tmp_path: Path, target: Target) -> Iterator[Workspace]:
    """A started run with real parts; its base model is a folder with the right files and no weights worth loading."""
    from posttrain_crew.tools.compute.local import LocalCompute
    from posttrain_crew.tools.workspace import Workspace

    base = _stand_in_model(tmp_path / "base")
    run = RunDirectory.create(tmp_path / "runs" / "run-1")
    board = Blackboard(run.blackboard, create=True)
    board.post(
        RunStarted(
            run=run.id,
            target=target.name,
            base_model="builtin:gpqa-mini",
            base_model_path=str(base),
            llm="playbook",
            seed=7,
            hours=1.0,
        ),
        author="crew",
        key="run",
    )
    compute = LocalCompute(slots=2, threads_per_job=1)
    yield Workspace(board, run, target, Budget(board, Limits(hours=1.0)), compute, Events(run.events))
    board.close()


@pytest.fixture
def make_model() -> Callable[..., Path]:
    """Makes a model folder by its files: for tests that copy and hash models but never load one."""
    return _stand_in_model


def _stand_in_model(folder: Path, marker: str = "base") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "vocab_size": 16}')
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(marker.encode())
    return folder
