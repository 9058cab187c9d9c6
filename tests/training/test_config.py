"""Configs of DPO and of adapters, settings without effect, what they cost, and rewards put together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import TrainingSet
from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.training.config import check_trainer, load, without_effect
from posttrain_crew.tools.training.desk import TrainingDesk
from posttrain_crew.tools.training.estimate import ModelShape, estimate_seconds, memory_gib, trained_parameters
from posttrain_crew.tools.training.rewards import Calibration, Reward, check_rewards, columns_of, number, scored
from posttrain_crew.tools.training.trainer_fields import trainer_fields
from posttrain_crew.tools.workspace import Workspace

MakeSet = Callable[..., Entry[TrainingSet]]


def test_a_dpo_config_is_read_with_its_fields_in_their_types(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    trainer = {"beta": "2e-1", "loss_type": ["sigmoid", "sft"], "use_peft": True, "lora_r": 8}
    path.write_text(yaml.safe_dump({"method": "dpo", "model": "m", "data": "d.jsonl", "trainer": trainer}))
    assert load(path).trainer["beta"] == 0.2
    assert trainer_fields("dpo")["loss_type"].default == ["sigmoid"]


@pytest.mark.parametrize(
    ("method", "wrong", "told"),
    [
        ("dpo", {"dpo_beta": 0.1}, "`beta`"),
        ("dpo", {"lora_rank": 4}, "`lora_r`"),
        ("dpo", {"max_prompt_length": 4}, "`max_length`"),
        ("dpo", {"loss_type": "sigmoids"}, "`sigmoid`"),
        ("dpo", {"loss_type": ["ipo", "sft"], "loss_weights": [1.0]}, "1 weights for 2"),
        ("dpo", {"beta": 0.0}, "above 0"),
        ("dpo", {"loss_type": "robust", "label_smoothing": 0.5}, "label_smoothing"),
        ("dpo", {"sync_ref_model": True, "precompute_ref_log_probs": True}, "stays"),
        ("dpo", {"sync_ref_model": True, "use_peft": True}, "without its adapter"),
        ("grpo", {"loss_type": "dr_grop"}, "`dr_grpo`"),
        ("grpo", {"sync_ref_model": True}, "`beta` above 0"),
        ("grpo", {"use_vllm": True, "use_cpu": True}, "accelerator"),
        ("sft", {"lora_r": 8}, "`use_peft: true`"),
        ("sft", {"use_peft": True, "lora_r": 0}, "at least 1"),
        ("sft", {"use_peft": True, "lora_dropout": 1.0}, r"\[0, 1\)"),
        ("sft", {"load_in_4bit": True}, "use_peft"),
        ("sft", {"use_peft": True, "load_in_4bit": True, "load_in_8bit": True}, "exclude"),
        ("sft", {"use_peft": True, "load_in_4bit": True, "use_cpu": True}, "CUDA"),
        ("sft", {"save_only_model": True}, "cannot be resumed"),
        ("sft", {"push_to_hub": True}, "crew push"),
        ("dpo", {"push_to_hub": True}, "crew push"),
        ("grpo", {"push_to_hub": True}, "crew push"),
        ("sft", {"loss_type": "nll", "beta": 0.1}, "no field `beta`"),
        ("sft", {"loss_type": "chunked_nl"}, "`chunked_nll`"),
        ("dpo", {"train_sampling_strategy": "sequental"}, "`sequential`"),  # transformers would shuffle
        ("sft", {"activation_checkpointing": False, "gradient_checkpointing": True}, "one setting"),
    ],
)
def test_what_contradicts_itself_is_refused(method: Any, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_trainer(method, wrong)


@pytest.mark.parametrize(
    ("method", "fields", "told"),
    [
        ("sft", {"max_steps": 5, "num_train_epochs": 3}, ["num_train_epochs"]),
        ("sft", {"save_steps": 5, "packing_strategy": "bfd"}, ["packing_strategy", "save_steps"]),
        ("sft", {"warmup_steps": 5, "lr_scheduler_type": "constant"}, ["warmup_steps"]),
        ("grpo", {"vllm_mode": "colocate", "entropy_target": 0.3}, ["entropy_target", "vllm_mode"]),
        ("grpo", {"use_vllm": True, "vllm_mode": "colocate"}, []),
        ("dpo", {"padding_free": True, "discopop_tau": 0.1}, ["discopop_tau", "padding_free"]),
        ("dpo", {"loss_type": "discopop", "discopop_tau": 0.1, "beta": 0.2, "max_length": 64}, []),
        ("sft", {"train_sampling_strategy": "sequential"}, []),
        ("grpo", {"train_sampling_strategy": "sequential"}, ["train_sampling_strategy"]),
    ],
)
def test_settings_without_effect_are_named(method: Any, fields: dict[str, Any], told: list[str]) -> None:
    assert sorted(note.split("`")[1] for note in without_effect(method, fields)) == told


def test_rows_to_evaluate_on_that_nobody_looks_at_are_named() -> None:
    assert "`eval_strategy` is `no`" in without_effect("sft", {}, Path("held-out.jsonl"))[0]
    assert without_effect("sft", {"eval_strategy": "steps"}, Path("held-out.jsonl")) == []


def test_the_new_name_of_a_setting_reaches_the_planner() -> None:
    """transformers 5 takes `activation_checkpointing` over TRL's own default of the old name."""
    assert check_trainer("sft", {"activation_checkpointing": False}) == {"gradient_checkpointing": False}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"modle": "m"}, "`modle`: there is no such key; did you mean `model`"),
        ({"learning_rate": 1e-3}, "`learning_rate`: there is no such key here; it belongs under `trainer`"),
        ({"lr": 1e-3}, "under `trainer`, as `learning_rate`"),
        ({"zzz": 1}, "there are method, model, data"),
        ({"trainer": {"eval_strategy": "epoch"}}, "name a file of them under `eval_data`"),
        ({"trainer": {"load_best_model_at_end": True}}, "both `eval_strategy` and `save_strategy`"),
        ({"reward": "mcq_letter"}, "`reward` belongs to GRPO"),
        ({"method": "grpo", "reward": 3}, "a name or a list of {name, weight}"),
    ],
)
def test_a_wrong_job_says_what_was_probably_meant(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"method": "sft", "model": "m", "data": "d.jsonl", **fields}))
    with pytest.raises(ConfigError, match=told):
        load(path)


def test_a_reward_may_be_just_a_name(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"method": "grpo", "model": "m", "data": "d.jsonl", "reward": "exact"}))
    assert [(spec.name, spec.weight) for spec in load(path).reward] == [("exact", 1.0)]
    path.write_text("method: sft\nmodel: m\ndata: d.jsonl\ntrainer:\n")
    assert load(path).trainer == {}


SHAPE = ModelShape(1_700_000_000, 28, 2048, 151_936, 1024, "Qwen3ForCausalLM")


def test_an_adapter_needs_less_memory_and_dpo_more_than_sft() -> None:
    def need(method: Any, **fields: Any) -> float:
        return memory_gib(method, {"per_device_train_batch_size": 1, **fields}, SHAPE, 512)

    assert need("dpo") - need("sft") > 1.7 * 4 / 1.074 * 0.99  # the reference model, 4 bytes a parameter
    assert need("dpo", precompute_ref_log_probs=True) < need("dpo") - 6
    assert need("dpo", use_peft=True) < need("sft") / 2
    assert need("sft", use_peft=True, load_in_4bit=True) < need("sft", use_peft=True) - 5


def test_the_size_of_an_adapter() -> None:
    rank_8 = trained_parameters("sft", {"use_peft": True, "lora_r": 8}, SHAPE)
    # q: 2048 -> 2048, k and v: 2048 -> 1024, o: 2048 -> 2048; 28 layers
    assert rank_8 == 8 * 28 * (2 * (2048 + 2048) + 2 * (2048 + 1024))
    assert trained_parameters("sft", {"use_peft": True, "lora_r": 16}, SHAPE) == 2 * rank_8
    assert trained_parameters("sft", {}, SHAPE) == SHAPE.parameters


def test_a_dpo_experiment_is_planned_and_launched(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    desk, ts = TrainingDesk(workspace), training_set("dpo")
    told = desk.describe_compute()["starting_points"]["dpo"]
    assert told == {"per_device_train_batch_size": 8, "max_length": 128}
    seconds = estimate_seconds(workspace, "dpo", told, 24)
    assert seconds > estimate_seconds(workspace, "sft", {**told, "num_train_epochs": 3}, 24)
    plan = desk.plan_training("dpo", ts.id, "base", {"beta": 0.2, "max_steps": 5})
    assert plan["problems"] == []
    answer = desk.launch_training("dpo", ts.id, "base", "it prefers", {"beta": 0.2, "max_steps": 5})
    assert answer["launched"], answer
    assert compute.submitted[-1].module == "posttrain_crew.tools.training.dpo"
    refused = desk.plan_training("dpo", ts.id, "base", {"reward": "exact"})["problems"]
    assert "belongs to GRPO" in refused[0]


def test_qlora_is_refused_on_a_backend_without_cuda(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    changes = {"use_peft": True, "load_in_4bit": True}
    answer = TrainingDesk(workspace).launch_training("sft", training_set().id, "base", "h", changes)
    assert not answer["launched"]
    assert "CUDA" in answer["reason"]
    assert compute.submitted == []


# --- rewards together


def test_weights_decide_whether_rewards_together_still_teach_the_answer() -> None:
    assert len(check_rewards(["mcq_letter", "format"], weights=[1.0, 0.2])) == 3
    with pytest.raises(ConfigError, match="only reward"):
        check_rewards(["mcq_letter", "format"], weights=[0.0, 1.0])
    with pytest.raises(ConfigError, match="only reward"):
        check_rewards(["length", "format"])
    with pytest.raises(ConfigError, match="together"):
        check_rewards(["mcq_letter", "format"], weights=[1.0, -2.0])


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("Answer: 1,200", "1200", 1.0),
        ("Answer: 1200 kg", 1200, 1.0),
        ("Answer: -3.5", "-3.5", 1.0),
        ("Answer: 1e3", "1000", 1.0),
        ("Answer: .5", "0.5", 1.0),
        ("Answer: 3.5", "-3.5", 0.0),
        ("Answer: none", "4", 0.0),
        ("Answer: 12\nAnswer: 13", "12", 0.0),
        ("12", "12", 0.0),
    ],
)
def test_numbers_are_compared_as_numbers(said: str, right: Any, score: float) -> None:
    assert number([[{"role": "assistant", "content": said}]], [right]) == [score]


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (lambda completions, **_: [1.0], "1 scores for 2"),
        (lambda completions, **_: [float("nan"), 1.0], "no finite number"),
        (lambda completions, **_: ["high", "low"], "no finite number"),
        (lambda completions, answer, **_: [1.0, 1.0], "raised TypeError"),
    ],
)
def test_a_reward_that_breaks_its_contract_is_named(reward: Reward, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        scored("mine", reward, completions=["a", "b"])


def test_a_plugins_reward_brings_its_own_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    from posttrain_crew.tools.training import rewards

    def short(completions: Any, **_: Any) -> list[float]:
        return [float(len(completion[0]["content"]) < 20) for completion in completions]

    short.calibration = Calibration(answer="", good=("brief",), bad=("much too long " * 9,))  # type: ignore[attr-defined]
    short.columns = ("source",)  # type: ignore[attr-defined]
    monkeypatch.setattr(rewards, "resolve", lambda name: short if name == "short" else rewards.BUILTIN_REWARDS[name])
    assert columns_of("short") == {"source"}
    with pytest.raises(ConfigError, match="only reward"):
        check_rewards(["short"])
    assert check_rewards(["mcq_letter", "short"], weights=[1.0, 0.1])
    short.calibration = Calibration(answer="", good=("much too long " * 9,), bad=("brief",))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="does not separate"):
        check_rewards(["mcq_letter", "short"])
