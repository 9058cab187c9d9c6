"""`crew targets`, `crew roles`, `crew doctor`: what there is to run with, and whether this machine is fit for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from posttrain_crew.crews.cli_common import JsonFlag, RunsDir, console, echo_json
from posttrain_crew.errors import CrewError, RoleError

__all__ = ["register"]

targets_app = typer.Typer(help="The benchmarks that can be raised.", invoke_without_command=True)
roles_app = typer.Typer(help="The agents' roles: list them, show one, or write one out to change it.")

Prompts = Annotated[Path | None, typer.Option(help="Folder of role YAMLs that replace the shipped ones.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(targets_app, name="targets")
    app.add_typer(roles_app, name="roles", invoke_without_command=True)
    app.command()(doctor)


@targets_app.callback()
def targets(context: typer.Context, json_output: JsonFlag = False) -> None:
    """The benchmarks that can be raised. `crew targets show NAME` prints one with all its settings."""
    if context.invoked_subcommand is not None:
        return
    from posttrain_crew.crews.runs import target_files
    from posttrain_crew.target import load_target

    rows, broken = [], []
    for name, path in target_files().items():
        try:
            target = load_target(path)
        except CrewError as error:
            broken.append(str(error))
        else:
            rows.append((name, target.title, target.base_model, f"{target.budget.hours:g} h", str(path)))
    if json_output:
        keys = ("name", "title", "base_model", "budget", "file")
        echo_json({"targets": [dict(zip(keys, row, strict=True)) for row in rows], "broken": broken})
        return
    _table(("target", "title", "base model", "budget"), [row[:4] for row in rows])
    for problem in broken:
        typer.echo(f"warning: {problem}", err=True)


@targets_app.command("show")
def targets_show(
    name: Annotated[str, typer.Argument(help="Name of the target, or a YAML file.")], json_output: JsonFlag = False
) -> None:
    """One target with all its settings, defaults included."""
    from posttrain_crew.crews.runs import find_target

    target = find_target(name)
    if json_output:
        echo_json({**target.model_dump(mode="json"), "file": str(target.origin)})
        return
    import yaml

    typer.echo(f"# {target.origin}")
    typer.echo(yaml.safe_dump(target.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())


@roles_app.callback()
def roles(context: typer.Context) -> None:
    """The agents' roles: list them, show one, or write one out to change it."""
    if context.invoked_subcommand is None:
        roles_list(None, json_output=False)


@roles_app.command("list")
def roles_list(prompts: Prompts = None, json_output: JsonFlag = False) -> None:
    """All roles with what each is for."""
    from posttrain_crew.agents.roles import load_roles

    loaded = load_roles(prompts)
    if json_output:
        echo_json({name: role.model_dump(mode="json") for name, role in loaded.items()})
        return
    rows = []
    for name, role in loaded.items():
        fields = role.model_dump(mode="json")
        tools = fields.get("tools") or []
        rows.append((name, str(fields.get("role", "")), " ".join(str(fields.get("goal", "")).split()), str(len(tools))))
    _table(("name", "role", "goal", "tools"), rows)


@roles_app.command("show")
def roles_show(
    name: Annotated[str, typer.Argument(help="Name of the role.")],
    prompts: Prompts = None,
    json_output: JsonFlag = False,
) -> None:
    """One role: its prompt, tools and limits."""
    from posttrain_crew.agents.roles import load_roles

    loaded = load_roles(prompts)
    if name not in loaded:
        raise RoleError(f"there is no role `{name}`. Roles: {', '.join(loaded)}.")
    fields = loaded[name].model_dump(mode="json")
    if json_output:
        echo_json(fields)
        return
    import yaml

    typer.echo(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).rstrip())


@roles_app.command("eject")
def roles_eject(
    name: Annotated[str, typer.Argument(help="Name of the role.")],
    directory: Annotated[Path, typer.Option("--to", help="Folder to write the file into.")] = Path("prompts"),
) -> None:
    """Write a role's file to start from; give the folder to `crew run posttrain --prompts`."""
    from posttrain_crew.agents.roles import eject

    try:
        path = eject(name, directory)
    except OSError as error:
        raise RoleError(f"the role file cannot be written into {directory} ({error.strerror or error}).") from error
    typer.echo(f"{path}\nChange it, then use it with `crew run posttrain --prompts {directory} ...`.")


def doctor(runs_dir: RunsDir = Path("runs"), json_output: JsonFlag = False) -> None:
    """Check this machine: Python, packages, GPU, disk, home, plugins, LLM. Exit 0 if a run can start, else 2."""
    from posttrain_crew.crews.doctor import as_dicts, examine

    checks = examine(runs_dir)
    healthy = all(check.level != "fail" for check in checks)
    if json_output:
        echo_json({"ok": healthy, "checks": as_dicts(checks)})
    else:
        rows = [(check.level, check.name, f"{check.detail} {check.remedy}".strip()) for check in checks]
        _table(("", "check", "found"), rows)
        typer.echo(
            "\nThis machine is fit for a run." if healthy else "\nA run cannot start until what fails is mended."
        )
    raise typer.Exit(0 if healthy else 2)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "warn": "yellow", "fail": "bold red", "note": "dim"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=styles.get(cell, "")) for cell in row))
    console().print(table)
