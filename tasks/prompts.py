"""Prompt templates: a work order or a brief becomes the text that an agent reads.

The task's input stands in the text as one fenced JSON block, so that an LLM reads it as data and the playbook can find
it again in any conversation. Nothing here is interpolated by crewai: it gets no `inputs`, so braces survive.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from posttrain_crew.errors import RoleError

__all__ = ["PLACEHOLDERS", "Template", "load_template", "task_input"]

PLACEHOLDERS = ("input_json", "result_schema", "rules")
_KEYS = ("description", "expected_output")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
_FENCED = re.compile(r"^```json[ \t]*\n(.*?)\n```[ \t]*$", re.MULTILINE | re.DOTALL)
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Template:
    """A prompt with its placeholders."""

    description: str
    expected_output: str

    def render(self, task_input: dict[str, Any], result: type[BaseModel]) -> tuple[str, str]:
        """The description and the expected output for one task."""
        values = {
            "input_json": f"```json\n{json.dumps(task_input, indent=1, ensure_ascii=False, default=str)}\n```",
            "result_schema": json.dumps(_schema(result), ensure_ascii=False),
            "rules": _rules(),
        }
        return (
            _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), self.description),
            _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), self.expected_output),
        )


def load_template(name: str, folders: Sequence[Path] = ()) -> Template:
    """The template `NAME.yaml` of the first folder that has it, else the packaged one.

    Raises:
        RoleError: there is none, or it has an unknown key or placeholder.
    """
    for folder in [*folders, _HERE]:
        if (path := folder / f"{name}.yaml").is_file() and name != "rules":
            return _read(path)
    known = sorted(path.stem for path in _HERE.glob("*.yaml") if path.stem != "rules")
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}."
    raise RoleError(f"there is no prompt template `{name}`; {hint} Put your own into `tasks/{name}.yaml` of --prompts.")


def task_input(texts: Sequence[str]) -> dict[str, Any] | None:
    """The last fenced JSON object with a `specialist` in these texts: the input of a rendered task."""
    for text in reversed(texts):
        for block in reversed(_FENCED.findall(text)):
            try:
                value = json.loads(block)
            except ValueError:
                continue
            if isinstance(value, dict) and isinstance(value.get("specialist"), str):
                return value
    return None


def _read(path: Path) -> Template:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RoleError(f"{path} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(raw, dict):
        raise RoleError(f"{path} must hold a YAML mapping with `description` and `expected_output`.")
    for key in raw:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.3) or _KEYS
            raise RoleError(f"{path}: the key `{key}` is unknown; did you mean `{near[0]}`?")
    for key in _KEYS:
        if not isinstance(raw.get(key), str) or not raw[key].strip():
            raise RoleError(f"{path}: the key `{key}` is missing or no text.")
        for found in _PLACEHOLDER.findall(raw[key]):
            if found not in PLACEHOLDERS:
                near = difflib.get_close_matches(found, PLACEHOLDERS, n=1, cutoff=0.0)
                raise RoleError(f"{path}: the placeholder `{{{found}}}` is unknown; did you mean `{{{near[0]}}}`?")
    if raw["description"].count("{input_json}") != 1:
        raise RoleError(
            f"{path}: `description` must have the placeholder `{{input_json}}` once: it is the task's input."
        )
    return Template(raw["description"], raw["expected_output"])


@cache
def _rules() -> str:
    return str(yaml.safe_load((_HERE / "rules.yaml").read_text(encoding="utf-8"))["rules"])


def _schema(result: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without titles, which only cost tokens."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if not (k == "title" and isinstance(v, str))}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return dict(bare(result.model_json_schema()))
