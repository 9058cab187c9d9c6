"""The evaluation job for real: the same answers as lm-eval run by hand, and typed failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from posttrain_crew.errors import JobError
from posttrain_crew.target import Target
from posttrain_crew.tools.compute.jobs import wait
from posttrain_crew.tools.evaluation.collect import collect, read_samples
from posttrain_crew.tools.evaluation.config import config_for
from posttrain_crew.tools.evaluation.desk import evaluate_path, launch_dev
from posttrain_crew.tools.evaluation.run import main
from posttrain_crew.tools.workspace import Workspace

LIMIT = 60


def test_reading_the_desks_needs_no_torch() -> None:
    code = (
        "import sys; import posttrain_crew.tools.evaluation.desk, posttrain_crew.tools.board_desk, "
        "posttrain_crew.crews.model_card, posttrain_crew.crews.manifest, posttrain_crew.tools.evaluation.requirements; "
        "print([n for n in ('torch', 'lm_eval', 'transformers', 'crewai', 'scipy', 'datasets') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "error_class", "said"),
    [
        ({"task": None}, "config", "`task`"),
        ({"surprise": 1}, "config", "surprise"),
        ({"model": "/nowhere"}, "model", "config.json"),
    ],
)
def test_a_bad_config_is_a_typed_failure(
    tmp_path: Path,
    target: Target,
    make_model: Callable[..., Path],
    change: dict[str, object],
    error_class: str,
    said: str,
) -> None:
    config = {**config_for(target, make_model(tmp_path / "m"), "dev"), **change}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert main([str(tmp_path / "config.yaml")]) == 1
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert (outcome["ok"], outcome["error_class"], outcome["checkpoint"]) == (False, error_class, None)
    assert said in outcome["message"]


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "CONFIG.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_the_job_gives_the_answers_of_lm_eval_run_by_hand(
    tmp_path: Path, workspace: Workspace, target: Target, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    limited = target.model_copy(update={"evaluation": target.evaluation.model_copy(update={"limit": LIMIT})})
    here = Workspace(workspace.board, workspace.run, limited, workspace.budget, workspace.compute, workspace.events)
    monkeypatch.setattr(Workspace, "base_model", property(lambda self: base_model))
    job = launch_dev(here, "base")
    outcome = wait(here, job)
    assert outcome.body.ok, outcome.body.message
    evaluation = collect(here, job)
    assert evaluation.body.n == LIMIT
    command = [
        str(Path(sys.executable).with_name("lm_eval")), "--model", "hf", "--model_args",
        f"pretrained={base_model},dtype=float32", "--device", "cpu", "--batch_size", "100",
        "--tasks", "gpqa_mini_dev", "--include_path", str(config_for(limited, base_model, "dev")["include_path"]),
        "--apply_chat_template", "--limit", str(LIMIT), "--log_samples", "--output_path", str(tmp_path / "hand"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = (tmp_path / "hand").rglob("samples_*.jsonl")
    by_hand = [json.loads(line) for line in file.read_text().splitlines()]
    ours = {sample["doc_id"]: sample for sample in read_samples(here.run.absolute(job.body.directory))}
    assert len(by_hand) == 2 * LIMIT
    for theirs in by_hand:
        mine = ours[theirs["doc_id"]]
        kind = "strict" if theirs["filter"] == "strict-match" else "lenient"
        assert mine["response"] == theirs["resps"][0][0]
        assert mine[f"{kind}_answer"] == theirs["filtered_resps"][0]
        assert mine[f"{kind}_ok"] == bool(theirs["exact_match"])
        assert (mine["doc_hash"], mine["prompt_hash"]) == (theirs["doc_hash"], theirs["prompt_hash"])
        assert mine["target"] == theirs["target"]


@pytest.mark.slow
def test_a_checkpoints_generation_config_has_no_say(tmp_path: Path, target: Target, base_model: Path) -> None:
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for file in base_model.iterdir():
        (spoilt / file.name).symlink_to(file)
    (spoilt / "generation_config.json").unlink()
    told = json.loads((base_model / "generation_config.json").read_text())
    told |= {"do_sample": True, "temperature": 5.0, "repetition_penalty": 1.8, "max_new_tokens": 2, "num_beams": 3}
    (spoilt / "generation_config.json").write_text(json.dumps(told))
    for model, out in ((base_model, "a"), (spoilt, "b")):
        evaluate_path(model, target, "dev", tmp_path / out, LIMIT)
    a, b = read_samples(tmp_path / "a"), read_samples(tmp_path / "b")
    assert [s["response"] for s in a] == [s["response"] for s in b]


@pytest.mark.slow
def test_few_shot_examples_reach_the_prompt_and_failures_are_told(
    tmp_path: Path, target: Target, base_model: Path, make_model: Callable[..., Path]
) -> None:
    scores = evaluate_path(base_model, target, "dev", tmp_path / "few", LIMIT, few_shot=3)
    assert (scores["few_shot"], scores["n"]) == (3, LIMIT)
    zero = evaluate_path(base_model, target, "dev", tmp_path / "zero", LIMIT)
    hashes = [[s["prompt_hash"] for s in read_samples(tmp_path / name)] for name in ("few", "zero")]
    assert hashes[0] != hashes[1]
    assert zero["ci_low"] < zero["score"] < zero["ci_high"]
    wrong = target.model_copy(
        update={"evaluation": target.evaluation.model_copy(update={"strict_filter": "no-such-filter"})}
    )
    with pytest.raises(JobError, match=r"\(config\).*no-such-filter.*flexible-extract"):
        evaluate_path(base_model, wrong, "dev", tmp_path / "wrong", 5)
    with pytest.raises(JobError, match=r"\(model\)"):
        evaluate_path(make_model(tmp_path / "broken"), target, "dev", tmp_path / "broken-out", 5)
