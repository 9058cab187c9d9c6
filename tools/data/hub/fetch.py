"""Bringing a dataset of the Hub into a local folder that the reader understands, at a pinned revision.

ROOT/OWNER/NAME[@CONFIG]/
    README.md      the card
    data/          parquet, jsonl and json files under plain names; csv, tsv and gz became jsonl
    fetch.json     what is here: repository, revision, files with sha256, licence, what was left out and why, date

The folder appears by a rename once all of it is there; files that a killed process had finished are used again. Only
data files are brought, never code or pickles; bytes, files and what they inflate to are bounded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, ValidationError

from posttrain_crew.errors import BadAnswerError, DatasetError, NotFoundError, ServiceUnavailableError
from posttrain_crew.files import atomic_write_json, atomic_write_text, sha256_file
from posttrain_crew.tools.data.hub.client import DatasetInfo, HubDatasets, HubFile, checked_id
from posttrain_crew.tools.data.hub.conversion import needs_conversion, to_jsonl
from posttrain_crew.tools.data.hub.datasets_server import PARQUET_REVISION, DatasetsServer, ParquetFile
from posttrain_crew.tools.data.hub.files import Choice, LeftOut, choose, is_held_out, local_name
from posttrain_crew.tools.data.parquet_layout import layout
from posttrain_crew.tools.data.reader import FETCH_FILE, open_dataset

__all__ = ["Fetched", "FetchedFile", "Fetcher", "fetched_datasets", "place_of"]

_PROGRESS = ".progress"
DISK_RESERVE = 2**30
"""Bytes that stay free on the disk."""
MOST_LEFT_OUT = 200
"""Files that were left out are listed up to here."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FetchedFile(_Record):
    """One file that was brought."""

    path: str
    """In the repository."""
    name: str
    """In `data/` here."""
    bytes: int
    """As it was brought."""
    sha256: str
    """Of what was brought, before any conversion."""
    notes: list[str] = []
    """What its conversion changed."""


class Fetched(_Record):
    """A dataset that was brought here: the contents of fetch.json."""

    dataset: str
    """`owner/name`, or `owner/name:config`."""
    repository: str
    revision: str
    """Commit of the repository that was described and, unless `via` says otherwise, fetched."""
    via: str
    """`files`, or the revision of the parquet copy that the viewer keeps."""
    config: str | None
    licence: str | None
    files: list[FetchedFile]
    held_out: list[str] = []
    """Names of the splits that were brought, where there is no training split."""
    left_out: list[dict[str, str]] = []
    """path and reason; at most MOST_LEFT_OUT."""
    partial: bool
    """Data files were left out because they do not fit the bounds."""
    notes: list[str] = []
    fetched: str
    """UTC, ISO."""

    @property
    def bytes(self) -> int:
        """Of all files, as they were brought."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Fetcher:
    """Brings datasets into a folder.

    Args:
        root: where they are put.
        max_bytes: of one dataset, as it is brought, and again once it is unpacked.
    """

    hub: HubDatasets
    viewer: DatasetsServer
    root: Path
    max_bytes: int = 2 * 2**30
    max_files: int = 64

    def fetch(self, dataset: str, *, config: str | None = None, revision: str | None = None) -> Fetched:
        """Bring a dataset, or find it here.

        Args:
            revision: branch, tag or commit; None is the newest state, or what was brought earlier.

        Raises:
            AccessDeniedError: gated; the message has the page. NotFoundError: not on the Hub.
            DatasetError: it has no data that can be read, does not fit the bounds or the disk, or is a bomb.
            InputError: no dataset name. ServiceError: a service did not deliver; what is here already is kept.
        """
        place = place_of(self.root, checked_id(dataset), config)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(place.with_name(f".{place.name}.lock"))):
            return self._fetched(place, dataset, config, revision)

    def _fetched(self, place: Path, dataset: str, config: str | None, revision: str | None) -> Fetched:
        if (known := _read(place)) is not None and revision in (None, known.revision):
            return known
        info = self.hub.info(dataset, revision)
        if info.disabled or info.revision is None:
            raise DatasetError(f"the Hub has disabled {dataset}, or gives no commit of it: it cannot be brought here.")
        workshop = place.with_name(f".{place.name}-{info.revision[:12]}")
        for other in place.parent.glob(f".{place.name}-*"):  # of a revision that is the newest no more
            if other != workshop:
                shutil.rmtree(other, ignore_errors=True)
        try:
            (workshop / "data").mkdir(parents=True, exist_ok=True)
            made = self._fill(workshop, info, dataset, config)
            atomic_write_json(workshop / FETCH_FILE, made.model_dump(mode="json"))
            (workshop / _PROGRESS).unlink(missing_ok=True)
            if place.is_dir():
                shutil.rmtree(place)
            workshop.rename(place)
        except DatasetError as error:  # it will be no better next time
            shutil.rmtree(workshop, ignore_errors=True)
            told = str(error).replace(f"{workshop}/raw/", "").replace(f"{workshop}/data/", "")
            raise DatasetError(f"{dataset} cannot be brought here. {told}") from error
        except OSError as error:
            raise DatasetError(
                f"{dataset} cannot be written to {place} ({error.strerror or error}). Is the disk full? What is there "
                "already is kept for the next try."
            ) from error
        return made

    def _fill(self, workshop: Path, info: DatasetInfo, dataset: str, config: str | None) -> Fetched:
        notes: list[str] = []
        revision, via = str(info.revision), "files"
        choice = choose(info.files, info.card, config)
        if scripts := choice.scripts:
            notes.append(f"code in the repository was left there and not run: {', '.join(scripts[:5])}")
        if info.unlisted_files:
            notes.append(f"{info.unlisted_files} further files were not looked at")
        files, source, held_out = choice.files, revision, choice.held_out
        if not files:
            files, source, held_out = self._parquet_copy(info, config, choice, notes)
            via = f"{PARQUET_REVISION} at {source}" if source != PARQUET_REVISION else PARQUET_REVISION
        if held_out:
            notes.append(
                f"it has no training split: what was brought is called {', '.join(held_out)}, as the items of a "
                "benchmark are. Find out what it is before it is trained on"
            )
        kept, over = self._within_bounds(files)
        self._check_disk(kept)
        brought = self._bring(workshop, info.id, source, kept)
        self._card(workshop, info, revision)
        notes += [note for file in brought for note in file.notes]
        left = [*choice.left_out, *over]
        if choice.other_configs:
            notes.append(f"further configurations: {', '.join(choice.other_configs[:20])}")
        open_dataset(workshop).columns()  # readable at all
        return Fetched(
            dataset=dataset if config is None else f"{dataset}:{config}",
            repository=info.id,
            revision=revision,
            via=via,
            config=config or choice.config,
            licence=info.licence,
            files=brought,
            held_out=list(held_out),
            left_out=[{"path": each.path, "reason": each.reason} for each in left[:MOST_LEFT_OUT]],
            partial=bool(over),
            notes=[note[:500] for note in notes],
            fetched=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )

    def _parquet_copy(
        self, info: DatasetInfo, config: str | None, choice: Choice, notes: list[str]
    ) -> tuple[tuple[HubFile, ...], str, tuple[str, ...]]:
        """Files of the viewer's parquet copy, for a repository whose own files are not read; their revision; the names
        of their splits where none is for training."""
        held = ", ".join(sorted({Path(each.path).suffix or each.path for each in choice.left_out})[:10]) or "no files"
        lacks = f"{info.id} has no data file that crew reads ({held})"
        try:
            told = self.viewer.parquet(info.id, config)
        except NotFoundError as error:
            raise DatasetError(f"{lacks}, and there is no parquet copy of it. {str(error)[:300]}") from error
        if not told.files and told.pending:
            raise ServiceUnavailableError(
                f"{lacks}, and its parquet copy is still being made: ask again later.", service="datasets_server"
            )
        chosen = _training_files(told.files, config)
        if not chosen:
            raise DatasetError(f"{lacks}, and the viewer could make no parquet copy of it.")
        try:
            source = self.hub.info(info.id, PARQUET_REVISION).revision or PARQUET_REVISION
        except NotFoundError:  # a mirror may serve the files of a revision that it does not describe
            source = PARQUET_REVISION
        if source == info.revision:  # not that of the copy, which has a commit of its own
            source = PARQUET_REVISION
        notes.append(f"{lacks}: the parquet copy of the dataset viewer was brought instead")
        if told.revision and told.revision != info.revision:
            notes.append(f"the copy was made from commit {told.revision[:12]}, not from {str(info.revision)[:12]}")
        if told.partial:
            notes.append("the copy covers only the first part of the dataset")
        if others := sorted({f.config for f in told.files} - {f.config for f in chosen}):
            notes.append(f"further configurations: {', '.join(others[:20])}")
        splits = {f.split for f in chosen}
        held_out = tuple(sorted(splits)) if all(map(is_held_out, splits)) else ()
        return tuple(HubFile(f.path, f.size, None) for f in chosen), source, held_out

    def _within_bounds(self, files: Sequence[HubFile]) -> tuple[list[HubFile], list[LeftOut]]:
        """The first files that fit; the others are left out, and told."""
        kept: list[HubFile] = []
        over: list[LeftOut] = []
        size = 0
        for file in files:
            if len(kept) < self.max_files and size + (file.size or 0) <= self.max_bytes:
                kept.append(file)
                size += file.size or 0
            else:
                over.append(LeftOut(file.path, f"over the bounds of {_mib(self.max_bytes)} and {self.max_files} files"))
        if not kept:
            raise DatasetError(
                f"It is too large: its first data file has {_mib(files[0].size or 0)}, and "
                f"{_mib(self.max_bytes)} are brought at most. Set CREW_DATASET_MAX_GIB to allow more."
            )
        return kept, over

    def _check_disk(self, files: Sequence[HubFile]) -> None:
        known = sum((2 if needs_conversion(f.path) else 1) * (f.size or 0) for f in files)
        free = shutil.disk_usage(self.root).free
        if known + DISK_RESERVE > free:
            raise DatasetError(
                f"It needs {_mib(known)} on the disk of {self.root}, and {_mib(max(0, free - DISK_RESERVE))} "
                "can be used there. Free some space, or lower CREW_DATASET_MAX_GIB."
            )

    def _bring(self, workshop: Path, repository: str, revision: str, files: Sequence[HubFile]) -> list[FetchedFile]:
        done = _progress(workshop / _PROGRESS)
        budget = self.max_bytes
        brought: list[FetchedFile] = []
        for file in files:
            found = done.get(file.path)
            if found is None or not (workshop / "data" / found.name).is_file():
                taken = [each.name for each in done.values()]
                found = self._one(workshop, repository, revision, file, local_name(file.path, taken), budget)
                done[file.path] = found
                atomic_write_json(workshop / _PROGRESS, [each.model_dump() for each in done.values()])
            budget -= max(found.bytes, (workshop / "data" / found.name).stat().st_size)
            if budget < 0:
                raise DatasetError(
                    f"{repository} unpacks to more than {_mib(self.max_bytes)}: it is a zip bomb, or large."
                )
            brought.append(found)
        return brought

    def _one(
        self, workshop: Path, repository: str, revision: str, file: HubFile, name: str, budget: int
    ) -> FetchedFile:
        raw = workshop / "raw" / name
        size = self.hub.download(repository, file.path, raw, revision=revision, max_bytes=budget)
        digest = sha256_file(raw)
        if file.sha256 is not None and file.sha256 != digest:
            raw.unlink()
            raise BadAnswerError(
                f"{file.path[:200]} of {repository} came with other contents than the Hub states (sha256 {digest[:12]} "
                f"instead of {file.sha256[:12]}). Fetch it again; a proxy in between may change files.",
                service="huggingface",
            )
        if needs_conversion(name):
            name = local_name(name.rsplit(".", 2 if name.endswith(".gz") else 1)[0] + ".jsonl")
            notes = to_jsonl(raw, workshop / "data" / name, max_bytes=budget)
            raw.unlink()
        else:
            notes = []
            if name.endswith(".parquet"):
                layout(raw)
            raw.replace(workshop / "data" / name)
        return FetchedFile(path=file.path, name=name, bytes=size, sha256=digest, notes=notes)

    def _card(self, workshop: Path, info: DatasetInfo, revision: str) -> None:
        try:
            text = self.hub.card(info.id, revision)
        except NotFoundError:
            text = ""
        atomic_write_text(workshop / "README.md", text)
        shutil.rmtree(workshop / "raw", ignore_errors=True)


def place_of(root: Path, dataset: str, config: str | None = None) -> Path:
    """The folder of a dataset below `root`."""
    owner, _, name = dataset.rpartition("/")
    # `-` is the owner of old datasets without one: no account can have that name
    return root / (owner or "-") / (name if config is None else f"{name}@{local_name(config)}")


def fetched_datasets(root: Path) -> list[tuple[Fetched, Path]]:
    """What was brought into `root`, with its folder, by name. Unfinished folders are not among it."""
    found = []
    for path in sorted(root.glob(f"*/*/{FETCH_FILE}")):
        if not path.parent.name.startswith(".") and (known := _read(path.parent)) is not None:
            found.append((known, path.parent))
    return found


def _read(place: Path) -> Fetched | None:
    """fetch.json of a folder, or None where it is not there or not readable: then it is fetched again."""
    try:
        return Fetched.model_validate_json((place / FETCH_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def _progress(path: Path) -> dict[str, FetchedFile]:
    try:
        raw: Any = json.loads(path.read_text(encoding="utf-8"))
        found = [FetchedFile.model_validate(each) for each in raw]
    except (OSError, ValueError, TypeError):
        return {}
    return {each.path: each for each in found}


def _training_files(files: Sequence[ParquetFile], config: str | None) -> list[ParquetFile]:
    """The training split of one configuration: the asked one, `default`, or the first."""
    configs = list(dict.fromkeys(f.config for f in files))
    chosen = config if config is not None else "default" if "default" in configs else next(iter(configs), None)
    mine = [f for f in files if f.config == chosen]
    return [f for f in mine if "train" in f.split.lower()] or mine


def _mib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
