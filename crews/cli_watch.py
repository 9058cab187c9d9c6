"""`crew status`, `log`, `report`, `runs`: what looks at runs and changes nothing but the report's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posttrain_crew.crews.cli_common import JsonFlag, RunArgument, RunsDir, console, echo_json
from posttrain_crew.errors import InputError

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(status)
    app.command()(log)
    app.command()(report)
    app.command()(runs)


def status(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Id or path of the run. Default: the newest.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    json_output: JsonFlag = False,
) -> None:
    """Where a run stands: phase, running jobs, score so far, budget left."""
    from posttrain_crew.crews.runs import find_run, newest_run, read_status

    found = newest_run(runs_dir) if run is None else find_run(run, runs_dir)
    state = read_status(found)
    if json_output:
        echo_json(state)
        return
    from posttrain_crew.crews.status_view import status_lines

    for line in status_lines(state):
        typer.echo(line)


def log(
    run: RunArgument,
    kind: Annotated[str | None, typer.Option(help="Only entries of this kind, for example decision.")] = None,
    runs_dir: RunsDir = Path("runs"),
    json_output: JsonFlag = False,
) -> None:
    """The blackboard: every entry in order, one line each (`--json`: one JSON object each, complete)."""
    from posttrain_crew.blackboard import Blackboard
    from posttrain_crew.crews.runs import find_run
    from posttrain_crew.entries import BODY_TYPES

    if kind is not None and kind not in BODY_TYPES:
        raise InputError(f"there is no kind of entry `{kind}`. Kinds: {', '.join(BODY_TYPES)}.")
    board = Blackboard(find_run(run, runs_dir).blackboard)
    from posttrain_crew.crews.status_view import entry_line

    for entry in board.since(kind=kind):
        if json_output:
            echo_json(entry.as_dict())
        else:
            typer.echo(entry_line(entry))


def report(run: RunArgument, runs_dir: RunsDir = Path("runs"), json_output: JsonFlag = False) -> None:
    """Write report.html and report.json anew, also of a run that is not finished."""
    from posttrain_crew.blackboard import Blackboard
    from posttrain_crew.crews.runs import find_run

    found = find_run(run, runs_dir)
    board = Blackboard(found.blackboard)
    from posttrain_crew.crews.report import write_report

    written = write_report(found, board)
    if json_output:
        echo_json(written["summary"])
        return
    typer.echo(written["verdict_sentence"])
    typer.echo(f"report: {found.report_html}")
    typer.echo(f"data:   {found.report_json}")


def runs(runs_dir: RunsDir = Path("runs"), json_output: JsonFlag = False) -> None:
    """The runs in the runs directory, newest first."""
    from posttrain_crew.crews.runs import list_runs

    found = list_runs(runs_dir)
    if json_output:
        echo_json([vars(line) for line in found])
        return
    if not found:
        typer.echo(f"no runs in {runs_dir.resolve()}. Start one with `crew run posttrain --target gpqa-mini`.")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in ("run", "target", "state", "started", "experiments", "best on dev", "verdict"):
        table.add_column(head, no_wrap=True)
    for line in found:
        score = "" if line.best_score is None else f"{line.best_score:.1%}"
        cells = (line.run, line.target, line.state, line.started_at[:19], str(line.experiments), score)
        table.add_row(*(Text(cell) for cell in (*cells, line.verdict or "")))
    console().print(table)
