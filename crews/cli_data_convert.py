"""Commands for people about data files: `crew data convert`, `crew data decontaminate`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from posttrain_crew.crews.cli_common import JsonFlag, echo_json
from posttrain_crew.errors import InputError

__all__ = ["EXIT_NOTHING_LEFT", "register"]

EXIT_NOTHING_LEFT = 3

DataArgument = Annotated[
    Path, typer.Argument(metavar="DATA", help="Dataset folder, or a JSONL, JSON, parquet, csv or tsv file.")
]
TargetOption = Annotated[str, typer.Option(help="Benchmark: a name (`crew targets`) or a YAML file.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the group `crew data`."""
    app.command("convert")(convert)
    app.command("decontaminate")(decontaminate)


def convert(
    data: DataArgument,
    target: TargetOption,
    to: Annotated[str, typer.Option(help="sft (prompt + completion), dpo (pairs) or grpo (verifiable prompts).")],
    out: Annotated[Path, typer.Option(help="Folder for train.jsonl and card.json.")],
    model: Annotated[
        str | None,
        typer.Option(help="Model to train: checks its chat template and context. Folder, or `builtin:NAME`."),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Turn a dataset of any known format into what a trainer takes, without rows of the benchmark."""
    from posttrain_crew.crews.runs import find_target
    from posttrain_crew.settings import cache_dir
    from posttrain_crew.tools.data import converting
    from posttrain_crew.tools.data.contamination import ContaminationIndex
    from posttrain_crew.tools.data.reader import is_denied, open_dataset
    from posttrain_crew.tools.sources import resolve_model

    goal = _goal(to)
    _needs(data)
    found = find_target(target)
    dataset = open_dataset(data)
    if pattern := is_denied(dataset, found.deny_datasets):
        raise InputError(
            f"{dataset.name} meets `{pattern}` of the deny list of {found.name}: it must not be trained on."
        )
    path = resolve_model(model, cache_dir(), _notice) if model is not None else None
    result = converting.convert(dataset, goal, found, ContaminationIndex.of_target(found), out, model=path)
    if json_output:
        echo_json(asdict(result))
        return
    typer.echo(f"{result.path}: {result.rows_out} of {result.rows_in} rows as {goal}, sha256 {result.sha256}")
    _show_counts("dropped", result.dropped)
    _show_counts("of the benchmark, by check", result.by_check)
    if result.template_problem is not None:
        typer.echo(f"  the first row that the chat template changes: {result.template_problem}")


def decontaminate(
    data: DataArgument,
    target: TargetOption,
    out: Annotated[Path, typer.Option(help="File for the rows that are left, .jsonl or .parquet.")],
    json_output: JsonFlag = False,
) -> None:
    """Drop the rows that are items of a benchmark, in whatever words, and write the others as they are.

    Prints counts by check, never a matched text. A row that cannot be checked is dropped. Exit code 3: nothing is left.
    """
    from posttrain_crew.crews.runs import find_target
    from posttrain_crew.tools.data import converting
    from posttrain_crew.tools.data.contamination import ContaminationIndex
    from posttrain_crew.tools.data.reader import open_dataset

    _needs(data)
    if out.exists() and data.exists() and out.resolve() == data.resolve():
        raise InputError(f"--out is {data} itself. Give another file: the rows are read while the others are written.")
    found = find_target(target)
    result = converting.decontaminate(open_dataset(data), ContaminationIndex.of_target(found), out)
    if json_output:
        echo_json(asdict(result))
    else:
        typer.echo(
            f"{result.rows_out} of {result.rows_in} rows are left, checked against {result.benchmark_items} items of "
            f"{found.name}: {result.matched} matched, {result.unchecked} could not be checked"
        )
        _show_counts("matched, by check", result.by_check)
        typer.echo(
            f"  file {result.path}, sha256 {result.sha256}" if result.path else "  nothing is left: no file written"
        )
    if not result.rows_out:
        raise typer.Exit(EXIT_NOTHING_LEFT)


def _goal(to: str) -> Literal["sft", "dpo", "grpo"]:
    goals: tuple[Literal["sft"], Literal["dpo"], Literal["grpo"]] = ("sft", "dpo", "grpo")
    for goal in goals:
        if to == goal:
            return goal
    raise InputError(f"--to must be sft, dpo or grpo; {to!r} was given.")


def _needs(data: Path) -> None:
    if not data.exists():
        raise InputError(
            f"there is no dataset at {data}. Give a folder with a dataset card, or a JSONL, parquet or csv file. A "
            "dataset of the Hub is brought here by `crew data profile OWNER/NAME --full`, which says where its files "
            "are."
        )


def _show_counts(title: str, counts: Mapping[str, int]) -> None:
    if counts:
        typer.echo(f"  {title}: {', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}")


def _notice(message: str) -> None:
    typer.echo(message, file=sys.stderr)
