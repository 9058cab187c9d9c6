"""Settings from the environment (`CREW_*`) and the user's config directory.

Command-line flags win over the environment, which wins over the defaults here.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings", "cache_dir", "config_dir"]


def cache_dir() -> Path:
    """`CREW_CACHE`, else `$XDG_CACHE_HOME/posttrain-crew`, else `~/.cache/posttrain-crew`."""
    if value := os.environ.get("CREW_CACHE"):
        return Path(value)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "posttrain-crew"


def config_dir() -> Path:
    """`$XDG_CONFIG_HOME/posttrain-crew`, else `~/.config/posttrain-crew`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "posttrain-crew"


class Settings(BaseSettings):
    """What a user sets once. Each field is the variable `CREW_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="CREW_", extra="ignore")

    llm: str = "playbook"
    """`playbook` (embedded, needs no key), or any litellm model name such as `openai/gpt-5`, `ollama/qwen3`."""
    llm_base_url: str | None = None
    """An OpenAI-compatible server, for example http://127.0.0.1:8000/v1."""
    llm_api_key: SecretStr | None = None
    llm_tool_mode: str = "native"
    """`native` tool calls, or `text` for models that cannot."""
    llm_context_window: int = Field(default=32768, ge=2048)
    """Tokens; used where litellm does not know the model."""
    llm_price_in: float | None = None
    """USD per prompt token, for models that litellm has no price for."""
    llm_price_out: float | None = None
    slots: int = Field(default=0, ge=0)
    """Jobs that run side by side on this machine; 0: one per accelerator, or one per CPU core up to 2 without one."""
    gpu_python: str | None = None
    """Python of the environment with CUDA and vLLM (`crew setup gpu`), which training jobs on this machine run in; vLLM
    pins its own torch and transformers, so crew itself stays in another."""
    job_memory_gib: float = Field(default=0.0, ge=0)
    """RAM that one job of this machine may take, GiB; 0: no limit."""
    s2_url: str = "https://api.semanticscholar.org"
    s2_api_key: SecretStr | None = None
    """A key raises Semantic Scholar's limit from a pool shared by all users to one request a second."""
    arxiv_api_url: str = "https://export.arxiv.org"
    arxiv_url: str = "https://arxiv.org"
    """Full texts: `/html/ID` and `/pdf/ID`."""
    ar5iv_url: str = "https://ar5iv.labs.arxiv.org"
    datasets_server_url: str = "https://datasets-server.huggingface.co"
    """HF_ENDPOINT does not reach the dataset viewer's service: it has an address of its own."""
    dataset_max_gib: float = Field(default=2.0, gt=0)
    """Most that is brought from the Hub for one dataset; what is over it is left out, and said so."""
    dataset_max_files: int = Field(default=64, ge=1)
    loopback_url: str = "http://127.0.0.1:8765"
    """Where `python -m tests.loopback` serves a small copy of all these services, for `--sources loopback`."""
