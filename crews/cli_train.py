"""`crew train`: one training job from its config file, with live metrics, for people without any agent or run.

Ctrl-C, SIGTERM and a closed terminal end the job with the command, as a user expects of a command in the foreground: it
keeps a checkpoint of its last step, and the same command goes on from there. SIGKILL cannot be heard: the job outlives
it, and the same command finds it again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from posttrain_crew.crews.cli_common import JsonFlag, echo_json
from posttrain_crew.crews.stop_signals import StopSignals, stop_signals
from posttrain_crew.errors import ConfigError, InputError, JobError

if TYPE_CHECKING:
    from posttrain_crew.tools.compute.base import Compute, JobHandle
    from posttrain_crew.tools.training.config import TrainingConfig
    from posttrain_crew.tools.training.launcher import Launch

__all__ = ["register"]

METRICS_FILE = "metrics.jsonl"
OUTCOME_FILE = "outcome.json"
ATTEMPT_FILE = "attempt.json"
"""What the checkpoints in a folder come from: hashes of config and data."""
BAD_INPUT = ("config", "data", "model")
"""Classes of failure that the same command would only meet again."""
POLL_S = 0.5
TRAIN_TIMEOUT_S = 30 * 24 * 3600.0
GRACE_S = 120.0
"""What a job gets to end its step and write a checkpoint."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(train)


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Training config; the job runs in its folder.")],
    devices: Annotated[int, typer.Option(min=1, help="Processes, one for each GPU of this machine.")] = 1,
    sharding: Annotated[
        str | None, typer.Option(help="How several share the work: ddp, zero2, zero3, fsdp, ... (see `crew plan`).")
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Run one training job from its config file, with live metrics. The outcome is in outcome.json beside it.

    With several devices the config's batch is that of each of them, as in what `crew plan` prints.

    After Ctrl-C, SIGTERM or a closed terminal (exit 128 + the signal's number), a kill or a full disk the same command
    goes on from the last whole checkpoint, as long as config and data are the same.
    """
    from posttrain_crew.tools.compute.base import JobSpec
    from posttrain_crew.tools.compute.local import LocalCompute

    loaded = _checked(config)
    compute = LocalCompute(slots=devices)
    folder = config.resolve().parent
    label = f"train-{folder.name}-{config.stem}"
    alive = compute.find(label, folder)
    running = alive is not None and compute.status(alive) == "running"
    launch = _launch(loaded, devices, sharding, on_cpu=compute.capacity().device == "cpu")
    environment = {} if running else _prepared(loaded, folder, launch) | launch.environment()
    with stop_signals() as stop:
        if running:
            handle = cast("JobHandle", alive)
            _notice(f"the job {label} is running already: these are its metrics")
        else:
            job = JobSpec(label, launch.module, config.resolve(), TRAIN_TIMEOUT_S, environment, processes=devices)
            handle = compute.submit(job)
        code = _watch(compute, handle, stop, json_output)
    outcome = _read(folder / OUTCOME_FILE)
    if code and outcome.get("error_class") in (None, "cancelled") and not outcome.get("ok"):
        _tell_interrupted(handle, code, json_output)
        raise typer.Exit(code)
    if not outcome:
        raise JobError(
            f"the job {label} was killed: it left no outcome. {_how_on(folder)} Its last output:\n"
            f"{compute.logs(handle, tail=15)}"
        )
    if json_output:
        echo_json(outcome)
    else:
        for note in outcome.get("notes") or []:
            typer.echo(f"note: {note}")
        if outcome.get("ok"):
            typer.echo(f"done: {outcome.get('steps')} steps, checkpoint {folder / str(outcome.get('checkpoint'))}")
        else:
            how = "" if outcome.get("error_class") in BAD_INPUT else f" {_how_on(folder)}"
            _notice(f"error: the job failed ({outcome.get('error_class')}): {outcome.get('message')}{how}")
    if not outcome.get("ok"):
        raise typer.Exit(2 if outcome.get("error_class") in BAD_INPUT else 1)


def _watch(compute: Compute, handle: JobHandle, stop: StopSignals, as_json: bool) -> int:
    """Show the job's metrics until it has ended; end it where a signal asks for it, or where nobody reads them any
    more. Returns 0, or the exit code of a command that was interrupted."""
    rows = _follow(handle.directory / METRICS_FILE, since=float(handle.id.partition("@")[2]))
    code = 0
    try:
        while True:
            ended = compute.status(handle) not in ("queued", "running")
            for row in next(rows):
                _show(row, as_json)
            if ended:
                return code
            if stop.number is not None:
                code = stop.exit_code
                _end(compute, handle, stop, stop.name)
            else:
                time.sleep(POLL_S)  # a file that another process appends to has no event to wait for
    except OSError as error:  # `| head` has read enough, or the terminal is gone
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _end(compute, handle, stop, "nobody reads the metrics any more")
        return stop.exit_code or 128 + signal.SIGPIPE


def _end(compute: Compute, handle: JobHandle, stop: StopSignals, why: str) -> None:
    """End the job and all that it started; the next Ctrl-C kills it at once."""
    _notice(f"{why}: the job ends after its current step, or is killed after {GRACE_S:.0f} s; Ctrl-C kills it at once")
    stop.urgent = True
    try:
        compute.cancel(handle, grace_s=GRACE_S)
    except KeyboardInterrupt:
        compute.cancel(handle, grace_s=0)
    stop.urgent = False


def _tell_interrupted(handle: JobHandle, code: int, as_json: bool) -> None:
    message = f"the job {handle.label} was ended. {_how_on(handle.directory)}"
    _notice(f"interrupted: {message}")
    if as_json:
        echo_json({"error": "Interrupted", "message": message, "exit_code": code})


def _how_on(folder: Path) -> str:
    from posttrain_crew.tools.training.checkpoints import look
    from posttrain_crew.tools.training.session import CHECKPOINTS

    newest = look(folder / CHECKPOINTS).newest
    if newest is None:
        return "The same command begins anew: there is no whole checkpoint yet."
    return f"The same command goes on from {newest.name}."


def _checked(config: Path) -> TrainingConfig:
    """The config, checked as the job will check it, and its rewards calibrated."""
    from posttrain_crew.tools.training.config import load

    loaded = load(config)
    if loaded.method == "grpo":
        from posttrain_crew.tools.training.rewards import check_rewards

        names, weights = [spec.name for spec in loaded.reward], [spec.weight for spec in loaded.reward]
        check_rewards(names, loaded.answer_template, loaded.answer_labels, weights)
    return loaded


def _launch(loaded: TrainingConfig, devices: int, sharding: str | None, *, on_cpu: bool) -> Launch:
    """How the job is started. Raises ConfigError for a profile that does not go with the number of devices."""
    from posttrain_crew.tools.training.launcher import Launch

    profile = sharding or ("single" if devices == 1 else "ddp")
    bf16 = bool(loaded.trainer.get("bf16", not on_cpu)) and not loaded.trainer.get("fp16")
    return Launch(loaded.method, profile, devices, bf16=bf16, on_cpu=on_cpu)


def _prepared(loaded: TrainingConfig, folder: Path, launch: Launch) -> dict[str, str]:
    """Make the folder of an earlier attempt ready for the next one; the variables of the job.

    Raises:
        ConfigError: the earlier attempt ended well, or left checkpoints of another config or other data.
    """
    from posttrain_crew.files import atomic_write_json, canonical_json, sha256_file, sha256_text
    from posttrain_crew.tools.training.checkpoints import look
    from posttrain_crew.tools.training.session import CHECKPOINTS, RESUME_VARIABLE

    outcome_file, record_file = folder / OUTCOME_FILE, folder / ATTEMPT_FILE
    if _read(outcome_file).get("ok"):
        raise ConfigError(
            f"{folder} holds a finished job ({outcome_file.name}). Copy the config into an empty folder for another."
        )
    data = folder / loaded.data
    record = {
        "config": sha256_text(canonical_json(loaded.model_dump(mode="json", exclude={"resume", "max_seconds"}))),
        "data": sha256_file(data) if data.is_file() else None,
    }
    if launch.profile != "single":  # the states of its processes are in its checkpoints
        record["launch"] = f"{launch.profile} on {launch.processes}"
    environment: dict[str, str] = {}
    newest = look(folder / CHECKPOINTS).newest
    if newest is not None and not loaded.resume:
        if _read(record_file) != record:
            raise ConfigError(
                f"{newest.parent} holds {newest.name} of an attempt that is not known to be of this config, data and "
                "number of devices. "
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


def _notice(message: str) -> None:
    with contextlib.suppress(OSError):  # of a terminal that is closed: nobody is there to be told
        typer.echo(message, file=sys.stderr)
