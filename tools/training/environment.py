"""The Python that a job runs in, which need not be crew's own.

vLLM pins its own torch and transformers, so what needs it lives in an environment of its own (`crew setup gpu`), named
by a config's `environment` or by CREW_GPU_PYTHON. Crew's process asks that Python what it has; it never imports it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.errors import ConfigError
from posttrain_crew.redact import child_environment
from posttrain_crew.settings import Settings
from posttrain_crew.tools.training.config import TrainingConfig

__all__ = ["check_vllm", "look_for_vllm", "python_for"]

PROBE_SECONDS = 120.0
_REMEDY = (
    "`crew setup gpu` makes the environment that has it; name its Python under `environment` in the config, or in "
    "CREW_GPU_PYTHON. Or leave out `use_vllm`: sampling is then done by the trainer itself, several times slower."
)
_PROBE = """
import importlib.util as u, json
found = {name: u.find_spec(name) is not None for name in ("vllm", "requests", "trl", "posttrain_crew")}
import torch
print(json.dumps({**found, "cuda": torch.cuda.is_available()}))
"""


def python_for(config: TrainingConfig | Path, backend: str | None = None) -> str:
    """The Python executable of a job: the config's `environment`, else the backend's own setting, else, for a training
    job on this machine, CREW_GPU_PYTHON, else the one that this process runs on.

    Args:
        config: of any job; a path is read as YAML. Only a training config has an `environment`.
        backend: interpreter that the compute backend is set to.

    Raises:
        ConfigError: the file cannot be read.
    """
    if isinstance(config, TrainingConfig):
        named, training = config.environment, True
    else:
        try:
            raw = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"the config {config} cannot be read: {error}") from error
        values = raw if isinstance(raw, dict) else {}
        training = values.get("method") in ("sft", "dpo", "grpo")
        named = values.get("environment") if training else None
    if named:
        return str(named)
    return backend or (Settings().gpu_python if training else None) or sys.executable


def check_vllm(method: str, trainer: Mapping[str, Any]) -> None:
    """In the job: refuse `use_vllm` where it cannot work. Raises ConfigError that says what is missing."""
    if method != "grpo" or not trainer.get("use_vllm"):
        return
    found = {name: importlib.util.find_spec(name) is not None for name in ("vllm", "requests")}
    import torch

    _judge({**found, "cuda": torch.cuda.is_available()}, sys.executable, trainer)


def look_for_vllm(config: TrainingConfig, backend: str, device: str) -> None:
    """Before a launch: the same, by asking the Python that the job will run in.

    Args:
        backend: name of the compute backend; only `local` runs on this machine, of others only `device` is known, and
            the smoke run tells the rest.
        device: what it computes on, `cpu` or the accelerator's name.

    Raises:
        ConfigError: vLLM, CUDA, or crew itself is missing there.
    """
    if config.method != "grpo" or not config.trainer.get("use_vllm"):
        return
    if device == "cpu":
        raise ConfigError(
            "`trainer.use_vllm` needs a CUDA device, and this backend has none. Leave it out, or use one that has."
        )
    if backend != "local":
        return
    python = python_for(config)
    try:
        done = subprocess.run(
            [python, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            env=child_environment(),
            check=False,
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"the environment of the job, {python}, cannot be asked: {error}. {_REMEDY}") from error
    except (ValueError, IndexError) as error:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ConfigError(f"the environment of the job, {python}, does not work: {last[0][:300]}. {_REMEDY}") from error
    for name in ("trl", "posttrain_crew"):
        if not found.get(name):
            raise ConfigError(f"the environment of the job, {python}, lacks the package `{name}`. {_REMEDY}")
    _judge(found, python, config.trainer)


def _judge(found: Mapping[str, bool], python: str, trainer: Mapping[str, Any]) -> None:
    if not found.get("vllm"):
        raise ConfigError(f"`trainer.use_vllm` needs the package `vllm`, and {python} has none. {_REMEDY}")
    if trainer.get("vllm_mode") == "server" and not found.get("requests"):
        raise ConfigError(f"`trainer.vllm_mode: server` needs the package `requests`, and {python} has none. {_REMEDY}")
    if not found.get("cuda"):
        raise ConfigError(
            f"`trainer.use_vllm` needs a CUDA device, and torch of {python} sees none: leave it out, run on a machine "
            "with one, or look at the driver and at which torch is installed there."
        )
