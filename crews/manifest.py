"""manifest.json: what one would need to repeat the run. Written at the start, and again as the run goes on.

It is derived from the blackboard, the files and the machine. It holds no environment variable, and what a user typed
into a target or a command passes through redaction.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import posttrain_crew
from posttrain_crew.entries import Experiment, JobStarted, TrainingSet
from posttrain_crew.errors import JobError
from posttrain_crew.files import atomic_write_text, sha256_file, sha256_text
from posttrain_crew.redact import redact
from posttrain_crew.tools.evaluation.run import model_files
from posttrain_crew.tools.workspace import Workspace

__all__ = ["write_manifest"]

PACKAGES = (
    "accelerate",
    "crewai",
    "datasets",
    "deepspeed",
    "litellm",
    "lm-eval",
    "numpy",
    "peft",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
)


def write_manifest(workspace: Workspace) -> Path:
    """Write RUN/manifest.json as things stand now and return its path.

    Raises:
        OSError: it cannot be written. ModelError: the base model's folder is gone or incomplete.
    """
    path, board, started = workspace.run.manifest, workspace.board, workspace.started
    earlier = _earlier(path)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    experiments, sets = board.of(Experiment), board.of(TrainingSet)
    manifest: dict[str, Any] = {
        "run": workspace.run.id,
        "created_at": earlier.get("created_at", now),
        "updated_at": now,
        "crew": {"version": posttrain_crew.__version__, "git": _git()},
        "machine": _machine(workspace),
        "packages": _packages(),
        "asked": started.model_dump(mode="json"),
        "seeds": {
            "run": started.seed,
            "experiments": {entry.id: entry.body.seed for entry in experiments},
            "training_sets": {entry.id: entry.body.seed for entry in sets},
        },
        "target": _target(workspace),
        "base_model": _base_model(workspace, earlier),
        "configs": _configs(workspace),
        "data": {
            entry.id: {"sha256": entry.body.sha256, "rows": entry.body.rows, "path": entry.body.path} for entry in sets
        },
        "budget": {"limits": asdict(workspace.budget.limits), "used": asdict(workspace.budget.usage())},
        "blackboard": {"entries": board.last_seq(), "last_hash": _last_hash(workspace)},
    }
    if (workspace.run.final_model / "config.json").is_file():
        manifest["final_model"] = model_files(workspace.run.final_model)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    atomic_write_text(path, redact(text) + "\n")
    return path


def _earlier(path: Path) -> dict[str, Any]:
    """The manifest of an earlier write; an unreadable one is written anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _git() -> dict[str, Any] | None:
    """Commit of the source tree, and whether it was changed since; None for an installed package."""
    root = Path(posttrain_crew.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    answers = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        answers.append(done.stdout.strip())
    return {"commit": answers[0], "changed": bool(answers[1])}


def _machine(workspace: Workspace) -> dict[str, Any]:
    try:
        capacity = asdict(workspace.compute.capacity())
    except JobError as error:  # a run is resumed while its backend is silent: the manifest is written again at the end
        capacity = {"unknown": str(error)}
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "backend": workspace.compute.name,
        "compute": capacity,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _target(workspace: Workspace) -> dict[str, Any]:
    target = workspace.target
    text = target.origin.read_text(encoding="utf-8") if target.origin and target.origin.is_file() else None
    return {"name": target.name, "sha256": sha256_text(text) if text else None, "yaml": text}


def _base_model(workspace: Workspace, earlier: dict[str, Any]) -> dict[str, Any]:
    """Path and file hashes of the base, hashed once per run: a large model takes minutes to read."""
    before = earlier.get("base_model", {})
    path = str(workspace.base_model)
    if before.get("path") == path and before.get("sha256"):
        return dict(before)
    return {"name": workspace.started.base_model, "path": path, "sha256": model_files(workspace.base_model)}


def _configs(workspace: Workspace) -> dict[str, str]:
    """SHA-256 of each job's config file, by label."""
    found = {}
    for job in workspace.board.of(JobStarted):
        config = workspace.run.absolute(job.body.directory) / "config.yaml"
        if config.is_file():
            found[job.body.label] = sha256_file(config)
    return found


def _last_hash(workspace: Workspace) -> str | None:
    entries = workspace.board.since(workspace.board.last_seq() - 1, limit=1)
    return entries[0].hash if entries else None
