"""`crew eval`, `crew audit`, `crew train`: the tools of the agents, for people, without any agent or run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from posttrain_crew.crews.cli_common import EXIT_INTERRUPTED, JsonFlag, echo_json
from posttrain_crew.errors import ConfigError, InputError, JobError

if TYPE_CHECKING:
    from posttrain_crew.tools.training.config import TrainingConfig

__all__ = ["register"]

METRICS_FILE = "metrics.jsonl"
ATTEMPT_FILE = "attempt.json"
"""What the checkpoints in a folder come from: hashes of config and data."""
POLL_S = 0.5
TRAIN_TIMEOUT_S = 30 * 24 * 3600.0

TargetOption = Annotated[str, typer.Option(help="Benchmark: a name (`crew targets`) or a YAML file.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("eval")(evaluate)
    app.command()(audit)
    app.command()(train)


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


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Training config; the job runs in its folder.")],
    json_output: JsonFlag = False,
) -> None:
    """Run one training job from its config file, with live metrics. The outcome is in outcome.json beside it.

    After a kill, Ctrl-C or a full disk the same command goes on from the last whole checkpoint, as long as config and
    data are the same.
    """
    from posttrain_crew.tools.compute.base import JobSpec
    from posttrain_crew.tools.compute.local import LocalCompute

    loaded = _checked(config)
    compute = LocalCompute(slots=1)
    folder = config.resolve().parent
    outcome_file = folder / "outcome.json"
    label = f"train-{folder.name}-{config.stem}"
    alive = compute.find(label, folder)
    if alive is not None and compute.status(alive) == "running":
        handle = alive
        _notice(f"the job {label} is running already: these are its metrics")
    else:
        environment = _prepared(loaded, folder)
        module = f"posttrain_crew.tools.training.{loaded.method}"
        handle = compute.submit(JobSpec(label, module, config.resolve(), TRAIN_TIMEOUT_S, environment))
    rows = _follow(folder / METRICS_FILE, since=float(handle.id.partition("@")[2]))
    try:
        while True:
            ended = compute.status(handle) not in ("queued", "running")
            for row in next(rows):
                _show(row, json_output)
            if ended:
                break
            time.sleep(POLL_S)  # a file that another process appends to has no event to wait for
    except KeyboardInterrupt:
        compute.cancel(handle)
        typer.echo(f"\ninterrupted: the job {label} was ended; the same command goes on.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if not outcome_file.exists():
        raise JobError(
            f"the job {label} was killed: it left no outcome. The same command goes on from its last checkpoint. Its "
            f"last output:\n{compute.logs(handle, tail=15)}"
        )
    outcome: dict[str, Any] = json.loads(outcome_file.read_text(encoding="utf-8"))
    if json_output:
        echo_json(outcome)
    else:
        for note in outcome.get("notes") or []:
            typer.echo(f"note: {note}")
        if outcome.get("ok"):
            typer.echo(f"done: {outcome.get('steps')} steps, checkpoint {folder / str(outcome.get('checkpoint'))}")
        else:
            typer.echo(f"error: the job failed ({outcome.get('error_class')}): {outcome.get('message')}", err=True)
    if not outcome.get("ok"):
        raise typer.Exit(2 if outcome.get("error_class") in ("config", "data", "model") else 1)


def _checked(config: Path) -> TrainingConfig:
    """The config, checked as the job will check it, and its rewards calibrated."""
    from posttrain_crew.tools.training.config import load

    loaded = load(config)
    if loaded.method == "grpo":
        from posttrain_crew.tools.training.rewards import check_rewards

        names, weights = [spec.name for spec in loaded.reward], [spec.weight for spec in loaded.reward]
        check_rewards(names, loaded.answer_template, loaded.answer_labels, weights)
    return loaded


def _prepared(loaded: TrainingConfig, folder: Path) -> dict[str, str]:
    """Make the folder of an earlier attempt ready for the next one; the variables of the job.

    Raises:
        ConfigError: the earlier attempt ended well, or left checkpoints of another config or other data.
    """
    from posttrain_crew.files import atomic_write_json, canonical_json, sha256_file, sha256_text
    from posttrain_crew.tools.training.checkpoints import look
    from posttrain_crew.tools.training.session import CHECKPOINTS, RESUME_VARIABLE

    outcome_file, record_file = folder / "outcome.json", folder / ATTEMPT_FILE
    if _read(outcome_file).get("ok"):
        raise ConfigError(
            f"{folder} holds a finished job ({outcome_file.name}). Copy the config into an empty folder for another."
        )
    data = folder / loaded.data
    record = {
        "config": sha256_text(canonical_json(loaded.model_dump(mode="json", exclude={"resume", "max_seconds"}))),
        "data": sha256_file(data) if data.is_file() else None,
    }
    environment: dict[str, str] = {}
    newest = look(folder / CHECKPOINTS).newest
    if newest is not None and not loaded.resume:
        if _read(record_file) != record:
            raise ConfigError(
                f"{newest.parent} holds {newest.name} of an attempt that is not known to be of this config and data. "
                "Set `resume: true` to go on from it nevertheless, or copy the config into an empty folder."
            )
        environment[RESUME_VARIABLE] = "1"
    if newest is not None:
        _notice(f"going on from {newest.name}")
    outcome_file.unlink(missing_ok=True)  # of an attempt that failed: whoever waits must not take it for the new one
    try:
        atomic_write_json(record_file, record)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror or error}): the job runs there.") from error
    return environment


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _follow(path: Path, since: float) -> Iterator[list[dict[str, Any]]]:
    """The complete lines of a metrics file that came since the last call, for ever; none from before `since` (Unix
    time), which an earlier attempt wrote. A job that goes on writes the file anew: then it is read from the start."""
    position, rest, inode = 0, b"", 0
    while True:
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open("rb") as stream:
                found = os.fstat(stream.fileno())
                if found.st_ino != inode or found.st_size < position:
                    position, rest, inode = 0, b"", found.st_ino
                stream.seek(position)
                rest += stream.read()
                position = stream.tell()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                if isinstance(row, dict) and float(row.get("time", since)) >= since:
                    rows.append(row)
        yield rows


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(row)
        return
    shown = [f"step {row['step']}"] if "step" in row else []
    shown += [f"{k} {row[k]:.4g}" for k in ("loss", "reward", "kl", "grad_norm") if isinstance(row.get(k), int | float)]
    if shown:
        typer.echo("  ".join(shown))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be made ({error.strerror or error}). Choose another `--out`."
        ) from error


def _notice(message: str) -> None:
    typer.echo(message, file=sys.stderr)
