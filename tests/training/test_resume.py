"""A job that was ended by a signal and started again gives the numbers and the weights of one that ran through.

The tolerance is 0: on one thread of a CPU every logged number but the times, and every byte of the model, is equal. The
kills fall into the second epoch or later, and for GRPO into the midst of a round of completions.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.tools.training.checkpoints import MARKER, last_checkpoint
from posttrain_crew.tools.training.metrics import read_metrics
from tests.training.jobs import PATIENCE_S, ended, killed, made_rows, make_model, start, start_to_die, write_job

EVERY_3 = {"save_strategy": "steps", "save_steps": 3}
CASES: dict[str, tuple[dict[str, Any], tuple[int, int], int | None]] = {
    # trainer fields, steps between which the kill falls, rows
    "sft": ({"max_steps": 14, "lr_scheduler_type": "cosine"}, (8, 12), 48),  # an epoch is 6 steps
    "dpo": ({"max_steps": 14, "max_length": 64, "loss_type": ["sigmoid", "sft"]}, (8, 12), 48),
    "grpo": (
        {
            "max_steps": 12,
            "gradient_accumulation_steps": 2,
            "steps_per_generation": 4,  # completions of one round serve two steps, so step 9 leaves half of them
            "num_generations": 4,
            "max_completion_length": 8,
            "beta": 0.02,
        },
        (9, 11),
        16,  # an epoch is 4 steps
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "two-layers")


def numbers(folder: Path) -> list[dict[str, Any]]:
    """What was logged, without what depends on the clock."""
    records = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in record.items() if "time" not in name} for record in records]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_a_killed_job_ends_as_if_it_had_run_through(model: Path, tmp_path: Path, method: str) -> None:
    trainer, (first, last), count = CASES[method]
    step = random.Random(time.time_ns()).randint(first, last)
    rows = made_rows(method, count or 48)
    whole = write_job(tmp_path / "whole", model, method, {**trainer, **EVERY_3}, seed=3, rows=rows)
    broken = write_job(
        tmp_path / "broken",
        model,
        method,
        {**trainer, **EVERY_3},
        seed=3,
        rows=rows,
        resume=True,
        trackio_project="run-1",
        trackio_dir=str(tmp_path / "trackio"),
    )
    through = start(whole, method)
    killed(broken, method, step, tmp_path / "hooks")
    newest = last_checkpoint(broken / "checkpoints")
    assert newest is not None
    runs = tracked_runs(tmp_path / "trackio" / "run-1.db")
    # as a kill in the midst of a save leaves it
    torn = broken / "checkpoints" / f"checkpoint-{trainer['max_steps']}"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-10])
    expected = ended(whole, through)
    outcome = ended(broken, start(broken, method))
    assert outcome["ok"], outcome
    assert outcome["metrics"]["resumed_from"] == int(newest.name.split("-")[1]) > 0
    assert any(torn.name in note and MARKER in note for note in outcome["notes"])
    assert numbers(broken) == numbers(whole), f"killed after step {step}, resumed from {newest.name}"
    assert [record["step"] for record in numbers(broken)] == list(range(1, trainer["max_steps"] + 1))
    weights = Path("model") / "model.safetensors"
    assert (broken / weights).read_bytes() == (whole / weights).read_bytes()
    assert (broken / weights).read_bytes() != (model / "model.safetensors").read_bytes()
    for name in ("train_loss_first", "train_loss_last", "tokens"):
        assert outcome["metrics"][name] == expected["metrics"][name]
    # trackio sends every half second, so a quick job may be killed before it has sent anything
    assert set(runs) <= set(tracked_runs(tmp_path / "trackio" / "run-1.db"))
    assert len(tracked_runs(tmp_path / "trackio" / "run-1.db")) == 1, "the resumed job began a trackio run of its own"
    assert tracked_steps(tmp_path / "trackio" / "run-1.db") == list(range(1, trainer["max_steps"] + 1))


@pytest.mark.slow
def test_a_job_that_is_asked_to_end_keeps_its_last_step(model: Path, tmp_path: Path) -> None:
    """In the middle of an epoch of 6 steps, and at its end, where an evaluation is due before the checkpoint."""
    fields = {"max_steps": 14, "eval_strategy": "epoch", "save_strategy": "epoch"}
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in made_rows("sft", 60)[48:]))
    more: dict[str, Any] = {"seed": 3, "resume": True, "eval_data": str(held_out)}
    whole = write_job(tmp_path / "whole", model, "sft", fields, **more)
    broken = write_job(tmp_path / "broken", model, "sft", fields, **more)
    assert ended(whole, start(whole, "sft"))["ok"]
    for after in (8, 11):
        outcome = ended(broken, start_to_die(broken, "sft", after, tmp_path / "hooks", signal.SIGTERM))
        assert outcome["error_class"] == "cancelled", outcome
        newest = last_checkpoint(broken / "checkpoints")
        assert newest is not None
        assert newest.name == f"checkpoint-{outcome['steps']}", "the last step is in no checkpoint"
        assert f"{newest.name} is kept" in outcome["message"]
    outcome = ended(broken, start(broken, "sft"))
    assert outcome["ok"], outcome
    assert timeless(broken) == timeless(whole)
    weights = Path("model") / "model.safetensors"
    assert (broken / weights).read_bytes() == (whole / weights).read_bytes()


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if "per_second" not in name} for row in numbers(folder)]


def tracked_runs(database: Path) -> list[str]:
    if not database.is_file():
        return []
    with sqlite3.connect(database) as connection:
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'metrics'").fetchall():
            return []
        return sorted({run for (run,) in connection.execute("SELECT run_id FROM metrics")})


def tracked_steps(database: Path) -> list[int]:
    """The steps that have a loss in trackio, in order."""
    query = (
        "SELECT json_extract(metrics, '$.\"train/global_step\"') FROM metrics "
        "WHERE json_extract(metrics, '$.\"train/loss\"') IS NOT NULL ORDER BY id"
    )
    with sqlite3.connect(database) as connection:
        return [int(step) for (step,) in connection.execute(query)]


@pytest.mark.slow
def test_checkpoints_by_the_clock_serve_a_resume_and_are_gone_at_the_end(model: Path, tmp_path: Path) -> None:
    fields = {"max_steps": 4000, "learning_rate": 1e-4}
    folder = write_job(tmp_path / "a", model, "sft", fields, resume=True, save_seconds=0.5)
    process = start(folder, "sft")
    deadline = time.monotonic() + PATIENCE_S
    while last_checkpoint(folder / "checkpoints") is None:
        assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    newest = last_checkpoint(folder / "checkpoints")
    assert newest is not None
    config = folder / "config.yaml"
    begun = int(newest.name.split("-")[1])
    config.write_text(config.read_text().replace("max_steps: 4000", f"max_steps: {begun + 5}"))
    outcome = ended(folder, start(folder, "sft"))
    assert outcome["ok"], outcome
    assert (outcome["steps"], outcome["metrics"]["resumed_from"]) == (begun + 5, begun)
    assert not (folder / "checkpoints").exists()
