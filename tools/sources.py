"""Where a target's parts come from: the base model, the benchmark's items, the candidates for training data.

`builtin:NAME` asks the source that a plugin registered under NAME, `hf:OWNER/NAME` the Hugging Face Hub (benchmark
items); everything else is a path here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from posttrain_crew.errors import DatasetError, ModelError, TargetError
from posttrain_crew.plugins import hooks, merged
from posttrain_crew.target import Target

__all__ = ["BenchmarkItem", "BuiltinSource", "benchmark_items", "builtin_source", "candidate_folders", "resolve_model"]


@dataclass(frozen=True)
class BenchmarkItem:
    """One item of a benchmark. Only the evaluator and the contamination check may hold these."""

    id: str
    question: str
    choices: tuple[str, ...]
    """Empty for an open question."""
    answer: str
    """The label of the right choice, or the answer itself."""


@runtime_checkable
class BuiltinSource(Protocol):
    """What a plugin offers under a `builtin:` name. A source may offer only some of these and raise TargetError."""

    def items(self, split: Literal["dev", "test"]) -> Sequence[BenchmarkItem]:
        """The benchmark's items of a split."""
        ...

    def candidates(self, cache: Path, seed: int) -> Path:
        """A folder that holds one folder per candidate dataset; made in `cache` when it is missing."""
        ...

    def base_model(self, cache: Path, on_progress: Callable[[str], None] | None = None) -> Path:
        """The base model's local directory; made in `cache` when it is missing."""
        ...

    def task_folder(self) -> Path:
        """The folder of lm-eval task YAMLs."""
        ...


def builtin_source(name: str) -> BuiltinSource:
    """The source registered under a name. Raises TargetError when there is none."""
    sources = merged(hooks().register_sources())
    if name not in sources:
        raise TargetError(
            f"`builtin:{name}` is not known. Known: {', '.join(sorted(sources))}. Is a plugin missing (`crew doctor`)?"
        )
    source = sources[name]
    assert isinstance(source, BuiltinSource), name
    return source


def benchmark_items(target: Target, split: Literal["dev", "test"]) -> Sequence[BenchmarkItem]:
    """The items of a target's split, for the evaluator and the contamination check.

    Raises:
        TargetError: the source is unknown. DatasetError: the file is missing or malformed.
        ServiceError: the Hub did not give the items, for example because they are gated (AccessDeniedError).
    """
    scheme, _, rest = target.items.partition(":")
    if scheme == "builtin":
        return builtin_source(rest).items(split)
    if scheme == "jsonl":
        return _items_of_file(_beside(target, rest.format(split=split)))
    if scheme == "hf":
        from posttrain_crew.tools.data.hub.items import hub_items  # it needs this module

        return hub_items(rest, split)
    raise TargetError(
        f"the target {target.name} reads its items from {target.items[:200]!r}: write `builtin:NAME`, `jsonl:PATH` or "
        "`hf:OWNER/NAME:PATH`."
    )


def candidate_folders(target: Target, cache: Path, seed: int) -> list[Path]:
    """One folder per candidate dataset, sorted by name. Raises TargetError / DatasetError for a missing place."""
    folders: list[Path] = []
    for place in target.candidates:
        scheme, _, rest = place.partition(":")
        root = builtin_source(rest).candidates(cache, seed) if scheme == "builtin" else _beside(target, place)
        if not root.is_dir():
            raise DatasetError(f"the catalogue {root} named by the target {target.name} is not a folder.")
        folders += [
            card.parent
            for card in root.rglob("README.md")
            if not any(part.startswith(".") for part in card.relative_to(root).parts)
        ]
    return sorted(set(folders))


def resolve_model(name: str, cache: Path, on_progress: Callable[[str], None] | None = None) -> Path:
    """The local directory of a model given as `builtin:NAME` or a path.

    Raises:
        ModelError: no such directory, or it lacks config.json, weights or tokenizer.
    """
    scheme, _, rest = name.partition(":")
    if scheme == "builtin":
        return builtin_source(rest).base_model(cache, on_progress)
    path = Path(name).expanduser()
    if not path.is_dir():
        raise ModelError(
            f"the model {name!r} is neither a directory here nor `builtin:NAME`. Download it first "
            f"(`hf download {name} --local-dir DIR`) and give DIR."
        )
    missing = [n for n in ("config.json", "tokenizer_config.json") if not (path / n).is_file()]
    if not list(path.glob("*.safetensors")) and not list(path.glob("pytorch_model*.bin")):
        missing.append("*.safetensors")
    if missing:
        raise ModelError(f"{path} is no complete model folder: it lacks {', '.join(missing)}.")
    return path.resolve()


def _beside(target: Target, place: str) -> Path:
    path = Path(place).expanduser()
    if path.is_absolute() or target.origin is None:
        return path
    return target.origin.parent / path


def _items_of_file(path: Path) -> list[BenchmarkItem]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [BenchmarkItem(str(r["id"]), r["question"], tuple(r.get("choices", ())), r["answer"]) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"the benchmark items at {path} cannot be read: {error!r}. Each line must be a JSON object with "
            "id, question, choices, answer."
        ) from error
