"""Benchmark items from the Hub, for the evaluator and the contamination check: `items: hf:OWNER/NAME[:PATH]`.

PATH is a file of the repository with `{split}` for dev or test (parquet, jsonl, json, csv); its rows are read as the
data desk reads multiple choice rows, whatever their columns are called. Without PATH the repository must be one whose
layout crew knows. A file is brought once, at the commit that is the newest then, and kept in the cache: two runs are
compared on the same items, and the second needs no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from filelock import FileLock

from posttrain_crew.errors import DatasetError, TargetError
from posttrain_crew.files import atomic_write_json, sha256_file
from posttrain_crew.settings import cache_dir
from posttrain_crew.tools.data.hub.client import HubDatasets, checked_id
from posttrain_crew.tools.data.hub.conversion import needs_conversion, to_jsonl
from posttrain_crew.tools.data.hub.files import local_name, suffix_of
from posttrain_crew.tools.data.reader import RawRow, open_dataset
from posttrain_crew.tools.services.services import Services
from posttrain_crew.tools.sources import BenchmarkItem

__all__ = ["hub_items"]

MAX_BYTES = 512 * 2**20


def hub_items(place: str, split: Literal["dev", "test"], services: Services | None = None) -> list[BenchmarkItem]:
    """The items of a split.

    Args:
        place: `OWNER/NAME` or `OWNER/NAME:PATH`.
        services: where the Hub is; by default as HF_ENDPOINT and the user's token say.

    Raises:
        TargetError: the place is malformed, or its layout is not known. DatasetError: a file cannot be read.
        AccessDeniedError: gated; the message has the page where terms are accepted. ServiceError.
    """
    from posttrain_crew.tools.evaluation import gpqa

    repository, _, path = place.partition(":")
    if not path and repository == gpqa.DATASET:
        rows = [_rows(repository, name, services) for name in (gpqa.MAIN_FILE, gpqa.EXTENDED_FILE)]
        return [
            BenchmarkItem(item.id, item.question, item.choices, item.answer)
            for item in gpqa.items_of_split(split, *(map(_texts, each) for each in rows))
        ]
    if not path:
        raise TargetError(
            f"`hf:{place}` needs the file that holds the items: write `hf:{repository}:PATH`, with {{split}} in it for "
            "dev and test."
        )
    if "{split}" not in path:
        raise TargetError(
            f"`hf:{place}`: the file needs {{split}} in its name, or dev and test would be the same items."
        )
    return _items(_rows(repository, path.replace("{split}", split), services), f"{repository}:{path}")


def _rows(repository: str, path: str, services: Services | None) -> list[RawRow]:
    """The rows of one file, brought here where it is not yet."""
    place = cache_dir() / "benchmarks" / checked_id(repository).replace("/", "--")
    name = local_name(path)
    if not suffix_of(path):
        raise TargetError(f"`hf:{repository}:{path[:200]}` is no file that crew reads: parquet, jsonl, json or csv.")
    ready = place / (f"{name}.jsonl" if needs_conversion(path) else name)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(str(place / f".{name}.lock")):
        if not ready.is_file():
            hub = HubDatasets((services or Services.parse("live")).hub)
            revision = hub.info(repository).revision or "main"
            raw = place / f".{name}"
            hub.download(repository, path, raw, revision=revision, max_bytes=MAX_BYTES)
            about = {"repository": repository, "path": path, "revision": revision, "sha256": sha256_file(raw)}
            atomic_write_json(place / f"{name}.fetch.json", about)
            if needs_conversion(path):
                to_jsonl(raw, ready, max_bytes=MAX_BYTES)
                raw.unlink()
            else:
                raw.replace(ready)
    read = list(open_dataset(ready).rows())
    rows = [row for row in read if row is not None]
    if not rows:
        raise DatasetError(f"the benchmark file {path} of {repository} holds no rows. Delete {ready} and try again.")
    if lost := len(read) - len(rows):  # a leak of such an item would not be seen
        raise DatasetError(
            f"{lost} of {len(read)} rows of the benchmark file {path} of {repository} cannot be read, so nothing can "
            f"be checked against all of it. Delete {ready} and try again; if it stays so, mend the file."
        )
    return rows


def _items(rows: Sequence[RawRow], place: str) -> list[BenchmarkItem]:
    from posttrain_crew.tools.data.formats import LABELS, detect_format, normalise_row

    kind = detect_format(rows[:200])
    items = []
    for number, row in enumerate(rows):
        example = normalise_row(row, kind)
        # a letter without choices would be compared with nothing, so a leak of this item would not be seen
        if example is None or example.answer is None or (not example.choices and example.answer in tuple(LABELS)):
            raise DatasetError(
                f"row {number} of hf:{place} is no benchmark item: a question, its choices and a right answer were "
                f"looked for, and its columns are {', '.join(list(row)[:20])}."
            )
        name = next((str(row[key]) for key in ("id", "Record ID", "question_id", "uid") if row.get(key)), str(number))
        items.append(BenchmarkItem(name, example.question, example.choices, example.answer))
    return items


def _texts(row: Mapping[str, object]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in row.items()}
