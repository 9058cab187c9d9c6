"""What every training script does around its trainer: read, check, load, train, save, and say how it ended.

The scripts (sft.py, grpo.py) hold what is particular to a method; this module holds the rest, in the order in which it
happens. Nothing here knows the blackboard or an agent.

A job's directory gets
    metrics.jsonl     one line for each log, as it happens
    checkpoints/      only if the trainer's save_strategy asks for them
    model/            the finished model; it appears complete, by a rename
    outcome.json      how the job ended; always, unless the process was killed outright
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from posttrain_crew.errors import ConfigError, ModelError
from posttrain_crew.tools.training.checkpoints import last_checkpoint
from posttrain_crew.tools.training.config import TrainingConfig, load
from posttrain_crew.tools.training.metrics import METRICS_FILE, drop_after
from posttrain_crew.tools.training.outcome import OUTCOME_FILE, Cancelled, Diverged, Outcome, classify
from posttrain_crew.tools.training.rows import read_jsonl, read_rows, smoke_rows

if TYPE_CHECKING:
    from posttrain_crew.tools.training.callbacks import JobCallback

__all__ = ["SMOKE_STEPS", "Job", "main"]

CHECKPOINTS = "checkpoints"
SMOKE_STEPS = 2


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
        try:
            outcome = _run(method, make_trainer, path, started)
        except (Exception, Cancelled, KeyboardInterrupt) as error:  # noqa: BLE001 - the script's boundary: typed below
            error_class, message = classify(error)
            if error_class == "crashed":
                traceback.print_exc()
            outcome = Outcome(ok=False, error_class=error_class, message=message)
        if first_process:
            outcome.write(directory, started)
    sys.stdout.write(json.dumps({"ok": outcome.ok, "error_class": outcome.error_class, "message": outcome.message}))
    sys.stdout.write("\n")
    return 0 if outcome.ok else 1


def _run(method: str, make_trainer: Callable[[Job], Any], path: Path, started: float) -> Outcome:
    global _training
    config = load(path)
    if config.method != method:
        raise ConfigError(f"{path} is a `{config.method}` config, but this is the `{method}` script.")
    directory = path.parent
    _prepare_environment(config)
    rows = read_rows(config)
    eval_rows = None if config.eval_data is None or config.smoke else read_jsonl(config.eval_data)
    if config.smoke:
        rows = smoke_rows(config, rows)

    import torch
    import transformers

    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    transformers.set_seed(config.seed)
    model, tokenizer = _load_model(config)

    from posttrain_crew.tools.training.callbacks import JobCallback

    # max_seconds counts from the start of the process, imports included
    deadline = None if config.max_seconds is None else time.monotonic() + config.max_seconds - (time.time() - started)
    first_process = int(os.environ.get("RANK", "0")) == 0
    metrics = directory / METRICS_FILE
    callback = JobCallback(metrics if first_process else None, deadline, lambda: _terminated)
    on_cpu = not torch.cuda.is_available()
    job = Job(config, directory, _arguments(config, directory, on_cpu), model, tokenizer, rows, eval_rows, callback)
    trainer = make_trainer(job)
    checkpoint = last_checkpoint(directory / CHECKPOINTS) if config.resume else None
    if first_process:
        if checkpoint is None:
            metrics.unlink(missing_ok=True)
        else:
            drop_after(metrics, int(checkpoint.name.rsplit("-", 1)[1]))
    startup = time.time() - started
    _training = True
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except RuntimeError as error:
        if callback.diverged:
            raise Diverged(callback.diverged) from error
        raise
    finally:
        _training = False
    steps = int(trainer.state.global_step)
    measured = _measures(callback, startup)
    if callback.diverged or not _weights_are_finite(trainer.model):
        message = callback.diverged or f"the weights are no numbers any more after step {steps}"
        return Outcome(False, "diverged", message, steps, metrics=measured)
    if _terminated:
        return Outcome(False, "cancelled", f"ended on request after step {steps}", steps, metrics=measured)
    message = f"stopped at its time limit, after step {steps}" if callback.stopped_early else ""
    if config.smoke:
        return Outcome(True, None, message, steps, metrics=measured)
    begin = time.monotonic()
    _save(trainer, config, directory)
    measured["save_s"] = time.monotonic() - begin
    return Outcome(True, None, message, steps, config.output.as_posix(), measured)


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


def _load_model(config: TrainingConfig) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": "auto"}[config.dtype]
    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model)
        model = AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype)
    except torch.cuda.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"`{config.model}` cannot be loaded as a causal language model: {error}") from error
    except Exception as error:  # safetensors and tokenizers raise classes of their own
        if type(error).__module__.split(".")[0] in ("safetensors", "safetensors_rust", "tokenizers", "builtins"):
            raise ModelError(f"`{config.model}` cannot be loaded as a causal language model: {error}") from error
        raise
    return model, tokenizer


def _arguments(config: TrainingConfig, directory: Path, on_cpu: bool) -> dict[str, Any]:
    """The trainer's config: crew's defaults, under the user's values, under what the job itself sets."""
    defaults: dict[str, Any] = {
        "logging_steps": 1,  # TRL: 10. A watch rule needs to see each step, and a line costs microseconds
        "save_strategy": "no",  # TRL: every 500 steps
        "disable_tqdm": True,
    }
    if on_cpu:
        # TRL turns all three on; each makes a CPU slower, and CPU bf16 is slower still without AMX
        defaults |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}
    if config.method == "grpo":
        defaults["reward_weights"] = [spec.weight for spec in config.reward]
    arguments = {**defaults, **config.trainer}
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


def _weights_are_finite(model: Any) -> bool:
    import torch

    with torch.no_grad():
        return all(bool(torch.isfinite(parameter.sum())) for parameter in model.parameters())


def _save(trainer: Any, config: TrainingConfig, directory: Path) -> None:
    """The model as a plain Hugging Face folder, with its parent's tokenizer and generation config."""
    final = directory / config.output
    final.parent.mkdir(parents=True, exist_ok=True)
    # every process of a sharded run has to take part in gathering the weights, and to the same place
    shared = final.parent / f".{final.name}.saving"
    trainer.save_model(str(shared))
    if not trainer.is_world_process_zero():
        return
    from transformers import AutoTokenizer

    # loaded again: a trainer changes padding side and may change the chat template of the one it was given
    AutoTokenizer.from_pretrained(config.model).save_pretrained(str(shared))
    parents = Path(config.model) / "generation_config.json"
    if parents.is_file():
        shutil.copyfile(parents, shared / parents.name)
    (shared / "training_args.bin").unlink(missing_ok=True)  # a pickle of local paths
    if final.exists():
        final.rename(Path(tempfile.mkdtemp(prefix=f".{final.name}.old.", dir=final.parent)) / final.name)
    shared.rename(final)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the job: at once before training begins, after the current step while it runs."""

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
