"""What the datasets-server says about columns: their types and their statistics, computed from the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any

from tests.loopback.rows import Rows

__all__ = ["cut", "features", "statistics"]

LABELS = 30
"""Strings with at most so many different values count as labels."""
BINS = 10


def cut(row: Mapping[str, Any], chars: int) -> tuple[dict[str, Any], list[str]]:
    """A row with its long texts cut, and the names of their columns."""
    cells = [name for name, value in row.items() if isinstance(value, str) and len(value) > chars]
    return {name: value[:chars] if name in cells else value for name, value in row.items()}, cells


def features(rows: Rows) -> list[dict[str, Any]]:
    """Columns and their types, as `datasets` writes them in JSON."""
    import pyarrow as pa  # slow to import

    schema = pa.Table.from_pylist([dict(row) for row in rows[:100]]).schema
    return [{"feature_idx": n, "name": field.name, "type": _type(field.type)} for n, field in enumerate(schema)]


def _type(kind: Any) -> dict[str, Any]:
    """A type of Arrow as `datasets` writes it in JSON."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"feature": _type(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _type(field.type) for field in kind}
    return {"dtype": str(kind).replace("double", "float64"), "_type": "Value"}


def statistics(rows: Rows) -> list[dict[str, Any]]:
    """Of each column: of lengths for texts and lists, of values for numbers, frequencies where there are few texts."""
    return [_column(name, [row.get(name) for row in rows]) for name in rows[0]]


def _column(name: str, values: Sequence[Any]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    missing = len(values) - len(known)
    nans = {"nan_count": missing, "nan_proportion": round(missing / max(1, len(values)), 5)}
    if known and all(isinstance(value, str) for value in known):
        counts = Counter(known)
        if len(counts) <= LABELS:
            labels = {
                "no_label_count": 0,
                "no_label_proportion": 0.0,
                "n_unique": len(counts),
                "frequencies": dict(counts),
            }
            return {"column_name": name, "column_type": "string_label", "column_statistics": {**nans, **labels}}
        kind, numbers = "string_text", [len(value) for value in known]
    elif known and all(isinstance(value, list) for value in known):
        kind, numbers = "list", [len(value) for value in known]
    elif known and all(isinstance(value, int | float) for value in known):
        kind, numbers = "float" if any(isinstance(value, float) for value in known) else "int", known
    else:
        return {"column_name": name, "column_type": "struct", "column_statistics": nans}
    return {"column_name": name, "column_type": kind, "column_statistics": {**nans, **_spread(numbers)}}


def _spread(numbers: Sequence[float]) -> dict[str, Any]:
    least, most = min(numbers), max(numbers)
    width = max(1, -(-(most - least + 1) // BINS))
    edges = [least + width * number for number in range(int((most - least) // width) + 1)]
    counts = Counter(int((value - least) // width) for value in numbers)
    return {
        "min": least,
        "max": most,
        "mean": round(fmean(numbers), 5),
        "median": median(numbers),
        "std": round(stdev(numbers), 5) if len(numbers) > 1 else 0.0,
        "histogram": {"hist": [counts[n] for n in range(len(edges))], "bin_edges": [*edges, most]},
    }
