"""`crew push RUN --to OWNER/NAME`: publish the model of a run, after somebody said yes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posttrain_crew.crews.cli_common import JsonFlag, RunArgument, RunsDir, echo_json
from posttrain_crew.errors import GateError

if TYPE_CHECKING:
    from posttrain_crew.crews.publish import Parcel

__all__ = ["register"]

CARD_LINES = 24


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(push)


def push(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="The model repository on the Hub.")],
    public: Annotated[bool, typer.Option("--public/--private", help="Who may see a repository that is made.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Approve without being asked.")] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also a model whose gain the run did not prove; its card says so.")
    ] = False,
    runs_dir: RunsDir = Path("runs"),
    json_output: JsonFlag = False,
) -> None:
    """Upload final_model/ of a run to the Hugging Face Hub, on approval only.

    Shows first what would be uploaded: files, card, verdict, licences. Nothing else of the run leaves this machine.
    The repository is private unless you say --public. Afterwards the sha256 of each file there is checked. The token is
    HF_TOKEN's or that of `hf auth login`.
    """
    from posttrain_crew.crews.publish import check_place, hub_api, prepare, publish
    from posttrain_crew.crews.runs import find_run

    parcel = prepare(find_run(run, runs_dir), anyway=anyway)
    api = hub_api(os.environ.get("HF_ENDPOINT"))
    place = check_place(api, to, parcel, private=not public)
    for line in told(parcel, to, str(api.endpoint), place, public=public):
        typer.echo(line, err=json_output)  # with --json, stdout is for the result
    if not yes:
        if json_output or not sys.stdin.isatty():
            raise GateError("nothing was uploaded: this needs your approval. Give `--yes`, or run it on a terminal.")
        if not typer.confirm(f"Upload this to {to}?", default=False):
            typer.echo("nothing was uploaded")
            raise typer.Exit(1)
    address = publish(api, to, parcel, private=not public)
    if json_output:
        echo_json({"repo": to, "commit": address, "run": parcel.run, "verdict": parcel.verdict, "public": public,
                   "files": {file.name: file.sha256 for file in parcel.files}})  # fmt: skip
        return
    typer.echo(f"uploaded and checked, {len(parcel.files)} files: {address}")


def told(parcel: Parcel, repo: str, endpoint: str, place: str, *, public: bool) -> list[str]:
    """What will be uploaded, line by line."""
    seen = "PUBLIC: everybody can download it" if public else "private"
    lines = [
        f"{parcel.subject} of run {parcel.run} -> {endpoint}/{repo}",
        f"repository: {'to be made' if place == 'new' else 'exists; files of the same name are replaced'}, {seen}",
        f"verdict:    {parcel.verdict}: {parcel.reason}",
        *(f"licence:    {what}: {licence}" for what, licence in parcel.licences.items()),
        *(f"card:       without `{item}` in its head: no id of the Hub" for item in parcel.left_out),
        f"files:      {len(parcel.files)}, {_size(parcel.size)}, all from {parcel.folder}",
        *(f"  {file.name:<32} {_size(file.size):>10}  sha256 {file.sha256[:16]}" for file in parcel.files),
        "README.md begins:",
    ]
    card = parcel.card.splitlines()
    lines += [f"  | {line}" for line in card[:CARD_LINES]]
    if len(card) > CARD_LINES:
        lines.append(f"  | ... {len(card) - CARD_LINES} more lines")
    return lines


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"
