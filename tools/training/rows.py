"""The rows that a job trains on: the very file that was audited, checked before a model is loaded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from posttrain_crew.errors import DatasetError
from posttrain_crew.files import sha256_file
from posttrain_crew.tools.training.config import TrainingConfig, trainer_value
from posttrain_crew.tools.training.rewards import columns_of

__all__ = ["lost_rows", "read_eval_rows", "read_jsonl", "read_rows", "row_size", "smoke_rows"]

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
    _check_columns(config, config.data, rows)
    return rows


def read_eval_rows(config: TrainingConfig) -> list[dict[str, Any]] | None:
    """The rows to evaluate on; None where the config has none. Raises DatasetError as `read_rows`."""
    if config.eval_data is None:
        return None
    rows = read_jsonl(config.eval_data)
    _check_columns(config, config.eval_data, rows)
    return rows


def _check_columns(config: TrainingConfig, path: Path, rows: list[dict[str, Any]]) -> None:
    if config.method == "grpo":
        needed = [{"prompt"}.union(*(columns_of(spec.name) for spec in config.reward))]
    else:
        needed = _NEEDED[config.method]
    for number, row in enumerate(rows, start=1):
        if not any(columns <= row.keys() for columns in needed):
            raise DatasetError(
                f"{path} line {number} has the columns {', '.join(sorted(row)) or '(none)'}, but "
                f"{config.method} needs {' or '.join(' + '.join(sorted(columns)) for columns in needed)}."
            )
    if config.method == "dpo":
        _check_pairs(path, rows)


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


def lost_rows(config: TrainingConfig, given: int, prepared: Any) -> str:
    """What `max_length` cost: a line for people, "" where nothing was lost.

    TRL leaves out a row whose prompt alone fills the length, and cuts the end off a longer one, its end token with it.

    Args:
        given: rows before the trainer was made.
        prepared: the trainer's `datasets.Dataset`, tokenised.

    Raises:
        DatasetError: no row is left.
    """
    limit = trainer_value(config.method, config.trainer, "max_length")
    packed = config.method == "sft" and bool(config.trainer.get("packing"))
    if config.method == "grpo" or limit is None or packed:
        return ""
    left_out = given - len(prepared)
    if left_out == given:
        raise DatasetError(
            f"not one of {given} rows can be trained on: their prompts alone fill `trainer.max_length` {limit}. "
            "Make it larger, or the prompts shorter."
        )
    names = ("input_ids",) if config.method == "sft" else ("prompt_ids", "chosen_ids", "rejected_ids")
    if not set(names) <= set(prepared.column_names):
        return ""
    lengths = [_lengths(prepared, name) for name in names]
    if config.method == "sft":  # cut already: a row of just this length counts as cut
        cut = sum(int(length >= limit) for length in lengths[0])
    else:
        cut = sum(int(prompt + max(answers) > limit) for prompt, *answers in zip(*lengths, strict=True))
    told = [f"left out {left_out}, whose prompts alone fill it"] if left_out else []
    if cut and trainer_value(config.method, config.trainer, "truncation_mode") == "keep_end":
        told.append(f"cut the beginnings off {cut}")
    elif cut:
        told.append(f"cut the ends off {cut}: what they say last, and their end token, is not learned")
    return f"of {given} rows `max_length` {limit} {'; '.join(told)}" if told else ""


def _lengths(prepared: Any, name: str) -> list[int]:
    """Tokens of each row in a column, without making Python lists of them."""
    import pyarrow.compute as compute

    column = prepared.select_columns([name]).with_format("arrow")[:][name]
    return [int(length) for length in compute.list_value_length(column).to_pylist()]


def smoke_rows(
    config: TrainingConfig, rows: list[dict[str, Any]], shorter_than: float = math.inf
) -> list[dict[str, Any]]:
    """The longest rows, as many as one step takes: if memory is too small, the smoke run should be where that shows.

    Args:
        shorter_than: characters of a row, for when the trainer left out all of the longer ones.
    """

    def value(name: str) -> int:
        return int(trainer_value(config.method, config.trainer, name) or 1)

    batch = value("per_device_train_batch_size") * value("gradient_accumulation_steps")
    wanted = max(SMOKE_ROWS, batch // value("num_generations") if config.method == "grpo" else batch)
    sizes = [(length, row) for row in rows if (length := row_size(row)) < shorter_than]
    return [row for _, row in sorted(sizes, key=lambda pair: -pair[0])[:wanted]]


def row_size(row: dict[str, Any]) -> int:
    """Characters of a row as it stands in the file."""
    return len(json.dumps(row))


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
