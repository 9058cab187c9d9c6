"""The files of Hugging Face jobs: a private repository that both sides see.

code/SHA.zip            crew's package, once for each version of it
inputs/SHA/...          models and data that a config names, once for each content
jobs/NAME/files.json    which file of the repository a job puts where
jobs/NAME/in/...        the job's directory as it was, checkpoints of an earlier attempt included
jobs/NAME/out/...       what the job wrote: outcome.json and the model come in one commit
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import posttrain_crew
from posttrain_crew.errors import ConfigError
from posttrain_crew.files import canonical_json, sha256_file, sha256_text
from posttrain_crew.tools.compute.base import OUTCOME_FILE

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["bring_back", "package_zip", "send_job"]

ROOT = "{crew-root}"
_CODE_SUFFIXES = (".py", ".yaml", ".json", ".jsonl", ".html", ".md", ".typed")
_NOT_SENT = ("outcome.json", "job.json", "log.txt", "job.sbatch", ".fetched")
_MOST_FILES = 2000
_STAGING = ".fetched"


def send_job(api: HfApi, repo: str, name: str, config: Path) -> str:
    """Store what a job needs, in one commit without what is there already. Returns the code's path in the repo.

    A path in the config that exists here is an input; the job finds it under its own root. A value whose key ends in
    `_dir` is a place to write, and nothing of it is sent.

    Raises:
        ConfigError: the config cannot be read, or names a folder too large to send. The client's errors.
    """
    from huggingface_hub import CommitOperationAdd

    api.create_repo(repo, private=True, exist_ok=True)
    there = set(api.list_repo_files(repo))
    code = package_zip()
    code_path = f"code/{hashlib.sha256(code).hexdigest()[:32]}.zip"
    files: dict[str, bytes | Path] = {code_path: code}
    plan: dict[str, dict[str, Any]] = {}
    value, inputs = _rewritten(_read(config))
    for path in inputs:
        source = f"inputs/{_digest(path)[:32]}" + ("/" if path.is_dir() else f"/{path.name}")
        plan[source] = {"to": str(path), "folder": path.is_dir()}
        files |= {source + _relative(member, path): member for member in _members(path)} if path.is_dir() else {
            source: path
        }  # fmt: skip
    directory, own = config.parent, f"jobs/{name}/in/"
    plan[own] = {"to": str(directory), "folder": True}
    for member in _members(directory):
        relative = _relative(member, directory)
        if not relative.startswith((*_NOT_SENT, "model/", ".")) and member != config:
            files[own + relative] = member
    files[own + config.name] = yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode()
    files[f"jobs/{name}/files.json"] = json.dumps(plan, indent=1).encode()
    operations = [
        CommitOperationAdd(path_in_repo=path, path_or_fileobj=content if isinstance(content, bytes) else str(content))
        for path, content in files.items()
        if path not in there or path.startswith("jobs/")
    ]
    api.create_commit(repo, operations, commit_message=f"inputs of {name}")
    return code_path


def bring_back(api: HfApi, repo: str, name: str, directory: Path) -> bool:
    """Put what the job wrote into its directory, `outcome.json` last. Returns whether there was anything."""
    prefix = f"jobs/{name}/out/"
    staging = directory / _STAGING
    files = [path for path in api.list_repo_files(repo) if path.startswith(prefix)]
    if not files:
        return False
    api.snapshot_download(repo, allow_patterns=[f"{prefix}*"], local_dir=staging)
    got = staging / prefix
    members = sorted(_members(got), key=lambda path: path.name == OUTCOME_FILE and path.parent == got)
    for member in members:
        target = directory / _relative(member, got)
        target.parent.mkdir(parents=True, exist_ok=True)
        member.replace(target)
    shutil.rmtree(staging)
    return True


def package_zip() -> bytes:
    """crew's own package, the same bytes for the same code."""
    base = Path(posttrain_crew.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for folder, names, files in os.walk(base, followlinks=True):
            names[:] = sorted(name for name in names if name != "__pycache__")
            for file in sorted(files):
                path = Path(folder) / file
                if path.suffix in _CODE_SUFFIXES or file == "py.typed":
                    entry = zipfile.ZipInfo(f"posttrain_crew/{_relative(path, base)}")
                    entry.compress_type = zipfile.ZIP_DEFLATED
                    bundle.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _read(config: Path) -> Any:
    try:
        return yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config {config} cannot be read: {error}") from error


def _rewritten(value: Any, key: str = "") -> tuple[Any, list[Path]]:
    """The config with {crew-root} before each absolute path, and the paths that exist."""
    if isinstance(value, dict):
        parts = {name: _rewritten(item, str(name)) for name, item in value.items()}
        return {name: item for name, (item, _) in parts.items()}, [p for _, found in parts.values() for p in found]
    if isinstance(value, list):
        items = [_rewritten(item, key) for item in value]
        return [item for item, _ in items], [p for _, found in items for p in found]
    if not isinstance(value, str) or not value.startswith("/") or "\n" in value or len(value) > 1000:
        return value, []
    path = Path(value)
    if not path.exists():
        return (f"{ROOT}{value}", []) if path.parent.exists() and path.parent != Path("/") else (value, [])
    return f"{ROOT}{value}", [] if key.endswith("_dir") else [path]


def _members(folder: Path) -> Iterator[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    if len(found) > _MOST_FILES:
        raise ConfigError(f"{folder} holds {len(found)} files, more than a job is sent ({_MOST_FILES}): name less.")
    yield from found


def _digest(path: Path) -> str:
    """Of a file's content, or of a folder's names and contents."""
    if path.is_file():
        return sha256_file(path)
    return sha256_text(canonical_json({_relative(member, path): sha256_file(member) for member in _members(path)}))


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix()
