"""The rows that a job trains on: the very file that was audited, checked before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posttrain_crew.errors import DatasetError
from posttrain_crew.files import sha256_file
from posttrain_crew.tools.training.config import TrainingConfig, trainer_value
from posttrain_crew.tools.training.rewards import columns_of

__all__ = ["read_jsonl", "read_rows", "smoke_rows"]

SMOKE_ROWS = 16
_NEEDED: dict[str, list[set[str]]] = {
    "sft": [{"prompt", "completion"}, {"messages"}, {"text"}],
    "dpo": [{"prompt", "chosen", "rejected"}],
}


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
    if config.method == "grpo":
        needed = [{"prompt"}.union(*(columns_of(spec.name) for spec in config.reward))]
    else:
        needed = _NEEDED[config.method]
    for number, row in enumerate(rows, start=1):
        if not any(columns <= row.keys() for columns in needed):
            raise DatasetError(
                f"{config.data} line {number} has the columns {', '.join(sorted(row)) or '(none)'}, but "
                f"{config.method} needs {' or '.join(' + '.join(sorted(columns)) for columns in needed)}."
            )
    if config.method == "dpo":
        _check_pairs(config.data, rows)
    return rows


def _check_pairs(path: Path, rows: list[dict[str, Any]]) -> None:
    equal = 0
    for number, row in enumerate(rows, start=1):
        kinds = {type(row[name]) for name in ("prompt", "chosen", "rejected")}
        if kinds not in ({str}, {list}):
            raise DatasetError(
                f"{path} line {number}: `prompt`, `chosen` and `rejected` must all be text or all be lists of chat "
                "messages, but they are "
                f"{', '.join(type(row[name]).__name__ for name in ('prompt', 'chosen', 'rejected'))}."
            )
        if not row["chosen"] or not row["rejected"]:
            raise DatasetError(f"{path} line {number}: `chosen` and `rejected` must hold an answer, but one is empty.")
        equal += row["chosen"] == row["rejected"]
    if equal * 2 > len(rows):
        raise DatasetError(
            f"in {equal} of the {len(rows)} rows of {path} `chosen` and `rejected` are equal: such a pair teaches "
            "nothing. Leave them out."
        )


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
