"""What is missing for a target is said by name; gpqa's splits and the embedded source."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from posttrain_crew.target import Target, load_target
from posttrain_crew.tools.compute.base import Capacity
from posttrain_crew.tools.embedded.source import GpqaMini
from posttrain_crew.tools.evaluation.config import task_folder
from posttrain_crew.tools.evaluation.gpqa import rows_of_split
from posttrain_crew.tools.evaluation.requirements import missing
from posttrain_crew.tools.sources import BuiltinSource

CPU = Capacity(2, "cpu", 8.0, 1, "a laptop")
GPU = Capacity(1, "H100", 80.0, 8, "a server")


@pytest.fixture
def gpqa(target: Target) -> Target:
    assert target.origin is not None
    return load_target(target.origin.with_name("gpqa.yaml"))


def test_the_embedded_target_lacks_nothing(target: Target) -> None:
    assert missing(target, CPU) == []


def test_gpqa_on_a_laptop_says_what_is_missing_and_what_would_do(
    gpqa: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    found = missing(gpqa, CPU)
    assert "40 GiB" in found[0]
    assert "gpqa-mini" in found[0]
    assert "HF_HUB_OFFLINE" in found[1]
    assert "Idavidrein/gpqa" in found[2]
    assert "HF_TOKEN" in found[2]
    assert len(found) == 3


def test_each_thing_that_is_there_is_not_named(gpqa: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    local = gpqa
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
        assert missing(local, GPU) == []
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        assert len(missing(local, GPU)) == 1
        (tmp_path / "token").write_text("x")
        assert missing(local, GPU) == []
    found = missing(local, GPU)
    assert len(found) == 1
    assert "cannot be reached" in found[0]


def test_gpqas_dev_items_are_not_among_its_test_items(gpqa: Target) -> None:
    extended = [
        {
            "Record ID": f"rec{i}",
            "Question": f"Which {i}? ",
            "Correct Answer": "yes",
            **{f"Incorrect Answer {k}": f"no {k}" for k in (1, 2, 3)},
        }
        for i in range(20)
    ]
    dev, test = (rows_of_split(split, extended[:15], extended) for split in ("dev", "test"))  # type: ignore[arg-type]
    assert [row["id"] for row in dev] == [f"rec{i}" for i in range(15, 20)]
    assert len(test) == 15
    assert not {row["id"] for row in dev} & {row["id"] for row in test}
    assert all(f"({row['answer']}) yes" in row["prompt"] for row in dev + test)
    assert len({row["answer"] for row in dev + test}) > 1
    assert test == rows_of_split("test", extended[:15], [])
    folder = task_folder(gpqa)
    assert folder is not None
    assert (folder / f"{gpqa.evaluation.dev_task}.yaml").is_file()


def test_the_embedded_source_keeps_its_promises(tmp_path: Path) -> None:
    source = GpqaMini()
    assert isinstance(source, BuiltinSource)
    dev, test = source.items("dev"), source.items("test")
    assert (len(dev), len(test)) == (600, 600)
    assert not {item.id for item in dev} & {item.id for item in test}
    folder = source.candidates(tmp_path, 0)
    assert folder == source.candidates(tmp_path, 0) != source.candidates(tmp_path, 1)
    assert len(list(folder.rglob("README.md"))) == 6
    assert not list(folder.parent.glob(".making-*"))
    row = json.loads((folder / "quizbank/stem-short/data/train.jsonl").read_text().splitlines()[0])
    assert {"question", "choices", "answer"} <= row.keys()
    assert (source.task_folder() / "gpqa_mini_dev.yaml").is_file()
