"""Settings of the cluster backends: `CREW_SLURM_*`, `CREW_RAY_*`, `CREW_HF_JOBS_*`, or a section in compute.yaml.

    # ~/.config/posttrain-crew/compute.yaml
    slurm:
      partition: gpu
      gres: "gpu:h100:1"
      usd_per_hour: 0

A variable of the environment wins over the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from posttrain_crew.errors import ConfigError
from posttrain_crew.settings import config_dir

__all__ = ["HfJobsSettings", "RaySettings", "SlurmSettings", "read_settings"]


class BackendSettings(BaseSettings):
    """What all of them have."""

    section: ClassVar[str] = ""

    slots: int = Field(default=4, ge=0)
    """Jobs that crew has there at a time, waiting or running."""
    python: str | None = None
    """Interpreter of the jobs, with crew's trainers installed. Default: this process's own; for HF Jobs `python`."""
    setup: str = ""
    """Shell lines before a job, for example `module load cuda` or `source /envs/gpu/bin/activate`."""
    device: str = "cpu"
    """What one job computes on, for example `NVIDIA H100`."""
    device_memory_gib: float = Field(default=0.0, ge=0)
    """GiB that one job can use; 0: what the backend says of itself."""
    threads: int = Field(default=1, ge=1)
    """Threads of the numerical libraries in each process of a job."""
    usd_per_hour: float | None = Field(default=None, ge=0)
    """Price of one job; 0 where it costs you nothing. Unknown prices are refused when the run has a limit in USD."""
    poll_seconds: float = Field(default=2.0, ge=0)
    """The backend is asked for states at most this often."""
    settle_seconds: float = Field(default=10.0, ge=0)
    """How long an ended job's files may take to show on the shared file system."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before the file."""
        return env_settings, init_settings


class SlurmSettings(BackendSettings):
    """A Slurm cluster. The run's directory must be on a file system that its nodes see under the same path."""

    model_config = SettingsConfigDict(env_prefix="CREW_SLURM_", extra="forbid")
    section: ClassVar[str] = "slurm"

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    """Of each node, for example `gpu:h100:1`."""
    mem: str | None = None
    """Of each node, for example `64G`."""
    constraint: str | None = None
    options: list[str] = []
    """Further options of sbatch, for example ["--exclusive"]."""
    requeue: bool = False
    """Let Slurm start a job again by itself after a preemption or a node failure. Without it, crew does."""
    bin: str | None = None
    """Folder of sbatch, squeue, scontrol and scancel, where they are not on PATH."""
    command_seconds: float = Field(default=30.0, gt=0)
    """How long one command of Slurm may take."""
    rendezvous_port: int = 29500
    """Of jobs on several nodes; the job's id is added, modulo 1000."""


class RaySettings(BackendSettings):
    """A Ray cluster, KubeRay's included. The run's directory must be on a file system that the cluster sees."""

    model_config = SettingsConfigDict(env_prefix="CREW_RAY_", extra="forbid")
    section: ClassVar[str] = "ray"

    address: str = "http://127.0.0.1:8265"
    """Of the dashboard, where the Jobs API is. KubeRay: the service RAYCLUSTER-head-svc, port 8265."""
    token: SecretStr | None = None
    """Sent as a bearer token, where the address is behind a proxy that wants one."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs that one job's process takes."""
    cpus: float = Field(default=1.0, ge=0)
    resources: dict[str, float] = {}
    """Custom resources of one job, by Ray's name."""
    request_seconds: float = Field(default=20.0, gt=0)


class HfJobsSettings(BackendSettings):
    """Hugging Face Jobs. Nothing is shared with a job: its files travel through a private repository."""

    model_config = SettingsConfigDict(env_prefix="CREW_HF_JOBS_", extra="forbid")
    section: ClassVar[str] = "hf-jobs"

    namespace: str | None = None
    """User or organisation that pays. Default: the owner of the token."""
    flavor: str = "a100-large"
    image: str = "huggingface/trl"
    """Container image with Python, torch, TRL and huggingface_hub; crew's own code is brought along."""
    repo: str | None = None
    """Private dataset repository for the jobs' files. Default: NAMESPACE/crew-jobs."""
    endpoint: str | None = None
    """Default: HF_ENDPOINT, else https://huggingface.co."""
    secrets: list[str] = []
    """Names of variables of this process that jobs get as secrets, besides the token that their files need."""
    checkpoint_seconds: float = Field(default=600.0, gt=0)
    """How often a running job stores its newest checkpoint, from which a relaunched one goes on."""
    send_seconds: float = Field(default=5.0, ge=0)
    """How long a submission keeps its caller while files are sent; what takes longer goes on beside it."""


AnySettings = TypeVar("AnySettings", bound=BackendSettings)


def read_settings(kind: type[AnySettings], path: Path | None = None) -> AnySettings:
    """A backend's settings. Raises ConfigError with the name of the setting that is not right."""
    path = path or config_dir() / "compute.yaml"
    values: Any = {}
    try:
        if path.exists():
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    section = values.get(kind.section, {}) if isinstance(values, dict) else None
    if not isinstance(section, dict):
        raise ConfigError(f"{path} must hold a mapping of backends to their settings, such as `{kind.section}:`.")
    try:
        return kind(**section)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        variable = f"{kind.model_config.get('env_prefix')}{name.upper()}"
        raise ConfigError(
            f"the setting `{kind.section}.{name}` ({path}, or the variable {variable}): {first['msg']}."
        ) from error
