"""Datasets made to harm: each ends soon, in bounded memory, with a typed error or a warning."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.profile.profiler import Options, profile_path
from tests.data.profile.planted import as_jsonl, as_parquet, mcq

LIMIT_S = 20.0
"""Of processor time: others may be at work on the machine."""
LIMIT_MIB = 700
"""A profile of nothing takes about 200 MiB: pyarrow, numpy, scipy, datasketch and the languages."""

CHILD = """
import sys, json, time
from pathlib import Path
from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.profile.profiler import profile_path
try:
    found = profile_path(Path(sys.argv[1]))
    said = {"rows": found.rows, "unreadable": found.unreadable, "warnings": found.warnings, "chars": max(
        [c.chars.maximum for c in found.columns if c.chars], default=0), "columns": len(found.columns)}
except DatasetError as error:
    said = {"error": str(error)}
peak = [l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1]
print(json.dumps({**said, "peak_mib": int(peak) / 1024, "cpu_s": time.process_time()}))
"""


def outcome(path: Path) -> dict[str, Any]:
    """The profile in a process of its own, which cannot take 6 GiB whatever happens."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["cpu_s"] < LIMIT_S, said
    assert said["peak_mib"] < LIMIT_MIB, said
    return said


# --- JSON ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_field_of_5_gb_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as stream:  # a hole: the file takes no room on the disk
        stream.write(b'{"text": "first"}\n{"text": "')
        stream.seek(5 * 2**30)
        stream.write(b'"}\n{"text": "last"}\n')
    said = outcome(path)
    assert (said["rows"], said["unreadable"]) == (3, 1)
    assert any("too large" in text for text in said["warnings"])


@pytest.mark.slow
def test_ten_million_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as stream:
        for row in range(20):  # half a million keys each, all different, in lines below the bound
            stream.write("{" + ",".join(f'"{row:x}{n:x}":1' for n in range(500_000)) + "}\n")
    said = outcome(path)
    assert said["rows"] == 20 and said["columns"] <= 512
    assert any("beyond the bounds" in text for text in said["warnings"])


def test_nested_blobs(tmp_path: Path) -> None:
    deep: object = "x"
    for _ in range(60):
        deep = {"a": [deep]}
    wide = {"w": [[] for _ in range(500_000)]}
    keys = [{f"k{row}-{n}": {"v": n} for n in range(300)} for row in range(50)]
    path = as_jsonl(tmp_path / "rows.jsonl", [{"d": deep}, wide, *({"n": each} for each in keys)])
    with path.open("a") as stream:
        stream.write('{"d": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    found = profile_path(path)
    assert (found.rows, found.unreadable) == (53, 1)
    assert len(found.columns) <= 512
    assert any("beyond the bounds" in text for text in found.warnings)


def test_mixed_types_nan_nul_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"v": 1, "t": "plain"}\n{"v": "two", "t": "nul \\u0000 \\ud800"}\n{"v": [3], "t": "bad \xff\xfe"}\n'
        b'{"v": {"x": 4}, "t": null}\n{"v": NaN}\n{"v": -Infinity}\n{"v": 1e999}\n'
        b'{"v": ' + b"9" * 400 + b"}\n[1, 2]\nnot json\n\x00\x00\n\n"
    )
    found = profile_path(path)
    assert (found.rows, found.unreadable) == (11, 3)
    column = next(each for each in found.columns if each.path == "v")
    assert column.types == {"number": 4, "integer": 1, "text": 1, "list": 1, "object": 1}
    assert column.not_finite == 4  # 10^400 is no float, either
    text = " ".join(found.warnings)
    for part in (
        "2 texts are no valid UTF-8",
        "values of several types in v",
        "NaN or infinite",
        "3 of 11 rows cannot",
    ):
        assert part in text
    found.model_dump_json()


@pytest.mark.parametrize(
    "text", ["", "null", "3", '[{"a": 1}, {"a": ', '[{"a": 1} {"b": 2', '[{"a": 1}, nonsense]', "[" * 200_000]
)
def test_json_that_is_cut_or_something_else(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=r"rows\.json"):
        profile_path(path)


def test_json_files_of_all_shapes(tmp_path: Path) -> None:
    rows = mcq(3000)  # more than one piece of the file
    shapes = {
        "list": json.dumps(rows),
        "indented": json.dumps(rows, indent=4),
        "held": json.dumps({"data": rows, "version": 1}),
        "after": json.dumps({"version": 1, "data": rows}),
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "unicode": json.dumps([{**row, "note": "né 真空 🎲" * 50} for row in rows], ensure_ascii=False),
    }
    for name, text in shapes.items():
        path = tmp_path / f"{name}.json"
        path.write_text("\ufeff" + text if name == "list" else text, encoding="utf-8")
        found = profile_path(path, Options(sample=100))
        assert (found.rows, found.unreadable, found.format) == (3000, 0, "mcq"), name


def test_a_file_that_is_no_jsonl_is_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("a line of prose\n" * 100_000)
    with pytest.raises(DatasetError, match="none of the first 100 lines"):
        profile_path(path)


def test_one_long_element_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "' + "x" * (30 * 2**20) + '"}]')
    assert "longer than 8 MiB" in outcome(path)["error"]


# --- parquet ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_page_that_inflates(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    table = pa.table({"text": pa.array(["x" * (150 * 2**20)])})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    assert path.stat().st_size < 2**20
    assert "zip bomb" in outcome(path)["error"]


@pytest.mark.slow
def test_a_dictionary_that_repeats_a_long_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["y" * 2**20]))
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", write_statistics=False)
    assert path.stat().st_size < 2**20
    said = outcome(path)  # 5 GiB of text, if it were written out
    assert "error" in said or said["rows"] == 5000


@pytest.mark.slow
def test_a_list_that_repeats_a_long_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    texts = pa.array([["z" * 2**20] * 2] * 200)
    pq.write_table(
        pa.table({"turns": texts}), path, compression="zstd", write_statistics=False, dictionary_pagesize_limit=2**26
    )
    assert path.stat().st_size < 2**20
    said = outcome(path)
    assert (said["rows"], said["chars"]) == (200, 2**20)


def test_many_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({f"c{n}": [1, 2] for n in range(900)}), path)
    found = profile_path(path)
    assert len(found.columns) == 512
    assert any("beyond the bounds" in text for text in found.warnings)
    pq.write_table(pa.table({f"c{n}": [1] for n in range(5000)}), path)
    with pytest.raises(DatasetError, match="5000 columns"):
        profile_path(path)


def test_a_billion_rows_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": pa.nulls(20_000_000, pa.int8())}), path, row_group_size=20_000_000)
    with pytest.raises(DatasetError, match="hold nothing to train on"):
        profile_path(path)


@pytest.mark.parametrize("cut", [0, 4, 100, -20])
def test_parquet_that_is_cut(cut: int, tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "rows.parquet", mcq(50))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DatasetError, match=r"rows\.parquet"):
        profile_path(path)


def test_parquet_bytes_turned_over(tmp_path: Path) -> None:
    whole = as_parquet(tmp_path / "rows.parquet", mcq(50)).read_bytes()
    path = tmp_path / "bad.parquet"
    for place in range(8, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert profile_path(path).rows >= 0
        except DatasetError as error:
            assert "bad.parquet" in str(error)


def test_texts_of_parquet_that_are_no_utf8(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"bad \xff\xfe", None, b"nul \x00"], pa.binary())
    texts = pa.Array.from_buffers(pa.string(), 4, bad.buffers(), null_count=1)
    nested = pa.ListArray.from_arrays(pa.array([0, 2, 2, 4, 4], pa.int32()), texts)
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"t": texts, "turns": nested, "n": [1.0, float("nan"), None, float("inf")]}), path)
    found = profile_path(path)
    assert found.rows == 4
    assert any("2 texts are no valid UTF-8" in text for text in found.warnings)
    assert {each.path: each.null for each in found.columns} == {"t": 1, "turns": 0, "turns[]": 1, "n": 1}
    found.model_dump_json()


def test_kinds_of_columns_that_are_no_text(tmp_path: Path) -> None:
    from datetime import datetime, timezone
    from decimal import Decimal

    when = datetime(2026, 1, 2, tzinfo=timezone.utc)
    rows = [{"image": b"\x89PNG" * 9, "when": when, "price": Decimal("1.5"), "ok": True, "text": "a", "none": None}] * 4
    found = profile_path(as_parquet(tmp_path / "rows.parquet", rows))
    assert {each.path: list(each.types) for each in found.columns} == {
        "image": ["binary"], "when": ["other"], "price": ["number"], "ok": ["boolean"], "text": ["text"], "none": []
    }  # fmt: skip
    assert any("binary values" in text for text in found.warnings)
    found.model_dump_json()


def test_a_dataset_of_no_rows(tmp_path: Path) -> None:
    found = profile_path(as_jsonl(tmp_path / "rows.jsonl", []))
    assert found.rows == 0 and "it holds no rows" in found.warnings
    empty = pa.table({"text": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "rows.parquet")
    assert profile_path(tmp_path / "rows.parquet").rows == 0


def test_every_row_is_nearly_the_same(tmp_path: Path) -> None:
    text = "what is the force on a body of mass {} kg that is accelerated by nine metres in a second squared here"
    rows = [{"text": text.format(n)} for n in range(6000)]
    begun = time.process_time()
    near = profile_path(as_jsonl(tmp_path / "rows.jsonl", rows)).near_duplicates
    assert time.process_time() - begun < LIMIT_S
    assert near is not None and near.rate > 0.5
