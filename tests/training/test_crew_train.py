"""`crew train` as somebody uses it who is interrupted: the same command again, and what it shows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain_crew.crews.cli_tools import _follow
from posttrain_crew.tools.training.checkpoints import last_checkpoint
from posttrain_crew.tools.training.metrics import append_metrics, drop_after, read_metrics
from tests.training.jobs import PATIENCE_S, make_model, write_job


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "two-layers", steps=4)


def crew_train(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "posttrain_crew.crews.cli", "train", str(folder / "config.yaml")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def told(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        text, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, text


def change(folder: Path, **fields: Any) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"] |= fields
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_kill(model: Path, tmp_path: Path) -> None:
    every_2 = {"save_strategy": "steps", "save_steps": 2}
    folder = write_job(tmp_path / "job", model, "sft", {"max_steps": 40, **every_2})
    process = crew_train(folder)
    deadline = time.monotonic() + PATIENCE_S
    while last_checkpoint(folder / "checkpoints") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(json.loads((folder / "job.json").read_text())["pid"], signal.SIGKILL)
    code, text = told(process)
    assert code == 1 and "The same command goes on" in text, text
    newest = last_checkpoint(folder / "checkpoints")
    assert newest is not None
    begun = int(newest.name.split("-")[1])
    assert begun < 40, "the kill came too late to show anything"
    # another config is another training
    change(folder, learning_rate=1e-4)
    code, text = told(crew_train(folder))
    assert code == 2 and "not known to be of this config" in text, text
    change(folder, learning_rate=1e-3)
    code, text = told(crew_train(folder))
    assert code == 0, text
    shown = [int(line.split()[1]) for line in text.splitlines() if line.startswith("step ")]
    assert shown == list(range(begun + 1, 41)), "the metrics of an earlier attempt are no news"
    assert f"going on from {newest.name}" in text
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row] == list(range(1, 41))
    code, text = told(crew_train(folder))
    assert code == 2 and "finished job" in text, "a finished job is not trained again"


@pytest.mark.slow
def test_a_job_that_failed_is_corrected_where_it_lies(model: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", model, "sft", {"max_steps": 2, "max_length": 3})
    code, text = told(crew_train(folder))
    assert code == 2 and "prompts alone fill `trainer.max_length` 3" in text, text
    change(folder, max_length=36)
    code, text = told(crew_train(folder))
    assert code == 0, text
    assert "note: of 48 rows `max_length` 36 cut the ends off" in text, "what the trainer dropped is told"


def test_metrics_are_shown_once_and_only_those_of_this_attempt(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append_metrics(path, {"step": step, "time": 10.0 + step})
    rows = _follow(path, since=100.0)
    assert next(rows) == []
    drop_after(path, 1)  # as a job does that goes on from step 1
    for step in (2, 3):
        append_metrics(path, {"step": step, "time": 100.0 + step})
    assert [row["step"] for row in next(rows)] == [2, 3]
    with path.open("a") as stream:
        stream.write('{"step": 4, "ti')  # a line is being written
    assert next(rows) == []
    with path.open("a") as stream:
        stream.write('me": 105.0}\n')
    assert [row["step"] for row in next(rows)] == [4]
