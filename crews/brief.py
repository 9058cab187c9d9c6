"""The coordinator's brief: the state of the run in one bounded JSON object.

It is what an LLM coordinator reads and what the playbook's coordinator decides from, so it holds nothing but what is on
the blackboard. Long lists are cut to the newest or the best; `left_out` says how many were.
"""

from __future__ import annotations

from typing import Any

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import (
    DatasetProfile,
    Evaluation,
    Incident,
    JobOutcome,
    JobStarted,
    Recipe,
    TrainingSet,
    WorkOrder,
    WorkResult,
)
from posttrain_crew.state import ExperimentView, RunState
from posttrain_crew.tools.compute.jobs import held_slots
from posttrain_crew.tools.training.desk import starting_point
from posttrain_crew.tools.training.estimate import estimate_seconds, rows_of
from posttrain_crew.tools.workspace import Workspace

__all__ = ["brief", "scores"]

ORDERS = 80
"""Work orders in a brief; enough to know what has been tried."""
NEWEST = 24
"""Entries of one kind in a brief."""


def scores(evaluation: Entry[Evaluation] | None) -> dict[str, Any] | None:
    """The figures of an evaluation that a reader needs, rounded to 4 digits."""
    if evaluation is None:
        return None
    body = evaluation.body
    values = body.model_dump(
        include={
            "split",
            "n",
            "few_shot",
            "score",
            "ci_low",
            "ci_high",
            "lenient_score",
            "format_valid_rate",
            "accuracy_given_valid",
            "truncated_rate",
        }
    )
    return {"id": evaluation.id} | {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


def brief(workspace: Workspace, roster: list[dict[str, Any]], *, refusals: list[str] | None = None) -> dict[str, Any]:
    """Everything the coordinator needs to decide what to do next.

    Args:
        roster: the specialists that can be sent work, as `Team.roster` gives them.
        refusals: why earlier plans were not carried out, so that the next one can be better.
    """
    board = workspace.board
    state = RunState.of(board)
    experiments = list(state.experiments.values())
    kept = experiments[-NEWEST:]
    if state.best in state.experiments and state.experiments[state.best] not in kept:
        kept = [state.experiments[state.best], *kept]
    orders = board.of(WorkOrder, newest=ORDERS)
    results = {result.refs[0]: result for result in board.of(WorkResult, newest=ORDERS)}
    capacity = workspace.compute.capacity()
    sets = _training_sets(workspace)
    started = workspace.started
    return {
        "target": {
            "name": workspace.target.name,
            "title": workspace.target.title,
            "goal": workspace.target.goal,
            "domains": workspace.target.domains,
            "answer": workspace.target.answer.model_dump(include={"kind", "labels", "template"}),
        },
        "base_model": started.base_model,
        "online": workspace.services.online,
        "seed": started.seed,
        "baseline": scores(state.baseline),
        "few_shot_reference": scores(state.few_shot),
        "few_shot_wanted": workspace.target.evaluation.few_shot_reference,
        "best": {"subject": state.best, "scores": scores(state.best_evaluation)},
        "experiments": [_experiment(view, sets) for view in kept],
        "experiments_left_out": len(experiments) - len(kept),
        "recipes": [
            {"id": entry.id}
            | entry.body.model_dump(include={"method", "title", "data_style", "addresses", "arxiv_ids", "prior"})
            for entry in board.of(Recipe, newest=NEWEST)
        ],
        "profiles": [
            {"id": entry.id} | entry.body.model_dump(include={"dataset", "verdict", "reason", "answer_style", "rows"})
            for entry in board.of(DatasetProfile, newest=NEWEST)
        ],
        "training_sets": [
            {
                "id": entry.id,
                "method": entry.body.method,
                "style": entry.body.style,
                "rows": entry.body.rows,
                "sources": [share.dataset for share in entry.body.sources],
                "train_seconds": _train_seconds(workspace, entry.body),
            }
            for entry in board.of(TrainingSet, newest=NEWEST)
        ],
        "running": [_job(job) for job in state.running],
        "free_slots": max(0, capacity.slots - held_slots(capacity, state.running)),
        "orders": [
            {
                "id": order.id,
                "specialist": order.body.specialist,
                "parameters": order.body.parameters,
                "done": order.id in results,
                "ok": results[order.id].body.ok if order.id in results else None,
                "result": _told(results[order.id].body) if order.id in results else {},
                "error": (results[order.id].body.error or "")[:300] if order.id in results else "",
            }
            for order in orders
        ],
        "incidents": [entry.body.model_dump() for entry in board.of(Incident, newest=6)],
        "budget": {
            "hours": workspace.budget.limits.hours,
            "elapsed_s": round(workspace.budget.elapsed),
            "for_experiments_s": round(workspace.budget.for_experiments),
            "typical_seconds": _typical_seconds(workspace),
        },
        "roster": roster,
        "refusals": refusals or [],
    }


def _told(result: WorkResult) -> dict[str, Any]:
    """What a trainer or evaluator said it started, so that an order that was refused is not taken for done."""
    return {name: result.result[name] for name in ("experiment", "job", "launched", "reason") if name in result.result}


def _training_sets(workspace: Workspace) -> dict[str, Entry[TrainingSet]]:
    """Training sets by id."""
    return {entry.id: entry for entry in workspace.board.of(TrainingSet)}


def _experiment(view: ExperimentView, sets: dict[str, Entry[TrainingSet]]) -> dict[str, Any]:
    body = view.entry.body
    training_set = sets.get(body.training_set)
    comparison = view.comparison.body if view.comparison else None
    return {
        "id": view.id,
        "parent": body.parent,
        "method": body.method,
        "training_set": body.training_set,
        "style": training_set.body.style if training_set else None,
        "recipe": body.recipe,
        "purpose": body.purpose,
        "ablates": body.ablates,
        "config": {
            name: body.config[name]
            for name in ("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size")
            if name in body.config
        },
        "stage": view.stage,
        "error_class": view.outcome.body.error_class if view.outcome else None,
        "wall_s": round(view.outcome.body.wall_s, 1) if view.outcome else None,
        "diagnosis": {"cause": view.diagnosis.body.cause, "remedy": view.diagnosis.body.remedy}
        if view.diagnosis
        else None,
        "scores": scores(view.evaluation),
        "comparison": {
            "reference": comparison.reference,
            "delta": round(comparison.delta, 4),
            "ci_low": round(comparison.ci_low, 4),
            "ci_high": round(comparison.ci_high, 4),
            "p_value": comparison.p_value,
        }
        if comparison
        else None,
        "decision": view.decision.body.action if view.decision else None,
    }


def _job(job: Entry[JobStarted]) -> dict[str, Any]:
    return {"label": job.body.label, "role": job.body.role, "subject": job.body.subject}


def _train_seconds(workspace: Workspace, training_set: TrainingSet) -> float:
    """Expected wall seconds of a training on this set with the target's starting point for the method."""
    start = starting_point(workspace.target.training, training_set.method)
    return round(estimate_seconds(workspace, training_set.method, start, rows_of(training_set)), 1)


def _typical_seconds(workspace: Workspace) -> dict[str, float]:
    """Mean wall time of finished jobs by kind; the target's first guess where none has finished yet."""
    target = workspace.target.training
    guess: dict[str, float] = {
        method: target.startup_seconds + per_step * float(getattr(target, method).get("max_steps", 100))
        for method, per_step in target.seconds_per_step.items()
    }
    guess["evaluation"] = target.evaluation_seconds
    jobs = {job.body.label: job.body for job in workspace.board.of(JobStarted)}
    methods = {view.id: view.entry.body.method for view in RunState.of(workspace.board).experiments.values()}
    walls: dict[str, list[float]] = {}
    for outcome in workspace.board.of(JobOutcome):
        job = jobs.get(outcome.body.label)
        if job is None or not outcome.body.ok:
            continue
        if job.role == "evaluate":
            walls.setdefault("evaluation", []).append(outcome.body.wall_s)
        elif job.role == "train" and job.subject in methods:
            walls.setdefault(methods[job.subject], []).append(outcome.body.wall_s)
    return {name: round(value, 1) for name, value in (guess | {k: sum(v) / len(v) for k, v in walls.items()}).items()}
