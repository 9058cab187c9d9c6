"""The rows that a job trains on: the very file that was audited, checked before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posttrain_crew.errors import DatasetError
from posttrain_crew.files import sha256_file
from posttrain_crew.tools.training.config import TrainingConfig, trainer_value

__all__ = ["read_jsonl", "read_rows", "smoke_rows"]

SMOKE_ROWS = 16


def read_rows(config: TrainingConfig) -> list[dict[str, Any]]:
    """The training rows, all in memory: a few million are fine, a web crawl is not.

    Raises:
        DatasetError: the file is missing, is not the one that was audited, is not JSONL, or lacks a column.
    """
    if not config.data.is_file():
        raise DatasetError(f"the training file {config.data} does not exist.")
    if config.data_sha256 is not None and (found := sha256_file(config.data)) != config.data_sha256:
        raise DatasetError(
            f"the training file {config.data} has sha256 {found[:12]}..., but {config.data_sha256[:12]}... was audited:"
            " it was changed since. Prepare and audit it again."
        )
    rows = read_jsonl(config.data)
    needed: list[set[str]] = (
        [{"prompt"}] if config.method == "grpo" else [{"prompt", "completion"}, {"messages"}, {"text"}]
    )
    if config.method == "grpo" and any(spec.name in ("mcq_letter", "exact") for spec in config.reward):
        needed = [{"prompt", "answer"}]
    for number, row in enumerate(rows, start=1):
        if not any(columns <= row.keys() for columns in needed):
            raise DatasetError(
                f"{config.data} line {number} has the columns {', '.join(sorted(row)) or '(none)'}, but "
                f"{config.method} needs {' or '.join(' + '.join(sorted(columns)) for columns in needed)}."
            )
    return rows


def smoke_rows(config: TrainingConfig, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The longest rows, as many as one step takes: if memory is too small, the smoke run should be where that shows."""

    def value(name: str) -> int:
        return int(trainer_value(config.method, config.trainer, name) or 1)

    batch = value("per_device_train_batch_size") * value("gradient_accumulation_steps")
    wanted = max(SMOKE_ROWS, batch // value("num_generations") if config.method == "grpo" else batch)
    return sorted(rows, key=lambda row: -len(json.dumps(row)))[:wanted]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows of a JSONL file. Raises DatasetError where it is missing, empty, or a line is no JSON object."""
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise DatasetError(f"{path} line {number} is not a JSON object.")
                    rows.append(row)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read after {len(rows)} rows: {error}") from error
    if not rows:
        raise DatasetError(f"{path} holds no rows.")
    return rows
