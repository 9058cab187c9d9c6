"""From a target to the evaluation job's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from posttrain_crew.errors import TargetError
from posttrain_crew.target import Target
from posttrain_crew.tools.sources import builtin_source

__all__ = ["config_for", "task_folder"]


def task_folder(target: Target) -> Path | None:
    """The folder of a target's task YAMLs, absolute; None: lm-eval's own tasks. Raises TargetError when missing."""
    place = target.evaluation.include_path
    if place is None:
        return None
    scheme, _, name = place.partition(":")
    if scheme == "builtin":
        return builtin_source(name).task_folder()
    path = Path(place).expanduser()
    if not path.is_absolute() and target.origin is not None:
        path = target.origin.parent / path
    if not path.is_dir():
        raise TargetError(f"the target {target.name} names the task folder {path}, which does not exist.")
    return path.resolve()


def config_for(
    target: Target, model: Path, split: Literal["dev", "test"], *, few_shot: int = 0, seed: int = 0
) -> dict[str, Any]:
    """The evaluation job's config (`EvaluationConfig`) as plain YAML values."""
    how = target.evaluation
    folder = task_folder(target)
    return {
        "model": str(model),
        "task": how.dev_task if split == "dev" else how.test_task,
        "include_path": None if folder is None else str(folder),
        "split": split,
        "few_shot": few_shot,
        "limit": how.limit,
        "batch_size": how.batch_size,
        "apply_chat_template": how.apply_chat_template,
        "seed": seed,
        "metric": how.metric,
        "strict_filter": how.strict_filter,
        "lenient_filter": how.lenient_filter,
        "invalid_answer": how.invalid_answer,
        "max_length": None,
        "network": target.requires.network,
    }
