"""The end of a run: one look at the test split, the final gate, the model folder, the report.

Each step is looked up on the blackboard first, so that a run killed here goes on where it was and looks at the test
split once.
"""

from __future__ import annotations

from typing import Any

from posttrain_crew.crews.manifest import write_manifest
from posttrain_crew.crews.model_card import save_final_model
from posttrain_crew.crews.report import write_report
from posttrain_crew.entries import Comparison, Decision, Evaluation
from posttrain_crew.errors import BudgetError, GateError, JobError
from posttrain_crew.state import RunState
from posttrain_crew.tools.evaluation.desk import launch_test
from posttrain_crew.tools.evaluation.gates import final_gate
from posttrain_crew.tools.workspace import Workspace

__all__ = ["EXIT_IMPROVED", "EXIT_NO_GAIN", "final_step", "summary"]

EXIT_IMPROVED, EXIT_NO_GAIN = 0, 3


def final_step(workspace: Workspace, state: RunState) -> bool:
    """Do the next step of the end. Returns whether the run is over; until then it is called at every tick."""
    if state.baseline is None:
        raise JobError(
            f"the base was never measured, so nothing can be said about a gain. The run was stopped because: "
            f"{state.stop.body.reason if state.stop else 'unknown'} "
            f"The log is {workspace.run.evaluations}/base-dev/log.txt."
        )
    if state.verdict is None:
        if not _tested(workspace, state):
            return False
        state = RunState.of(workspace.board)
        _gate(workspace, state)
        state = RunState.of(workspace.board)
    assert state.verdict is not None
    accepted = state.verdict.body.action == "accept"
    save_final_model(workspace, state.best if accepted else "base")
    write_manifest(workspace)
    workspace.events.emit("run_ended", verdict="improved" if accepted else "no significant gain")
    write_report(workspace.run, workspace.board)
    return True


def _tested(workspace: Workspace, state: RunState) -> bool:
    """Have both test evaluations made; returns whether they are there, or given up. Without a winner there is none."""
    if state.best == "base":
        return True
    if {"base", state.best} <= state.tests.keys():
        return True
    try:
        launch_test(workspace, ["base", state.best])  # idempotent: a look that was begun is finished, not counted again
    except BudgetError as error:
        _reject(workspace, state, f"there was no time left for the test evaluation: {error}")
        return True
    except JobError as error:  # the next tick tries again; after some attempts it becomes a GateError
        workspace.events.emit("incident", where="final test", what=str(error), instead="it is tried again")
    except GateError as error:
        _reject(workspace, state, f"the test evaluation failed, so the gain on dev is not confirmed: {error}")
        return True
    return False


def _gate(workspace: Workspace, state: RunState) -> None:
    if state.verdict is not None:
        return
    if state.best == "base":
        stop = state.stop.body.reason if state.stop else ""
        _reject(workspace, state, f"no experiment was significantly better than the base on dev. {stop}")
    else:
        final_gate(workspace, state.tests["base"], state.tests[state.best])


def _reject(workspace: Workspace, state: RunState, reason: str) -> None:
    run_entry = state.run
    assert run_entry is not None
    workspace.board.post(
        Decision(action="reject", subject=state.best, reason=reason),
        author="crew",
        refs=(state.stop.id if state.stop else run_entry.id,),
        status="decision",
        key="decision:final",
    )


def summary(workspace: Workspace) -> dict[str, Any]:
    """The run in one object: the last line of `--json`."""
    state = RunState.of(workspace.board)
    accepted = state.verdict is not None and state.verdict.body.action == "accept"
    final = state.tests.get(state.best) if state.best != "base" else None
    base = state.tests.get("base") or state.baseline
    comparisons = [entry.body for entry in workspace.board.of(Comparison) if entry.body.split == "test"]
    strict = next((c for c in comparisons if c.metric == "strict"), None)
    lenient = next((c for c in comparisons if c.metric == "lenient"), None)
    return {
        "run": workspace.run.id,
        "target": workspace.target.name,
        "base": _figures(base.body if base else None),
        "final": _figures(final.body if final else base.body if base else None),
        "comparison": _difference(strict),
        "comparison_lenient": _difference(lenient),
        "verdict": "improved" if accepted else "no significant gain",
        "reason": state.verdict.body.reason if state.verdict else "",
        "best_experiment": None if state.best == "base" else state.best,
        "experiments": len(state.experiments),
        "test_evaluations": state.test_looks,
        "wall_s": round(workspace.budget.elapsed, 1),
        "final_model": str(workspace.run.final_model),
        "report": str(workspace.run.report_html),
    }


def _figures(body: Evaluation | None) -> dict[str, Any] | None:
    if body is None:
        return None
    return {
        "score": round(body.score, 4),
        "ci_low": round(body.ci_low, 4),
        "ci_high": round(body.ci_high, 4),
        "lenient_score": round(body.lenient_score, 4),
        "n": body.n,
        "split": body.split,
    }


def _difference(body: Comparison | None) -> dict[str, Any] | None:
    if body is None:
        return None
    return {
        "delta": round(body.delta, 4),
        "ci_low": round(body.ci_low, 4),
        "ci_high": round(body.ci_high, 4),
        "p_value": body.p_value,
    }
