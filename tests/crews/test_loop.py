"""The loop's own rules, with agents that misbehave on purpose: what an LLM can do wrong must not end or bend a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.agents.roles import load_roles
from posttrain_crew.blackboard import Entry
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.crews.brief import brief
from posttrain_crew.crews.finish import summary
from posttrain_crew.crews.loop import ROOM_EVERY_S, Loop, StopRequestedError
from posttrain_crew.crews.posttrain import RunOptions, minimum_seconds, start
from posttrain_crew.entries import Decision, Evaluation, Experiment, Incident, JobStarted, WorkOrder, WorkResult
from posttrain_crew.errors import AgentError, BudgetTooSmallError, JobError, RunError, TargetError
from posttrain_crew.state import RunState
from posttrain_crew.target import Target
from posttrain_crew.tasks.contracts import OrderDraft, Plan
from posttrain_crew.tools.compute.base import Capacity, Compute, JobHandle
from posttrain_crew.tools.compute.jobs import JobRequest, launch
from posttrain_crew.tools.compute.local import LocalCompute
from posttrain_crew.tools.workspace import Workspace


class ScriptedTeam:
    """Says what a test wants an LLM to have said; orders come back as failed."""

    def __init__(self, workspace: Workspace, plans: Iterator[Plan]) -> None:
        self.roles = load_roles()
        self._workspace = workspace
        self._plans = plans
        self.orders: list[str] = []
        self.briefs: list[dict[str, Any]] = []

    def roster(self) -> list[dict[str, Any]]:
        return [role.roster() for role in self.roles.values() if role.specialist]

    def plan(self, brief: dict[str, Any]) -> Plan:
        self.briefs.append(brief)
        plan = next(self._plans, None)
        if plan is None:
            raise AgentError("the model answered with a poem.")
        return plan

    def run(self, order: Entry[WorkOrder]) -> Entry[WorkResult]:
        self.orders.append(order.id)
        return self._workspace.board.post(
            WorkResult(specialist=order.body.specialist, ok=False, error="nothing came back"),
            author=order.body.specialist,
            refs=(order.id,),
            key=f"result:{order.id}",
        )


def loop_of(workspace: Workspace, *plans: Plan) -> tuple[Loop, ScriptedTeam]:
    team = ScriptedTeam(workspace, iter(plans))
    return Loop(workspace, team, first_pause_s=0.01), team  # type: ignore[arg-type]


def order(specialist: str) -> OrderDraft:
    return OrderDraft(specialist=specialist, objective="work", budget_seconds=5)


def test_an_llm_that_is_down_ends_the_session_but_not_the_run(workspace: Workspace) -> None:
    loop, team = loop_of(workspace)
    with pytest.raises(AgentError, match="poem"):
        loop.run()
    assert len(team.briefs) == 5
    assert RunState.of(workspace.board).stop is None, "a resume goes on with the search"
    assert "poem" in " ".join(entry.body.what for entry in workspace.board.of(Incident))


def test_plans_that_bring_nothing_end_the_run_with_the_base(workspace: Workspace, baseline: None) -> None:
    empty = Plan(assessment="let us wait")
    loop, team = loop_of(workspace, empty, empty, empty)
    loop.run()
    assert len(team.briefs) == 3
    result = summary(workspace)
    assert result["verdict"] == "no significant gain"
    assert result["test_evaluations"] == 0
    assert (workspace.run.final_model / "config.json").is_file(), "a run ends with a valid model, here the base"
    assert workspace.run.report_html.is_file()


def test_without_a_baseline_there_is_no_verdict(workspace: Workspace) -> None:
    loop, _ = loop_of(workspace, Plan(assessment="", finish=True, finish_reason="tired"))
    with pytest.raises(JobError, match="never measured"):
        loop.run()


def test_an_unknown_specialist_is_refused_and_named_in_the_next_brief(workspace: Workspace, baseline: None) -> None:
    end = Plan(assessment="", finish=True, finish_reason="nothing helps")
    loop, team = loop_of(workspace, Plan(assessment="", orders=[order("plumber")]), end)
    loop.run()
    assert team.orders == []
    assert "plumber" in " ".join(team.briefs[1]["refusals"])


def test_failed_orders_are_incidents_and_the_coordinator_is_asked_again(workspace: Workspace, baseline: None) -> None:
    end = Plan(assessment="", finish=True, finish_reason="nothing helps")
    loop, team = loop_of(workspace, Plan(assessment="", orders=[order("literature"), order("data")]), end)
    loop.run()
    assert len(team.orders) == 2
    assert all(entry["ok"] is False for entry in team.briefs[1]["orders"])
    assert {entry.body.what for entry in workspace.board.of(Incident)} == {"nothing came back"}
    stop = RunState.of(workspace.board).stop
    assert stop is not None
    assert stop.body.reason == "nothing helps"


def test_used_up_time_stops_the_search(workspace: Workspace, baseline: None) -> None:
    now = [0.0]
    budget = Budget(workspace.board, Limits(hours=1.0), clock=lambda: now[0])
    late = Workspace(workspace.board, workspace.run, workspace.target, budget, workspace.compute, workspace.events)
    now[0] = 0.95 * 3600
    loop, team = loop_of(late, Plan(assessment="", orders=[order("data")]))
    loop.run()
    assert team.orders == []
    assert "time" in summary(late)["reason"]


def test_a_stop_request_ends_the_session_and_can_be_resumed(workspace: Workspace, baseline: None) -> None:
    workspace.run.stop_request.touch()
    loop, _ = loop_of(workspace)
    with pytest.raises(StopRequestedError, match="crew resume"):
        loop.run()
    assert not workspace.run.stop_request.exists()
    again, _ = loop_of(workspace, Plan(assessment="", finish=True, finish_reason="enough"))
    again.run()
    assert RunState.of(workspace.board).verdict is not None


def test_a_winner_without_an_ablation_may_not_end_the_run(
    workspace: Workspace, make_model: Callable[..., Path], promoted: str
) -> None:
    finish = Plan(assessment="", finish=True, finish_reason="enough")
    loop, _ = loop_of(workspace, finish)
    state = RunState.of(workspace.board)
    assert "no ablation" in str(loop._may_not_finish(state))
    workspace.board.post(
        Experiment(
            parent="base",
            hypothesis="h",
            method="sft",
            training_set="ts-1",
            config={},
            purpose="ablation",
            ablates=promoted,
            seed=0,
        ),
        author="trainer",
        refs=("run-1",),
    )
    assert loop._may_not_finish(RunState.of(workspace.board)) is None


class Away(LocalCompute):
    """A backend whose nodes are drained, or whose controller is silent, until it says otherwise."""

    slots: int | None = 0

    def capacity(self) -> Capacity:
        if self.slots is None:
            raise JobError("the controller does not answer")
        return Capacity(self.slots, "cpu", 8.0, 1, "partition gpu: 0 usable nodes")

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        if self.slots is None:
            raise JobError("the controller does not answer")
        super().cancel(handle, grace_s)


def on(workspace: Workspace, compute: Compute, budget: Budget | None = None) -> Workspace:
    return Workspace(
        workspace.board, workspace.run, workspace.target, budget or workspace.budget, compute, workspace.events
    )


@pytest.mark.parametrize(("slots", "word"), [(0, "0 usable nodes"), (None, "does not answer")])
def test_without_anything_to_run_on_the_coordinator_is_not_asked_and_the_run_waits(
    workspace: Workspace, slots: int | None, word: str
) -> None:
    now, compute = [0.0], Away(slots=2)
    compute.slots = slots
    there = on(workspace, compute)
    team = ScriptedTeam(there, iter([Plan(assessment="go", finish=True, finish_reason="enough")]))
    loop = Loop(there, team, clock=lambda: now[0])  # type: ignore[arg-type]
    for _ in range(4):
        assert not loop._round()
        now[0] += ROOM_EVERY_S + 1
    assert team.briefs == []
    (incident,) = [entry.body for entry in workspace.board.of(Incident)]
    assert word in incident.what
    compute.slots = 2
    loop._round()
    assert loop._thinking is not None and loop._thinking.wait(10)
    assert len(team.briefs) == 1


def test_a_backend_that_is_silent_when_a_run_is_resumed_does_not_end_it(workspace: Workspace, baseline: None) -> None:
    compute = Away(slots=2)
    compute.slots = None
    there = on(workspace, compute)
    directory = workspace.run.experiments / "exp-1"
    directory.mkdir(parents=True)
    launch(there, JobRequest("exp-1", "evaluate", "base", "http.server", directory, {}, 60.0))
    now = [0.0]
    team = ScriptedTeam(there, iter([]))
    loop = Loop(there, team, clock=lambda: now[0])  # type: ignore[arg-type]
    assert not loop._round()
    assert team.briefs == []
    assert "does not answer" in workspace.board.of(Incident)[0].body.what


def test_a_backend_that_is_silent_at_the_deadline_is_asked_again(
    workspace: Workspace, baseline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job_that_naps.py").write_text("import time; time.sleep(100)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    now, compute = [0.0], Away(slots=2)
    late = on(workspace, compute, Budget(workspace.board, Limits(hours=1.0), clock=lambda: now[0]))
    directory = workspace.run.experiments / "exp-1"
    directory.mkdir(parents=True)
    launch(late, JobRequest("exp-1", "evaluate", "base", "job_that_naps", directory, {}, 60.0))
    compute.slots = None
    now[0] = 0.95 * 3600
    loop = Loop(late, ScriptedTeam(late, iter([])), clock=lambda: now[0])  # type: ignore[arg-type]
    loop._round()
    assert RunState.of(workspace.board).stop is None
    assert len(compute.alive(workspace.run.root)) == 1
    assert "does not answer" in workspace.board.of(Incident)[0].body.what
    compute.slots = 2
    now[0] += ROOM_EVERY_S + 1
    loop._round()
    assert RunState.of(workspace.board).stop is not None
    assert compute.alive(workspace.run.root) == []


def test_free_slots_count_processes_and_not_jobs(workspace: Workspace) -> None:
    there = on(workspace, LocalCompute(slots=3, threads_per_job=1))
    workspace.board.post(
        JobStarted(
            label="exp-1", role="train", subject="exp-1", backend="local", module="m", directory="experiments/exp-1",
            attempt=1, processes=2, estimate_seconds=1.0,
        ),
        author="crew",
        refs=("run-1",),
    )  # fmt: skip
    assert brief(there, [])["free_slots"] == 1


def evaluation(subject: str, score: float) -> Evaluation:
    return Evaluation(
        subject=subject,
        split="dev",
        task="t",
        few_shot=0,
        n=10,
        score=score,
        ci_low=score / 2,
        ci_high=1.0,
        lenient_score=score,
        lenient_ci_low=score / 2,
        lenient_ci_high=1.0,
        format_valid_rate=1.0,
        accuracy_given_valid=score,
        mean_output_chars=10,
        truncated_rate=0.0,
        harness="lm-eval",
        directory="evaluations/x",
        samples_sha256="0" * 64,
    )


@pytest.fixture
def baseline(workspace: Workspace) -> None:
    """The base was measured."""
    workspace.board.post(evaluation("base", 0.1), author="crew", refs=("run-1",))


@pytest.fixture
def promoted(workspace: Workspace) -> str:
    """An experiment that was promoted, as far as the loop's rule looks."""
    board = workspace.board
    experiment = board.post(
        Experiment(parent="base", hypothesis="h", method="sft", training_set="ts-1", config={}, seed=0),
        author="trainer",
        refs=("run-1",),
    )
    board.post(evaluation(experiment.id, 0.9), author="crew", refs=(experiment.id,))
    board.post(Decision(action="promote", subject=experiment.id, reason="better"), author="crew", refs=(experiment.id,))
    return experiment.id


def test_refused_before_anything_is_made(tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(BudgetTooSmallError, match="--hours"):
        start(RunOptions(target="gpqa-mini", hours=0.001, runs_dir=runs))
    with pytest.raises(TargetError, match="gpqa-mini"):
        start(RunOptions(target="gpqa-minni", runs_dir=runs))
    monkeypatch.setattr("posttrain_crew.crews.posttrain.free_gib", lambda _: 0.2)
    with pytest.raises(RunError, match="Free some space"):
        start(RunOptions(target="gpqa-mini", runs_dir=runs))
    assert not runs.exists()
    assert 30 < minimum_seconds(target) < 600
