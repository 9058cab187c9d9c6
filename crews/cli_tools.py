"""`crew eval`, `crew audit`: tools of the agents, for people, without any agent or run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from posttrain_crew.crews.cli_common import JsonFlag, echo_json
from posttrain_crew.errors import InputError

__all__ = ["register"]

TargetOption = Annotated[str, typer.Option(help="Benchmark: a name (`crew targets`) or a YAML file.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("eval")(evaluate)
    app.command()(audit)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, or `builtin:NAME`.")],
    target: TargetOption,
    split: Annotated[str, typer.Option(help="dev or test. Choose models on dev; look at test once.")] = "dev",
    out: Annotated[Path | None, typer.Option(help="Folder for results.json and samples.jsonl.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """Score a model on a target with lm-eval: strict and lenient score, format, confidence intervals."""
    if split not in ("dev", "test"):
        raise InputError(f"--split must be dev or test; {split!r} was given.")
    chosen: Literal["dev", "test"] = "dev" if split == "dev" else "test"
    from posttrain_crew.crews.runs import find_target
    from posttrain_crew.crews.status_view import percent

    found = find_target(target)
    from posttrain_crew.settings import cache_dir
    from posttrain_crew.tools.evaluation.desk import evaluate_path
    from posttrain_crew.tools.sources import resolve_model

    path = resolve_model(model, cache_dir(), _notice)
    folder = out or Path(f"eval-{path.name}-{found.name}-{split}-{time.strftime('%Y%m%d-%H%M%S')}")
    _make(folder)
    result = evaluate_path(path, found, chosen, folder, limit)
    if json_output:
        echo_json(result)
        return
    typer.echo(f"{path} on {found.name} ({split}, {result.get('n')} items)")
    for label, key in (("strict", ""), ("lenient", "lenient_")):
        score = result.get(f"{key}score")
        low, high = result.get(f"{key}ci_low"), result.get(f"{key}ci_high")
        if score is not None:
            typer.echo(f"  {label:<12} {percent(score)} (95 % CI {percent(low)} to {percent(high)})")
    for label, key in (("format valid", "format_valid_rate"), ("right if valid", "accuracy_given_valid")):
        if result.get(key) is not None:
            typer.echo(f"  {label:<12} {percent(result[key])}")
    typer.echo(f"  files        {folder}")


def audit(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Dataset folder, or a JSONL or parquet file.")],
    target: TargetOption,
    json_output: JsonFlag = False,
) -> None:
    """Audit a dataset for a target: format, duplicates, label noise, domain, overlap with the benchmark."""
    if not data.exists():
        raise InputError(f"there is no dataset at {data}. Give a folder with a dataset card, or a JSONL/parquet file.")
    from posttrain_crew.crews.runs import find_target

    found = find_target(target)
    from posttrain_crew.settings import cache_dir
    from posttrain_crew.tools.data.desk import audit_path
    from posttrain_crew.tools.sources import resolve_model

    profile = audit_path(data, found, resolve_model(found.base_model, cache_dir(), _notice))
    if json_output:
        echo_json(profile.model_dump(mode="json"))
        return
    typer.echo(f"{profile.dataset}: {profile.verdict.replace('_', ' ')}. {profile.reason}")
    typer.echo(
        f"  {profile.rows} rows, format {profile.format}, answers {profile.answer_style}, "
        f"licence {profile.licence or 'not stated'}"
    )
    for defect in profile.defects:
        typer.echo(
            f"  {defect.severity:<7} {defect.name}: {defect.value:.4g} (limit {defect.threshold:.4g}). {defect.detail}"
        )
    if not profile.defects:
        typer.echo("  no defects found")
    for name, value in profile.measures.items():
        typer.echo(f"  measure {name} = {value:.4g}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be made ({error.strerror or error}). Choose another `--out`."
        ) from error


def _notice(message: str) -> None:
    typer.echo(message, file=sys.stderr)
