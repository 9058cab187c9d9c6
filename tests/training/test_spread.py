"""Jobs on several devices and machines: what an order may ask for, and what follows when memory runs out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Decision, Experiment, JobStarted, TrainingSet
from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.compute.base import Capacity
from posttrain_crew.tools.compute.jobs import post_outcome
from posttrain_crew.tools.training.desk import TrainingDesk
from posttrain_crew.tools.workspace import Workspace

MakeSet = Callable[..., Entry[TrainingSet]]
OUT_OF_MEMORY = {"ok": False, "error_class": "out_of_memory", "message": "CUDA out of memory", "wall_s": 3.0}


@pytest.fixture
def cluster(compute: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Four machines with two GPUs each, where a scheduler counts them."""
    capacity = Capacity(2, "NVIDIA Small", 80.0, 1, "4 x 2", devices_per_job=2, nodes_per_job=4, job_is_slot=True)
    monkeypatch.setattr(compute, "capacity", lambda: capacity)
    monkeypatch.setattr("posttrain_crew.tools.training.preflight.free_gib", lambda path: 100.0)
    return compute


@pytest.fixture
def two_gpus(compute: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    capacity = Capacity(2, "NVIDIA Small", 80.0, 1, "2 x NVIDIA Small", devices_per_job=2)
    monkeypatch.setattr(compute, "capacity", lambda: capacity)
    return compute


def shape_of(spec: Any) -> tuple[int, int, str]:
    return spec.nodes, spec.processes, spec.environment["CREW_SHARDING"]


def test_an_order_may_ask_for_machines(workspace: Workspace, training_set: MakeSet, cluster: Any) -> None:
    desk, ts = TrainingDesk(workspace), training_set()
    assert desk.describe_compute()["nodes_per_job"] == 4
    changes = {"nodes": 2, "sharding": "zero3"}
    plan = desk.plan_training("sft", ts.id, "base", changes)
    assert plan["problems"] == [] and plan["config"]["nodes"] == 2
    assert (plan["spread"]["nodes"], plan["spread"]["processes"], plan["spread"]["profile"]) == (2, 2, "zero3")
    cluster.state = "running"
    answer = desk.launch_training("sft", ts.id, "base", "h", changes)
    assert answer["launched"], answer
    assert [shape_of(spec) for spec in cluster.submitted] == [(2, 2, "zero3")] * 2, "the smoke run and the job"
    for spec in cluster.submitted:
        trainer = yaml.safe_load(spec.config.read_text())["trainer"]
        assert 4 * trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"] == 8
        assert not {"nodes", "devices", "sharding"} & trainer.keys()
    job = workspace.board.of(JobStarted)[-1].body
    assert (job.nodes, job.processes) == (2, 2)
    assert desk.describe_compute()["free_slots"] == 1, "a cluster counts jobs"
    one = desk.launch_training("sft", ts.id, "base", "h")
    assert one["launched"] and one["experiment"] != answer["experiment"], "the shape is part of the experiment"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"nodes": 5}, "`nodes: 5` is more than one job can have on this backend, 4"),
        ({"devices": 3}, "`devices: 3` is more"),
        ({"devices": 2, "sharding": "zero9"}, "no sharding profile `zero9`"),
        ({"devices": 0}, "at least 1"),
        ({"nodes": True}, "whole number"),
        ({"devices": 2, "sharding": "single"}, "`single` is for one process"),
        ({"nodes": 4, "per_device_train_batch_size": 6}, "cannot be spread evenly over 8"),
        ({"devices": 2, "use_peft": True, "load_in_4bit": True, "sharding": "zero2"}, "packed weights"),
    ],
)
def test_shapes_that_cannot_be_had_are_refused(
    workspace: Workspace, training_set: MakeSet, cluster: Any, changes: dict[str, Any], told: str
) -> None:
    desk, ts = TrainingDesk(workspace), training_set()
    try:
        assert told in "; ".join(desk.plan_training("sft", ts.id, "base", changes)["problems"])
    except ConfigError as error:
        assert told in str(error)
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")):
        desk.launch_training("sft", ts.id, "base", "h", changes)
    assert cluster.submitted == [] and workspace.board.of(Experiment) == []


def test_a_smoke_run_out_of_memory_names_the_next_rung_to_the_last(
    workspace: Workspace, training_set: MakeSet, two_gpus: Any
) -> None:
    """As an agent climbs it: more GPUs come after everything that one can do, and the ladder has an end."""
    two_gpus.outcome = OUT_OF_MEMORY
    desk, ts = TrainingDesk(workspace), training_set()
    changes: dict[str, Any] = {"per_device_train_batch_size": 4, "gradient_checkpointing": False}
    rungs = []
    while True:
        answer = desk.launch_training("sft", ts.id, "base", "h", changes)
        assert not answer["launched"] and "out_of_memory" in answer["reason"]
        if not answer["remedy"]:
            break
        rungs.append(answer["remedy"])
        assert len(rungs) < 12
        changes = {**changes, **answer["remedy"]}
    assert rungs == [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4},
        {"gradient_checkpointing": True},
        {"devices": 1, "sharding": "zero2_offload"},
        {"devices": 1, "sharding": "zero3_offload_all"},
        {"devices": 2, "sharding": "zero3_offload_all"},
    ]
    assert "for you to decide" in answer["reason"]
    assert shape_of(two_gpus.submitted[-1]) == (1, 2, "zero3_offload_all")
    last = yaml.safe_load(two_gpus.submitted[-1].config.read_text())["trainer"]
    assert 2 * last["per_device_train_batch_size"] * last["gradient_accumulation_steps"] == 4, (
        "the same effective batch"
    )
    assert all(entry.body.action == "abandon" for entry in workspace.board.of(Decision))


def test_a_job_out_of_memory_is_diagnosed_with_more_gpus(
    workspace: Workspace, training_set: MakeSet, two_gpus: Any
) -> None:
    two_gpus.state = "running"
    desk, ts = TrainingDesk(workspace), training_set()
    changes = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8, "gradient_checkpointing": True,
               "sharding": "zero3_offload_all"}  # fmt: skip
    experiment = desk.launch_training("sft", ts.id, "base", "h", changes)["experiment"]
    (workspace.run.experiments / experiment / "outcome.json").write_text(json.dumps(OUT_OF_MEMORY))
    post_outcome(workspace, workspace.board.of(JobStarted)[-1])
    told = desk.diagnose_experiment(experiment)
    assert told["remedy"] == {"devices": 2, "sharding": "zero3_offload_all"}, told["advice"]
    again = desk.launch_training("sft", ts.id, "base", "h", {**changes, **told["remedy"]}, purpose="remedy")
    assert again["launched"] and shape_of(two_gpus.submitted[-1]) == (1, 2, "zero3_offload_all")


def test_the_rung_after_a_spread_job_starts_from_what_ran(
    workspace: Workspace, training_set: MakeSet, two_gpus: Any
) -> None:
    """The order says 8 rows on one process; 4 ran on each of two: half of that comes next, not half of 8."""
    two_gpus.state = "running"
    desk, ts = TrainingDesk(workspace), training_set()
    changes = {"per_device_train_batch_size": 8, "devices": 2, "sharding": "zero2"}
    experiment = desk.launch_training("sft", ts.id, "base", "h", changes)["experiment"]
    assert yaml.safe_load(two_gpus.submitted[-1].config.read_text())["trainer"]["per_device_train_batch_size"] == 4
    (workspace.run.experiments / experiment / "outcome.json").write_text(json.dumps(OUT_OF_MEMORY))
    post_outcome(workspace, workspace.board.of(JobStarted)[-1])
    remedy = desk.diagnose_experiment(experiment)["remedy"]
    assert (remedy["per_device_train_batch_size"], remedy["gradient_accumulation_steps"]) == (2, 4)
    assert (remedy["devices"], remedy["sharding"]) == (2, "zero2")
