"""GRPO: every loss of the installed TRL trains, rewards that run code, vLLM's settings, and the Python of a job."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain_crew.errors import ConfigError, GateError
from posttrain_crew.tools.sandbox.bwrap import require_sandbox
from posttrain_crew.tools.training import grpo, session
from posttrain_crew.tools.training.config import TrainingConfig, check_trainer, without_effect
from posttrain_crew.tools.training.environment import check_vllm, look_for_vllm, python_for
from posttrain_crew.tools.training.metrics import read_metrics
from posttrain_crew.tools.training.trainer_fields import trainer_fields
from tests.training.jobs import made_rows, make_model, write_job

LOSSES = trainer_fields("grpo")["loss_type"].choices
SHORT = {"max_steps": 2, "num_generations": 4, "max_completion_length": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "two-layers", steps=10)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = session.main("grpo", grpo.make_trainer, [str(folder / "config.yaml")])
    outcome: dict[str, Any] = json.loads((folder / "outcome.json").read_text())
    assert (code == 0) == outcome["ok"], outcome
    return outcome


def test_the_losses_are_those_that_the_papers_name() -> None:
    assert {"grpo", "dr_grpo", "dapo", "bnpo", "cispo"} <= set(LOSSES)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str) -> None:
    level = {"importance_sampling_level": "sequence"} if loss == "luspo" else {}
    rewards = [{"name": "length"}, {"name": "mcq_letter"}]
    folder = write_job(tmp_path / "a", model, "grpo", {**SHORT, "loss_type": loss, **level}, reward=rewards)
    outcome = run(folder, monkeypatch)
    assert outcome["ok"] and outcome["steps"] == 2, outcome
    losses = [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]
    assert len(losses) == 2 and all(map(math.isfinite, losses))


@pytest.mark.slow
def test_a_job_with_tests_reads_them_from_its_rows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": row["prompt"], "tests": ["assert f(1) == 2"]} for row in made_rows("grpo")]
    fields = {"reward": [{"name": "code_tests"}], "save_seconds": None}
    try:
        require_sandbox()
    except GateError as error:
        folder = write_job(tmp_path / "none", model, "grpo", SHORT, rows=rows, **fields)
        outcome = run(folder, monkeypatch)
        assert outcome["error_class"] == "config" and "bubblewrap" in outcome["message"]
        pytest.skip(str(error))
    folder = write_job(tmp_path / "a", model, "grpo", SHORT, rows=rows, **fields)
    outcome = run(folder, monkeypatch)
    assert outcome["ok"] and outcome["metrics"]["reward_last"] == 0.0, outcome  # it has not learnt to write code
    rows[5]["tests"] = ["import torch\nassert f(1) == 2"]
    outcome = run(write_job(tmp_path / "b", model, "grpo", SHORT, rows=rows, **fields), monkeypatch)
    assert outcome["error_class"] == "data" and "row 6" in outcome["message"] and "torch" in outcome["message"]


@pytest.mark.slow
def test_vllm_where_there_is_none_is_a_typed_failure(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_job(tmp_path / "a", model, "grpo", {**SHORT, "use_vllm": True, "vllm_mode": "colocate"})
    outcome = run(folder, monkeypatch)
    assert outcome["error_class"] == "config", outcome
    assert "crew setup gpu" in outcome["message"] or "CUDA" in outcome["message"]


def test_vllms_fields_are_those_of_trl() -> None:
    batch = {"per_device_train_batch_size": 8, "num_generations": 8, "use_vllm": True}
    server = {"vllm_mode": "server", "vllm_server_base_url": "http://10.0.0.2:8000", "vllm_server_timeout": 60}
    colocate = {"vllm_gpu_memory_utilization": 0.4, "vllm_tensor_parallel_size": 2, "vllm_enable_sleep_mode": True}
    for fields in (server, {"vllm_mode": "colocate", **colocate}):
        assert without_effect("grpo", check_trainer("grpo", {**batch, **fields})) == []
    assert len(without_effect("grpo", {**batch, **server, **colocate})) == 3
    for wrong, told in (
        ({"vllm_mode": "remote"}, "`colocate` or `server`"),
        ({"vllm_gpu_memory_utilization": 40}, "below 1"),
        ({"vllm_tensor_parallel_size": 0}, "at least 1"),
        ({"vllm_mode": "server", "vllm_server_base_url": "10.0.0.2:8000"}, "http"),
        ({"use_cpu": True}, "accelerator"),
        ({"loss_type": "vespo"}, "token_truncate"),
        ({"vllm_gpu_utilization": 0.4}, "`vllm_gpu_memory_utilization`"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_trainer("grpo", {**batch, **wrong})


def config(**fields: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({"method": "grpo", "model": "m", "data": "d.jsonl", **fields})


def test_a_job_runs_in_the_python_that_its_config_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"method": "sft", "environment": "/envs/gpu/bin/python"}))
    assert python_for(path) == "/envs/gpu/bin/python"
    assert python_for(config()) == sys.executable
    monkeypatch.setenv("CREW_GPU_PYTHON", "/gpu/python")
    assert python_for(config()) == "/gpu/python"
    assert python_for(config(), backend="/cluster/python") == "/cluster/python"
    assert python_for(config(environment="/mine/python"), backend="/cluster/python") == "/mine/python"
    path.write_text("tasks: [gpqa]\n")  # an evaluation is none of it
    assert python_for(path) == sys.executable


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"vllm": true, "requests": true, "trl": true, "posttrain_crew": true, "cuda": true}', None),
        ('{"vllm": true, "requests": true, "trl": true, "posttrain_crew": true, "cuda": false}', "sees none"),
        ('{"vllm": false, "requests": true, "trl": true, "posttrain_crew": true, "cuda": true}', "crew setup gpu"),
        ('{"vllm": true, "requests": false, "trl": true, "posttrain_crew": true, "cuda": true}', "`requests`"),
        ('{"vllm": true, "requests": true, "trl": true, "posttrain_crew": false, "cuda": true}', "`posttrain_crew`"),
        ("", "does not work"),
    ],
)
def test_the_jobs_python_is_asked_for_vllm_before_a_launch(tmp_path: Path, answer: str, told: str | None) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{answer}'\n")
    python.chmod(0o755)
    wanted = config(environment=str(python), trainer={"use_vllm": True, "vllm_mode": "server"})
    if told is None:
        look_for_vllm(wanted, "local", "NVIDIA H100")
    else:
        with pytest.raises(ConfigError, match=told):
            look_for_vllm(wanted, "local", "NVIDIA H100")
    with pytest.raises(ConfigError, match="CUDA"):
        look_for_vllm(wanted, "slurm", "cpu")
    look_for_vllm(wanted, "slurm", "NVIDIA H100")  # only the smoke run there can tell
    look_for_vllm(config(), "local", "cpu")
    check_vllm("grpo", {})
