"""After a job ran out of memory: what changes, in which order, and what never does."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain_crew.entries import JobOutcome
from posttrain_crew.tools.training.config import check_trainer
from posttrain_crew.tools.training.diagnose import diagnose
from posttrain_crew.tools.training.hardware import sharding
from posttrain_crew.tools.training.ladder import Refusal, Room, Rung, Settings, first_that_fits, next_config
from posttrain_crew.tools.training.memory import Work, memory_of
from posttrain_crew.tools.training.shape import known_shapes
from posttrain_crew.tools.training.spread import SHAPE_FIELDS, Wanted

ROOMY = Room(gpus=8, offload=True)


def climb(config: Settings, room: Room) -> tuple[list[Rung], Refusal]:
    rungs: list[Rung] = []
    while True:
        following = next_config(rungs[-1].settings if rungs else config, room)
        if isinstance(following, Refusal):
            return rungs, following
        rungs.append(following)
        assert len(rungs) < 40, "the ladder has no end"


def test_the_order_of_the_rungs() -> None:
    trainer = {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 4, "gradient_checkpointing": False}
    rungs, refusal = climb(Settings("sft", trainer), ROOMY)
    assert [rung.kind for rung in rungs] == [
        "micro_batch", "micro_batch", "micro_batch", "checkpointing", "offload", "offload",
        "more_gpus", "more_gpus", "more_gpus",
    ]  # fmt: skip
    micro = [(rung.settings.trainer["per_device_train_batch_size"]) for rung in rungs]
    assert micro == [6, 3, 1, 1, 1, 1, 1, 1, 1]
    assert [rung.settings.sharding for rung in rungs[-5:]] == [
        "zero2_offload", "zero3_offload_all", "zero3_offload_all", "zero3_offload_all", "zero3_offload_all",
    ]  # fmt: skip
    assert rungs[-1].settings.gpus == 8
    assert "for you to decide" in refusal.reason


@pytest.mark.parametrize(
    ("method", "trainer", "start"),
    [
        ("sft", {"per_device_train_batch_size": 30, "gradient_accumulation_steps": 1}, ("single", 1)),
        ("sft", {"per_device_train_batch_size": 8, "use_peft": True, "max_length": 4096}, ("ddp", 2)),
        ("dpo", {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}, ("zero2", 4)),
        (
            "grpo",
            {
                "per_device_train_batch_size": 16,
                "num_generations": 8,
                "steps_per_generation": 2,
                "gradient_accumulation_steps": 2,
                "max_completion_length": 512,
                "use_vllm": True,
                "vllm_mode": "colocate",
            },
            ("single", 1),
        ),
    ],
)
def test_what_the_experiment_is_never_changes(method: Any, trainer: dict[str, Any], start: tuple[str, int]) -> None:
    config = Settings(method, trainer, *start)
    rungs, _ = climb(config, ROOMY)
    assert rungs
    allowed = {
        "per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation", "gradient_checkpointing",
        "vllm_enable_sleep_mode",
    }  # fmt: skip
    for rung in rungs:
        assert rung.settings.effective_batch == config.effective_batch
        assert rung.settings.method == method
        assert set(rung.changes) <= {*allowed, *SHAPE_FIELDS}
        # the last rungs are an order that the desk takes
        wanted = Wanted.taken_from(dict(rung.changes))
        assert (wanted.devices or 1) == (rung.settings.gpus if wanted != Wanted() else 1)
        assert rung.reason
        after = rung.settings.trainer
        assert all(after[name] == value for name, value in trainer.items() if name not in allowed)
        check_trainer(method, dict(after))
    if "steps_per_generation" in trainer:
        # completions that are sampled together stay the same too
        last = rungs[-1].settings
        assert last.trainer["per_device_train_batch_size"] * last.trainer["steps_per_generation"] == 32
        assert last.gpus == 4  # eight would have to sample half a group each


def test_each_rung_needs_less_memory() -> None:
    shape = known_shapes()["qwen3-8b"]

    def gib(settings: Settings) -> float:
        work = Work.of(settings.method, settings.trainer, shape, 2048)
        return memory_of(work, sharding(settings.sharding), settings.gpus).gib

    config = Settings("sft", {"per_device_train_batch_size": 8, "gradient_checkpointing": False, "bf16": True})
    rungs, _ = climb(config, Room(gpus=1, offload=True))
    needs = [gib(config), *(gib(rung.settings) for rung in rungs)]
    assert needs == sorted(needs, reverse=True)
    assert needs[-1] < needs[0] / 5


def test_a_quantised_or_a_cpu_job_gets_no_offload() -> None:
    packed = {"per_device_train_batch_size": 1, "use_peft": True, "load_in_4bit": True}
    assert isinstance(next_config(Settings("sft", packed), ROOMY), Refusal)
    on_cpu = next_config(Settings("sft", {"per_device_train_batch_size": 1}), Room(on_cpu=True))
    assert isinstance(on_cpu, Rung)  # checkpointing is off by itself on a CPU
    assert on_cpu.changes == {"gradient_checkpointing": True}
    assert isinstance(next_config(on_cpu.settings, Room(on_cpu=True)), Refusal)
    on_gpu = next_config(Settings("sft", {"per_device_train_batch_size": 1}), Room())  # and on by itself elsewhere
    assert isinstance(on_gpu, Refusal)
    assert "crew plan" in on_gpu.reason


def test_gpus_that_the_batch_cannot_be_spread_over_are_no_rung() -> None:
    odd = Settings("sft", {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6}, "zero3_offload_all", 2)
    refusal = next_config(odd, ROOMY)
    assert isinstance(refusal, Refusal)
    assert "effective batch of 6" in refusal.reason


def test_machines_come_after_the_devices_of_one() -> None:
    config = Settings("sft", {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}, "zero3_offload_all")
    rungs, refusal = climb(config, Room(gpus=2, nodes=4, offload=True))
    assert [(rung.settings.gpus, rung.settings.nodes) for rung in rungs] == [(2, 1), (2, 2), (2, 4)]
    assert rungs[-1].changes == {"devices": 2, "nodes": 4, "sharding": "zero3_offload_all"}
    assert "on 8 device(s)" in refusal.reason


def test_the_first_rung_that_fits() -> None:
    config = Settings("sft", {"per_device_train_batch_size": 16})
    rungs = first_that_fits(config, Room(), lambda s: int(s.trainer["per_device_train_batch_size"]) <= 4)
    assert not isinstance(rungs, Refusal)
    assert [rung.settings.trainer["per_device_train_batch_size"] for rung in rungs] == [8, 4]
    nothing = first_that_fits(config, Room(), lambda _settings: False)
    assert isinstance(nothing, Refusal)
    assert len(nothing.tried) == 4


def test_the_diagnosis_of_a_job_that_ran_out_of_memory_names_the_next_rung() -> None:
    outcome = JobOutcome(label="exp-1", ok=False, error_class="out_of_memory", message="CUDA out of memory", wall_s=9)
    trainer: dict[str, Any] = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    tried = []
    for _ in range(4):
        found = diagnose([], outcome, "sft", trainer, room=Room(on_cpu=True))
        tried.append(dict(found.remedy))
        trainer |= found.remedy
    assert tried == [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {"gradient_checkpointing": True},
        {},
    ]
    assert found.cause == "infrastructure"
    assert "for you to decide" in found.advice
