"""A job's history as trackio has it, for a watcher that sees the tracking and not the job's directory."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["tracked_history"]

PATIENCE_S = 10.0
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def tracked_history(database: Path, run: str) -> list[dict[str, Any]]:
    """The records of a trackio run under the trainer's own names, as metrics.jsonl has them; [] where there is none.

    trackio 0.43 keeps `train/loss` and `eval/loss` for `loss` and `eval_loss`, one row for each log, in
    `TRACKIO_DIR/PROJECT.db`. Rows without `train/global_step`, such as profiling ones, are left out.
    """
    if not database.is_file():
        return []
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=PATIENCE_S)) as connection:
            query = "SELECT timestamp, metrics FROM metrics WHERE run_name = ? ORDER BY id"
            rows = connection.execute(query, (run,)).fetchall()
    except sqlite3.Error:
        return []
    return [record for timestamp, text in rows if (record := _record(timestamp, text)) is not None]


def _record(timestamp: str, text: str) -> dict[str, Any] | None:
    try:
        metrics = json.loads(text)
        seconds = datetime.fromisoformat(timestamp).timestamp()
        step = int(metrics["train/global_step"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    record: dict[str, Any] = {"step": step, "time": seconds}
    for name, value in metrics.items():
        place, _, rest = name.partition("/")
        if place not in ("train", "eval") or name == "train/global_step":
            continue
        number = _SPECIAL.get(value, value) if isinstance(value, str) else value
        if isinstance(number, int | float):
            record[rest if place == "train" else f"eval_{rest}"] = number
    return record
