"""`crew diagnose`: why a training job went as it went, with the numbers that show it and what to change."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posttrain_crew.crews.cli_common import JsonFlag, RunsDir, console, echo_json
from posttrain_crew.errors import InputError, RunError

if TYPE_CHECKING:
    from posttrain_crew.entries import Diagnosis
    from posttrain_crew.rundir import RunDirectory

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(diagnose)


def diagnose(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN|JOB|METRICS",
            help="A run (id or directory), a job of a run (RUN/exp-1, or exp-1 for the newest run), a job's directory, "
            "or a metrics.jsonl.",
        ),
    ],
    runs_dir: RunsDir = Path("runs"),
    json_output: JsonFlag = False,
) -> None:
    """Find out why training went as it went: the cause, the numbers that show it, and the config change to try.

    The exit code is 0 whatever the cause is, `healthy` included. Nothing is written: a run's own diagnoses, made when
    its jobs end, are on its blackboard (`crew log RUN --kind diagnosis`).
    """
    source, rows = _rows(what, runs_dir)
    if json_output:
        echo_json({"source": source, "diagnoses": [_as_json(*row) for row in rows]})
        return
    out = console()
    for label, state, found in rows:
        _tell(out, label, state, found)
    if not rows:
        out.print(f"{source}: no training job has been started yet.")


Row = tuple[str, str, "Diagnosis"]
"""Experiment or file, state of the job (`running`, `ended`, `failed`, `unknown`), diagnosis."""


def _rows(what: str, runs_dir: Path) -> tuple[str, list[Row]]:
    from posttrain_crew.crews.runs import find_run, newest_run
    from posttrain_crew.tools.training.job_folder import JobFolder

    place = Path(what).expanduser()
    if place.is_file() or (place / "metrics.jsonl").is_file():
        from posttrain_crew.tools.training.diagnose import diagnose as diagnose_job

        job = JobFolder.read(place)
        state = "unknown" if job.outcome is None else "ended" if job.outcome.ok else "failed"
        return str(place), [(job.label, state, diagnose_job(job.history, job.outcome, job.method, job.trainer))]
    try:
        run, wanted = find_run(what, runs_dir), None
    except RunError as unknown:
        name, _, job_label = what.rpartition("/")
        try:
            run, wanted = (find_run(name, runs_dir) if name else newest_run(runs_dir)), job_label
        except RunError:
            raise _nothing(what, str(unknown)) from None
    rows = _of_run(run, wanted)
    if wanted is not None and not rows:
        raise _nothing(what, f"the run `{run.id}` has no training job `{wanted}` (`crew log {run.id} --kind job`).")
    return run.id, rows


def _nothing(what: str, why: str) -> InputError:
    return InputError(
        f"`{what}` is neither a run, nor a job, nor a metrics file: {why} A job is given as RUN/JOB, as in "
        "`crew diagnose RUN/exp-1`."
    )


def _of_run(run: RunDirectory, wanted: str | None) -> list[Row]:
    """Every experiment that has a job, or the one whose id or job is wanted."""
    from posttrain_crew.blackboard import Blackboard
    from posttrain_crew.state import RunState
    from posttrain_crew.tools.training.diagnose import diagnose as diagnose_job
    from posttrain_crew.tools.training.metrics import METRICS_FILE, read_metrics

    board = Blackboard(run.blackboard)
    try:
        state = RunState.of(board)
    finally:
        board.close()
    alive = run.holder() is not None
    rows: list[Row] = []
    for view in state.experiments.values():
        names = {view.id, *(job.id for job in view.jobs), *(job.body.label for job in view.jobs)}
        if not view.jobs or (wanted is not None and wanted not in names):
            continue
        body, outcome = view.entry.body, None if view.outcome is None else view.outcome.body
        history = read_metrics(run.absolute(view.jobs[-1].body.directory) / METRICS_FILE)
        trainer = {name: value for name, value in body.config.items() if name != "reward"}
        runs_now = outcome is None and alive
        found = diagnose_job(history, outcome, body.method, trainer, now=time.time() if runs_now else None)
        ended = "unknown" if outcome is None else "ended" if outcome.ok else "failed"
        rows.append((view.id, "running" if runs_now else ended, found))
    return rows


def _as_json(label: str, state: str, found: Diagnosis) -> dict[str, Any]:
    return {"experiment": label, "state": state, **found.model_dump(mode="json")}


def _tell(out: Any, label: str, state: str, found: Diagnosis) -> None:
    from rich.markup import escape

    out.print(f"[bold]{escape(label)}[/bold] ({state}): {found.cause}, confidence {found.confidence:.0%}")
    out.print(f"  {escape(found.advice)}")
    for shown in found.evidence:
        # "loss is nan": what stands for it on the blackboard, which takes no NaN, is no number to show
        told = "" if " is " in shown.metric else f" = {shown.value:g}"
        against = f" (compared with {shown.threshold:g})" if told else ""
        out.print(f"  {escape(shown.metric)}{told} at step {shown.step}{against}")
    if found.remedy:
        changes = ", ".join(f"{name}: {value}" for name, value in found.remedy.items())
        out.print(f"  try {escape(changes)}")
