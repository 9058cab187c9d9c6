"""The trainer's desk: what an agent gets, and what a law refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain_crew.blackboard import Entry
from posttrain_crew.crews.brief import brief
from posttrain_crew.entries import Decision, Experiment, JobStarted, Preflight, TrainingSet
from posttrain_crew.errors import BudgetError, GateError, InputError
from posttrain_crew.state import RunState
from posttrain_crew.tools.compute.base import Capacity
from posttrain_crew.tools.compute.jobs import JobRequest, launch, post_outcome, relaunch, wait
from posttrain_crew.tools.compute.local import LocalCompute
from posttrain_crew.tools.tool import tools_of
from posttrain_crew.tools.training.desk import TrainingDesk
from posttrain_crew.tools.training.launcher import Launch
from posttrain_crew.tools.workspace import Workspace
from tests.training.jobs import make_model, write_job

MakeSet = Callable[..., Entry[TrainingSet]]


def test_tools_are_offered_with_schemas(workspace: Workspace) -> None:
    assert {tool.name for tool in tools_of(TrainingDesk(workspace))} == {
        "describe_compute",
        "plan_training",
        "launch_training",
        "diagnose_experiment",
    }


def test_describes_the_compute(workspace: Workspace) -> None:
    told = TrainingDesk(workspace).describe_compute()
    assert (told["slots"], told["free_slots"]) == (2, 2)
    assert told["starting_points"]["grpo"]["num_generations"] == 4
    assert told["typical_seconds"]["grpo"] == 15 + 10 * 1.5


def test_a_plan_overlays_changes_and_launches_nothing(
    workspace: Workspace, training_set: MakeSet, compute: Any
) -> None:
    plan = TrainingDesk(workspace).plan_training("sft", training_set().id, "base", {"learning_rate": 5e-4})
    assert plan["problems"] == []
    assert plan["config"]["learning_rate"] == 5e-4
    assert plan["steps"] == 6  # 20 rows in batches of 8, two epochs
    assert plan["estimate_seconds"] == pytest.approx(15 + 6 * 0.2)
    assert compute.submitted == []


def test_a_plan_tells_every_problem(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    compute.memory_gib = 0.5
    desk = TrainingDesk(workspace)
    told = desk.plan_training("grpo", training_set("sft", passed=False).id, "base", {"max_steps": 100_000})["problems"]
    assert len(told) == 4
    wrong = desk.plan_training("sft", "ts-1", "base", {"max_seq_length": 3})["problems"]
    assert "max_length" in wrong[0]


def test_launch_smokes_then_trains(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    answer = TrainingDesk(workspace).launch_training("grpo", training_set("grpo").id, "base", "it learns")
    assert answer["launched"], answer
    assert [spec.label.split("-")[0] for spec in compute.submitted] == ["smoke", "exp"]
    smoke, train = (yaml.safe_load(spec.config.read_text()) for spec in compute.submitted)
    assert smoke["smoke"] is True
    assert "smoke" not in train
    assert [reward["name"] for reward in train["reward"]] == ["mcq_letter"]
    assert train["resume"] is True
    assert train["trackio_project"] == "run-1"
    assert (train["seed"], train["run_name"]) == (3, "exp-1")
    preflight = workspace.board.of(Preflight)[-1]
    assert preflight.body.passed
    assert [check.name for check in preflight.body.checks] == [
        "config",
        "data",
        "parent",
        "rewards",
        "memory",
        "disk",
        "time",
        "smoke",
    ]


def test_the_same_experiment_is_not_run_twice(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    desk, ts = TrainingDesk(workspace), training_set()
    first = desk.launch_training("sft", ts.id, "base", "it learns")
    second = desk.launch_training("sft", ts.id, "base", "in other words")
    assert (second["experiment"], second["launched"]) == (first["experiment"], False)
    assert "tried before" in second["reason"]


def test_a_smoke_run_serves_configs_that_differ_in_the_learning_rate(
    workspace: Workspace, training_set: MakeSet, compute: Any
) -> None:
    desk, ts = TrainingDesk(workspace), training_set()
    for rate in (1e-3, 2e-3):
        assert desk.launch_training("sft", ts.id, "base", "h", {"learning_rate": rate})["launched"]
        for job in RunState.of(workspace.board).running:
            post_outcome(workspace, job)
    assert sum(spec.label.startswith("smoke") for spec in compute.submitted) == 1
    assert desk.launch_training("sft", ts.id, "base", "h", {"max_length": 64})["launched"]
    assert sum(spec.label.startswith("smoke") for spec in compute.submitted) == 2


def with_dpo(workspace: Workspace) -> Workspace:
    """The target says how DPO starts, and how long its steps take."""
    fields = {"learning_rate": 1e-3, "max_steps": 4, "per_device_train_batch_size": 4, "beta": 0.2}
    times = {**workspace.target.training.seconds_per_step, "dpo": 0.5}
    training = workspace.target.training.model_copy(update={"dpo": fields, "seconds_per_step": times})
    return replace(workspace, target=workspace.target.model_copy(update={"training": training}))


def test_dpo_starts_from_the_targets_own_values(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    ts = training_set("dpo")
    without = TrainingDesk(workspace).plan_training("dpo", ts.id, "base")
    assert without["problems"] == []
    assert without["config"] == {"per_device_train_batch_size": 8, "max_length": 128}  # of SFT; the rest is TRL's
    assert without["estimate_seconds"] == pytest.approx(15 + without["steps"] * 0.2 * 8 / 3, rel=0.01)
    desk = TrainingDesk(with_dpo(workspace))
    plan = desk.plan_training("dpo", ts.id, "base", {"beta": 0.5})
    assert (plan["config"]["beta"], plan["config"]["max_length"], plan["steps"]) == (0.5, 128, 4)
    assert plan["estimate_seconds"] == 15 + 4 * 0.5
    told = desk.describe_compute()
    assert told["typical_seconds"]["dpo"] == 15 + 4 * 0.5 and told["starting_points"]["dpo"]["beta"] == 0.2
    assert brief(with_dpo(workspace), [])["training_sets"][0]["train_seconds"] == 15 + 4 * 0.5
    wrong = desk.plan_training("dpo", ts.id, "base", {"beta": 0.0})["problems"]
    assert "beta" in wrong[0]
    assert "prepared for dpo" in desk.plan_training("sft", ts.id, "base")["problems"][0]


def test_an_adapter_is_proposed_only_where_no_batch_of_all_weights_fits(
    workspace: Workspace, training_set: MakeSet, compute: Any
) -> None:
    config = json.loads((workspace.base_model / "config.json").read_text())
    config |= {"hidden_size": 2048, "num_hidden_layers": 24}
    (workspace.base_model / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000, 10**6], "data_offsets": [0, 4 * 10**9]}}).encode()
    weights = workspace.base_model / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)  # a billion parameters, as the header says
    desk, ts = TrainingDesk(workspace), training_set()
    compute.memory_gib = 8.0
    plan = desk.plan_training("sft", ts.id, "base")
    assert "GiB" in plan["problems"][0] and "LoRA" in plan["problems"][1]
    assert plan["adapter"]["use_peft"] is True and plan["adapter"]["learning_rate"] == pytest.approx(1e-2)
    again = desk.plan_training("sft", ts.id, "base", plan["adapter"])
    assert again["problems"] == [] and again["memory_gib"] < 8 < plan["memory_gib"]
    compute.memory_gib = 17.0  # all weights fit here, in smaller steps
    larger = desk.plan_training("sft", ts.id, "base", {"per_device_train_batch_size": 1024})
    assert "GiB" in larger["problems"][0] and "adapter" not in larger
    compute.memory_gib = 4.0
    assert "adapter" not in desk.plan_training("sft", ts.id, "base")


@pytest.mark.slow
def test_dpo_for_real(workspace: Workspace, training_set: MakeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned, smoked, launched and ended on this machine; the reference is the parent."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    make_model(Path(workspace.base_model), steps=10)
    workspace = replace(with_dpo(workspace), compute=LocalCompute(slots=1, threads_per_job=1))
    desk, ts = TrainingDesk(workspace), training_set("dpo")
    assert desk.plan_training("dpo", ts.id, "base")["problems"] == []
    answer = desk.launch_training("dpo", ts.id, "base", "it learns what to avoid")
    assert answer["launched"], answer
    outcome = wait(workspace, RunState.of(workspace.board).running[-1]).body
    assert (outcome.ok, outcome.steps) == (True, 4), outcome.message
    assert workspace.checkpoint(answer["experiment"]).joinpath("model.safetensors").is_file()
    rows = [json.loads(line) for line in (workspace.run.experiments / "exp-1" / "metrics.jsonl").open()]
    margins = [row["rewards/margins"] for row in rows if "rewards/margins" in row]
    assert margins[0] == pytest.approx(0.0, abs=1e-6) and margins[-1] > 0.1
    assert desk.diagnose_experiment(answer["experiment"])["cause"] == "healthy"


def two_small_gpus(workspace: Workspace, compute: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs of 12 GiB, and a base of a billion parameters: 16 bytes each do not fit one."""
    config = json.loads((workspace.base_model / "config.json").read_text())
    config |= {"hidden_size": 2048, "num_hidden_layers": 24}
    (workspace.base_model / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000, 10**6], "data_offsets": [0, 4 * 10**9]}}).encode()
    weights = workspace.base_model / "model.safetensors"
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    capacity = Capacity(2, "NVIDIA Small", 12.0, 1, "2 x NVIDIA Small", devices_per_job=2)
    monkeypatch.setattr(compute, "capacity", lambda: capacity)


def test_what_needs_two_gpus_gets_two(
    workspace: Workspace, training_set: MakeSet, compute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_small_gpus(workspace, compute, monkeypatch)
    monkeypatch.setattr("posttrain_crew.tools.training.preflight.free_gib", lambda path: 100.0)
    desk, ts, bf16 = TrainingDesk(workspace), training_set(), {"bf16": True}
    plan = desk.plan_training("sft", ts.id, "base", bf16)
    assert plan["problems"] == [] and plan["memory_gib"] > 12 and "adapter" not in plan
    assert (plan["spread"]["processes"], plan["spread"]["profile"]) == (2, "zero3")
    assert plan["spread"]["memory_gib_per_device"] <= 12
    assert plan["config"]["per_device_train_batch_size"] == 8, "the experiment is what was ordered"
    compute.state = "running"
    answer = desk.launch_training("sft", ts.id, "base", "h", bf16)
    assert answer["launched"], answer
    for spec in compute.submitted:  # the smoke run, then the job
        trainer = yaml.safe_load(spec.config.read_text())["trainer"]
        assert 2 * trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"] == 8
        assert spec.processes == 2
        assert json.loads(spec.environment["ACCELERATE_DEEPSPEED_CONFIG_FILE"])["zero_optimization"]["stage"] == 3
    assert workspace.board.of(Experiment)[-1].body.config["per_device_train_batch_size"] == 8
    assert desk.describe_compute()["free_slots"] == 0
    with pytest.raises(GateError, match="no free slot"):
        desk.launch_training("sft", ts.id, "base", "h", {**bf16, "use_peft": True})
    relaunch(workspace, RunState.of(workspace.board).running[-1])
    first, again = compute.submitted[-2:]
    assert again.label == "exp-1.2" and again.processes == 2
    assert again.environment == first.environment, "a killed job is started again as it was"


def test_one_gpu_is_taken_where_one_is_enough(
    workspace: Workspace, training_set: MakeSet, compute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_small_gpus(workspace, compute, monkeypatch)
    desk, ts = TrainingDesk(workspace), training_set()
    assert "spread" not in desk.plan_training("sft", ts.id, "base", {"bf16": True, "use_peft": True})
    odd = desk.plan_training("sft", ts.id, "base", {"bf16": True, "per_device_train_batch_size": 1})
    assert "spread" not in odd and "adapter" in odd, "one row cannot be spread over two processes"


def test_grpo_is_spread_in_whole_groups(
    workspace: Workspace, training_set: MakeSet, compute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_small_gpus(workspace, compute, monkeypatch)
    desk, ts = TrainingDesk(workspace), training_set("grpo")
    plan = desk.plan_training("grpo", ts.id, "base", {"bf16": True})
    changes = plan["spread"]["changes"]
    each = changes["per_device_train_batch_size"] * changes["gradient_accumulation_steps"]
    assert each == 8 and each % 4 == 0  # 16 completions in groups of 4, on two processes
    none = desk.plan_training("grpo", ts.id, "base", {"bf16": True, "num_generations": 16})
    assert "spread" not in none, "one group of 16 is not split"


def test_seeds_are_experiments_of_their_own(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    compute.state = "running"
    desk, ts = TrainingDesk(workspace), training_set()
    answer = desk.launch_training("sft", ts.id, "base", "h", seeds=[5, 6])
    assert [one["experiment"] for one in answer["experiments"]] == ["exp-1", "exp-2"]
    assert all(one["launched"] and one["job"] for one in answer["experiments"]) and answer["experiment"] == "exp-1"
    assert [entry.body.seed for entry in workspace.board.of(Experiment)] == [5, 6]
    assert [spec.label.split("-")[0] for spec in compute.submitted] == ["smoke", "exp", "exp"]
    assert [yaml.safe_load(spec.config.read_text())["seed"] for spec in compute.submitted[1:]] == [5, 6]
    again = desk.launch_training("sft", ts.id, "base", "h", seeds=[5, 6])
    assert not any(one["launched"] for one in again["experiments"]) and "tried before" in again["reason"]


def test_seeds_that_do_not_fit_are_refused_before_anything_is_posted(
    workspace: Workspace, training_set: MakeSet, compute: Any
) -> None:
    desk, ts = TrainingDesk(workspace), training_set()
    for seeds in ([1], [1, 1], [1, 2, 3, 4, 5, 6], [-1, 2]):
        with pytest.raises(InputError, match="2 to 5 different"):
            desk.launch_training("sft", ts.id, "base", "h", seeds=seeds)
    with pytest.raises(BudgetError, match="3 seeds of about 2415 s each, 2 at a time, need 4830 s"):
        desk.launch_training("sft", ts.id, "base", "h", {"max_steps": 12_000}, seeds=[1, 2, 3])
    assert workspace.board.of(Experiment) == [] and compute.submitted == []


@pytest.mark.slow
def test_two_processes_for_real(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job of two processes with ZeRO-2 on this machine's CPUs (gloo), through the launch that the desk uses.

    The first run on a machine compiles DeepSpeed's communication for CPUs, a minute or two.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    workspace = replace(workspace, compute=LocalCompute(slots=2, threads_per_job=1))
    fields = {"per_device_train_batch_size": 4, "max_steps": 2}
    folder = write_job(workspace.run.experiments / "exp-1", make_model(tmp_path / "tiny", steps=2), "sft", fields)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").unlink()
    way = Launch("sft", "zero2", processes=2, bf16=False, on_cpu=True)
    request = JobRequest(
        "exp-1", "train", "exp-1", way.module, folder, config, 60.0, processes=2, environment=way.environment()
    )
    outcome = wait(workspace, launch(workspace, request)).body
    assert (outcome.ok, outcome.steps) == (True, 2), outcome.message
    notes = json.loads((folder / "outcome.json").read_text())["notes"]
    assert any(note.startswith("DeepSpeed ZeRO-2 on 2 process") for note in notes), notes
    assert workspace.budget.usage().device_s == pytest.approx(2 * outcome.wall_s)


def refused(workspace: Workspace, answer: dict[str, Any]) -> str:
    assert not answer["launched"]
    decision = workspace.board.of(Decision)[-1]
    assert (decision.body.action, decision.body.subject) == ("abandon", answer["experiment"])
    return str(answer["reason"])


def test_no_training_without_a_passed_verdict(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    answer = TrainingDesk(workspace).launch_training("sft", training_set(passed=False).id, "base", "h")
    assert "contamination" in refused(workspace, answer)
    assert compute.submitted == []


def test_no_training_on_a_file_that_was_changed_after_its_verdict(
    workspace: Workspace, training_set: MakeSet, compute: Any
) -> None:
    ts = training_set()
    with workspace.run.absolute(ts.body.path).open("a") as stream:
        stream.write("{}\n")
    answer = TrainingDesk(workspace).launch_training("sft", ts.id, "base", "h")
    assert "verdict" in refused(workspace, answer)
    assert compute.submitted == []


def test_a_failed_smoke_run_stops_the_launch(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    compute.outcome = {"ok": False, "error_class": "out_of_memory", "message": "no room", "wall_s": 1.0}
    answer = TrainingDesk(workspace).launch_training("sft", training_set().id, "base", "h")
    assert "out_of_memory" in refused(workspace, answer)
    assert len(compute.submitted) == 1


def test_what_does_not_fit_in_memory_is_refused(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    compute.memory_gib = 0.5
    answer = TrainingDesk(workspace).launch_training("sft", training_set().id, "base", "h")
    assert "GiB" in refused(workspace, answer)


def test_what_does_not_fit_in_the_budget_is_refused(workspace: Workspace, training_set: MakeSet) -> None:
    answer = TrainingDesk(workspace).launch_training("grpo", training_set("grpo").id, "base", "h", {"max_steps": 9999})
    assert "left for experiments" in refused(workspace, answer)


def test_format_alone_is_no_reward(workspace: Workspace, training_set: MakeSet) -> None:
    answer = TrainingDesk(workspace).launch_training("grpo", training_set("grpo").id, "base", "h", {"reward": "format"})
    assert "only reward" in refused(workspace, answer)


def test_no_launch_without_a_free_slot(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    compute.state, compute.slots = "running", 1
    desk, ts = TrainingDesk(workspace), training_set()
    assert desk.launch_training("sft", ts.id, "base", "h")["launched"]
    with pytest.raises(GateError, match="no free slot: exp-1"):
        desk.launch_training("sft", ts.id, "base", "h", {"learning_rate": 1e-5})
    assert len(workspace.board.of(Experiment)) == 1


def test_diagnosis_of_a_run_that_diverged(workspace: Workspace, training_set: MakeSet, compute: Any) -> None:
    desk = TrainingDesk(workspace)
    compute.state = "running"
    experiment = desk.launch_training("sft", training_set().id, "base", "h")["experiment"]
    folder = workspace.run.experiments / experiment
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": "NaN", "grad_norm": "NaN"}\n{"st'
    )
    (folder / "outcome.json").write_text(json.dumps({"ok": False, "error_class": "diverged", "message": "NaN"}))
    post_outcome(workspace, workspace.board.of(JobStarted)[-1])
    told = desk.diagnose_experiment(experiment)
    assert told["cause"] == "divergence"
    assert told["remedy"]["learning_rate"] == pytest.approx(1e-4)
    assert desk.diagnose_experiment(experiment)["id"] == told["id"]


def test_nothing_to_diagnose(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="no experiment"):
        TrainingDesk(workspace).diagnose_experiment("exp-7")
