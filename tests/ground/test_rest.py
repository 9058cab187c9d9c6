"""Redaction, the run's lock, targets, files, and the adapter that bounds what an agent sees."""

from __future__ import annotations

import base64
import json
import multiprocessing
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import BaseModel

from posttrain_crew.errors import GateError, PluginError, RunBusyError, RunError, TargetError
from posttrain_crew.events import Events
from posttrain_crew.files import atomic_write_json, atomic_write_text, canonical_json
from posttrain_crew.redact import child_environment, redact
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.target import Target, load_target
from posttrain_crew.tools.tool import MAX_RESULT_CHARS, AgentTool, agent_tool, tools_of

SECRET = "correct/horse battery"


def test_secrets_of_the_environment_are_redacted_in_every_form() -> None:
    environment = {"MY_PASSWORD": SECRET, "TOKENIZERS_PARALLELISM": "falsefalse"}
    encoded = base64.b64encode(SECRET.encode()).decode()
    text = f"{SECRET} {encoded} correct%2Fhorse%20battery falsefalse"
    assert redact(text, environment) == "[redacted] [redacted] [redacted] falsefalse"


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a" * 34,
        "sk-" + "b" * 30,
        "ghp_" + "c" * 36,
        "AKIA" + "D" * 16,
        "https://user:pass1234@host/x",
        "Authorization: Bearer abcdefghijklmnop",
    ],
)
def test_known_shapes_of_keys_are_redacted(secret: str) -> None:
    cleaned = redact(f"see {secret} there", {})
    assert "[redacted]" in cleaned
    assert not any(part in cleaned for part in ("aaaa", "bbbb", "cccc", "DDDD", "pass1234", "abcdefgh"))


def test_child_processes_get_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("HARMLESS", "1")
    environment = child_environment({"EXTRA": "2"})
    assert "OPENAI_API_KEY" not in environment
    assert (environment["HARMLESS"], environment["EXTRA"]) == ("1", "2")


def test_events_are_redacted_lines(tmp_path: Path) -> None:
    events = Events(tmp_path / "events.jsonl")
    seen: list[dict[str, Any]] = []
    events.subscribe(seen.append)
    events.emit("tool", text="key hf_" + "a" * 34, long="x" * 5000)
    record = json.loads((tmp_path / "events.jsonl").read_text())
    assert record == seen[0]
    assert "hf_aaa" not in record["text"]
    assert len(record["long"]) == 2000


def hold(root: Path, ready: Any, release: Any) -> None:
    with RunDirectory.open(root).locked():
        ready.set()
        release.wait(20)


def test_a_run_is_held_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "r")
    Path(run.blackboard).touch()
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    worker = context.Process(target=hold, args=(run.root, ready, release))
    worker.start()
    assert ready.wait(20)
    assert run.holder() == worker.pid
    with pytest.raises(RunBusyError, match=str(worker.pid)), run.locked():
        pass
    worker.kill()
    worker.join()
    with run.locked():
        pass
    assert run.holder() is None


def test_a_run_directory_is_not_made_over_something(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        RunDirectory.create(tmp_path)
    run = RunDirectory.create(tmp_path / "r")
    with pytest.raises(RunError, match="leaves the run directory"):
        run.absolute("../file")
    assert run.absolute(run.relative(run.data)) == run.data


def test_shipped_targets_load(target: Target) -> None:
    assert target.name == "gpqa-mini"
    assert target.origin is not None
    gpqa = load_target(target.origin.with_name("gpqa.yaml"))
    assert gpqa.requires.gated_dataset == "Idavidrein/gpqa"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"goal": 2}, "`goal`"),
        ({"surprise": 1}, "`surprise`"),
        ({"evaluation": {"dev_task": "a"}}, "`evaluation.test_task`"),
    ],
)
def test_a_wrong_target_names_the_key(tmp_path: Path, target: Target, change: dict[str, Any], named: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump({**target.model_dump(mode="json"), **change}))
    with pytest.raises(TargetError, match=named):
        load_target(path)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_a_target_that_is_no_mapping_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(TargetError, match=r"t\.yaml"):
        load_target(path)
    with pytest.raises(TargetError, match="cannot be read"):
        load_target(tmp_path / "missing.yaml")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    atomic_write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        atomic_write_json(path, {"a": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(path, "\ud800")
    assert json.loads(path.read_text()) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'


class Answer(BaseModel):
    value: int


class Desk:
    @agent_tool
    def double(self, number: Annotated[int, "to double"], times: int = 1) -> Answer:
        """Double a number."""
        return Answer(value=number * 2**times)

    @agent_tool
    def flood(self, kind: str) -> object:
        """Return far too much."""
        return ["x" * 100] * 1000 if kind == "list" else {"text": 'é"' * 100_000}

    @agent_tool
    def refuse(self) -> None:
        """Always refused."""
        raise GateError("no " * 5000)

    def hidden(self) -> None:
        """Not a tool."""


@pytest.fixture
def tools() -> dict[str, AgentTool]:
    return {tool.name: tool for tool in tools_of(Desk())}


def test_only_marked_methods_are_tools(tools: dict[str, AgentTool]) -> None:
    assert sorted(tools) == ["double", "flood", "refuse"]
    assert tools["double"].arguments.model_json_schema()["properties"]["number"]["description"] == "to double"


def test_tools_answer_in_json(tools: dict[str, AgentTool]) -> None:
    assert json.loads(tools["double"]({"number": "4"})) == {"value": 8}
    assert json.loads(tools["double"]({"number": "x"}))["error"] == "InputError"
    assert json.loads(tools["double"]({"number": 1, "extra": 2}))["error"] == "InputError"
    refusal = tools["refuse"]({})
    assert json.loads(refusal)["error"] == "GateError"
    assert len(refusal) < 2200


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_tool_results_are_bounded(tools: dict[str, AgentTool], kind: str) -> None:
    text = tools["flood"]({"kind": kind})
    assert len(text) <= MAX_RESULT_CHARS
    answer = json.loads(text)
    assert answer.get("left_out", 0) + answer.get("left_out_characters", 0) > 0


def test_a_tool_without_hints_or_docstring_is_refused() -> None:
    class NoDoc:
        @agent_tool
        def act(self, a: int) -> int:
            return a

    class NoHint:
        @agent_tool
        def act(self, a) -> int:  # type: ignore[no-untyped-def]
            """Act."""
            return int(a)

    for desk in (NoDoc(), NoHint()):
        with pytest.raises(PluginError, match="act"):
            list(tools_of(desk))
