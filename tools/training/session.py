"""What every training script does around its trainer: read, check, load, train, save, and say how it ended.

The scripts (sft.py, dpo.py, grpo.py) hold what is particular to a method; this module holds the rest, in the order in
which it happens. Nothing here knows the blackboard or an agent.

A job's directory gets
    metrics.jsonl     one line for each log, as it happens
    checkpoints/      by the clock (`save_seconds`), by the trainer's save_strategy, and after the step at which a
                      SIGTERM ended the job; without a save_strategy they are gone once the model is saved
    model/            the finished model; it appears complete, by a rename
    outcome.json      how the job ended; always, unless the process was killed outright
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from posttrain_crew.errors import ConfigError, CrewError, ModelError
from posttrain_crew.tools.data.chat_template import ChatTemplate
from posttrain_crew.tools.data.turn_end import prepare_for_chat
from posttrain_crew.tools.training.checkpoints import Found, SaveClock, look, step_of
from posttrain_crew.tools.training.config import TrainingConfig, load, without_effect
from posttrain_crew.tools.training.launcher import sharded_loading, spread_as_launched
from posttrain_crew.tools.training.lora import adapter, trainer_arguments
from posttrain_crew.tools.training.metrics import METRICS_FILE, drop_after
from posttrain_crew.tools.training.model_files import load_model, save_model, weights_are_finite
from posttrain_crew.tools.training.outcome import OUTCOME_FILE, Cancelled, Diverged, Outcome, classify
from posttrain_crew.tools.training.rows import lost_rows, read_eval_rows, read_rows, row_size, smoke_rows
from posttrain_crew.tools.training.tracking import forget_tracked

if TYPE_CHECKING:
    from posttrain_crew.tools.training.callbacks import JobCallback

__all__ = ["CHECKPOINTS", "RESUME_VARIABLE", "SMOKE_STEPS", "Job", "main"]

CHECKPOINTS = "checkpoints"
RESUME_VARIABLE = "CREW_RESUME"
"""Set for a job by who knows that the checkpoints are of this very config and data: as `resume: true` in it."""
SMOKE_STEPS = 2
_DROPPED = ("ignored", "no effect", "falling back", "forced to", "not supported", "currently disabled")
"""What the libraries say of a setting that they do not follow."""
_PLACE = re.compile(r"^\S+:\d+: \w+: |\n\s*warnings\.warn\(.*", re.DOTALL)
"""Where a Python warning comes from, which its text is wrapped in."""


@dataclass
class Job:
    """What a script gets to make its trainer from."""

    config: TrainingConfig
    directory: Path
    arguments: dict[str, Any]
    """Complete keyword arguments of the trainer's config class."""
    model: Any
    """A loaded `transformers` causal language model."""
    tokenizer: Any
    rows: list[dict[str, Any]]
    eval_rows: list[dict[str, Any]] | None
    callback: JobCallback
    adapter: Any
    """A `peft.LoraConfig`, or None for full fine-tuning."""
    chat: bool
    """Whether the rows hold turns, so that the tokenizer was made fit for them."""


_terminated = False
_training = False


def main(method: str, make_trainer: Callable[[Job], Any], arguments: list[str]) -> int:
    """Run one job from the command line; the exit code is 0 for a job that ended well, else 1.

    Whatever happens becomes a typed outcome in the directory of the config file, except a SIGKILL.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.stderr.write(f"usage: python -m posttrain_crew.tools.training.{method} CONFIG.yaml\n")
        return 2
    path = Path(arguments[0]).resolve()
    directory = path.parent
    os.chdir(directory)
    started = _process_start()
    first_process = int(os.environ.get("RANK", "0")) == 0
    (directory / OUTCOME_FILE).unlink(missing_ok=True)
    with _terminable():
        so_far = Outcome(ok=False)
        try:
            outcome = _run(method, make_trainer, path, started, so_far)
        except (Exception, Cancelled, KeyboardInterrupt) as error:  # noqa: BLE001 - the script's boundary: typed below
            error_class, message = classify(error)
            if error_class == "crashed":
                traceback.print_exc()
            outcome = Outcome(False, error_class, message, so_far.steps, metrics=so_far.metrics, notes=so_far.notes)
        if first_process:
            _tell(outcome, directory, started)
    sys.stdout.write(json.dumps({"ok": outcome.ok, "error_class": outcome.error_class, "message": outcome.message}))
    sys.stdout.write("\n")
    return 0 if outcome.ok else 1


def _tell(outcome: Outcome, directory: Path, started: float) -> None:
    try:
        outcome.write(directory, started)
    except OSError as error:
        # the exit code and the last line of output still say it; whoever reads no outcome takes the job for killed
        sys.stderr.write(f"{directory / OUTCOME_FILE} cannot be written: {error}\n")


def _run(method: str, make_trainer: Callable[[Job], Any], path: Path, started: float, so_far: Outcome) -> Outcome:
    """Run the job; `so_far` gets what is known of it before it ends, for an outcome that is an exception."""
    config = load(path)
    if os.environ.get(RESUME_VARIABLE):
        config = config.model_copy(update={"resume": True})
    if config.method != method:
        raise ConfigError(f"{path} is a `{config.method}` config, but this is the `{method}` script.")
    directory = path.parent
    _prepare_environment(config)
    rows = every = read_rows(config)
    eval_rows = None if config.smoke else read_eval_rows(config)
    if config.smoke:
        rows = smoke_rows(config, rows)
    found = _checkpoint(config, directory)
    notes = so_far.notes
    notes += [*without_effect(config.method, config.trainer, config.eval_data), *found.passed_over]

    import torch
    import transformers

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    transformers.set_seed(config.seed)
    with sharded_loading(bool(config.trainer.get("bf16", torch.cuda.is_available()))):
        model, tokenizer = load_model(config)
    chat = any(_is_chat(value) for value in rows[0].values())
    if chat and tokenizer.chat_template is None:
        raise ModelError(
            f"the tokenizer of `{config.model}` has no chat template, but the rows hold chat messages. Start from a "
            "model that has one, or give the rows as plain text."
        )
    if chat:
        notes += prepare_for_chat(tokenizer, model.generation_config.eos_token_id)
        if config.method != "grpo" and Path(config.model).is_dir():  # GRPO samples its replies after the prompt
            ChatTemplate(Path(config.model))  # raises where training would render what generation does not

    from posttrain_crew.tools.training.callbacks import JobCallback

    # max_seconds counts from the start of the process, imports included
    deadline = None if config.max_seconds is None else time.monotonic() + config.max_seconds - (time.time() - started)
    first_process = int(os.environ.get("RANK", "0")) == 0
    metrics = directory / METRICS_FILE
    clock = SaveClock(None if config.smoke else config.save_seconds)
    callback = JobCallback(metrics if first_process else None, deadline, lambda: _terminated, clock)
    arguments = _arguments(config, directory, not torch.cuda.is_available())
    job = Job(config, directory, arguments, model, tokenizer, rows, eval_rows, callback, adapter(config), chat)
    with _warnings_into(notes):
        trainer = _made(make_trainer, job)
        while config.smoke and not len(trainer.train_dataset):
            # the longest rows are beyond max_length: the training itself takes the others
            shorter = smoke_rows(config, every, min(map(row_size, job.rows)) * 3 / 4)
            if not shorter:
                break
            job = replace(job, rows=shorter)
            trainer = _made(make_trainer, job)
    if lost := lost_rows(config, len(job.rows), trainer.train_dataset):
        notes.append(lost)
    if spread := spread_as_launched(trainer):
        notes.append(spread)
    for note in notes:
        sys.stdout.write(f"note: {note}\n")
    if first_process:
        step = -1 if found.newest is None else step_of(found.newest)
        _forget_after(config, metrics, -1 if step is None else step, callback)
    startup = time.time() - started
    try:
        outcome = _train(trainer, job, found.newest, startup)
    except BaseException:
        so_far.steps, so_far.metrics = int(trainer.state.global_step), _measures(callback, startup)
        raise
    outcome.notes = notes
    return outcome


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _checkpoint(config: TrainingConfig, directory: Path) -> Found:
    """Where to go on from. Raises ConfigError rather than train beside what an earlier attempt left."""
    if config.smoke:
        return Found(None, ())
    found = look(directory / CHECKPOINTS)
    if found.newest is not None and not config.resume:
        raise ConfigError(
            f"{directory / CHECKPOINTS} holds {found.newest.name} of an earlier attempt. Set `resume: true` to go on "
            "from it, or start in an empty folder."
        )
    return found


def _made(make_trainer: Callable[[Job], Any], job: Job) -> Any:
    try:
        return make_trainer(job)
    except CrewError:
        raise
    except (ValueError, TypeError, ImportError, NotImplementedError) as error:
        raise ConfigError(
            f"the installed {job.config.method.upper()} trainer refuses this config or its rows: "
            f"{type(error).__name__}: {error}"
        ) from error


def _forget_after(config: TrainingConfig, metrics: Path, step: int, callback: JobCallback) -> None:
    """Take back what an earlier attempt logged of the steps that come again: each step is told once."""
    if step < 0:
        metrics.unlink(missing_ok=True)
    else:
        drop_after(metrics, step)
        callback.remember(metrics)
    if config.resume and config.trackio_project is not None and not config.smoke:
        run = config.run_name or metrics.parent.name
        forget_tracked(config.trackio_project, run, step)
        callback.refill = (config.trackio_project, run)


def _train(trainer: Any, job: Job, checkpoint: Path | None, startup: float) -> Outcome:
    global _training
    config, callback = job.config, job.callback
    _training = True
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except RuntimeError as error:
        if callback.diverged:
            raise Diverged(callback.diverged) from error
        raise
    finally:
        _training = False
    steps = int(trainer.state.global_step)
    measured = _measures(callback, startup)
    if checkpoint is not None:
        measured["resumed_from"] = float(step_of(checkpoint) or 0)
    if callback.diverged or not weights_are_finite(trainer.model):
        message = callback.diverged or f"the weights are no numbers any more after step {steps}"
        return Outcome(False, "diverged", message, steps, metrics=measured)
    if _terminated:
        kept = look(job.directory / CHECKPOINTS).newest
        message = f"ended on request after step {steps}" + (f"; {kept.name} is kept" if kept is not None else "")
        return Outcome(False, "cancelled", message, steps, metrics=measured)
    message = f"stopped at its time limit, after step {steps}" if callback.stopped_early else ""
    if config.smoke:
        return Outcome(True, None, message, steps, metrics=measured)
    begin = time.monotonic()
    save_model(trainer, config, job.directory, chat=job.chat)
    if trainer.is_world_process_zero() and job.arguments["save_strategy"] == "no":
        shutil.rmtree(job.directory / CHECKPOINTS, ignore_errors=True)
    measured["save_s"] = time.monotonic() - begin
    return Outcome(True, None, message, steps, config.output.as_posix(), measured)


@contextlib.contextmanager
def _warnings_into(notes: list[str]) -> Iterator[None]:
    """Collect what the trainer says of settings that it drops while it is made."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = " ".join(_PLACE.sub("", record.getMessage()).split())
            if any(word in text.lower() for word in _DROPPED) and text not in notes:
                notes.append(text[:500])

    collector = Collector(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("trl", "transformers", "py.warnings")]
    for logger in loggers:
        logger.addHandler(collector)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger in loggers:
            logger.removeHandler(collector)


def _prepare_environment(config: TrainingConfig) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if config.trackio_project is None:
        return
    # a Space, bucket or webhook of the user's environment would send the run's metrics off this machine
    for name in [name for name in os.environ if name.startswith("TRACKIO_")]:
        if name != "TRACKIO_DIR":
            del os.environ[name]
    if config.trackio_dir is not None:
        os.environ["TRACKIO_DIR"] = str(config.trackio_dir.resolve())


def _arguments(config: TrainingConfig, directory: Path, on_cpu: bool) -> dict[str, Any]:
    """The trainer's config: crew's defaults, under the user's values, under what the job itself sets."""
    defaults: dict[str, Any] = {
        "logging_steps": 1,  # TRL: 10. A watch rule needs to see each step, and a line costs microseconds
        "save_strategy": "no",  # TRL: every 500 steps
        "disable_tqdm": True,
    }
    if on_cpu and config.trainer.get("fp16"):
        raise ConfigError("`trainer.fp16` needs an accelerator, and there is none here: leave it out.")
    if on_cpu:
        # TRL turns all three on; each makes a CPU slower, and CPU bf16 is slower still without AMX
        defaults |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}
    if config.method == "grpo":
        defaults["reward_weights"] = [spec.weight for spec in config.reward]
    arguments = {**defaults, **trainer_arguments(config)}
    tracked = config.trackio_project is not None and not config.smoke
    arguments |= {
        "output_dir": str(directory / CHECKPOINTS),
        "seed": config.seed,
        "logging_nan_inf_filter": False,  # else transformers writes a NaN loss as 0.0
        "report_to": "trackio" if tracked else "none",
        "run_name": config.run_name or directory.name,
    }
    if tracked:
        arguments |= {"project": config.trackio_project, "trackio_static_space_id": False}
    if config.smoke:
        arguments |= {"max_steps": SMOKE_STEPS, "logging_steps": 1, "save_strategy": "no", "eval_strategy": "no"}
    return arguments


def _measures(callback: JobCallback, startup: float) -> dict[str, float]:
    measured = {
        "startup_s": startup,
        "seconds_per_step": callback.seconds_per_step,
        "stopped_early": float(callback.stopped_early),
        "checkpoints": float(callback.clock.count),
        "checkpoints_s": round(callback.clock.cost_s, 4),
        # ru_maxrss is KiB on Linux, bytes on macOS
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        / 2 ** (20 if sys.platform != "darwin" else 30),
    }
    for name, short in (("loss", "train_loss"), ("reward", "reward"), ("eval_loss", "eval_loss")):
        if name in callback.first:
            measured[f"{short}_first"], measured[f"{short}_last"] = callback.first[name], callback.last[name]
    if "num_tokens" in callback.last:
        measured["tokens"] = callback.last["num_tokens"]
    return measured


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the job: at once before training begins; while it runs after the current step, with a checkpoint."""

    def handler(_signal: int, _frame: FrameType | None) -> None:
        global _terminated
        _terminated = True
        if not _training:
            raise Cancelled

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _process_start() -> float:
    import psutil

    return float(psutil.Process().create_time())
