"""Reading the blackboard: the one desk that every role may use. It writes nothing."""

from __future__ import annotations

import re
from typing import Annotated, Any

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import BODY_TYPES, EntryBody, Evaluation
from posttrain_crew.errors import BlackboardError, GateError
from posttrain_crew.state import RunState
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.workspace import Workspace

__all__ = ["BoardDesk"]

MAX_LISTED = 50
MAX_BODY_CHARS = 240
MAX_EXPERIMENTS = 25


class BoardDesk:
    """Tools that look things up on the run's blackboard."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @agent_tool
    def read_entry(self, id: Annotated[str, "for example exp-3, rec-1, eval-2"]) -> dict[str, Any]:
        """Read one entry of the blackboard in full: status, author, supporting entries, body."""
        entry = self._workspace.board.get(id)
        if _is_test(entry):
            raise GateError(f"`{id}` is about the test split, which is closed to agents: use dev evaluations.")
        found = entry.as_dict()
        return {name: found[name] for name in ("id", "kind", "status", "author", "created_at", "refs", "body")}

    @agent_tool
    def list_entries(
        self,
        kind: Annotated[str, "recipe, dataset_profile, training_set, experiment, diagnosis, evaluation, ..."],
        newest: Annotated[int, "how many, the newest ones"] = 20,
    ) -> list[dict[str, Any]]:
        """List the newest entries of a kind, oldest first, each with the beginning of its body."""
        body_type = BODY_TYPES.get(kind)
        if body_type is None:
            raise BlackboardError(f"`{kind}` is no kind of entry. Known: {', '.join(sorted(BODY_TYPES))}.")
        entries = self._workspace.board.of(body_type, newest=max(1, min(newest, MAX_LISTED)))
        return [
            {"id": entry.id, "status": entry.status, "refs": list(entry.refs), "body": _short(entry.body)}
            for entry in entries
            if not _is_test(entry)
        ]

    @agent_tool
    def run_summary(self) -> dict[str, Any]:
        """Where the run stands: target, scores, experiments with their stage, running jobs, time left."""
        workspace = self._workspace
        state = RunState.of(workspace.board)
        views = list(state.experiments.values())[-MAX_EXPERIMENTS:]
        return {
            "run": workspace.run.id,
            "target": {"name": workspace.target.name, "goal": workspace.target.goal},
            "baseline": _score(state.baseline),
            "few_shot_reference": _score(state.few_shot),
            "best": {"subject": state.best, "score": _score(state.best_evaluation)},
            "experiments": [
                {
                    "id": view.id,
                    "parent": view.entry.body.parent,
                    "method": view.entry.body.method,
                    "training_set": view.entry.body.training_set,
                    "purpose": view.entry.body.purpose,
                    "stage": view.stage,
                    "hypothesis": view.entry.body.hypothesis[:MAX_BODY_CHARS],
                    "score": _score(view.evaluation),
                    "cause": None if view.diagnosis is None else view.diagnosis.body.cause,
                    "decision": None if view.decision is None else view.decision.body.action,
                }
                for view in views
            ],
            "experiments_not_shown": len(state.experiments) - len(views),
            "running": [job.body.label for job in state.running],
            "seconds_left_for_experiments": round(workspace.budget.for_experiments),
            "entries": workspace.board.counts(),
        }


def _is_test(entry: Entry[EntryBody]) -> bool:
    """Whether an agent could learn test scores from an entry: selection must not see them."""
    if re.search(r"-test(\.\d+)?$", getattr(entry.body, "label", "")):
        return True
    if entry.kind == "decision":
        return getattr(entry.body, "action", "") in ("accept", "reject")
    return getattr(entry.body, "split", "") == "test"


def _score(entry: Entry[Evaluation] | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    body = entry.body
    return {
        "id": entry.id,
        "strict": round(body.score, 4),
        "ci": [round(body.ci_low, 4), round(body.ci_high, 4)],
        "lenient": round(body.lenient_score, 4),
        "format_valid_rate": round(body.format_valid_rate, 4),
        "n": body.n,
    }


def _short(body: EntryBody) -> dict[str, Any]:
    """The body with long values cut, so that a list of entries stays readable."""
    short: dict[str, Any] = {}
    for name, value in body.model_dump(mode="json").items():
        text = value if isinstance(value, str) else str(value)
        plain = isinstance(value, int | float | bool) or value is None
        short[name] = value if plain or len(text) <= MAX_BODY_CHARS else text[: MAX_BODY_CHARS - 1] + "…"
    return short
