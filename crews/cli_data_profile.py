"""`crew data profile`: what a dataset holds, in one pass, without any agent or run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posttrain_crew.crews.cli_common import JsonFlag, console, echo_json
from posttrain_crew.errors import InputError

if TYPE_CHECKING:
    from posttrain_crew.tools.data.profile.model import ColumnProfile, Profile
    from posttrain_crew.tools.data.profile.profiler import Options

__all__ = ["register"]

SHOWN_COLUMNS = 40
SHOWN_VALUES = 8


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("profile")(profile)


def profile(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Dataset folder, a parquet, JSON or csv file, or a Hub id OWNER/NAME.")
    ],
    target: Annotated[
        str | None, typer.Option(help="Count tokens with the base model of this benchmark (`crew targets`).")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, max=100_000, help="Rows in the samples.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    sources: Annotated[
        str, typer.Option(help="For a Hub id: `live`, or `loopback` for a copy of the services on this machine.")
    ] = "live",
    full: Annotated[
        bool, typer.Option("--full", help="For a Hub id: read all files, instead of asking the dataset viewer.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Profile a dataset: schema, nulls, lengths, repeats, near duplicates, languages, balance, roles, PII hints.

    A million rows take a minute or two and half a gigabyte of memory. Nothing of the dataset is executed.
    """
    from posttrain_crew.tools.data.profile.profiler import Options, profile_path

    options = Options(sample=sample, seed=seed)
    base_model = _base_model(target) if target is not None else None
    place = Path(data).expanduser()
    if place.exists():
        found = profile_path(place, options, base_model)
    elif _is_hub_id(data):
        found = _remote(data, sources, options, base_model, full)
    else:
        raise InputError(f"there is no dataset at {data}, and it is no Hub id (OWNER/NAME). Check the path.")
    if json_output:
        echo_json(found.model_dump(mode="json"))
    else:
        _show(found)


def _remote(dataset: str, sources: str, options: Options, base_model: Path | None, full: bool) -> Profile:
    from posttrain_crew.tools.data.hub.fetch import place_of
    from posttrain_crew.tools.data.profile.remote import Remote
    from posttrain_crew.tools.services.services import Services

    services = Services.parse(sources)
    if not services.online:
        raise InputError(f"{dataset} is on the Hub, and --sources {sources} asks no service. Give --sources live.")
    remote = Remote.of(services)
    found = remote.profile(dataset, options, base_model, full=full)
    if found.source == "files":
        typer.echo(f"the files are at {place_of(remote.fetcher.root, dataset)}", err=True)
    return found


def _is_hub_id(text: str) -> bool:
    owner, _, name = text.partition("/")
    plain = (owner + name).replace("-", "").replace("_", "").replace(".", "")
    return bool(owner) and plain.isalnum() and text.count("/") == 1 and bool(name) and owner not in (".", "..")


def _base_model(name: str) -> Path:
    from posttrain_crew.crews.runs import find_target
    from posttrain_crew.settings import cache_dir
    from posttrain_crew.tools.sources import resolve_model

    return resolve_model(find_target(name).base_model, cache_dir(), lambda text: typer.echo(text, err=True))


def _show(found: Profile) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    for line in _summary(found):
        out.print(escape(line))
    table = Table(box=None, pad_edge=False, show_header=True)
    for name, justify in (
        ("column", "left"),
        ("types", "left"),
        ("null", "right"),
        ("empty", "right"),
        ("chars: median", "right"),
        ("p95", "right"),
        ("max", "right"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for column in found.columns[:SHOWN_COLUMNS]:
        table.add_row(*map(escape, _column(column)))
    out.print(table)
    if len(found.columns) > SHOWN_COLUMNS:
        out.print(f"... and {len(found.columns) - SHOWN_COLUMNS} more (--json has them all)")
    for line in [*_measured(found), *(f"warning: {text}" for text in found.warnings)]:
        out.print(escape(line))
    for number, row in enumerate(found.samples, 1):
        out.print(f"sample {number}")
        for name, text in row.items():
            out.print(escape(f"  {name}: {text}"))


def _summary(found: Profile) -> list[str]:
    files = f"in {found.files} file{'s' if found.files != 1 else ''}"
    where = "from the dataset viewer" if found.source == "datasets_server" else files
    return [
        f"{found.name}: {found.rows:,} rows, {found.bytes / 2**20:,.1f} MiB {where}, format {found.format}, licence "
        f"{found.licence or 'not stated'}",
    ]


def _column(column: ColumnProfile) -> Sequence[str]:
    chars = column.chars
    kinds = ", ".join(column.types) or "-"
    lengths = (f"{chars.median:,}", f"{chars.p95:,}", f"{chars.maximum:,}") if chars else ("", "", "")
    if not chars and column.minimum is not None and column.maximum is not None:
        kinds += f" {column.minimum:g} to {column.maximum:g}"
    return (column.path, kinds, f"{column.null_rate:.1%}", f"{column.empty_rate:.1%}", *lengths)


def _measured(found: Profile) -> list[str]:
    lines = []
    for what, repeats in (("rows", found.repeated_rows), ("prompts", found.repeated_prompts)):
        if repeats:
            how = "all" if repeats.exact else "a share chosen by content,"
            lines.append(
                f"repeated {what}: {repeats.rate:.2%} of {how} {repeats.rows:,}, "
                f"largest group {repeats.largest_group:,}"
            )
    if near := found.near_duplicates:
        lines.append(
            f"near duplicates: {near.rate:.2%} ({near.low:.2%} to {near.high:.2%}), Jaccard index of word 3-shingles "
            f">= {near.threshold}, estimated from {near.sample:,} texts"
        )
    if tokens := found.tokens:
        how = "tokens" if tokens.exact else "tokens (guessed)"
        lines.append(
            f"{how}: mean {tokens.mean:.0f}, median {tokens.median:,}, p95 {tokens.p95:,}, most {tokens.maximum:,}, on "
            f"{tokens.sample:,} rows"
        )
    if found.languages:
        shares = ", ".join(f"{each.code} {each.share:.1%}" for each in found.languages)
        lines.append(f"languages: {shares}, on {found.languages_sample:,} rows")
    for balance in found.balance:
        values = [f"{value or '(empty)'} {count:,}" for value, count in balance.values.items()]
        more = f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
        of = "" if found.rows_read == found.rows else f", on {found.rows_read:,} rows"
        lines.append(f"values of {balance.column}: {', '.join(values[:SHOWN_VALUES])}{more}{of}")
    if bias := found.answer_positions:
        places = ", ".join(f"{label} {count:,}" for label, count in bias.positions.items())
        lines.append(
            f"right choice: {places} of {bias.n:,} rows, chi-squared p = {bias.chi_square_p:.3g}, "
            f"Cramer's V = {bias.cramers_v:.3f}"
        )
    for chat in found.chat:
        roles = ", ".join(f"{role} {count:,}" for role, count in chat.roles.items())
        lines.append(
            f"conversations in {chat.column}: {chat.conversations:,}, {chat.turns_mean:.1f} turns each ({roles}), "
            f"{chat.defect_rate:.2%} with defects"
        )
    return lines
