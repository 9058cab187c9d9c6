"""What the code refuses of a plan, whoever wrote it."""

from __future__ import annotations

from typing import Any

from posttrain_crew.agents.verify import plan_problems
from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import Diagnosis, Experiment, MetricEvidence
from posttrain_crew.tasks.contracts import OrderDraft, Plan
from posttrain_crew.tools.workspace import Workspace


def tried(board: Blackboard, rate: float, purpose: Any, cause: Any, remedy: dict[str, Any]) -> str:
    """An experiment with its diagnosis; its id."""
    body = Experiment(
        parent="base",
        hypothesis="It helps.",
        method="sft",
        training_set="ts-1",
        config={"learning_rate": rate},
        purpose=purpose,
        seed=0,
    )
    experiment = board.post(body, author="trainer", refs=("run-1",))
    shown = [MetricEvidence(metric="loss", step=5, value=9.0, threshold=6.5)]
    told = Diagnosis(cause=cause, evidence=shown, confidence=0.9, remedy=remedy, advice="Lower the rate.")
    board.post(told, author="trainer", refs=(experiment.id,))
    return experiment.id


def problems(board: Blackboard, purpose: str, **changes: Any) -> list[str]:
    order = OrderDraft(
        specialist="trainer",
        objective="Once more.",
        parameters={"method": "sft", "purpose": purpose, "changes": changes},
        budget_seconds=60.0,
    )
    return plan_problems(board, Plan(assessment="So it is.", orders=[order]), {"trainer"})


def test_a_remedy_that_failed_twice_is_not_tried_a_third_time(workspace: Workspace) -> None:
    board = workspace.board
    tried(board, 0.5, "candidate", "divergence", {"learning_rate": 0.05})
    assert problems(board, "remedy", learning_rate=0.05) == []
    tried(board, 0.05, "remedy", "divergence", {"learning_rate": 0.005})
    assert problems(board, "remedy", learning_rate=0.005) == []
    last = tried(board, 0.005, "remedy", "divergence", {"learning_rate": 0.0005})
    (told,) = problems(board, "remedy", learning_rate=0.0005, max_steps=40)
    assert "divergence has come back after 2 remedies" in told
    assert last in told
    assert problems(board, "candidate", learning_rate=0.0005) == []  # an idea of its own is no remedy
    tried(board, 0.5, "candidate", "never_ends", {"max_completion_length": 64})
    assert problems(board, "remedy", max_completion_length=64) == []  # another cause has its own two


def test_remedies_that_cured_are_not_counted(workspace: Workspace) -> None:
    board = workspace.board
    for rate in (0.5, 0.4, 0.3):
        tried(board, rate, "candidate", "divergence", {"learning_rate": rate / 10})
        tried(board, rate / 10, "remedy", "healthy", {})
    assert problems(board, "remedy", learning_rate=0.03) == []
