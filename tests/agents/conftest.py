"""A small workspace with a desk of its own, so that agents are tested without the other rooms of the house."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.blackboard import Blackboard, Entry
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.entries import RunStarted, WorkOrder
from posttrain_crew.events import Events
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.settings import Settings
from posttrain_crew.target import EvaluationTask, Target
from posttrain_crew.tools.literature.desk import LiteratureDesk
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.workspace import Workspace


class EchoDesk:
    """Tools that the built-in roles ask for, as far as they are needed here."""

    def __init__(self) -> None:
        self.evaluated: list[str] = []
        self.breaks = False

    @agent_tool
    def evaluate(self, subject: str, few_shot: int = 0) -> dict[str, Any]:
        """Evaluate a subject."""
        self.evaluated.append(subject)
        if self.breaks:
            raise ZeroDivisionError("a defect")
        return {"job": None, "subject": subject, "scores": {"score": 0.25}, "reason": f"few_shot {few_shot}"}


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CREW_LLM", "CREW_LLM_BASE_URL", "CREW_LLM_API_KEY", "CREW_LLM_TOOL_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make_workspace(tmp_path: Path) -> Iterator[Callable[[Limits], Workspace]]:
    boards: list[Blackboard] = []

    def make(limits: Limits) -> Workspace:
        run = RunDirectory.create(tmp_path / "run")
        board = Blackboard(run.blackboard, create=True)
        boards.append(board)
        board.post(
            RunStarted(
                run="run",
                target="t",
                base_model="b",
                base_model_path=str(tmp_path),
                llm="playbook",
                seed=1,
                hours=1,
            ),
            author="crew",
        )
        target = Target(
            name="t",
            title="A benchmark",
            description="Hard {questions}.",
            domains=["physics"],
            base_model="b",
            evaluation=EvaluationTask(dev_task="d", test_task="e"),
            items="builtin:none",
        )
        return Workspace(board, run, target, Budget(board, limits), None, Events(run.root / "events.jsonl"))  # type: ignore[arg-type]

    yield make
    for board in boards:
        board.close()


@pytest.fixture
def workspace(make_workspace: Callable[[Limits], Workspace]) -> Workspace:
    return make_workspace(Limits(hours=1))


class FakeHooks:
    """Stands for `hooks()` with chosen answers."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def __getattr__(self, name: str) -> Callable[..., list[Any]]:
        return lambda **_arguments: [self._answers[name]]


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> EchoDesk:
    """Only this desk and the literature desk are offered as tools."""
    echo = EchoDesk()
    desks = {"literature": LiteratureDesk(workspace), "echo": echo}
    monkeypatch.setattr("posttrain_crew.agents.team.hooks", lambda: FakeHooks(register_tools=desks))
    return echo


@pytest.fixture
def order(workspace: Workspace) -> Callable[..., Entry[WorkOrder]]:
    """Post a work order: order(specialist, result_type, **parameters)."""

    def post(specialist: str, result_type: str, **parameters: Any) -> Entry[WorkOrder]:
        return workspace.board.post(
            WorkOrder(
                specialist=specialist,
                objective="do it",
                parameters=parameters,
                budget_seconds=60,
                result_type=result_type,
            ),
            author="coordinator",
        )

    return post


@pytest.fixture
def settings() -> Settings:
    return Settings()
