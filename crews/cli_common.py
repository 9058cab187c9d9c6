"""What all commands share: the options that take a run, output, and how an error becomes an exit code."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posttrain_crew.errors import CrewError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "EXIT_CODES",
    "EXIT_INTERRUPTED",
    "JsonFlag",
    "RunArgument",
    "RunsDir",
    "console",
    "crash",
    "echo_json",
    "fail",
]

EXIT_INTERRUPTED = 130

EXIT_CODES = """Exit codes:

0 done; for a run: the score improved, confirmed by the paired test on the test split

1 internal error (the message names a file with the traceback)

2 bad input: an unknown target, a model or run that is not there, a damaged file, a busy run

3 the run finished, without a significant gain

4 the budget is too small for even one experiment

5 a service (papers, datasets) is down or refused; what it did not say is never shown as "nothing"

130 interrupted; `crew resume RUN` goes on. `crew train`: 128 + the signal's number; the same command goes on"""

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, or path of its directory.")]
RunsDir = Annotated[
    Path, typer.Option("--runs-dir", envvar="CREW_RUNS_DIR", help="Where the runs lie.", show_default=True)
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON; the last line of stdout is the result.")]


def console() -> Console:
    """A Rich console on stdout; plain and unwrapped where stdout is no terminal."""
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def echo_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


def fail(error: CrewError, *, as_json: bool) -> int:
    """Report an error that crew raised on purpose; returns its exit code."""
    typer.echo(f"error: {error}", err=True)
    if as_json:
        echo_json({"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code})
    return error.exit_code


def crash(error: Exception, *, as_json: bool) -> int:
    """Report an error that nobody foresaw: a short paragraph, and the traceback in a file. Returns 1."""
    from posttrain_crew.redact import redact

    text = redact("".join(traceback.format_exception(error)))
    try:
        descriptor, name = tempfile.mkstemp(prefix="crew-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        where = f"The traceback is in {name}."
    except OSError:
        where = f"The traceback could not be saved:\n{text}"
    message = redact(f"{type(error).__name__}: {str(error)[:500]}")
    typer.echo(
        f"error: crew failed in a way that it does not know ({message}). {where} Nothing on the blackboard is lost; "
        "`crew resume RUN` goes on where the run was.",
        err=True,
    )
    if as_json:
        echo_json({"error": "InternalError", "message": message, "exit_code": 1})
    return 1
