"""DPO and adapters for real, in this process: what is learnt, what is saved, and what a bad job says."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.training.checkpoints import MARKER, last_checkpoint
from posttrain_crew.tools.training.metrics import read_metrics, series
from tests.training.jobs import made_rows, make_model, write_job


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "two-layers", steps=10)


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a job goes to its own directory and stays there
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a job obeys it; two threads on a busy machine wait for each other


def run(folder: Path, method: str) -> dict[str, Any]:
    """The job in this process; its outcome."""
    import importlib

    from posttrain_crew.tools.training import session

    script = importlib.import_module(f"posttrain_crew.tools.training.{method}")
    code = session.main(method, script.make_trainer, [str(folder / "config.yaml")])
    outcome: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
    assert (code == 0) == outcome["ok"], outcome
    return outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [{"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1]}, {"loss_type": "ipo"}]
)
def test_dpo_prefers_the_chosen_answer(model: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    folder = write_job(tmp_path / "a", model, "dpo", {"max_steps": 12, "max_length": 64, "beta": 0.1, **fields})
    outcome = run(folder, "dpo")
    assert outcome["ok"], outcome
    margins = [value for _, value in series(read_metrics(folder / "metrics.jsonl"), "rewards/margins")]
    assert margins[0] == pytest.approx(0.0, abs=1e-6), "the reference is not the model that training began with"
    assert margins[-1] > 0.2
    assert (folder / "model" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_an_adapter_ends_as_a_plain_model(model: Path, tmp_path: Path, method: str) -> None:
    from safetensors.torch import load_file

    trainer = {
        "max_steps": 4,
        "use_peft": True,
        "lora_r": 4,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"],
        "save_strategy": "steps",
        "save_steps": 2,
        **({"num_generations": 4, "max_completion_length": 6} if method == "grpo" else {"max_length": 64}),
    }
    folder = write_job(tmp_path / "a", model, method, trainer)
    outcome = run(folder, method)
    assert outcome["ok"], outcome
    before, after = load_file(model / "model.safetensors"), load_file(folder / "model" / "model.safetensors")
    assert after.keys() == before.keys(), "not a plain model"
    assert not list((folder / "model").glob("adapter*"))
    changed = {name for name, weight in after.items() if not weight.equal(before[name])}
    assert all("q_proj" in name or "v_proj" in name for name in changed)
    if method != "grpo":  # a model without skill may get no reward at all, and so no gradient
        assert len(changed) == 4
    saved = folder / "checkpoints" / "checkpoint-4"
    assert (saved / "adapter_model.safetensors").exists()
    assert not (saved / "model.safetensors").exists(), "a checkpoint of an adapter holds the whole model"


ADAPTER = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.1}
SAMPLED = {"num_generations": 4, "max_completion_length": 6}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("sft", {**ADAPTER, "neftune_noise_alpha": 5.0, "train_sampling_strategy": "group_by_length"}),
        ("dpo", ADAPTER),
        ("dpo", {"sync_ref_model": True, "ref_model_sync_steps": 2}),
        ("dpo", {"precompute_ref_log_probs": True}),
        ("grpo", {**SAMPLED, **ADAPTER, "beta": 0.1, "num_iterations": 3}),
        (
            "grpo",
            {**SAMPLED, "beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 2, "steps_per_generation": 4},
        ),
    ],
)
def test_what_a_checkpoint_must_hold_besides_the_weights(
    model: Path, tmp_path: Path, method: str, fields: dict[str, Any]
) -> None:
    """Dropout, moving references, reused completions: the second half is the same whether or not it was resumed."""
    trainer = {"max_steps": 10, "save_strategy": "steps", "save_steps": 5, **fields}
    folder = write_job(tmp_path / "a", model, method, trainer, resume=True, rows=made_rows(method, 24))
    assert run(folder, method)["ok"]
    whole = read_metrics(folder / "metrics.jsonl")
    weights = (folder / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "checkpoints" / "checkpoint-10")
    shutil.rmtree(folder / "model")
    assert run(folder, method)["metrics"]["resumed_from"] == 5.0
    resumed = read_metrics(folder / "metrics.jsonl")
    assert [without_times(record) for record in resumed] == [without_times(record) for record in whole]
    assert (folder / "model" / "model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_a_job_that_was_ended_before_it_saved_its_model_trains_no_step_more(model: Path, tmp_path: Path) -> None:
    trainer = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "max_length": 64}
    folder = write_job(tmp_path / "a", model, "sft", trainer, resume=True)
    assert run(folder, "sft")["ok"]
    weights = (folder / "model" / "model.safetensors").read_bytes()
    shutil.rmtree(folder / "model")
    outcome = run(folder, "sft")
    assert (outcome["ok"], outcome["steps"], outcome["metrics"]["resumed_from"]) == (True, 8, 8.0)
    assert (folder / "model" / "model.safetensors").read_bytes() == weights
    assert [record["step"] for record in read_metrics(folder / "metrics.jsonl")] == list(range(1, 9))


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if "time" not in name}


@pytest.mark.slow
def test_a_full_disk_ends_a_job_and_leaves_what_was_there(model: Path, tmp_path: Path) -> None:
    trainer = {"max_steps": 8, "max_length": 64, "save_strategy": "steps", "save_steps": 4}
    folder = write_job(tmp_path / "a", model, "sft", trainer, resume=True)
    weights = (model / "model.safetensors").stat().st_size
    assert run(folder, "sft")["ok"]
    first = folder / "checkpoints" / "checkpoint-4"
    shutil.rmtree(folder / "checkpoints" / "checkpoint-8")
    shutil.rmtree(folder / "model")
    kept = {path.name: path.read_bytes() for path in first.iterdir()}
    with room_for(weights + weights // 2):  # enough for the weights, not for the optimizer's two moments of them
        outcome = run(folder, "sft")
    assert (outcome["ok"], outcome["error_class"], outcome["checkpoint"]) == (False, "disk_full", None)
    assert outcome["steps"] == 8
    assert "checkpoint-8" in outcome["message"]
    assert "resume" in outcome["message"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["checkpoint-4"]
    assert {path.name: path.read_bytes() for path in first.iterdir()} == kept
    assert not (folder / "model").exists()
    assert run(folder, "sft")["metrics"]["resumed_from"] == 4.0
    assert (folder / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_no_room_for_the_finished_model_is_told_and_nothing_half_written_stays(model: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path / "a", model, "sft", {"max_steps": 2, "max_length": 64}, save_seconds=None)
    with room_for((model / "model.safetensors").stat().st_size // 2):
        outcome = run(folder, "sft")
    assert outcome["error_class"] == "disk_full", outcome
    assert "finished model" in outcome["message"]
    assert sorted(path.name for path in folder.iterdir() if "model" in path.name) == []


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may become larger than `size` bytes: what a full disk or a quota does to a save, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_reward_that_raises_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posttrain_crew.tools.training import rewards

    def broken(completions: list[Any], **_: Any) -> list[float]:
        raise KeyError("gold")

    monkeypatch.setitem(rewards.BUILTIN_REWARDS, "broken", broken)
    trainer = {"max_steps": 2, "num_generations": 4, "max_completion_length": 4}
    folder = write_job(tmp_path / "a", model, "grpo", trainer, reward=[{"name": "broken"}])
    outcome = run(folder, "grpo")
    assert outcome["error_class"] == "config"
    assert "`broken` raised KeyError" in outcome["message"]


@pytest.mark.slow
def test_what_the_installed_trainer_refuses_or_drops_is_told(model: Path, tmp_path: Path) -> None:
    refused = write_job(tmp_path / "a", model, "sft", {"max_steps": 1, "packing": True, "packing_strategy": "nope"})
    outcome = run(refused, "sft")
    assert outcome["error_class"] == "config"
    assert "nope" in outcome["message"]
    dropped = write_job(
        tmp_path / "b", model, "dpo", {"max_steps": 1, "num_train_epochs": 3, "padding_free": True}, smoke=True
    )
    notes = "\n".join(run(dropped, "dpo")["notes"])
    assert "`num_train_epochs` has no effect" in notes
    assert "padding_free" in notes


@pytest.mark.slow
def test_a_folder_with_checkpoints_is_not_trained_in_anew(model: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path / "a", model, "sft", {"max_steps": 2, "save_strategy": "steps", "save_steps": 1})
    assert run(folder, "sft")["ok"]
    assert (last_checkpoint(folder / "checkpoints") or Path()).name == "checkpoint-2"
    outcome = run(folder, "sft")
    assert outcome["error_class"] == "config"
    assert "resume: true" in outcome["message"]
    assert (folder / "checkpoints" / "checkpoint-2" / MARKER).exists()


@pytest.mark.slow
def test_qlora_says_what_it_needs(model: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here, so nothing is missing")
    folder = write_job(tmp_path / "a", model, "sft", {"use_peft": True, "load_in_4bit": True, "max_steps": 1})
    outcome = run(folder, "sft")
    assert outcome["error_class"] == "config"
    assert "CUDA device" in outcome["message"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"chosen": "text"}, "must all be text or all be lists"),
        ({"rejected": []}, "one is empty"),
        ({"rejected": None}, "must all be"),
    ],
)
def test_pairs_that_are_none_are_refused_before_a_model_is_loaded(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    rows = made_rows("dpo", 8)
    folder = write_job(tmp_path / "a", tmp_path / "no-model", "dpo", {}, rows=[*rows, {**rows[0], **change}])
    outcome = run(folder, "dpo")
    assert outcome["error_class"] == "data"
    assert why in outcome["message"]
    assert "line 9" in outcome["message"]


def test_a_missing_column_and_pairs_without_a_difference_are_refused(tmp_path: Path) -> None:
    rows = made_rows("dpo", 8)
    lacking = [{name: value for name, value in row.items() if name != "rejected"} for row in rows]
    outcome = run(write_job(tmp_path / "a", tmp_path / "no-model", "dpo", {}, rows=lacking), "dpo")
    assert outcome["error_class"] == "data"
    assert "chosen + prompt + rejected" in outcome["message"]
    equal = [{**row, "rejected": row["chosen"]} for row in rows]
    outcome = run(write_job(tmp_path / "b", tmp_path / "no-model", "dpo", {}, rows=equal), "dpo")
    assert outcome["error_class"] == "data"
    assert "teaches nothing" in outcome["message"]


def test_a_reward_is_told_what_it_needs(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"]} for row in made_rows("grpo", 4)]
    folder = write_job(tmp_path / "a", tmp_path / "no-model", "grpo", {}, rows=rows, reward=[{"name": "number"}])
    outcome = run(folder, "grpo")
    assert (outcome["error_class"], "answer + prompt" in outcome["message"]) == ("data", True)


def test_a_script_of_another_method_is_refused(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "a", tmp_path / "no-model", "sft", {})
    with pytest.raises(ConfigError, match="`sft` config"):
        raise ConfigError(run(folder, "dpo")["message"])


@pytest.mark.slow
def test_rows_beyond_the_length_do_not_stop_the_smoke_run(model: Path, tmp_path: Path) -> None:
    """The longest rows, which it takes, are those that the trainer leaves out: the others are trained on."""
    rows = made_rows("sft")
    long = [{**row, "prompt": [{"role": "user", "content": "8 * 5? " * 40}]} for row in rows[:20]]
    fields = {"max_steps": 2, "max_length": 64}
    smoke = run(write_job(tmp_path / "smoke", model, "sft", fields, rows=[*long, *rows], smoke=True), "sft")
    assert smoke["ok"], smoke
    whole = run(write_job(tmp_path / "whole", model, "sft", fields, rows=[*long, *rows]), "sft")
    assert any("left out 20, whose prompts alone fill it" in note for note in whole["notes"]), whole["notes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "trainer", "fields", "told"),
    [
        ("grpo", {"num_generations": 4}, {"reward": [{"name": "mcq_letter", "weight": -1}]}, "do not separate"),
        ("grpo", {"num_generations": 4}, {"reward": "format"}, "only reward"),
        ("sft", {"fp16": True}, {}, "needs an accelerator"),
    ],
)
def test_a_job_started_by_hand_is_refused_like_one_with_a_preflight(
    model: Path, tmp_path: Path, method: str, trainer: dict[str, Any], fields: dict[str, Any], told: str
) -> None:
    outcome = run(write_job(tmp_path / "a", model, method, {"max_steps": 1, **trainer}, **fields), method)
    assert (outcome["ok"], outcome["error_class"]) == (False, "config")
    assert told in outcome["message"]


@pytest.mark.slow
def test_held_out_rows_without_their_columns_are_named(model: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path / "a", model, "sft", {"max_steps": 1, "eval_strategy": "steps", "eval_steps": 1})
    held_out = write_job(tmp_path / "b", model, "dpo", {}) / "train.jsonl"
    config = (folder / "config.yaml").read_text() + f"eval_data: {held_out}\n"
    (folder / "config.yaml").write_text(config)
    outcome = run(folder, "sft")
    assert (outcome["error_class"], str(held_out) in outcome["message"]) == ("data", True), outcome
