"""`crew jobs list|logs|cancel`: the jobs of runs, on whatever backend they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posttrain_crew.crews.cli_common import JsonFlag, RunsDir, echo_json
from posttrain_crew.errors import CrewError, InputError, JobError, RunError, ServiceUnavailableError

if TYPE_CHECKING:
    from posttrain_crew.crews.jobs_view import JobRow

__all__ = ["register"]

POLL_S = 0.5

jobs_app = typer.Typer(help="The jobs of runs, on whatever backend: list, logs, cancel.", no_args_is_help=True)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Label of a job, or the backend's own id of it.")]
RunOption = Annotated[str | None, typer.Option(help="Only this run: its id, or the path of its directory.")]
ComputeOption = Annotated[str | None, typer.Option(help="Only this backend: local, slurm, ray, hf-jobs.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(jobs_app, name="jobs")


@jobs_app.command("list")
def list_(
    run: RunOption = None,
    compute: ComputeOption = None,
    runs_dir: RunsDir = Path("runs"),
    json_output: JsonFlag = False,
) -> None:
    """List jobs: without --run those of all runs that wait or run, with it all jobs of that run.

    An orphan is alive on the backend and not at work by the run's blackboard. Exit 5 where the backend of the run that
    is named does not answer: the states are then those last known.
    """
    from posttrain_crew.crews.jobs_view import rows_of

    _check_backend(compute)
    rows: list[JobRow] = []
    problems: list[str] = []
    silent: dict[str, str] = {}
    for found in _runs(run, runs_dir):
        told = len(silent)
        try:
            listed, trouble = rows_of(found, compute, silent)
        except CrewError as error:
            if run is not None:
                raise
            problems.append(f"{found.id}: {error}")
            continue
        rows += [row for row in listed if run is not None or row.alive]
        if trouble and (trouble not in silent.values() or len(silent) > told):  # once for a backend
            problems.append(trouble)
    for problem in problems:
        typer.echo(f"warning: {problem}", err=True)
    if json_output:
        echo_json({"jobs": [row.as_json() for row in rows], "problems": problems})
    elif not rows:
        typer.echo("no jobs" if run is not None else "no jobs wait or run")
    for row in [] if json_output else rows:
        ended = f" ({row.ending})" if row.ending else ""
        mark = "  ORPHAN" if row.orphan else ""
        typer.echo(
            f"{row.run}  {row.label:<16} {row.role:<9} {row.backend:<8} {row.state}{ended}  {row.id or '-'}{mark}"
        )
    if problems and run is not None:
        raise typer.Exit(ServiceUnavailableError.exit_code)


@jobs_app.command()
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    run: RunOption = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Print a job's output from its beginning."""
    from posttrain_crew.crews.jobs_view import backend_of

    found = _find(job, run, runs_dir)
    if found.handle is None:
        raise InputError(f"the job {found.label} of {found.run} was never submitted: it has no output.")
    compute = backend_of(found)
    cursor = 0
    while True:
        over = found.state == "ended" or compute.status(found.handle) not in ("queued", "running")
        while (page := compute.stream(found.handle, cursor)).cursor > cursor:
            typer.echo(page.text, nl=False)
            cursor = page.cursor
        if over or not follow:
            return
        time.sleep(POLL_S)  # a log that another process writes has no event to wait for


@jobs_app.command()
def cancel(
    job: JobArgument,
    run: RunOption = None,
    runs_dir: RunsDir = Path("runs"),
    json_output: JsonFlag = False,
) -> None:
    """End a job and everything it started. Its run does not start it again."""
    from posttrain_crew.crews.jobs_view import backend_of, mark_cancelled

    found = _find(job, run, runs_dir)
    if found.handle is None and found.state == "unknown":
        raise ServiceUnavailableError(
            f"whether the job {found.label} of {found.run} is at work is not known, so it was not cancelled: the "
            f"backend {found.backend} does not answer.",
            service=found.backend,
        )
    if found.state == "not submitted":
        raise JobError(
            f"the job {found.label} of {found.run} has not been submitted, so there is nothing to cancel: where the "
            f"run is at work, it submits it as soon as a slot is free. `crew stop {found.run}` ends the run."
        )
    if found.handle is None or not found.alive:
        message, state = f"the job {found.label} of {found.run} is not at work: {found.state}.", found.state
    else:
        if not found.orphan:
            mark_cancelled(found)
        backend_of(found).cancel(found.handle)
        message, state = f"the job {found.label} of {found.run} was cancelled.", "cancelled"
    if json_output:
        echo_json({"job": found.label, "run": found.run, "state": state, "message": message})
    else:
        typer.echo(message)


def _check_backend(name: str | None) -> None:
    """Raises InputError, which names the nearest, where there is no such backend."""
    if name is not None:
        from posttrain_crew.tools.compute.choose import check_name

        check_name(name)


def _runs(run: str | None, runs_dir: Path) -> list[Any]:
    from posttrain_crew.crews.runs import find_run, list_runs

    if run is not None:
        return [find_run(run, runs_dir)]
    return [find_run(str(line.directory), runs_dir) for line in list_runs(runs_dir)]


def _find(job: str, run: str | None, runs_dir: Path) -> JobRow:
    """The one job of this label or id; of several runs, that of the newest in which it is alive."""
    from posttrain_crew.crews.jobs_view import rows_of

    matches: list[JobRow] = []
    labels: list[str] = []
    silent: dict[str, str] = {}
    for found in _runs(run, runs_dir):
        try:
            rows, _ = rows_of(found, None, silent)
        except CrewError:
            if run is not None:
                raise
            continue
        labels += [row.label for row in rows]
        matches += [row for row in rows if job in (row.label, row.id)]
    if not matches:
        known = f" There are: {', '.join(labels[:12])}." if labels else ""
        raise RunError(f"there is no job `{job}` in {run or runs_dir}.{known}")
    return next((row for row in matches if row.alive), matches[0])
