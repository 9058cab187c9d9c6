"""The console script `crew`. The commands are in the modules cli_*.

Nothing heavy is imported at the top of these modules: `crew --help`, `status`, `log` and `runs` must answer at once,
on a machine that is busy with training. A command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from posttrain_crew import __version__
from posttrain_crew.crews import (
    cli_data,
    cli_diagnose,
    cli_gpu,
    cli_jobs,
    cli_papers,
    cli_plan,
    cli_push,
    cli_run,
    cli_setup,
    cli_tools,
    cli_train,
    cli_watch,
)
from posttrain_crew.crews.cli_common import EXIT_CODES, crash, echo_json, fail
from posttrain_crew.errors import CrewError, PluginError
from posttrain_crew.plugins import hooks, merged

__all__ = ["app", "main"]


class _Commands(typer.core.TyperGroup):
    """Lists the commands as a user meets them, not groups last; then the plugins' ones.

    Plugins are imported only when the list is shown or a name is not one of ours: `crew status` must answer at once.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        added = sorted(_plugin_commands(set(names)))
        return [*sorted(names, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER)), *added]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or _plugin_commands(set(self.commands)).get(cmd_name)


def _plugin_commands(ours: set[str]) -> dict[str, Any]:
    """The plugins' commands by name.

    Raises:
        PluginError: two plugins claim a name, or one claims a name of ours, or gives no Typer app.
    """
    added: dict[str, Any] = {}
    for name, given in merged(hooks().register_commands()).items():
        if name in ours:
            raise PluginError(f"a plugin registers the command `{name}`, which crew has itself. Rename the plugin's.")
        if not isinstance(given, typer.Typer):
            raise PluginError(f"the plugin's command `{name}` is {type(given).__name__}; it must be a typer.Typer app.")
        command = typer.main.get_command(given)
        command.name = name
        command.params = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
        added[name] = command
    return added


_ORDER = (
    "run",
    "resume",
    "stop",
    "status",
    "log",
    "report",
    "runs",
    "targets",
    "roles",
    "doctor",
    "eval",
    "audit",
    "train",
    "diagnose",
    "plan",
    "papers",
    "data",
    "jobs",
    "push",
    "setup",
)

app = typer.Typer(
    name="crew",
    cls=_Commands,
    help="A team of agents that post-trains a language model on a benchmark, and proves what it gained.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (
    cli_run, cli_watch, cli_setup, cli_tools, cli_train, cli_papers, cli_data, cli_plan, cli_diagnose, cli_jobs,
    cli_push, cli_gpu,
):  # fmt: skip
    _module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"crew {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A team of agents that post-trains a language model on a benchmark, and proves what it gained.

    Start with `crew run posttrain --target gpqa-mini`: it needs no key, no GPU and no network.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and leave the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        app(args=given, prog_name="crew")
    except CrewError as error:
        code = fail(error, as_json=as_json)
    except BrokenPipeError:
        # the reader (`head`, a pager) left: not an error, but Python would complain at exit while flushing stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except SystemExit as leaving:
        if as_json and leaving.code == 2:
            echo_json({"error": "UsageError", "message": "the command line is not valid; see stderr", "exit_code": 2})
        raise
    except Exception as error:  # noqa: BLE001 - the outermost frame: everything unforeseen becomes one paragraph
        code = crash(error, as_json=as_json)
    else:
        code = 0
    sys.exit(code)


if __name__ == "__main__":
    main()
