"""Parquet as the Hub has it is read whole by both readers; parquet that would inflate is refused before it does."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data import parquet_layout
from posttrain_crew.tools.data.parquet import parquet_rows
from posttrain_crew.tools.data.parquet_layout import Limits, layout
from posttrain_crew.tools.data.profile.blocks import Block, Ints
from posttrain_crew.tools.data.profile.parquet_rows import parquet_blocks

Rows = list[dict[str, Any]]
CODED = pa.dictionary(pa.int32(), pa.string())


def conversations(count: int, names: tuple[str, str] = ("role", "content"), key: str = "messages") -> Rows:
    """Turns of 300 characters, all different, after a system prompt that every row repeats."""
    role, content = names
    return [
        {
            key: [
                {role: "system", content: "You are a careful teacher. " * 20},
                *(
                    {role: ("user", "assistant")[turn % 2], content: f"{number}.{turn} ".ljust(300, "x")}
                    for turn in range(2 + number % 3)
                ),
            ]
        }
        for number in range(count)
    ]


def lists(count: int) -> Rows:
    return [
        {
            "question": f"question {n}" if n % 7 else None,
            "choices": [f"choice {n} {place}" for place in range(n % 5)] if n % 11 else None,
            "tokens": list(range(n % 50)),
            "meta": {"source": {"url": f"https://example.org/{n % 3}", "year": 2000 + n % 9}, "tags": ["a", None]},
        }
        for n in range(count)
    ]


def seen(path: Path) -> tuple[int, Block]:
    """Number of rows in the profile's blocks, and the first of them."""

    def pick(count: int) -> Ints:
        return np.arange(min(count, 3), dtype=np.int64)

    blocks = list(parquet_blocks(path, pick))
    assert not sum(block.unreadable + block.left_out for block in blocks)
    return sum(block.rows for block in blocks), blocks[0]


def check(path: Path, rows: Rows) -> None:
    assert list(parquet_rows(path)) == rows
    count, first = seen(path)
    assert count == len(rows)
    assert [row for _, row in first.picked[:3]] == rows[:3]


NESTED = pa.schema([("messages", pa.list_(pa.struct([("role", CODED), ("content", pa.large_string())])))])
WIDE = pa.schema([("messages", pa.large_list(pa.struct([("role", pa.large_string()), ("content", CODED)])))])


@pytest.mark.parametrize("schema", [None, NESTED, WIDE], ids=["string", "dictionary", "large"])
@pytest.mark.parametrize("options", [
    {}, {"row_group_size": 700}, {"data_page_version": "2.0", "compression": "zstd"}, {"use_dictionary": False},
    {"compression": "none", "data_page_size": 5000}, {"compression": "gzip", "dictionary_pagesize_limit": 2**26},
    {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY", "data_page_version": "2.0"},
], ids=["plain", "groups", "v2", "no-dictionary", "small-pages", "one-dictionary", "delta"])  # fmt: skip
def test_messages(options: dict[str, Any], schema: pa.Schema | None, tmp_path: Path) -> None:
    rows = conversations(2000)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "x.parquet", **options)
    check(tmp_path / "x.parquet", rows)


def test_nine_thousand_conversations_in_one_row_group(tmp_path: Path) -> None:
    rows = conversations(9000)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    check(tmp_path / "x.parquet", rows)
    (run,) = layout(tmp_path / "x.parquet").runs
    assert run.rows == 512


def by_pandas(rows: Rows, path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows)
    frame["kind"] = pd.Categorical(["easy", "hard"] * (len(rows) // 2))
    frame.to_parquet(path)


def by_datasets(rows: Rows, path: Path) -> None:
    from datasets import Dataset

    made = Dataset.from_list([{**row, "kind": ("easy", "hard")[n % 2]} for n, row in enumerate(rows)])
    made.to_parquet(path, batch_size=300)


@pytest.mark.parametrize("write", [by_pandas, by_datasets])
def test_what_other_writers_make(write: Callable[[Rows, Path], None], tmp_path: Path) -> None:
    made = [
        {**chat, **each}
        for chat, each in zip(conversations(1000, ("from", "value"), "conversations"), lists(1000), strict=True)
    ]
    write(made, tmp_path / "x.parquet")
    check(tmp_path / "x.parquet", [{**row, "kind": ("easy", "hard")[n % 2]} for n, row in enumerate(made)])


def test_nulls_lists_and_structs(tmp_path: Path) -> None:
    rows = lists(3000)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=1000)
    check(tmp_path / "x.parquet", rows)


def test_a_long_system_prompt_in_every_row_is_read_in_small_batches(tmp_path: Path) -> None:
    # 2 x 100 kB x 20,000 rows: 4 GB of text in a few kilobytes, and nothing wrong with it
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 40_000, pa.int32()), pa.array(["s" * 100_000]))
    turns = pa.ListArray.from_arrays(pa.array(range(0, 40_001, 2), pa.int32()), texts)
    pq.write_table(pa.table({"turns": turns}), tmp_path / "x.parquet")
    (run,) = layout(tmp_path / "x.parquet", Limits(rows=8192, bytes=64 * 2**20)).runs
    assert 100 < run.rows <= 320
    first = next(parquet_rows(tmp_path / "x.parquet"))
    assert first == {"turns": ["s" * 100_000] * 2}


def test_one_crowded_row_makes_the_batches_small(tmp_path: Path) -> None:
    lengths = [1] * 5000 + [3000] + [1] * 5000  # on average 1.3 texts a row
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * sum(lengths), pa.int32()), pa.array(["s" * 60_000]))
    turns = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), texts)
    pq.write_table(pa.table({"turns": turns}), tmp_path / "x.parquet")
    (run,) = layout(tmp_path / "x.parquet", Limits(rows=8192, bytes=256 * 2**20)).runs
    assert run.rows < 2000
    tracemalloc.start()
    assert sum(1 for _ in parquet_rows(tmp_path / "x.parquet")) == 10_001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 700 * 2**20


def one_row_without_end(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 10_000]))
    turns = pa.ListArray.from_arrays(pa.array([0, 1_000_000, *[1_000_000] * 999_999], pa.int32()), texts)
    pq.write_table(pa.table({"turns": turns}), path)


def nested_in_structs(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["x" * 900_000]))
    turns = pa.ListArray.from_arrays(pa.array([0, 4000], pa.int32()), pa.StructArray.from_arrays([texts], ["content"]))
    pq.write_table(pa.table({"messages": turns}), path, data_page_version="2.0")


def beginnings_that_are_shared(path: Path) -> None:
    pq.write_table(pa.table({"turns": [["z" * 2_000_000] * 50]}), path, use_dictionary=False,
                   column_encoding="DELTA_BYTE_ARRAY")  # fmt: skip


def blobs_of_fixed_size(path: Path) -> None:
    blob = pa.array([b"b" * 3_000_000], pa.binary(3_000_000))
    blobs = pa.ListArray.from_arrays(pa.array([0, 30], pa.int32()), blob.take(pa.array([0] * 30)))
    pq.write_table(pa.table({"blobs": blobs}), path, compression="zstd", write_statistics=False)


@pytest.mark.parametrize("make", [
    one_row_without_end, nested_in_structs, beginnings_that_are_shared, blobs_of_fixed_size
])  # fmt: skip
def test_a_row_that_would_inflate_is_refused_unread(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_layout, "MAX_ROW_BYTES", 80 * 2**20)  # 512 MiB would take long to write
    path = tmp_path / "bomb.parquet"
    make(path)
    assert path.stat().st_size < 5 * 2**20
    before = pa.total_allocated_bytes()
    for reader in (parquet_rows(path), parquet_blocks(path, lambda _: np.zeros(0, np.int64))):
        with pytest.raises(DatasetError, match=r"bomb\.parquet.*(one row would take|zip bomb)"):
            next(iter(reader))
    assert pa.total_allocated_bytes() - before < 50 * 2**20


def test_many_columns_of_large_pages_are_refused(tmp_path: Path) -> None:
    column = pa.array(["x" * 30_000_000])
    pq.write_table(pa.table({f"c{n}": column for n in range(40)}), tmp_path / "x.parquet", compression="zstd",
                   use_dictionary=False, write_statistics=False)  # fmt: skip
    with pytest.raises(DatasetError, match="held at once"):
        next(parquet_rows(tmp_path / "x.parquet"))


def test_flat_blobs_that_a_dictionary_repeats_are_not_written_out(tmp_path: Path) -> None:
    blobs = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([b"b" * 900_000]))
    pq.write_table(pa.table({"image": blobs}), tmp_path / "x.parquet", compression="zstd", write_statistics=False)
    count, first = seen(tmp_path / "x.parquet")
    assert count == 20_000 and first.cells["image"].kinds == {"binary": first.rows}
