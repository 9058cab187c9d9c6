"""`crew run posttrain`, `crew resume`, `crew stop`: what starts, continues and ends a run."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posttrain_crew.crews.cli_common import EXIT_INTERRUPTED, JsonFlag, RunArgument, RunsDir, console, echo_json
from posttrain_crew.errors import InputError

if TYPE_CHECKING:
    from posttrain_crew.crews.posttrain import RunResult

__all__ = ["register"]

Listener = Callable[[dict[str, Any]], None]
STOP_WAIT_S = 60.0

run_app = typer.Typer(help="Start a run: `crew run posttrain --target T`.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(run_app, name="run")
    app.command()(resume)
    app.command()(stop)


@run_app.command()
def posttrain(
    target: Annotated[str, typer.Option(help="Benchmark to raise: a name (`crew targets`) or a YAML file.")],
    model: Annotated[
        str | None, typer.Option(help="Base model: a folder, or `builtin:NAME`. Default: the target's own.")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(help="The agents' LLM: `playbook` (embedded, no key), or a litellm name such as openai/gpt-5."),
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Wall-clock budget. Default: the target's own.")] = None,
    usd: Annotated[float | None, typer.Option(help="Limit on what LLM calls and compute may cost.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Limit on LLM tokens.")] = None,
    seed: Annotated[int, typer.Option(help="Varies everything but the cached base model.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default: RUNS_DIR/<run id>.")] = None,
    runs_dir: RunsDir = Path("runs"),
    prompts: Annotated[
        Path | None, typer.Option(help="Folder of role YAMLs that replace the shipped ones (`crew roles eject`).")
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            help="Where papers and datasets are looked up: `shipped` (what comes with crew, no network), `live` "
            "(Semantic Scholar, arXiv, Hugging Face), `live,shipped`, or `loopback`. Default: the target's own."
        ),
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option(
            help="Backend of the jobs: `local`, `slurm`, `ray` or `hf-jobs`. Default: this machine; where it is too "
            "small, Hugging Face Jobs within `--usd`."
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Post-train a model on a target: research, audited data, real training jobs, a tested result.

    Prints what happens as it happens. Ctrl-C is safe at any moment: `crew resume RUN` goes on.
    """
    for name, value in (("--hours", hours), ("--usd", usd), ("--tokens", tokens)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} must be a number above 0; {value:g} was given.")
    if prompts is not None and not prompts.is_dir():
        raise InputError(f"the prompts folder {prompts} is not there. `crew roles eject NAME` writes a role to change.")
    from posttrain_crew.crews.runs import find_target

    find_target(target)  # before the heavy imports: a typing error should be answered at once
    from posttrain_crew.crews.posttrain import RunOptions, start

    options = RunOptions(
        target=target,
        model=model,
        llm=llm,
        hours=hours,
        seed=seed,
        out=out,
        runs_dir=runs_dir,
        prompts=prompts,
        usd=usd,
        tokens=tokens,
        sources=sources,
        compute=compute,
    )
    _watched(lambda listener: start(options, listener=listener), json_output, run=None)


def resume(run: RunArgument, runs_dir: RunsDir = Path("runs"), json_output: JsonFlag = False) -> None:
    """Go on with a run that was interrupted or killed. Finished jobs are not run again."""
    from posttrain_crew.crews.runs import find_run

    found = find_run(run, runs_dir)
    from posttrain_crew.crews.posttrain import resume as resume_run

    _watched(lambda listener: resume_run(found.id, found.root.parent, listener=listener), json_output, run=found.id)


def stop(
    run: RunArgument,
    runs_dir: RunsDir = Path("runs"),
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until the run has ended.")] = STOP_WAIT_S,
    json_output: JsonFlag = False,
) -> None:
    """Ask a running run to stop: it ends its jobs, saves its state and can be resumed."""
    from posttrain_crew.crews.runs import find_run

    found = find_run(run, runs_dir)
    pid = found.holder()
    if pid is None:
        _say(json_output, found.id, "not running", f"{found.id} is not running: there is nothing to stop.")
        return
    try:
        found.stop_request.write_text(f"{time.time():.0f}\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"the stop request {found.stop_request} cannot be written ({error.strerror}).") from error
    deadline = time.monotonic() + wait
    while found.holder() is not None and time.monotonic() < deadline:
        time.sleep(0.2)  # the run looks for the request about once a second
    if found.holder() is None:
        _say(json_output, found.id, "stopped", f"{found.id} has stopped. `crew resume {found.id}` goes on with it.")
        return
    _say(
        json_output,
        found.id,
        "stopping",
        f"{found.id} (pid {pid}) was asked to stop and is still at work after {wait:.0f} s: it ends at the next safe "
        f"point. `crew status {found.id}` shows when.",
    )
    raise typer.Exit(1)


def _say(as_json: bool, run: str, state: str, message: str) -> None:
    if as_json:
        echo_json({"run": run, "state": state, "message": message})
    else:
        typer.echo(message)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM (a container that ends, `kill`) is handled as Ctrl-C: the state is made safe first."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _watched(work: Callable[[Listener], RunResult], as_json: bool, run: str | None) -> None:
    """Run the loop under a view, print the result and exit with its code."""
    from posttrain_crew.crews.view import LiveView, plain_line, summary_lines

    seen: dict[str, str | None] = {"run": run}

    def remember(event: dict[str, Any]) -> None:
        if event.get("event") == "run_started" and event.get("run"):
            seen["run"] = str(event["run"])
            seen["directory"] = event.get("directory")

    def as_lines(event: dict[str, Any]) -> None:
        remember(event)
        if as_json:
            echo_json(event)
        elif line := plain_line(event):
            typer.echo(line)

    live = LiveView(console()) if sys.stdout.isatty() and not as_json else None

    def as_view(event: dict[str, Any]) -> None:
        remember(event)
        if live is not None:
            live.handle(event)

    try:
        with _terminable(), live or contextlib.nullcontext():
            result = work(as_view if live is not None else as_lines)
    except KeyboardInterrupt:
        again = seen["run"]
        if seen.get("directory") and Path(str(seen["directory"])).parent != Path("runs").absolute():
            again = seen["directory"]  # a path finds the run wherever it lies
        how = f"`crew resume {again}` goes on with it" if again else "nothing was started"
        typer.echo(f"\ninterrupted. The state is saved; {how}.", err=True)
        if as_json:
            echo_json({"error": "Interrupted", "message": how, "run": seen["run"], "exit_code": EXIT_INTERRUPTED})
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if as_json:
        echo_json(result.summary)
    else:
        for line in summary_lines(result.summary):
            typer.echo(line)
    raise typer.Exit(result.exit_code)
