"""Files that would not fit into memory are refused or read in small pieces, whatever their headers claim."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data import reader
from posttrain_crew.tools.data.parquet_layout import BATCH_ROWS, layout
from posttrain_crew.tools.data.reader import denied_name, open_dataset


def rows(path: Path) -> list[object]:
    return list(open_dataset(path).rows())


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_usual_parquet_is_read_as_before(compression: str, version: str, tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": [f"q {number}" for number in range(1500)],
            "turns": [[{"role": "user", "content": "same"}] * (number % 4) for number in range(1500)],
            "n": range(1500),
            "none": [None] * 1500,
            "flag": [True, False] * 750,
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", compression=compression, data_page_version=version,
                   write_page_checksum=True, row_group_size=600)  # fmt: skip
    assert rows(tmp_path / "x.parquet") == table.to_pylist()
    (run,) = layout(tmp_path / "x.parquet").runs
    assert run.rows == BATCH_ROWS and run.groups == (0, 1, 2)
    assert open_dataset(tmp_path / "x.parquet").count() == 1500


def test_a_page_that_inflates_is_refused_unread(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.parquet"
    pq.write_table(
        pa.table({"a": ["x" * 150_000_000]}), bomb, compression="zstd", use_dictionary=False, write_statistics=False
    )
    assert bomb.stat().st_size < 20_000
    with pytest.raises(DatasetError, match=r"'a' inflates from .* to 143 MiB"):
        rows(bomb)


def test_a_text_that_a_dictionary_repeats_costs_one_batch(tmp_path: Path) -> None:
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["x" * 900_000]))
    pq.write_table(pa.table({"a": repeated}), tmp_path / "flat.parquet")  # 3.6 GB once written out
    tracemalloc.start()
    count = sum(1 for _ in open_dataset(tmp_path / "flat.parquet").rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000 and peak < 600 * 2**20
    lists = pa.ListArray.from_arrays(pa.array([0, 2000, 4000], pa.int32()), repeated)
    pq.write_table(pa.table({"a": lists}), tmp_path / "lists.parquet")
    with pytest.raises(DatasetError, match="lists repeat one long text"):
        rows(tmp_path / "lists.parquet")


def test_too_many_columns_are_told_with_their_number(tmp_path: Path) -> None:
    pq.write_table(pa.table({f"c{number}": [1] for number in range(1200)}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="has 1200 columns, and 1000"):
        open_dataset(tmp_path / "x.parquet").count()
    for name in ("x.json", "x.jsonl"):
        (tmp_path / name).write_text(json.dumps({f"c{number}": 1 for number in range(1300)}) + "\n")
        with pytest.raises(DatasetError, match="has 1300 columns"):
            open_dataset(tmp_path / name).columns()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "no parquet"])
def test_damaged_parquet_is_a_typed_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [f"text {number}" for number in range(5000)]}), path)
    content = path.read_bytes()
    middle = len(content) // 3
    broken = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "flipped": content[:4] + b"\xff" * middle + content[4 + middle :],
        "no parquet": b"PAR1" + b"x" * 100 + b"PAR1",
    }
    path.write_bytes(broken[damage])
    with pytest.raises(DatasetError):
        rows(path)


def test_json_of_any_shape_is_read_one_row_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [{"question": f"ü {number} " + "x" * 500, "n": [1, {"a": None}]} for number in range(3000)]
    for text in (
        json.dumps(made),
        "\ufeff" + json.dumps(made, indent=1, ensure_ascii=False),
        "\n".join(json.dumps(row) for row in made),
        json.dumps({"version": 1, "data": made}),
    ):
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        assert rows(tmp_path / "x.json") == made
    (tmp_path / "x.json").write_text(json.dumps([*made, 5, "x", None]))
    assert rows(tmp_path / "x.json")[3000:] == [None, None, None]
    for text, said in ((json.dumps(made)[:-40], "cannot be read"), ("[1, 2 oh", "cannot be read"), ("5", "must hold")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DatasetError, match=said):
            rows(tmp_path / "x.json")
    monkeypatch.setattr(reader, "MAX_LINE_BYTES", 100_000)
    (tmp_path / "x.json").write_text('[{"a": "' + "x" * 1_000_000 + '"}]')
    with pytest.raises(DatasetError, match="one object takes more"):
        rows(tmp_path / "x.json")


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    """It can be parsed, but not written, counted in tokens or put on the blackboard: the row is unreadable."""
    good, bad = '{"text": "caf\\u00e9 \\ud83d\\ude00", "n": 1}', '{"text": ["cut \\ud83d"], "n": 2}'
    (tmp_path / "rows.jsonl").write_text(f'{good}\n{bad}\n{{"\\ud83d": 1}}\n{good}\n')
    (tmp_path / "list.json").write_text(f"[{good}, {bad}, {good}]")
    row = {"text": "café 😀", "n": 1}
    assert list(open_dataset(tmp_path / "rows.jsonl").rows()) == [row, None, None, row]
    assert list(open_dataset(tmp_path / "list.json").rows()) == [row, None, row]


def test_a_deny_list_sees_configurations_and_last_names() -> None:
    assert denied_name(["Idavidrein/gpqa:gpqa_main"], ["idavidrein/GPQA"]) == "idavidrein/GPQA"
    assert denied_name(["someone/SuperGPQA-copy"], ["*supergpqa*"]) and denied_name(["a/gpqa"], ["gpqa"])
    assert denied_name(["a/physics", ""], ["*gpqa*"]) is None
