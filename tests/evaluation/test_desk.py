"""What the evaluation agent can and cannot do, and how the loop reaches the test split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import BudgetReserved, Evaluation, JobOutcome, JobStarted, TestLook
from posttrain_crew.errors import BlackboardError, GateError
from posttrain_crew.tools.board_desk import BoardDesk
from posttrain_crew.tools.compute.base import Backend, Capacity, JobHandle, JobSpec, JobState
from posttrain_crew.tools.evaluation.desk import EvaluationDesk, estimate_seconds, launch_dev, launch_test
from posttrain_crew.tools.tool import MAX_RESULT_CHARS, tools_of
from posttrain_crew.tools.workspace import Workspace

Evaluated = Callable[..., Entry[Evaluation]]
Make = Callable[..., str]


class Recorder(Backend):
    """A backend that starts nothing and remembers what it was asked for."""

    name = "recorder"

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.specs: dict[str, JobSpec] = {}

    def submit(self, spec: JobSpec) -> JobHandle:
        self.specs[spec.label] = spec
        return JobHandle(spec.label, self.name, spec.config.parent, "1")

    def find(self, label: str, directory: Path) -> JobHandle | None:
        return JobHandle(label, self.name, directory, "1") if label in self.specs else None

    def status(self, handle: JobHandle) -> JobState:
        return "running"

    def logs(self, handle: JobHandle, tail: int = 100) -> str:
        return ""

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        self.specs.pop(handle.label, None)

    def capacity(self) -> Capacity:
        return Capacity(self.slots, "cpu", 8.0, 1, "recorder")


@pytest.fixture
def compute() -> Recorder:
    return Recorder()


@pytest.fixture
def recorded(workspace: Workspace, compute: Recorder) -> Workspace:
    return Workspace(workspace.board, workspace.run, workspace.target, workspace.budget, compute, workspace.events)


def end(workspace: Workspace, job: Entry[JobStarted], ok: bool, wall_s: float = 5.0) -> None:
    workspace.board.post(
        JobOutcome(label=job.body.label, ok=ok, error_class=None if ok else "crashed", wall_s=wall_s),
        author="crew",
        refs=(job.id,),
        key=f"outcome:{job.body.label}",
    )


def test_an_evaluation_is_launched_once(recorded: Workspace, compute: Recorder) -> None:
    desk = EvaluationDesk(recorded)
    answer = desk.evaluate("base")
    assert (answer["status"], answer["label"]) == ("running", "base-dev")
    assert desk.evaluate("base")["job"] == answer["job"]
    assert list(compute.specs) == ["base-dev"]
    config = yaml.safe_load(compute.specs["base-dev"].config.read_text())
    assert (config["task"], config["split"], config["few_shot"]) == ("gpqa_mini_dev", "dev", 0)
    assert config["model"] == str(recorded.base_model)
    assert compute.specs["base-dev"].config.parent == recorded.run.evaluations / "base-dev"
    assert len(recorded.board.of(BudgetReserved)) == 1
    assert launch_dev(recorded, "base", few_shot=3).body.label == "base-dev-3shot"


def test_scores_that_exist_are_returned_without_a_job(recorded: Workspace, evaluated: Evaluated) -> None:
    evaluated("base", strict=50)
    answer = EvaluationDesk(recorded).evaluate("base")
    assert (answer["status"], answer["score"], answer["n"]) == ("done", 0.25, 200)


@pytest.mark.parametrize("subject", ["exp-77", "nothing", "base-test", "../base"])
def test_unknown_subjects_are_refused(recorded: Workspace, compute: Recorder, subject: str) -> None:
    tool = {t.name: t for t in tools_of(EvaluationDesk(recorded))}["evaluate"]
    assert json.loads(tool({"subject": subject}))["error"] in ("BlackboardError", "GateError")
    assert not compute.specs


def test_a_full_machine_is_said(recorded: Workspace, compute: Recorder, experiment: Make) -> None:
    compute.slots = 1
    launch_dev(recorded, "base")
    with pytest.raises(GateError, match="no free slot: 1 of 1 are taken by base-dev"):
        launch_dev(recorded, experiment())
    assert launch_dev(recorded, "base").body.label == "base-dev"


def test_a_failed_evaluation_is_done_again_but_not_for_ever(recorded: Workspace) -> None:
    labels = []
    for _ in range(3):
        job = launch_dev(recorded, "base")
        labels.append(job.body.label)
        end(recorded, job, ok=False)
    assert labels == ["base-dev", "base-dev.2", "base-dev.3"]
    with pytest.raises(GateError, match="failed 3 times"):
        launch_dev(recorded, "base")


def test_a_job_that_was_posted_but_never_started_is_started(recorded: Workspace, compute: Recorder) -> None:
    first = launch_dev(recorded, "base")
    compute.specs.clear()
    assert launch_dev(recorded, "base") == first
    assert list(compute.specs) == ["base-dev"]


def test_the_estimate_is_what_was_measured(recorded: Workspace) -> None:
    assert estimate_seconds(recorded) == recorded.target.training.evaluation_seconds
    end(recorded, launch_dev(recorded, "base"), ok=True, wall_s=8)
    end(recorded, launch_dev(recorded, "base", few_shot=3), ok=True, wall_s=12)
    assert estimate_seconds(recorded) == 10


def test_no_tool_of_an_agent_reaches_the_test_split(
    recorded: Workspace, compute: Recorder, evaluated: Evaluated, experiment: Make
) -> None:
    evaluated("base", strict=50)
    evaluated("base", strict=160, split="test")
    desk = EvaluationDesk(recorded)
    for tool in tools_of(desk):
        assert "split" not in tool.arguments.model_fields
    tool = {t.name: t for t in tools_of(desk)}["evaluate"]
    assert json.loads(tool({"subject": "base", "split": "test"}))["error"] == "InputError"
    told = json.dumps(desk.scores([])) + json.dumps(desk.evaluate("base"))
    assert "0.25" in told
    assert "0.8" not in told
    board_desk = BoardDesk(recorded)
    told = json.dumps(board_desk.run_summary()) + json.dumps(board_desk.list_entries("evaluation"))
    assert "0.8" not in told
    with pytest.raises(GateError, match="closed to agents"):
        board_desk.read_entry("eval-2")
    with pytest.raises(GateError, match="closed to agents"):
        board_desk.read_entry("out-2")
    assert not recorded.board.of(TestLook)
    assert not compute.specs


def test_each_look_at_test_is_counted_once(
    recorded: Workspace, compute: Recorder, evaluated: Evaluated, experiment: Make
) -> None:
    name = experiment()
    with pytest.raises(GateError, match="no dev evaluation"):
        launch_test(recorded, ["base", name])
    assert not recorded.board.of(TestLook)
    evaluated("base", strict=50)
    evaluated(name, strict=90)
    jobs = launch_test(recorded, ["base", name])
    assert [job.body.label for job in jobs] == ["base-test", f"{name}-test"]
    assert all(job.body.final for job in jobs)
    assert launch_test(recorded, ["base", name]) == jobs
    looks = recorded.board.of(TestLook)
    assert len(looks) == 1
    assert looks[0].seq < jobs[0].seq
    config = yaml.safe_load(compute.specs["base-test"].config.read_text())
    assert (config["task"], config["split"]) == ("gpqa_mini_test", "test")
    with pytest.raises(BlackboardError):
        launch_test(recorded, ["exp-99"])


def test_subjects_are_compared(recorded: Workspace, evaluated: Evaluated, experiment: Make) -> None:
    name = experiment()
    evaluated("base", strict=50, lenient=120)
    desk = EvaluationDesk(recorded)
    with pytest.raises(GateError, match="call `evaluate` first"):
        desk.compare_subjects(name, "base")
    evaluated(name, strict=90, lenient=120)
    answer = desk.compare_subjects(name, "base")
    assert answer["strict"]["delta"] == pytest.approx(0.2)
    assert answer["strict"]["finding"].startswith("better")
    assert answer["lenient"]["delta"] == 0
    with pytest.raises(GateError, match="with itself"):
        desk.compare_subjects("base", "base")


def test_the_board_desk_reads_within_bounds(recorded: Workspace, experiment: Make) -> None:
    for _ in range(60):
        experiment()
    tools = {tool.name: tool for tool in tools_of(BoardDesk(recorded))}
    assert sorted(tools) == ["list_entries", "read_entry", "run_summary"]
    assert json.loads(tools["read_entry"]({"id": "exp-3"}))["body"]["method"] == "sft"
    assert json.loads(tools["read_entry"]({"id": "exp-999"}))["error"] == "BlackboardError"
    assert json.loads(tools["list_entries"]({"kind": "gossip"}))["error"] == "BlackboardError"
    assert len(json.loads(tools["list_entries"]({"kind": "experiment", "newest": 5}))) == 5
    for call in (tools["list_entries"]({"kind": "experiment", "newest": 500}), tools["run_summary"]({})):
        assert len(call) <= MAX_RESULT_CHARS
    assert json.loads(tools["run_summary"]({}))["experiments_not_shown"] == 35
