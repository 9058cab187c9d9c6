"""A training job as it lies on disk: its metrics, with the config and the outcome that lie beside them, if they do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from posttrain_crew.entries import JobOutcome, Method
from posttrain_crew.errors import InputError
from posttrain_crew.tools.training.metrics import METRICS_FILE, read_metrics
from posttrain_crew.tools.training.outcome import OUTCOME_FILE

__all__ = ["JobFolder"]

LARGEST_METRICS = 512 * 2**20
"""Bytes: a million steps. More is some other file."""
LARGEST_OTHER = 8 * 2**20
MOST = 2**62
"""Beyond it a whole number is no step and no count of tokens."""


@dataclass(frozen=True)
class JobFolder:
    """What there is to diagnose."""

    label: str
    method: Method
    trainer: dict[str, Any]
    """Trainer fields; {} where no config lies beside the metrics, and the rules then take the trainer's defaults."""
    history: list[dict[str, Any]]
    outcome: JobOutcome | None

    @classmethod
    def read(cls, place: Path) -> JobFolder:
        """A job's directory, or its metrics.jsonl under whatever name.

        Raises:
            InputError: there is none, it cannot be read, or it holds no metrics of a trainer.
        """
        path = place / METRICS_FILE if place.is_dir() else place
        history = _history(path)
        config = _mapping(path.parent / "config.yaml")
        trainer = config.get("trainer")
        known = {name: name for name in get_args(Method)}
        return cls(
            label=path.parent.resolve().name if path.name == METRICS_FILE else path.name,
            method=known.get(str(config.get("method"))) or guess_method(history),
            trainer=dict(trainer) if isinstance(trainer, dict) else {},
            history=history,
            outcome=_outcome(path.parent),
        )


def guess_method(history: Sequence[Mapping[str, Any]]) -> Method:
    """By the metrics that only one trainer logs."""
    names = {name for record in history for name in record}
    if "reward" in names or "frac_reward_zero_std" in names:
        return "grpo"
    return "dpo" if "rewards/margins" in names else "sft"


def _history(path: Path) -> list[dict[str, Any]]:
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_METRICS:
            raise InputError(f"{path} is no metrics file: {size} bytes. Give a job's {METRICS_FILE}, or its directory.")
        history = read_metrics(path)
    except FileNotFoundError:
        raise InputError(
            f"there is no {path.name} at {path.parent}. Give the id of a run, a job as RUN/JOB, a job's directory or "
            f"its {METRICS_FILE}."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    except RecursionError:
        raise InputError(f"{path} holds JSON that is nested too deep for a metrics file.") from None
    if size and not any(
        isinstance(record.get(name), int | float)
        for record in history
        for name in ("loss", "reward", "eval_loss", "grad_norm")
    ):
        raise InputError(
            f"{path} holds no metrics of a trainer: each line must be a JSON object with `step` and numbers like "
            f"`loss`. {len(history)} lines could be read as JSON objects."
        )
    for position, record in enumerate(history):
        step = record.get("step", position)
        if not isinstance(step, int | float) or isinstance(step, bool) or not abs(step) < MOST:
            raise InputError(f"{path}: record {position + 1} has a step that is no number: {str(step)[:40]!r}.")
        for name, value in record.items():
            if isinstance(value, int) and abs(value) > MOST:
                raise InputError(f"{path}: record {position + 1} has a `{name[:40]}` that no trainer logs.")
    return history


def _mapping(path: Path) -> dict[str, Any]:
    """A YAML mapping; {} where there is no such file. Raises InputError for one that is none."""
    try:
        if path.stat().st_size > LARGEST_OTHER:
            raise InputError(f"{path} is too large for a training config.")
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the config {path} beside the metrics cannot be read: {error}") from error
    return raw if isinstance(raw, dict) else {}


def _outcome(folder: Path) -> JobOutcome | None:
    path = folder / OUTCOME_FILE
    try:
        if path.stat().st_size > LARGEST_OTHER:
            return None
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = {name: raw[name] for name in ("ok", "error_class", "message", "wall_s", "steps") if name in raw}
        return JobOutcome(label=folder.name or "job", **known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, ValidationError):
        return None  # cut in half by a full disk, say: then the metrics have to speak for themselves
