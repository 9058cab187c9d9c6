"""The trackio run of a job that goes on: the same run, each step once.

trackio 0.43 resumes a run by its name and appends. What a killed attempt logged of the steps that come again would
stand there twice, and what it had not sent yet (trackio sends every half second) would be missing; metrics.jsonl has
both right.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from posttrain_crew.tools.training.metrics import read_metrics

__all__ = ["forget_tracked", "refill_tracked"]

_STEP = "json_extract(metrics, '$.\"train/global_step\"')"


def forget_tracked(project: str, run: str, step: int) -> None:
    """Drop the rows of steps after `step`. trackio has no call for it, so this is a statement to its database; nothing
    happens where there is none yet, or where another version of trackio keeps it otherwise."""
    with _database(project) as database:
        if database is not None:
            database.execute(f"DELETE FROM metrics WHERE run_name = ? AND {_STEP} > ?", (run, step))


def refill_tracked(project: str, run: str, metrics: Path) -> int:
    """Log what metrics.jsonl has and the current trackio run has not; returns how many rows. After `trackio.init`."""
    import trackio
    from transformers.integrations.integration_utils import rewrite_logs

    named: Callable[[dict[str, Any]], dict[str, Any]] = rewrite_logs  # as trackio's callback names them
    known: set[int] = set()
    with _database(project) as database:
        if database is not None:
            rows = database.execute(f"SELECT {_STEP} FROM metrics WHERE run_name = ?", (run,))
            known = {int(step) for (step,) in rows if step is not None}
    missing = [record for record in read_metrics(metrics) if int(record.get("step", 0)) not in known]
    for record in missing:
        logs: dict[str, Any] = {
            name: value
            for name, value in record.items()
            if name not in ("step", "time") and isinstance(value, int | float) and math.isfinite(value)
        }
        trackio.log({**named(logs), "train/global_step": record["step"]})
    return len(missing)


@contextlib.contextmanager
def _database(project: str) -> Iterator[sqlite3.Connection | None]:
    from trackio.sqlite_storage import SQLiteStorage

    path = Path(SQLiteStorage.get_project_db_path(project))
    if not path.is_file():
        yield None
        return
    with (
        contextlib.suppress(sqlite3.DatabaseError),
        contextlib.closing(sqlite3.connect(path, timeout=30.0)) as found,
        found,  # commits
    ):
        yield found
