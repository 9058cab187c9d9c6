"""Roles: an agent's prompt and limits, one YAML file each, replaceable by file.

Look-up, later ones win key by key: packaged and plugin YAML < `<user config>/roles/NAME.yaml` < `roles:` in
`./crew.yaml` < `NAME.yaml` in the folder given with `--prompts`. A file under a new name adds a role.
`eject("literature", folder)` writes the file to start from.
"""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from posttrain_crew.errors import RoleError
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.settings import config_dir
from posttrain_crew.target import Target
from posttrain_crew.tasks.contracts import RESULT_TYPES

__all__ = ["PLACEHOLDERS", "Role", "Stage", "eject", "load_roles"]

Stage = Literal["coordinate", "research", "data", "train", "evaluate", "advise"]

PLACEHOLDERS = ("target", "title", "description", "domains")
"""What `{...}` in a role's texts may name: fields of the run's target."""

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")


class Role(BaseModel):
    """One agent: who it is, what it may call, and what it must return."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    role: str = Field(min_length=1)
    goal: str = Field(min_length=1)
    backstory: str = Field(min_length=1)
    description: str = Field(min_length=1)
    """One line for the coordinator's roster: when to send work here."""
    llm: str | None = None
    """A litellm model name or `playbook`; None is the run's own LLM."""
    tools: list[str] = []
    """Names of tools, or of a desk for all of its tools."""
    max_iter: int = Field(default=20, ge=1, le=200)
    specialist: bool = True
    result_type: str
    """A key of tasks.contracts.RESULT_TYPES."""
    task: str
    """Name of the prompt template: tasks/NAME.yaml, or NAME.yaml in `tasks/` beside the role's own file."""
    parameters: dict[str, str] = {}
    """Order parameters it understands, with their meaning; shown in the roster."""
    stage: Stage
    template_folders: list[Path] = Field(default=[], exclude=True)
    """Where its template is looked for before the packaged ones; set by the loader, not by a file."""

    def speak(self, text: str, target: Target) -> str:
        """One of its texts with the placeholders filled in."""
        values = {
            "target": target.name,
            "title": target.title,
            "description": target.description,
            "domains": ", ".join(target.domains) or "any",
        }
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)

    def roster(self) -> dict[str, Any]:
        """The line that the coordinator sees."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
            "stage": self.stage,
            "result_type": self.result_type,
        }


_FIELDS = tuple(name for name in Role.model_fields if name != "template_folders")


def load_roles(prompts: Path | None = None) -> dict[str, Role]:
    """All roles by name, with every layer applied.

    Raises:
        RoleError: a file is unreadable, or has an unknown key or placeholder; it names the file and the nearest key.
    """
    packaged: dict[str, Path] = merged(hooks().register_roles())
    layers: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    folders: dict[str, list[Path]] = {}
    for name, path in packaged.items():
        layers.setdefault(name, []).append((str(path), _read(path)))
        folders.setdefault(name, []).append(path.parent / "tasks")
    user = config_dir() / "roles"
    overrides = [(user, user / "tasks")] if user.is_dir() else []
    for folder, templates in overrides:
        for path in sorted(folder.glob("*.yaml")):
            layers.setdefault(path.stem, []).append((str(path), _read(path)))
        _prepend(folders, layers, templates)
    for name, partial in _project_roles(Path("crew.yaml")).items():
        layers.setdefault(name, []).append((f"crew.yaml, roles.{name}", partial))
    if prompts is not None:
        if not prompts.is_dir():
            raise RoleError(
                f"the prompts folder {prompts} does not exist. `crew roles eject NAME` writes one role there."
            )
        for path in sorted(prompts.glob("*.yaml")):
            layers.setdefault(path.stem, []).append((str(path), _read(path)))
        _prepend(folders, layers, prompts / "tasks")
    return {name: _role(name, parts, folders.get(name, []), packaged) for name, parts in sorted(layers.items())}


def eject(name: str, directory: Path) -> Path:
    """Copy a packaged role to `directory/NAME.yaml`, to be changed and used with `--prompts`.

    Raises:
        RoleError: there is no such role, or the file exists already.
    """
    packaged: dict[str, Path] = merged(hooks().register_roles())
    if name not in packaged:
        raise RoleError(f"there is no role `{name}`; {_nearest(name, packaged)}.")
    path = directory / f"{name}.yaml"
    if path.exists():
        raise RoleError(f"{path} exists already and is left as it is. Remove it, or choose another folder.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packaged[name], path)
    except OSError as error:
        raise RoleError(f"{path} cannot be written ({error.strerror or error}). Choose another folder.") from error
    return path


def _role(name: str, parts: list[tuple[str, dict[str, Any]]], folders: list[Path], known: Iterable[str]) -> Role:
    values: dict[str, Any] = {"name": name}
    for where, part in parts:
        for key in part:
            if key not in _FIELDS:
                raise RoleError(f"{where}: the key `{key}` is unknown; {_nearest(str(key), _FIELDS)}.")
        if part.get("name", name) != name:
            raise RoleError(f"{where}: `name` is {part['name']!r}, but the role is `{name}`: they must be the same.")
        values.update(part)
    where = " + ".join(place for place, _ in parts)
    try:
        role = Role.model_validate({**values, "template_folders": folders})
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        hint = "" if name in known else f" `{name}` is a new role; for another one, {_nearest(name, known)}."
        raise RoleError(f"{where}: the role `{name}` is not valid: {problems}.{hint}") from error
    if role.result_type not in RESULT_TYPES:
        raise RoleError(
            f"{where}: `result_type` {role.result_type!r} is unknown; {_nearest(role.result_type, RESULT_TYPES)}."
        )
    for key in ("role", "goal", "backstory"):
        for found in _PLACEHOLDER.findall(getattr(role, key)):
            if found not in PLACEHOLDERS:
                raise RoleError(
                    f"{where}: the placeholder `{{{found}}}` in `{key}` is unknown; {_nearest(found, PLACEHOLDERS)}."
                )
    return role


def _project_roles(path: Path) -> Mapping[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    raw = _read(path)
    if "roles" not in raw:
        if near := difflib.get_close_matches("roles", [str(key) for key in raw], n=1, cutoff=0.75):
            raise RoleError(f"{path}: the key `{near[0]}` is unknown; did you mean `roles`?")
        return {}
    roles = raw["roles"]
    if not isinstance(roles, dict) or not all(isinstance(part, dict) for part in roles.values()):
        raise RoleError(f"{path}: `roles` must be a mapping from a role's name to the keys that it changes.")
    return roles


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RoleError(f"{path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(raw, dict):
        raise RoleError(f"{path} must hold a YAML mapping such as `goal: ...`.")
    return raw


def _prepend(folders: dict[str, list[Path]], names: Iterable[str], folder: Path) -> None:
    for name in names:
        folders.setdefault(name, []).insert(0, folder)


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    if near := difflib.get_close_matches(word, names, n=1, cutoff=0.5):
        return f"did you mean `{near[0]}`"
    return f"known: {', '.join(names)}"
