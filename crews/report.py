"""The report of a run: report.json with everything, and report.html for people.

All of it is read from the blackboard and from files that jobs wrote; nothing is taken from what an agent said about a
result. Works at any moment of a run, so `crew report` shows an unfinished one too.
"""

from __future__ import annotations

import json
import math
from datetime import datetime, timezone
from typing import Any

from posttrain_crew import __version__
from posttrain_crew.blackboard import Blackboard, Entry
from posttrain_crew.budget import FINAL_SHARE
from posttrain_crew.crews.report_time import time_spent
from posttrain_crew.crews.status_view import percent
from posttrain_crew.entries import (
    BudgetReserved,
    BudgetSettled,
    Comparison,
    DatasetProfile,
    Decision,
    Diagnosis,
    EntryBody,
    Evaluation,
    Incident,
    PaperRead,
    Recipe,
    TestLook,
    TrainingSet,
    WorkOrder,
    WorkResult,
)
from posttrain_crew.errors import BlackboardError, RunError
from posttrain_crew.files import atomic_write_json, atomic_write_text
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.state import ExperimentView, RunState

__all__ = ["collect", "write_report"]

CURVE_POINTS = 400
"""A longer curve is thinned: a picture has no more pixels, and the file stays small."""


def write_report(run: RunDirectory, board: Blackboard) -> dict[str, Any]:
    """Write report.json and report.html into the run directory; returns what report.json holds.

    Raises:
        BlackboardError: the board cannot be read. RunError: the files cannot be written.
    """
    from posttrain_crew.crews.report_page import page

    report = collect(run, board)
    try:
        atomic_write_json(run.report_json, report)
        atomic_write_text(run.report_html, page(report))
    except OSError as error:
        raise RunError(
            f"the report cannot be written into {run.root} ({error.strerror or error}). Free some space or make the "
            f"directory writable, then `crew report {run.id}`."
        ) from error
    return report


def collect(run: RunDirectory, board: Blackboard) -> dict[str, Any]:
    """Everything that the report says, JSON-ready. Raises BlackboardError when the board cannot be read."""
    state = RunState.of(board)
    started = state.run.body if state.run is not None else None
    time = time_spent(board, run.root)
    summary = _summary(run, state, board, time["wall_s"])
    decisions = [_entry(entry) for entry in board.of(Decision)]
    return {
        "format": 1,
        "crew": __version__,
        "written_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "run": run.id,
        "started_at": state.run.created_at if state.run is not None else None,
        "asked": started.model_dump(mode="json") if started is not None else {},
        "summary": summary,
        "verdict": summary["verdict"],
        "verdict_sentence": _sentence(summary, state),
        "verdict_reason": state.verdict.body.reason if state.verdict is not None else None,
        "stop_reason": state.stop.body.reason if state.stop is not None else None,
        "best": state.best,
        "baseline": _optional(state.baseline),
        "few_shot": _optional(state.few_shot),
        "experiments": [_experiment(view, state) for view in state.experiments.values()],
        "curves": {name: curves for name in state.experiments if (curves := _curves(run, name))},
        "test": {
            "looks": [_entry(entry) for entry in board.of(TestLook)],
            "evaluations": {subject: _entry(entry) for subject, entry in state.tests.items()},
            "comparisons": [_entry(e) for e in board.of(Comparison) if e.body.split == "test"],
        },
        "dev_comparisons": [_entry(e) for e in board.of(Comparison) if e.body.split == "dev"],
        "time": time,
        "data": {
            "profiles": [_entry(entry) for entry in board.of(DatasetProfile)],
            "training_sets": [_entry(entry) for entry in board.of(TrainingSet)],
        },
        "literature": {
            "recipes": [_entry(entry) for entry in board.of(Recipe)],
            "papers": [_entry(entry) for entry in board.of(PaperRead)],
        },
        "decisions": decisions,
        "diagnoses": [_entry(entry) for entry in board.of(Diagnosis)],
        "incidents": [_entry(entry) for entry in board.of(Incident)],
        "work": _work(board),
        "budget": _budget(board, started.hours if started is not None else None, time["wall_s"]),
        "manifest": _manifest(run),
        "blackboard": _verified(board),
    }


def _entry(entry: Entry[Any]) -> dict[str, Any]:
    return {
        "id": entry.id,
        "status": entry.status,
        "author": entry.author,
        "created_at": entry.created_at,
        "refs": list(entry.refs),
        **_finite(entry.body.model_dump(mode="json")),
    }


def _optional(entry: Entry[Any] | None) -> dict[str, Any] | None:
    return None if entry is None else _entry(entry)


def _finite(value: Any) -> Any:
    """NaN and infinity are no JSON: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value


def _score(entry: Entry[Evaluation] | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    body = entry.body
    return {"score": body.score, "ci_low": body.ci_low, "ci_high": body.ci_high, "n": body.n, "split": body.split}


def _summary(run: RunDirectory, state: RunState, board: Blackboard, wall_s: float) -> dict[str, Any]:
    """The object that ends `crew run --json`. Scores are from test where it was looked at, else from dev."""
    tested = "base" in state.tests and state.best in state.tests
    base = state.tests["base"] if tested else state.baseline
    final = state.tests[state.best] if tested else state.best_evaluation
    comparison = _test_comparison(state, board) if tested else None
    verdict = None
    if state.verdict is not None:
        verdict = "improved" if state.verdict.body.action == "accept" else "no significant gain"
    return {
        "run": run.id,
        "target": state.run.body.target if state.run is not None else None,
        "base": _score(base),
        "final": _score(final),
        "comparison": comparison
        and {name: comparison[name] for name in ("delta", "ci_low", "ci_high", "p_value", "gained", "lost", "n")},
        "verdict": verdict,
        "experiments": len(state.experiments),
        "test_evaluations": sum(len(look.body.subjects) for look in board.of(TestLook)),
        "wall_s": wall_s,
        "final_model": str(run.final_model) if run.final_model.is_dir() else None,
        "report": str(run.report_html),
    }


def _test_comparison(state: RunState, board: Blackboard) -> dict[str, Any] | None:
    found = [
        entry.body
        for entry in board.of(Comparison)
        if entry.body.split == "test" and entry.body.metric == "strict" and entry.body.candidate == state.best
    ]
    return found[-1].model_dump(mode="json") if found else None


def _sentence(summary: dict[str, Any], state: RunState) -> str:
    """The verdict in words, never stronger than the numbers."""
    base, final, change = summary["base"], summary["final"], summary["comparison"]
    if change is not None and base is not None and final is not None:
        was, now = percent(base["score"]), percent(final["score"])
        head = {"improved": "Improved.", "no significant gain": "No significant gain."}.get(
            summary["verdict"] or "", "Tested, without a verdict yet."
        )
        return (
            f"{head} On {change['n']} test items the score went from {was} to {now} "
            f"({change['delta'] * 100:+.1f} points, 95 % CI {change['ci_low'] * 100:+.1f} to "
            f"{change['ci_high'] * 100:+.1f}; exact McNemar p = {change['p_value']:.2g})."
        )
    if summary["verdict"] is not None:
        reason = state.verdict.body.reason if state.verdict is not None else ""
        head = "No significant gain." if summary["verdict"] != "improved" else "Improved."
        return f"{head} {reason}".strip()
    if base is None:
        return "Not finished: not even the baseline has been measured yet."
    if state.best == "base" or final is None:
        return f"Not finished: nothing has beaten the baseline of {percent(base['score'])} on dev so far."
    was, now = percent(base["score"]), percent(final["score"])
    return (
        f"Not finished: the best so far ({state.best}) scores {now} on dev against {was}. "
        "Dev chose this model, so its dev score flatters it; the test split has not been looked at."
    )


def _experiment(view: ExperimentView, state: RunState) -> dict[str, Any]:
    body = view.entry.body
    promoted = view.decision is not None and view.decision.body.action == "promote"
    return {
        **_entry(view.entry),
        "stage": view.stage,
        "promoted": promoted,
        "final": view.id == state.best,
        "attempts": len(view.jobs),
        "outcome": _optional(view.outcome),
        "diagnosis": _optional(view.diagnosis),
        "evaluation": _optional(view.evaluation),
        "comparison": _optional(view.comparison),
        "decision": _optional(view.decision),
        "ablates": body.ablates,
    }


def _curves(run: RunDirectory, experiment: str) -> dict[str, list[list[float]]]:
    """Loss and reward by step, from the metrics that the trainer wrote."""
    path = run.experiments / experiment / "metrics.jsonl"
    found: dict[str, list[list[float]]] = {}
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                row = json.loads(line)
                step = float(row["step"])
            except (ValueError, KeyError, TypeError):
                continue  # a kill can leave half a line at the end
            for name in ("loss", "reward"):
                value = row.get(name)
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    found.setdefault(name, []).append([step, float(value)])
    return {name: _thinned(points) for name, points in found.items()}


def _thinned(points: list[list[float]]) -> list[list[float]]:
    stride = math.ceil(len(points) / CURVE_POINTS)
    kept = points[::stride]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _work(board: Blackboard) -> list[dict[str, Any]]:
    results = {ref: entry for entry in board.of(WorkResult) for ref in entry.refs}
    return [{**_entry(order), "outcome": _optional(results.get(order.id))} for order in board.of(WorkOrder)]


def _budget(board: Blackboard, hours: float | None, wall_s: float) -> dict[str, Any]:
    settled, reserved = board.of(BudgetSettled), board.of(BudgetReserved)
    done = {entry.body.label for entry in settled}
    return {
        "hours": hours,
        "used_hours": round(wall_s / 3600, 5),
        "kept_for_the_end": FINAL_SHARE,
        "job_seconds": round(sum(entry.body.device_s for entry in settled), 3),
        "usd": round(sum(entry.body.usd for entry in settled), 6),
        "tokens": sum(entry.body.tokens for entry in settled),
        "reserved": len(reserved),
        "not_settled": sorted(entry.body.label for entry in reserved if entry.body.label not in done),
    }


def _manifest(run: RunDirectory) -> dict[str, Any] | None:
    try:
        value = json.loads(run.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return {"problem": f"manifest.json cannot be read: {error}"}
    return _finite(value) if isinstance(value, dict) else {"problem": "manifest.json does not hold a JSON object"}


def _verified(board: Blackboard) -> dict[str, Any]:
    """A report of a damaged log is still worth reading, as long as it says so."""
    counts = board.counts()
    last: list[Entry[EntryBody]] = board.since(max(0, board.last_seq() - 1))
    head = last[-1].hash if last else None
    try:
        return {"verified": True, "entries": board.verify(), "head": head, "counts": counts, "problem": None}
    except BlackboardError as error:
        total = sum(counts.values())
        return {"verified": False, "entries": total, "head": head, "counts": counts, "problem": str(error)}
