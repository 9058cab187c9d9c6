"""How a job of several devices or machines is started: its environment, its command lines, the loading of its weights.

A profile of profiles/sharding.yaml becomes environment variables, the same that `accelerate launch` sets, so that any
backend that starts torchrun (tools/compute/command.py) can use it without a file on the other machine: the DeepSpeed
config travels in a variable, as JSON. The same profile as a file is for those who type `accelerate launch`.

Batch sizes, accumulation, clipping and precision are `auto`: the trainer fills them in from the job's config.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.errors import ConfigError
from posttrain_crew.files import atomic_write_text
from posttrain_crew.tools.training.hardware import Sharding, sharding
from posttrain_crew.tools.training.trainer_fields import TrainerMethod

__all__ = [
    "Launch",
    "accelerate_config",
    "deepspeed_config",
    "launch_environment",
    "load_whole",
    "sharded_loading",
    "spread_as_launched",
]

_AUTO = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
ACCELERATE_FILE = "accelerate.yaml"
DEEPSPEED_FILE = "deepspeed.json"


@dataclass(frozen=True)
class Launch:
    """One job on `nodes` machines with `processes` on each, one for each device."""

    method: TrainerMethod
    profile: str = "single"
    processes: int = 1
    nodes: int = 1
    bf16: bool = True
    on_cpu: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError for numbers that do not go with the profile."""
        chosen = sharding(self.profile)
        world = self.processes * self.nodes
        if self.processes < 1 or self.nodes < 1:
            raise ConfigError("a launch needs at least one process on at least one machine.")
        if world > 1 and chosen.engine == "none":
            raise ConfigError(f"`{self.profile}` is for one process, not {world}: choose ddp, zero2, zero3 or fsdp.")
        if world == 1 and chosen.engine in ("ddp", "fsdp"):
            raise ConfigError(f"`{self.profile}` spreads a training over several processes, but there is one.")
        if self.on_cpu and chosen.engine == "fsdp":
            raise ConfigError(f"`{self.profile}` needs accelerators here: on CPUs use ddp, zero2 or zero3.")

    @property
    def module(self) -> str:
        return f"posttrain_crew.tools.training.{self.method}"

    def environment(self) -> dict[str, str]:
        """For `JobSpec.environment`; with it, `JobSpec.processes` and `.nodes` start the job on any backend."""
        return launch_environment(sharding(self.profile), bf16=self.bf16, on_cpu=self.on_cpu)

    def torchrun(self, config: str = "config.yaml", master: str = "$MASTER_ADDR") -> str:
        """The line for one machine, or for each of several (with its own `$NODE_RANK`)."""
        if self.processes * self.nodes == 1 and not self.environment():
            return f"python -m {self.module} {config}"
        together = ["--standalone"]
        if self.nodes > 1:
            together = ["--node-rank=$NODE_RANK", f"--master-addr={master}", "--master-port=29500"]
        shape = f"--nnodes={self.nodes} --nproc-per-node={self.processes} {' '.join(together)}"
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment().items())
        return f"{variables} torchrun {shape} -m {self.module} {config}".strip()

    def accelerate(self, config: str = "config.yaml", file: str = ACCELERATE_FILE) -> str:
        """The line with the files of `write`."""
        rank = " --machine_rank $NODE_RANK --main_process_ip $MASTER_ADDR --main_process_port 29500"
        return f"accelerate launch --config_file {file}{rank if self.nodes > 1 else ''} -m {self.module} {config}"

    def deepspeed(self, config: str = "config.yaml") -> str | None:
        """The line with DeepSpeed's own launcher, which needs `numactl` on a CPU; None for other engines."""
        if sharding(self.profile).engine != "deepspeed":
            return None
        shape = f"--num_gpus {self.processes}" + (
            f" --num_nodes {self.nodes} --hostfile hostfile" if self.nodes > 1 else ""
        )
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment().items())
        return f"{variables} deepspeed {shape} --module {self.module} {config}"

    def write(self, folder: Path) -> list[Path]:
        """Write what `accelerate launch` reads: accelerate.yaml, and deepspeed.json where the profile has one."""
        chosen = sharding(self.profile)
        written = [folder / ACCELERATE_FILE]
        content = accelerate_config(self, str(folder / DEEPSPEED_FILE))
        atomic_write_text(written[0], yaml.safe_dump(content, sort_keys=False))
        if chosen.engine == "deepspeed":
            written.append(folder / DEEPSPEED_FILE)
            atomic_write_text(written[1], json.dumps(deepspeed_config(chosen, on_cpu=self.on_cpu), indent=2) + "\n")
        return written


def deepspeed_config(profile: Sharding, *, on_cpu: bool = False) -> dict[str, Any]:
    """The DeepSpeed config of a profile. Raises ConfigError for a profile that has none."""
    if profile.engine != "deepspeed":
        raise ConfigError(f"`{profile.name}` does not use DeepSpeed.")
    config: dict[str, Any] = {**dict.fromkeys(_AUTO, "auto"), **json.loads(json.dumps(dict(profile.deepspeed)))}
    if on_cpu:
        # no streams to overlap on, and no memory to pin
        zero = config["zero_optimization"]
        zero["overlap_comm"] = False
        for part in ("offload_optimizer", "offload_param"):
            if part in zero:
                zero[part]["pin_memory"] = False
    return config


def accelerate_config(launch: Launch, deepspeed_file: str = DEEPSPEED_FILE) -> dict[str, Any]:
    """An accelerate config file as a mapping."""
    chosen = sharding(launch.profile)
    world = launch.processes * launch.nodes
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "NO",
        "num_machines": launch.nodes,
        "machine_rank": 0,
        "num_processes": world,
        "main_training_function": "main",
        "use_cpu": launch.on_cpu,
        **json.loads(json.dumps(dict(chosen.accelerate))),
    }
    if launch.on_cpu and chosen.engine == "ddp":
        config["distributed_type"] = "MULTI_CPU"
    if chosen.engine == "deepspeed":
        # precision is not said here: DeepSpeed's fields in two places would contradict each other
        config["deepspeed_config"] = {"deepspeed_config_file": deepspeed_file, "zero3_init_flag": chosen.stage == 3}
        if launch.nodes > 1:
            config["deepspeed_config"]["deepspeed_multinode_launcher"] = "standard"
    else:
        config["mixed_precision"] = "bf16" if launch.bf16 else "no"
    return config


def launch_environment(profile: Sharding, *, bf16: bool, on_cpu: bool = False) -> dict[str, str]:
    """What `accelerate launch` would set for a profile: nothing for one process, and for plain data parallelism only
    torchrun's own variables."""
    variables: dict[str, str] = {}
    if profile.engine == "deepspeed":
        variables = {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_CONFIG_DS_FIELDS": "deepspeed_config_file,zero3_init_flag",
            "ACCELERATE_DEEPSPEED_CONFIG_FILE": json.dumps(deepspeed_config(profile, on_cpu=on_cpu)),
            "ACCELERATE_DEEPSPEED_ZERO3_INIT": str(profile.stage == 3).lower(),
        }
        if on_cpu:
            variables["DS_ACCELERATOR"] = "cpu"
    elif profile.engine == "fsdp":
        variables = {"ACCELERATE_USE_FSDP": "true"}
        for name, value in profile.accelerate["fsdp_config"].items():
            variables[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    if variables:
        variables["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    return variables


def spread_as_launched(trainer: Any) -> str:
    """How a trainer really spreads its states, in a few words; "" for one process alone.

    Raises:
        ConfigError: it does not do what the job was launched for. accelerate leaves DeepSpeed and FSDP out without a
            word where ACCELERATE_USE_CPU is set, and a model that fits only when spread would run out of memory.
    """
    processes = int(trainer.accelerator.num_processes)
    for name, variable, really in (
        ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED", trainer.is_deepspeed_enabled),
        ("FSDP", "ACCELERATE_USE_FSDP", trainer.is_fsdp_enabled),
    ):
        if _is_set(variable) and not really:
            raise ConfigError(
                f"the job was launched with {name}, but accelerate would run it without: unset ACCELERATE_USE_CPU, and "
                "use FSDP on accelerators alone."
            )
    if trainer.is_deepspeed_enabled:
        stage = trainer.accelerator.deepspeed_plugin.zero_stage
        return f"DeepSpeed ZeRO-{stage} on {processes} process(es)"
    if trainer.is_fsdp_enabled:
        return f"FSDP on {processes} processes"
    return f"data parallel on {processes} processes" if processes > 1 else ""


@contextlib.contextmanager
def sharded_loading(bf16: bool) -> Iterator[None]:
    """While a model is loaded: place each weight on its owner as it is read, where the job was launched to spread them.

    Without it every process holds the whole model at first, and a model that fits only when it is spread does not fit.
    The trainer makes its own DeepSpeed config afterwards; this one is for loading alone. Does nothing elsewhere.
    """
    fsdp = _is_set("ACCELERATE_USE_FSDP")
    zero3 = _is_set("ACCELERATE_USE_DEEPSPEED") and _is_set("ACCELERATE_DEEPSPEED_ZERO3_INIT")
    if not fsdp and not zero3:
        yield
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available())  # the processes have to know each other
    if fsdp:
        yield  # transformers then loads on the first process alone
        return
    from accelerate.utils import DeepSpeedPlugin
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision("bf16" if bf16 else "no")
    plugin.set_deepspeed_weakref()
    try:
        yield
    finally:
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def load_whole() -> None:
    """From here on load models whole again, on one process alone: for merging an adapter after a spread training."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() == "true"
