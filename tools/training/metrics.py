"""metrics.jsonl: one JSON object for each log of the trainer, written as training goes.

JSON has no NaN, and NaN is what a watcher most needs to see: it is written as the text `NaN` (`Infinity`, `-Infinity`)
and read back as a float.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain_crew.files import atomic_write_text

__all__ = [
    "METRICS_FILE",
    "append_metrics",
    "drop_after",
    "metric_line",
    "read_metrics",
    "series",
]

METRICS_FILE = "metrics.jsonl"
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def metric_line(record: Mapping[str, Any]) -> str:
    """One line of the file, without its end."""
    return json.dumps({name: _written(value) for name, value in record.items()}, allow_nan=False)


def append_metrics(path: Path, record: Mapping[str, Any]) -> None:
    """Add one record. Raises OSError (disk full)."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(metric_line(record) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records in order; [] where the file does not exist yet.

    A last line that was torn by a kill, or is being written at this moment, is left out, as is any line that is no JSON
    object.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append({name: _read(value) for name, value in record.items()})
    return records


def drop_after(path: Path, step: int) -> None:
    """Forget the records of steps after `step`, which a resumed job is going to repeat."""
    if path.exists():
        kept = [record for record in read_metrics(path) if record.get("step", 0) <= step]
        atomic_write_text(path, "".join(metric_line(record) + "\n" for record in kept))


def series(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of one metric over the records that have it."""
    return [
        (int(record.get("step", position)), float(record[name]))
        for position, record in enumerate(history)
        if isinstance(record.get(name), int | float)
    ]


def _written(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _read(value: Any) -> Any:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
