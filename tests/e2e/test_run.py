"""The product from its command line: real base model, real training, real benchmark, real kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import (
    DatasetProfile,
    Evaluation,
    Experiment,
    JobOutcome,
    JobStarted,
    TrainingSet,
    WorkResult,
)
from posttrain_crew.state import RunState
from posttrain_crew.tools.embedded.catalogue import write_catalogue
from tests.e2e.conftest import crew

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("shared_cache")]


def test_the_embedded_run_improves_the_base(tmp_path: Path) -> None:
    """`make run`: verdict improved, and every law kept on the way."""
    done = crew("run", "posttrain", "--target", "gpqa-mini", "--hours", "0.16", "--runs-dir", str(tmp_path), "--json")
    assert done.code == 0, done.stderr[-3000:]
    result = done.last
    assert result["verdict"] == "improved"
    assert 0.05 <= result["base"]["score"] <= 0.20
    assert result["final"]["score"] >= 0.75
    assert (result["final"]["n"], result["final"]["split"]) == (600, "test")
    assert result["comparison"]["p_value"] < 0.001
    assert result["comparison_lenient"]["delta"] >= 0.05
    assert result["comparison_lenient"]["p_value"] < 0.01
    assert result["test_evaluations"] == 1
    print("embedded run:", json.dumps(result))

    run = tmp_path / result["run"]
    for name in ("manifest.json", "events.jsonl", "report.html", "report.json", "final_model/README.md"):
        assert (run / name).is_file(), name
    board = Blackboard(run / "blackboard.db")
    assert board.verify() > 30
    state = RunState.of(board)
    assert any(view.entry.body.ablates for view in state.experiments.values())
    sets = {entry.id: entry.body for entry in board.of(TrainingSet)}
    for view in state.experiments.values():
        verdict = sets[view.entry.body.training_set].contamination
        assert verdict.passed and verdict.sha256 == sets[view.entry.body.training_set].sha256
    looked = board.since(0, kind="test_look")
    stop = board.by_key("decision:stop")
    assert stop is not None and [entry.seq > stop.seq for entry in looked] == [True]
    assert_same_items_by_hand(run, board, state.best)


def assert_same_items_by_hand(run: Path, board: Blackboard, best: str) -> None:
    """lm-eval run by hand on final_model gives the reported test answers, item by item."""
    evaluation = next(e.body for e in board.of(Evaluation) if e.body.split == "test" and e.body.subject == best)
    reported = [json.loads(line) for line in (run / evaluation.directory / "samples.jsonl").open()]
    out = run / "by_hand"
    tasks = Path(__file__).parents[2] / "tools/embedded/tasks/gpqa_mini"
    arguments = ["--model", "hf", "--model_args", f"pretrained={run / 'final_model'},dtype=float32,max_length=512"]
    arguments += ["--tasks", "gpqa_mini_test", "--include_path", str(tasks), "--apply_chat_template", "--device", "cpu"]
    arguments += ["--batch_size", "100", "--log_samples", "--output_path", str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "lm_eval", *arguments], check=True, env=environment, capture_output=True)
    by_hand = {}
    for path in out.rglob("samples_*.jsonl"):
        for line in path.open():
            row = json.loads(line)
            if row["filter"] == "strict-match":
                by_hand[row["doc_hash"]] = bool(row["exact_match"])
    assert by_hand == {row["doc_hash"]: bool(row["strict_ok"]) for row in reported}


def test_killed_at_ten_moments_and_resumed(tmp_path: Path, small_target: Path) -> None:
    """kill -9 ten times at random moments: nothing lost, nothing run twice, the same kind of end."""
    runs = tmp_path / "runs"
    arguments = ["run", "posttrain", "--target", str(small_target), "--runs-dir", str(runs), "--out", str(runs / "r")]
    dice = random.Random(7)
    seen: list[str] = []
    finished: dict[str, str] = {}
    kills = 0
    while kills < 10:
        process = subprocess.Popen(
            [sys.executable, "-m", "posttrain_crew.crews.cli", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + dice.uniform(5.0, 16.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr.read().decode()[-2000:] if process.stderr else ""
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        if not (runs / "r" / "blackboard.db").exists():
            continue  # killed before the run was made: the same command starts it
        arguments = ["resume", "r", "--runs-dir", str(runs)]
        board = Blackboard(runs / "r" / "blackboard.db")
        board.verify()
        ids = [entry.hash for entry in board.since(0)]
        assert ids[: len(seen)] == seen, "an entry was lost or changed"
        seen = ids
        for outcome in board.of(JobOutcome):
            if outcome.body.ok:
                finished.setdefault(outcome.body.label, outcome.id)
        board.close()
    assert kills >= 6, "the run ended before it could be killed often enough"
    done = crew("resume", "r", "--runs-dir", str(runs), "--json")
    assert done.code == 0, done.stderr[-3000:]
    assert done.last["verdict"] == "improved"
    assert done.last["test_evaluations"] == 1
    board = Blackboard(runs / "r" / "blackboard.db")
    assert [entry.hash for entry in board.since(0)][: len(seen)] == seen
    labels = Counter(job.body.label for job in board.of(JobStarted))
    assert set(labels.values()) == {1}
    for label in finished:  # a job that ended well has no further attempt
        assert not any(job.body.label.startswith(f"{label}.") for job in board.of(JobStarted)), label
    experiments = [
        e.body.model_dump(include={"method", "training_set", "parent", "config"}) for e in board.of(Experiment)
    ]
    assert len({json.dumps(e, sort_keys=True) for e in experiments}) == len(experiments)


def test_noise_labels_end_without_promotion(tmp_path: Path, small_target: Path) -> None:
    """Labels replaced by noise: no training set, exit 3, and the report says why.

    On the way a specialist of an installed third-party package is sent work, with no line changed here.
    """
    site = tmp_path / "site"
    package = shutil.copytree(Path(__file__).parents[1] / "plugin_package", tmp_path / "plugin_package")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, str(package)], check=True)
    catalogue = tmp_path / "catalogue"
    write_catalogue(catalogue, seed=0, noise_all_labels=True)
    raw = yaml.safe_load(small_target.read_text()) | {"candidates": [str(catalogue)]}
    small_target.write_text(yaml.safe_dump(raw))
    done = crew(
        *("run", "posttrain", "--target", str(small_target), "--runs-dir", str(tmp_path / "runs"), "--json"),
        environment={"PYTHONPATH": str(site)},
    )
    assert done.code == 3, done.stderr[-3000:]
    result = done.last
    assert result["verdict"] == "no significant gain"
    assert result["best_experiment"] is None
    assert result["test_evaluations"] == 0
    run = tmp_path / "runs" / result["run"]
    board = Blackboard(run / "blackboard.db")
    assert {entry.body.verdict for entry in board.of(DatasetProfile)} == {"rejected"}
    assert "label" in result["reason"]
    assert "label" in (run / "report.html").read_text()
    advice = [entry.body for entry in board.of(WorkResult) if entry.body.specialist == "licences"]
    assert [result.ok for result in advice] == [True]
    assert len(advice[0].result["findings"]) == 6
