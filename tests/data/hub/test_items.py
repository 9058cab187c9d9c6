"""Benchmark items from the Hub: GPQA's own layout and split rule, and files with {split} of any other set."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from posttrain_crew.errors import AccessDeniedError, DatasetError, NotFoundError, TargetError
from posttrain_crew.settings import Settings
from posttrain_crew.target import Target
from posttrain_crew.tools.data.hub.items import hub_items
from posttrain_crew.tools.evaluation.gpqa import rows_of_split
from posttrain_crew.tools.services.services import Services
from posttrain_crew.tools.sources import benchmark_items
from tests.loopback.world import Loopback

from .tiny_hub import TinyHub


def gpqa_row(number: int) -> dict[str, str]:
    wrong = {f"Incorrect Answer {k}": f"no {k},\nof {number}" for k in (1, 2, 3)}
    return {
        "Record ID": f"rec{number}",
        "Question": f' Which "{number}"? ',
        "Correct Answer": "yes",
        **wrong,
        "Domain": "",
    }


def as_csv(rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def test_gpqa(tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    extended = [gpqa_row(number) for number in range(30)]
    files = {"gpqa_main.csv": as_csv(extended[:20]), "gpqa_extended.csv": as_csv(extended)}
    gpqa = target.model_copy(update={"items": "hf:Idavidrein/gpqa"})
    with TinyHub("Idavidrein/gpqa", files).served() as tiny:
        monkeypatch.setenv("HF_ENDPOINT", tiny.url)
        dev, test = benchmark_items(gpqa, "dev"), benchmark_items(gpqa, "test")
        asked = len(tiny.asked)
        assert benchmark_items(gpqa, "dev") == dev and len(tiny.asked) == asked, "brought once"
    assert benchmark_items(gpqa, "test") == test, "and needed no network again"
    assert [item.id for item in dev] == [f"rec{number}" for number in range(20, 30)] and len(test) == 20
    assert all(item.choices["ABCD".index(item.answer)] == "yes" and len(item.choices) == 4 for item in [*dev, *test])
    shown = rows_of_split("test", extended[:20], extended)
    assert [row["answer"] for row in shown] == [item.answer for item in test]
    assert all(item.question in row["prompt"] for row, item in zip(shown, test, strict=True))


def test_a_gated_benchmark_names_the_page(world: Loopback, tmp_path: Path) -> None:
    services = Services.parse("loopback", Settings(loopback_url=world.url), tmp_path / "cache")
    with pytest.raises(AccessDeniedError, match=f"accept its terms at {world.url}/datasets/walled/physics-olympiad"):
        hub_items("walled/physics-olympiad:data/{split}.parquet", "dev", services)
    with pytest.raises(NotFoundError, match="is not on the Hub"):
        hub_items("gone-lab/lost-set:data/{split}.parquet", "dev", services)


def test_files_by_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = b"question,option_a,option_b,option_c,option_d,answer\n2 + 2?,3,4,5,6,B\n3 + 3?,6,7,8,9,A\n"
    lines = b'{"id": "x1", "problem": "1 + 1?", "choices": ["2", "3"], "label": 0}\n'
    files = {
        "bench/dev.csv": table,
        "bench/test.jsonl": lines,
        "bench/dev.bin": b"x",
        "notes/dev.jsonl": b'{"a": 1}\n',
        "cut/dev.csv": table + b"4 + 4?,8\n",
        "odd/dev.csv": b"question,first,second,answer\n2 + 2?,3,4,B\n",
    }
    with TinyHub("some/bench", files).served() as tiny:
        services = Services.parse("loopback", Settings(loopback_url=tiny.url), tmp_path / "cache")
        dev = hub_items("some/bench:bench/{split}.csv", "dev", services)
        (test,) = hub_items("some/bench:bench/{split}.jsonl", "test", services)
        for place, error, said in (
            ("some/bench", TargetError, "needs the file"),
            ("some/bench:bench/dev.csv", TargetError, "needs {split}"),
            ("some/bench:bench/{split}.bin", TargetError, "no file that crew reads"),
            ("some/bench:notes/{split}.jsonl", DatasetError, "no benchmark item"),
            ("some/bench:odd/{split}.csv", DatasetError, "its columns are question, first, second, answer"),
            ("some/bench:cut/{split}.csv", DatasetError, "1 of 3 rows of the benchmark file .* cannot be read"),
            ("some/bench:none/{split}.jsonl", NotFoundError, "404"),
        ):
            with pytest.raises(error, match=said):
                hub_items(place, "dev", services)
    assert [(item.question, item.choices, item.answer) for item in dev] == [
        ("2 + 2?", ("3", "4", "5", "6"), "B"), ("3 + 3?", ("6", "7", "8", "9"), "A")
    ]  # fmt: skip
    assert (test.id, test.question, test.choices, test.answer) == ("x1", "1 + 1?", ("2", "3"), "A")
