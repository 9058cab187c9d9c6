"""status.json: a snapshot of the run for `crew status` and the live view, replaced atomically about once a second.

It is a convenience for readers that must start fast; the blackboard stays the truth.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any

from posttrain_crew.crews.finish import summary
from posttrain_crew.files import atomic_write_json
from posttrain_crew.state import RunState
from posttrain_crew.tools.workspace import Workspace

__all__ = ["phase_of", "write_status"]


def phase_of(state: RunState) -> str:
    """Where the run is, in a word that a person understands."""
    if state.verdict is not None:
        return "done"
    if state.stop is not None:
        return "final test"
    if state.baseline is None:
        return "baseline"
    return "experiments" if state.experiments else "research and data"


def write_status(workspace: Workspace, state: str, working: list[str], running: list[dict[str, Any]]) -> None:
    """Write the snapshot. Raises OSError when the disk is full."""
    view = RunState.of(workspace.board)
    best = view.best_evaluation.body if view.best_evaluation else None
    over = view.verdict is not None and state == "finished"
    whole = summary(workspace) if over else None
    atomic_write_json(
        workspace.run.status,
        {
            "run": workspace.run.id,
            "target": workspace.target.name,
            "state": state,
            "phase": phase_of(view),
            "pid": os.getpid(),
            "started_at": view.run.created_at if view.run else None,
            "updated_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "elapsed_s": round(workspace.budget.elapsed, 1),
            "hours": workspace.budget.limits.hours,
            "remaining_s": round(workspace.budget.remaining, 1),
            "goal": workspace.target.goal,
            "baseline_score": view.baseline.body.score if view.baseline else None,
            "best": view.best,
            "best_score": best.score if best else None,
            "best_ci": [best.ci_low, best.ci_high] if best else None,
            "experiments": len(view.experiments),
            "running": running,
            "working": ", ".join(working) or None,
            "verdict": whole["verdict"] if whole else None,
            "summary": whole,
        },
    )
