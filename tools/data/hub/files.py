"""Which files of a repository are its data: the choice is made from names alone, before anything is brought here.

As `datasets` does it: the card's `configs` say which files belong to which configuration and split; without them the
most frequent data suffix is the data, and splits are told from words in the names. Only one configuration and only
the training split are taken, because the reader reads a folder as one table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.hub.client import HubFile

__all__ = ["DATA_SUFFIXES", "Choice", "LeftOut", "choose", "is_held_out", "local_name", "suffix_of"]

DATA_SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.gz", ".csv.gz")
"""What is brought here; csv, tsv, ndjson and gz are converted to jsonl. Nothing else is, scripts and pickles least."""
_SCRIPTS = (".py", ".sh", ".pkl", ".pickle", ".pt", ".bin", ".npy", ".npz", ".joblib", ".exe", ".so", ".ipynb")
_NO_DATA = frozenset({"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json",
                      "package.json", "metadata.json", "croissant.json"})  # fmt: skip
_TRAIN = re.compile(r"(?:^|[^a-z])train(?:ing)?(?:[^a-z]|$)")
_HELD_OUT = re.compile(r"(?:^|[^a-z])(?:test(?:ing)?|eval(?:uation)?|val(?:id(?:ation)?)?|dev)(?:[^a-z]|$)")
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")
MAX_PATH_CHARS = 300


@dataclass(frozen=True)
class LeftOut:
    """A file that is not brought here."""

    path: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """What is brought here of a repository."""

    config: str | None
    """The configuration, where the card names several."""
    files: tuple[HubFile, ...]
    left_out: tuple[LeftOut, ...]
    other_configs: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    """Splits, or files, that are taken although they are called test or validation: there are no others."""

    @property
    def scripts(self) -> list[str]:
        """Code and pickles in the repository: never run, never loaded."""
        return [each.path for each in self.left_out if each.path.lower().endswith(_SCRIPTS)]


def choose(files: Iterable[HubFile], card: Mapping[str, Any], config: str | None = None) -> Choice:
    """The data files of a repository.

    Args:
        card: the card's front matter.
        config: a configuration that the card names; None takes its default one, or the first.

    Raises:
        DatasetError: there is no such configuration.
    """
    data: list[HubFile] = []
    left: list[LeftOut] = []
    for file in files:
        if problem := _problem(file.path):
            left.append(LeftOut(file.path[:MAX_PATH_CHARS], problem))
        else:
            data.append(file)
    configs = _configs(card)
    if config is not None and config not in configs:
        known = ", ".join(list(configs)[:30]) or "(none)"
        raise DatasetError(f"its card names no configuration {config[:100]!r}. Configurations: {known}.")
    chosen = config or next((name for name, (_, default) in configs.items() if default), next(iter(configs), None))
    matched: dict[str, str] = {}
    if chosen is not None:
        patterns = configs[chosen][0]
        matched = {f.path: split for f in data if (split := _split_of(f.path, patterns)) is not None}
        left += [LeftOut(f.path, f"not of the configuration {chosen}") for f in data if f.path not in matched]
        data = [f for f in data if f.path in matched]
        held_out = {path for path, split in matched.items() if not _TRAIN.search(split.lower())}
        if len(held_out) == len(data):
            held_out = {path for path, split in matched.items() if _HELD_OUT.search(split.lower())}
    else:
        data, rest = _one_format(data)
        left += rest
        train = {f.path for f in data if _TRAIN.search(f.path.lower())}
        held_out = {f.path for f in data if f.path not in train and (train or _HELD_OUT.search(f.path.lower()))}
    only: tuple[str, ...] = ()
    if held_out and len(held_out) == len(data):  # a set that calls all of itself `test` is still the set, and says so
        only = tuple(sorted({matched[path] if chosen is not None else path for path in held_out}))[:20]
        held_out = set()
    left += [LeftOut(f.path, "not of the training split") for f in data if f.path in held_out]
    taken = sorted((f for f in data if f.path not in held_out), key=lambda f: f.path)
    return Choice(chosen, tuple(taken), tuple(left), tuple(name for name in configs if name != chosen), only)


def is_held_out(split: str) -> bool:
    """Whether a split is called test, validation or the like."""
    return _HELD_OUT.search(split.lower()) is not None


def suffix_of(path: str) -> str:
    """The data suffix of a file name in lower case, `.jsonl.gz` included; empty where it is none of them."""
    name = path.lower()
    return max((suffix for suffix in DATA_SUFFIXES if name.endswith(suffix)), key=len, default="")


def local_name(path: str, taken: Iterable[str] = ()) -> str:
    """A plain file name for a path of a repository: no folders, nothing but letters, digits and `._-`."""
    suffix = suffix_of(path)
    plain = path[: len(path) - len(suffix)].removeprefix("data/").replace("/", "--")
    stem = _SAFE.sub("-", plain).strip(".-") or "data"
    names = set(taken)
    for number in range(1, 10_000):
        name = f"{stem[-120:]}{'' if number == 1 else f'-{number}'}{suffix}"
        if name not in names:
            return name
    raise DatasetError(f"{path[:200]!r}: too many files of nearly the same name.")


def _problem(path: str) -> str | None:
    """Why a file is not data, or None."""
    pure = PurePosixPath(path)
    if (
        path.startswith("/")
        or "\\" in path
        or ":" in path
        or any(ord(character) < 32 for character in path)
        or any(part in ("..", ".", "") for part in path.split("/"))
        or len(path) > MAX_PATH_CHARS
    ):
        return "its name leads out of the folder, or is none for a file"
    if any(part.startswith(".") for part in pure.parts):
        return "hidden"
    if path.lower().endswith(_SCRIPTS):
        return "code or pickle: never run, never loaded"
    if pure.name.lower() in _NO_DATA or not suffix_of(path):
        return "no data file that crew reads"
    return None


def _one_format(data: list[HubFile]) -> tuple[list[HubFile], list[LeftOut]]:
    """Files of the most frequent suffix (the larger in bytes of equals): others are most often copies of them."""
    kinds = Counter(suffix_of(f.path).removesuffix(".gz") for f in data)
    if len(kinds) < 2:
        return data, []
    sizes = {kind: sum(f.size or 0 for f in data if suffix_of(f.path).removesuffix(".gz") == kind) for kind in kinds}
    best = max(kinds, key=lambda kind: (kinds[kind], sizes[kind], kind))
    kept = [f for f in data if suffix_of(f.path).removesuffix(".gz") == best]
    return kept, [LeftOut(f.path, f"most of the data are {best} files") for f in data if f not in kept]


def _configs(card: Mapping[str, Any]) -> dict[str, tuple[list[tuple[str, str]], bool]]:
    """Configurations of a card: (split, pattern) pairs, and whether it is the default one."""
    found: dict[str, tuple[list[tuple[str, str]], bool]] = {}
    listed = card.get("configs")
    for each in listed[:500] if isinstance(listed, list) else []:
        if not isinstance(each, dict) or not each.get("config_name"):
            continue
        name = str(each["config_name"])[:200]
        if pairs := list(_patterns(each.get("data_files"), str(each.get("data_dir") or "")))[:500]:
            found[name] = (pairs, bool(each.get("default")) or name == "default")
    return found


def _patterns(value: Any, folder: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, str):
        yield "train", value
    elif isinstance(value, list):
        for each in value[:500]:
            if isinstance(each, dict) and "path" in each:
                paths = each["path"] if isinstance(each["path"], list) else [each["path"]]
                yield from ((str(each.get("split") or "train"), str(path)) for path in paths[:500])
            elif isinstance(each, str):
                yield "train", each
    elif isinstance(value, dict):
        for split, paths in value.items():
            yield from ((str(split), str(path)) for path in (paths if isinstance(paths, list) else [paths])[:500])
    elif folder:
        yield "train", f"{folder.strip('/')}/**"


def _split_of(path: str, patterns: Iterable[tuple[str, str]]) -> str | None:
    for split, pattern in patterns:
        plain = pattern[:MAX_PATH_CHARS].removeprefix("./").replace("**/", "*").replace("**", "*")
        if fnmatchcase(path, plain) or fnmatchcase(path, f"{plain.rstrip('/')}/*"):
            return split
    return None
