"""csv and tsv files on this machine: every value as it is written, and a file that is not as it should be is told."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from benchmarks.general_questions import QUESTIONS, general_items
from typer.testing import CliRunner

from posttrain_crew.crews import cli_data_convert, cli_data_profile
from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.converting import decontaminate
from posttrain_crew.tools.data.profile.profiler import Options, profile_path
from posttrain_crew.tools.data.reader import MAX_FIELD_CHARS, open_dataset
from posttrain_crew.tools.data.tables import TABLE_SUFFIXES

TABLE = 'question,answer,n\n"Two lines,\nand a ""quote""",A,007\ntrue,NA,1e5\n\nlast,,-0.50\n'
ROWS = [
    {"question": 'Two lines,\nand a "quote"', "answer": "A", "n": "007"},
    {"question": "true", "answer": "NA", "n": "1e5"},
    {"question": "last", "answer": None, "n": "-0.50"},
]


def written(path: Path, text: str | bytes) -> Path:
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", TABLE_SUFFIXES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_value_is_the_text_that_was_written(suffix: str, end: str, tmp_path: Path) -> None:
    text = TABLE.replace("\n", end)
    if ".tsv" in suffix:
        text = text.replace(",", "\t").replace("lines\t", "lines,")
    dataset = open_dataset(written(tmp_path / f"rows{suffix}", "\ufeff" + text))
    wanted = [{name: value and value.replace("\n", end) for name, value in row.items()} for row in ROWS]
    assert list(dataset.rows()) == wanted
    assert dataset.count() == 3 and dataset.columns() == ["question", "answer", "n"]
    found = profile_path(dataset.files[0], Options(sample=10))
    assert found.rows == 3 and {column.path: column.types for column in found.columns} == {
        "question": {"text": 3}, "answer": {"text": 2}, "n": {"text": 3}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2\n3,4,5\n", "begins in line 3 has not the 2 values"),
        ('a,b\n"x\ny",2\n3\n', "begins in line 4 has not the 2 values"),  # line, not record
        ("a,b\n1,2\n3,", None),  # an empty last value
        ("a,b\n1,2\n3", "begins in line 3 has not"),  # cut
        ('a,b\n1,2\n3,"cut in a quo', "unexpected end of data, in the record that begins in line 3"),
        ('a,b\n1,2\n"x"y,4\n', "expected after '\"', in the record that begins in line 3"),
        ("a,b\nWer,Müller\n".encode("latin-1"), "byte 0xfc in line 2"),
        ("a,b\n" + "1,2\n" * 40_000 + "x,\udcff\n", "byte 0xff in line 40002"),
        ("a,b\n1,2\n".encode("utf-16"), "no UTF-8 text .byte 0xff in line 1"),
        ("a,b\n1,2\n".encode("utf-16-le"), "no UTF-8 text"),
        ("", "is empty"),
        ("a;b\n1;2\n", "separated by ';'"),
        ("a,a\n1,2\n", "names a more than once"),
        (",".join(f"c{n}" for n in range(1200)) + "\n", "has 1200 columns"),
    ],
)
def test_a_table_that_is_not_as_it_should_be_is_told_with_its_line(
    content: str | bytes, said: str | None, tmp_path: Path
) -> None:
    raw = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    path = written(tmp_path / "rows.csv", raw)
    if said is None:
        assert list(open_dataset(path).rows())[-1] == {"a": "3", "b": None}
        return
    for read in (lambda: list(open_dataset(path).rows()), lambda: profile_path(path)):
        with pytest.raises(DatasetError, match=said) as caught:
            read()
        assert "rows.csv" in str(caught.value)


def test_what_would_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as stream:  # a hole: the file takes no room on the disk
        stream.write(b"text\nfirst\n")
        stream.seek(5 * 2**30)
        stream.write(b"\nlast\n")
    wide = written(tmp_path / "wide.csv", ",".join(str(n) for n in range(10**7)) + "\n")
    quoted = written(tmp_path / "quoted.csv", 'text\n"' + "a line of it\n" * 2**20)
    bomb = written(tmp_path / "bomb.csv.gz", b"text\n" + (b"x" * 999 + b"\n") * 100_000)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(TABLE.encode() * 1000)[:-100])
    tracemalloc.start()
    for path, said in (
        (huge, r"more than 8 MiB \(line 3\)"),
        (wide, r"more than 8 MiB \(line 1\)"),
        (quoted, "begins in line 2 is longer than 8 MiB: most likely a quote"),
        (bomb, "unpacks to more than 64 MiB.*gunzip"),
        (cut, "cannot be unpacked: EOFError"),
    ):
        with pytest.raises(DatasetError, match=said):
            sum(1 for _ in open_dataset(path).rows())
    assert tracemalloc.get_traced_memory()[1] < 128 * 2**20
    tracemalloc.stop()


def test_memory_is_flat_and_long_texts_are_cut_and_not_passed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["question", "answer"])
        for number in range(20_000):
            writer.writerow([f"question {number} " + "x" * 500, "yes"])
        writer.writerow(["y" * (MAX_FIELD_CHARS + 1), "no"])
    tracemalloc.start()
    lengths = [len(str(row["question"])) for row in open_dataset(path).rows() if row]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(lengths) == 20_001 and max(lengths) == MAX_FIELD_CHARS and peak < 8 * 2**20
    index = ContaminationIndex(general_items())
    verdict = index.verdict(path)
    assert (verdict.passed, verdict.rows_checked, verdict.rows_unchecked) == (False, 20_000, 1)


def test_a_leaked_row_of_a_table_is_dropped_and_the_rest_written_as_it_was(tmp_path: Path) -> None:
    question, answer = QUESTIONS[0][0], QUESTIONS[0][1]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["question", "answer"], [question, answer], ["Which bird lays the largest eggs?", "007"]]
        )
    done = decontaminate(open_dataset(path), ContaminationIndex(general_items()), tmp_path / "clean.jsonl")
    assert (done.rows_in, done.rows_out, done.matched) == (2, 1, 1)
    assert json.loads((tmp_path / "clean.jsonl").read_text()) == {
        "question": "Which bird lays the largest eggs?",
        "answer": "007",
    }


def test_a_table_beside_other_data_is_none_of_it(tmp_path: Path) -> None:
    written(tmp_path / "scores.csv", "run,score\n1,0.5\n")
    assert list(open_dataset(tmp_path).rows()) == [{"run": "1", "score": "0.5"}]
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "train.parquet")
    assert list(open_dataset(tmp_path).rows()) == [{"text": "a"}, {"text": "b"}]


def test_the_commands_read_a_table(tmp_path: Path) -> None:
    app = typer.Typer()
    cli_data_profile.register(app)
    cli_data_convert.register(app)
    lines = ["question,A,B,C,D,answer"]
    lines += [f"What is {n} plus {n + 1} in this sum?,{2 * n + 1},{2 * n},{n},{n + 5},A" for n in range(300, 330)]
    path = written(tmp_path / "rows.csv", "\n".join(lines) + "\n")
    shown = CliRunner().invoke(app, ["profile", str(path), "--json"])
    assert json.loads(shown.output.strip().splitlines()[-1])["format"] == "mcq"
    out = tmp_path / "out"
    shown = CliRunner().invoke(
        app, ["convert", str(path), "--target", "gpqa-mini", "--to", "sft", "--out", str(out), "--json"]
    )
    assert json.loads(shown.output.strip().splitlines()[-1])["rows_out"] == 30, shown.output
    assert json.loads((out / "card.json").read_text())["source"]["files"] == ["rows.csv"]
    written(path, "\n".join(lines) + "\nShort?,1\n")
    with pytest.raises(DatasetError, match="line 32 has not the 6 values"):
        CliRunner().invoke(app, ["profile", str(path)], catch_exceptions=False)
    with pytest.raises(DatasetError, match="line 32"):
        CliRunner().invoke(
            app, ["decontaminate", str(path), "--target", "gpqa-mini", "--out", str(tmp_path / "again.jsonl")],
            catch_exceptions=False,
        )  # fmt: skip
    assert not (tmp_path / "again.jsonl").exists()
