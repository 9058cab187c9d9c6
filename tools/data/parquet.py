"""Rows of parquet files of strangers, as Python values, in flat memory whatever the file would inflate to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain_crew.tools.data.parquet_layout import broken_file, layout

__all__ = ["parquet_rows"]


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file. Raises DatasetError when it is damaged or would take too much memory."""
    import pyarrow as pa  # slow to import, and half of all datasets do without

    try:
        for batch in layout(path).batches():
            yield from batch.to_pylist()
    except (pa.ArrowException, ValueError, MemoryError) as error:  # a text that is no UTF-8, a date out of range
        raise broken_file(path, error) from error
