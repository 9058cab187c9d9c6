"""Which checkpoint counts, when the next is due, and what trackio keeps of a run that goes on."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from posttrain_crew.tools.training.checkpoints import (
    MARKER,
    SaveClock,
    fault_of,
    last_checkpoint,
    look,
    prune,
    remove,
    seal,
)
from posttrain_crew.tools.training.metrics import append_metrics
from posttrain_crew.tools.training.outcome import Outcome, classify, disk_is_full
from posttrain_crew.tools.training.tracking import forget_tracked, refill_tracked


def checkpoint(folder: Path, step: int, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "global_step1").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "global_step1/zero.pt"):
        (path / name).write_bytes(b"x" * (100 + step))
    if whole:
        seal(path)
    return path


def test_the_newest_whole_one_is_found_and_what_was_passed_over_is_told(tmp_path: Path) -> None:
    checkpoint(tmp_path, 9)
    good = checkpoint(tmp_path, 10)
    cut, unmarked, missing, garbled = (checkpoint(tmp_path, step, step != 30) for step in (20, 30, 40, 50))
    (cut / "optimizer.pt").write_bytes(b"x" * 60)
    (missing / "global_step1" / "zero.pt").unlink()
    (garbled / MARKER).write_text("{")
    (tmp_path / "checkpoint-best").mkdir()
    found = look(tmp_path)
    assert found.newest == good
    assert [note.split(" ")[0] for note in found.passed_over] == [f"checkpoint-{step}" for step in (50, 40, 30, 20)]
    assert "optimizer.pt has 60 of its 120 bytes" in found.passed_over[-1]
    assert fault_of(unmarked) == f"it has no {MARKER}, so its writing was cut off"
    assert "zero.pt is missing" in str(fault_of(missing))
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_old_ones_go_but_not_the_best_nor_what_is_not_whole(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
    torn = checkpoint(tmp_path, 5, whole=False)
    prune(tmp_path, 2, tmp_path / "checkpoint-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-1",
        "checkpoint-3",
        "checkpoint-4",
        torn.name,
    ]
    prune(tmp_path, 0)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4", "the last one was pruned"
    remove(torn)
    assert not torn.exists()


def test_saving_takes_two_percent_of_the_time_at_most() -> None:
    clock = SaveClock(30.0)
    now, training, saving = 0.0, 0.0, 0.0
    clock.start(now)
    while now < 20_000:
        now, training = now + 5.0, training + 5.0  # a step
        if clock.due(now):
            clock.saved(now, now + 8.0)  # a large model
            now, saving = now + 8.0, saving + 8.0
    assert clock.count == saving / 8 > 40
    assert clock.cost_s == saving
    assert saving / (saving + training) <= 0.0205  # the first comes after 30 s, before its cost is known


def test_saving_that_is_quick_keeps_to_the_clock_and_may_be_switched_off() -> None:
    clock = SaveClock(30.0)
    clock.start(100.0)
    assert not clock.due(129.0)
    assert clock.due(130.0)
    clock.saved(130.0, 130.1)
    assert not clock.due(160.0)
    assert clock.due(160.2)
    never = SaveClock(None)
    never.start(0.0)
    never.saved(5.0, 6.0)  # as the trainer's own `save_strategy` does
    assert not never.due(1e9)
    assert never.count == 1


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), True),
        (RuntimeError("size mismatch"), False),
    ],
)
def test_what_a_full_disk_looks_like(error: Exception, full: bool) -> None:
    assert disk_is_full(error) is full
    assert (classify(error)[0] == "disk_full") is full


def test_a_write_that_failed_on_a_disk_with_room_is_no_full_disk(tmp_path: Path) -> None:
    assert not disk_is_full(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5 vs 3"), tmp_path)


def test_notes_are_told_bounded(tmp_path: Path) -> None:
    Outcome(True, notes=["n" * 2000] * 50).write(tmp_path, 0.0)
    assert (tmp_path / "outcome.json").stat().st_size < 12_000


@pytest.mark.slow
def test_a_trackio_run_goes_on_with_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for module in ("trackio.utils", "trackio.sqlite_storage"):
        monkeypatch.setattr(f"{module}.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    def session(*steps: int) -> None:
        trackio.init(project="p", name="exp-1", resume="allow", embed=False, auto_log_cpu=False)
        if not steps:
            assert refill_tracked("p", "exp-1", tmp_path / "metrics.jsonl") == 1
        for step in steps:
            trackio.log({"train/loss": 1.0 / step, "train/global_step": step})
        trackio.finish()

    session(1, 2, 4, 5)  # of step 3 the killed attempt had told the file, but not yet trackio
    for step in (1, 2, 3):
        append_metrics(tmp_path / "metrics.jsonl", {"step": step, "epoch": 0.5, "time": 1.0, "loss": 1.0 / step})
    forget_tracked("p", "exp-1", 3)
    session()
    session(4, 5)
    with sqlite3.connect(SQLiteStorage.get_project_db_path("p")) as database:
        rows = database.execute(
            "SELECT run_id, json_extract(metrics, '$.\"train/global_step\"'), "
            "json_extract(metrics, '$.\"train/loss\"') FROM metrics ORDER BY id"
        ).fetchall()
    assert [int(step) for _, step, _ in rows] == [1, 2, 3, 4, 5]
    assert [loss for *_, loss in rows] == [1.0 / step for step in (1, 2, 3, 4, 5)]
    assert len({run for run, *_ in rows}) == 1
    forget_tracked("nowhere", "exp-1", 0)
