"""How a job of several processes is started: what accelerate and DeepSpeed read of it, and two processes that really
train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.compute.base import JobSpec
from posttrain_crew.tools.compute.command import job_command, job_variables
from posttrain_crew.tools.training.hardware import sharding, shardings
from posttrain_crew.tools.training.launcher import Launch, deepspeed_config, launch_environment, spread_as_launched
from tests.training.jobs import ended, make_model, write_job

ZERO = [name for name, profile in shardings().items() if profile.engine == "deepspeed"]


@pytest.mark.parametrize("name", [name for name in shardings() if name not in ("single", "ddp")])
@pytest.mark.parametrize("nodes", [1, 2])
def test_accelerate_makes_the_same_environment_of_the_file(
    name: str, nodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --config_file` through accelerate's own parser, against what goes to a backend."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch as accelerate_launch

    for variable in [v for v in os.environ if v.startswith(("ACCELERATE_", "FSDP_"))]:
        monkeypatch.delenv(variable)
    launch = Launch("sft", name, processes=2, nodes=nodes)
    launch.write(tmp_path)
    line = ["--config_file", str(tmp_path / "accelerate.yaml"), "--main_process_port", "0"]
    line += ["--main_process_ip", "127.0.0.1"] if nodes > 1 else []
    arguments = launch_command_parser().parse_args([*line, "-m", launch.module, "config.yaml"])
    arguments, defaults, _ = _validate_launch_command(arguments)
    if sharding(name).engine == "deepspeed":
        arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        _, theirs = accelerate_launch.prepare_deepspeed_cmd_env(arguments)
    else:
        theirs = accelerate_launch.prepare_multi_gpu_env(arguments)
    ours = launch.environment()
    assert ours
    for variable, value in ours.items():
        if variable == "ACCELERATE_DEEPSPEED_CONFIG_FILE":
            assert json.loads(Path(theirs[variable]).read_text()) == json.loads(value)
        elif variable == "ACCELERATE_CONFIG_DS_FIELDS":
            assert set(value.split(",")) <= set(theirs[variable].split(","))
        elif variable != "ACCELERATE_MIXED_PRECISION" or sharding(name).engine != "deepspeed":
            assert theirs[variable] == value, variable


@pytest.mark.parametrize("name", ZERO)
def test_deepspeed_takes_the_config(name: str) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    config = deepspeed_config(sharding(name))
    filled: dict[str, Any] = {
        **config,
        "train_batch_size": 8,
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
    }
    read = DeepSpeedConfig(filled)
    assert read.zero_optimization_stage == sharding(name).stage
    parts = (read.zero_config.offload_optimizer, read.zero_config.offload_param)
    assert [part is not None for part in parts] == [sharding(name).offload_optimizer, sharding(name).offload_weights]
    unknown = set(config["zero_optimization"]) - set(type(read.zero_config).model_fields)
    aliases = {field.alias for field in type(read.zero_config).model_fields.values()}
    assert unknown <= aliases


def test_accelerate_reads_fsdp_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin

    for variable, value in launch_environment(sharding("fsdp_offload"), bf16=True).items():
        monkeypatch.setenv(variable, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.cpu_offload
    assert plugin.cpu_ram_efficient_loading


def test_the_lines_and_what_is_refused() -> None:
    assert Launch("sft").torchrun() == "python -m posttrain_crew.tools.training.sft config.yaml"
    one = Launch("grpo", "zero3", 8)
    assert "--nproc-per-node=8 --standalone" in one.torchrun()
    assert "--num_gpus 8" in (one.deepspeed() or "")
    two = Launch("sft", "zero2", 8, nodes=2)
    assert "--nnodes=2" in two.torchrun()
    assert "--machine_rank $NODE_RANK" in two.accelerate()
    assert Launch("sft", "ddp", 2).deepspeed() is None
    for wrong in (("single", 2), ("ddp", 1), ("fsdp", 1), ("zero9", 2), ("zero2", 0)):
        with pytest.raises(ConfigError):
            Launch("sft", *wrong)
    with pytest.raises(ConfigError, match="accelerators"):
        Launch("sft", "fsdp", 2, on_cpu=True)


def test_deepspeed_on_one_process_is_started_by_torchrun_too(tmp_path: Path) -> None:
    """It finds its own process by torchrun's variables."""
    config = tmp_path / "config.yaml"
    config.write_text("method: sft\n")
    alone = Launch("sft", "zero2_offload")
    spec = JobSpec("a", alone.module, config, 60.0, alone.environment())
    assert "torch.distributed.run" in job_command(spec, "python", "config.yaml")
    assert "torch.distributed.run" not in job_command(JobSpec("a", alone.module, config, 60.0), "python", "config.yaml")


def test_a_job_that_would_silently_run_without_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = SimpleNamespace(num_processes=2)
    trainer = SimpleNamespace(accelerator=accelerator, is_deepspeed_enabled=False, is_fsdp_enabled=False)
    assert spread_as_launched(trainer) == "data parallel on 2 processes"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="ACCELERATE_USE_CPU"):
        spread_as_launched(trainer)


@pytest.mark.slow
def test_zero_on_two_processes_trains_like_one(tmp_path: Path) -> None:
    """ZeRO-2 and ZeRO-3 through torchrun, as a backend starts them: the same losses, gradient norms and weights.

    The first run on a machine compiles DeepSpeed's communication for CPUs, a minute or two.
    """
    from safetensors.torch import load_file

    model = make_model(tmp_path / "base", steps=2)

    def run(name: str, profile: str, processes: int) -> tuple[dict[str, Any], list[tuple[float, float]], Any]:
        fields = {"per_device_train_batch_size": 8 // processes, "max_steps": 3, "lr_scheduler_type": "constant"}
        folder = tmp_path / name
        config = write_job(folder, model, "sft", fields, save_seconds=None).joinpath("config.yaml")
        assert yaml.safe_load(config.read_text())["trainer"]["max_steps"] == 3
        launch = Launch("sft", profile, processes, on_cpu=True, bf16=False)
        spec = JobSpec(name, launch.module, config, 300.0, launch.environment(), processes=processes)
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment = {**os.environ, **job_variables(spec, str(folder), threads=1), **quiet}
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                job_command(spec, sys.executable, str(config)), env=environment, stdout=log, stderr=log
            )
        outcome = ended(folder, process)
        assert outcome["ok"], outcome
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        course = [(line["loss"], line["grad_norm"]) for line in lines if "grad_norm" in line]
        return outcome, course, load_file(folder / "model" / "model.safetensors")

    _, alone, weights = run("alone", "single", 1)
    assert len(alone) == 3
    for profile, told in (("zero2", "DeepSpeed ZeRO-2"), ("zero3", "DeepSpeed ZeRO-3")):
        outcome, course, spread = run(profile, profile, 2)
        assert any(note.startswith(f"{told} on 2 process") for note in outcome["notes"]), outcome["notes"]
        assert [pair[0] for pair in course] == pytest.approx([pair[0] for pair in alone], rel=1e-5)
        assert [pair[1] for pair in course] == pytest.approx([pair[1] for pair in alone], rel=1e-4)
        assert spread.keys() == weights.keys()
        for name, value in weights.items():
            assert spread[name].shape == value.shape
            assert float((spread[name] - value).abs().max()) < 1e-3, name  # AdamW's first steps are signs: lr 1e-3
