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

import psutil
import pytest
import yaml

from posttrain_crew.crews.cli_train import _follow
from posttrain_crew.crews.stop_signals import stop_signals
from posttrain_crew.tools.training.checkpoints import last_checkpoint
from posttrain_crew.tools.training.metrics import append_metrics, drop_after, read_metrics
from tests.training.jobs import PATIENCE_S, make_model, write_job


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "two-layers", steps=4)


def crew_train(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "posttrain_crew.crews.cli", "train", str(folder / "config.yaml"), *options]
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
def test_a_command_that_is_ended_ends_its_job_and_says_how_to_go_on(model: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", model, "sft", {"max_steps": 100_000})
    step = 0
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        process = crew_train(folder)
        job = until_it_goes_on(folder, step)
        tree = [job, *job.children(recursive=True)]
        if number == signal.SIGINT:
            job.suspend()  # a job that does not hear: the second Ctrl-C kills it
        process.send_signal(number)
        if number == signal.SIGINT:
            lines = iter(process.stdout or ())
            assert any("Ctrl-C kills it at once" in line for line in lines)
            process.send_signal(number)
        code, text = told(process)
        assert code == 128 + number, text
        assert not any(lives(member) for member in tree), "the job outlived its command"
        newest = last_checkpoint(folder / "checkpoints")
        assert newest is not None
        assert f"The same command goes on from {newest.name}." in text
        if number == signal.SIGINT:
            assert newest.name == f"checkpoint-{step}", "the one of the attempt before"
        else:
            step = json.loads((folder / "outcome.json").read_text())["steps"]
            assert newest.name == f"checkpoint-{step}"


@pytest.mark.slow
def test_a_job_does_not_go_on_for_a_reader_who_has_left(model: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", model, "sft", {"max_steps": 100_000})
    process = crew_train(folder)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step "):
        assert process.poll() is None
    job = psutil.Process(json.loads((folder / "job.json").read_text())["pid"])
    process.stdout.close()
    assert process.wait(timeout=PATIENCE_S) == 128 + signal.SIGPIPE
    assert not lives(job)
    assert last_checkpoint(folder / "checkpoints") is not None


@pytest.mark.slow
def test_two_processes_train_like_one_and_end_together(model: Path, tmp_path: Path) -> None:
    steps = {"max_steps": 3, "lr_scheduler_type": "constant"}
    alone = write_job(tmp_path / "alone", model, "sft", steps)
    code, text = told(crew_train(alone))
    assert code == 0, text
    folder = write_job(
        tmp_path / "two", model, "sft", {**steps, "max_steps": 100_000, "per_device_train_batch_size": 4}
    )
    process = crew_train(folder, "--devices", "2")
    tree = [job := until_it_goes_on(folder, 0), *job.children(recursive=True)]
    assert len(tree) >= 3
    job.kill()  # torchrun alone: its workers would go on, and write beside those of the next start
    code, text = told(process)
    assert code == 1 and "it left no outcome" in text, text
    assert not any(lives(member) for member in tree)
    courses = [[row["loss"] for row in read_metrics(job / "metrics.jsonl")[:3]] for job in (alone, folder)]
    assert courses[1] == pytest.approx(courses[0], rel=1e-5)
    code, text = told(crew_train(folder, "--devices", "2", "--sharding", "single"))
    assert code == 2 and "`single` is for one process, not 2" in text, text


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until_it_goes_on(folder: Path, step: int) -> psutil.Process:
    """Wait until the job has done some steps beyond this one."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(row["step"] > step + 2 for row in read_metrics(folder / "metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(json.loads((folder / "job.json").read_text())["pid"])


def test_signals_are_noted_and_a_command_that_must_not_hear_one_does_not() -> None:
    before, usual = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)  # as nohup does
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert (stop.number, stop.name, stop.exit_code) == (None, "", 0)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)  # not urgent yet: it must not cut short what is done in good order
            assert (stop.name, stop.exit_code) == ("SIGTERM", 143)
            stop.urgent = True
            signal.raise_signal(signal.SIGTERM)  # `timeout` sends it twice
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) == usual
    finally:
        signal.signal(signal.SIGHUP, before)


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
