"""`crew data search`: datasets of the Hugging Face Hub for a task, ranked, with reasons, problems and failures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from posttrain_crew.crews.cli_common import JsonFlag, console, echo_json
from posttrain_crew.errors import InputError, ServiceError

if TYPE_CHECKING:
    from posttrain_crew.tools.data.hub.discovery import Discovery

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the group `data`."""
    app.command("search")(search)


def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words of the domain and the form.")] = "",
    task: Annotated[str | None, typer.Option(help="Task category of the Hub, as question-answering.")] = None,
    paper: Annotated[
        list[str] | None,
        typer.Option(help="arXiv id; datasets linked to it are found whatever their name. Repeatable."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Rows, as the Hub writes it: 1K<n<10K.")] = None,
    licence: Annotated[str | None, typer.Option(help="As the Hub writes it: mit, apache-2.0, cc-by-4.0.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Candidates at most.")] = 15,
    target: Annotated[str | None, typer.Option(help="A target whose deny list holds: a name or a YAML file.")] = None,
    sources: Annotated[
        str, typer.Option(help="live, or loopback for a copy of the services on this machine.")
    ] = "live",
    json_output: JsonFlag = False,
) -> None:
    """Find datasets on the Hub. What is gated, missing or too large is shown, and so is every service that failed.

    Exit code 5: a service failed, and nothing was found without it.
    """
    from posttrain_crew.crews.runs import find_target
    from posttrain_crew.settings import Settings
    from posttrain_crew.tools.data.hub.client import HubDatasets
    from posttrain_crew.tools.data.hub.discovery import Needs, discover
    from posttrain_crew.tools.services.services import Services

    settings = Settings()
    services = Services.parse(sources, settings)
    if not services.online:
        raise InputError("`crew data search` asks the Hub: give `--sources live` or `--sources loopback`.")
    needs = Needs(
        query=query,
        task=task,
        papers=tuple(paper or ()),
        size=size,
        licence=licence,
        limit=limit,
        deny=tuple(find_target(target).deny_datasets) if target else (),
        max_bytes=int(settings.dataset_max_gib * 2**30),
    )
    found = discover(HubDatasets(services.hub), needs)
    if json_output:
        echo_json(
            {
                "candidates": [asdict(each) for each in found.candidates],
                "problems": [asdict(each) for each in found.problems],
                "failures": [asdict(each) for each in found.failures],
                "complete": not found.failures,
            }
        )
    else:
        _show(found)
    if found.failures and not found.candidates:
        raise typer.Exit(ServiceError.exit_code)


def _show(found: Discovery) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    if found.candidates:
        table = Table(box=None, pad_edge=False)
        for heading in ("dataset", "licence", "MiB", "why"):
            table.add_column(heading, justify="right" if heading == "MiB" else "left", overflow="fold")
        for each in found.candidates:
            size = "?" if each.bytes is None else f"{each.bytes / 2**20:.1f}"
            # Text: a name or tag in brackets is no markup
            cells = (each.dataset, each.licence or "not stated", size, "; ".join(each.reasons))
            table.add_row(*(Text(cell) for cell in cells))
        out.print(table)
    elif found.failures:
        out.print("No datasets were found, and not all questions were answered: see below.")
    else:
        out.print("The Hub has no dataset that meets this. Try fewer words, or `--paper`.")
    if found.problems:
        out.print("\nproblems")
        for problem in found.problems:
            mark = "cannot be used" if problem.blocking else "note"
            out.print(Text(f"  {problem.dataset} ({problem.kind}, {mark}): {problem.what}"))
    if found.failures:
        out.print("\nfailures: the list above may lack what these would have said")
        for failure in found.failures:
            out.print(Text(f"  {failure.service}, {failure.asked}: {failure.error}: {failure.message}"))
