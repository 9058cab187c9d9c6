"""Reading candidate datasets: a folder with a card and parquet, jsonl or json files, as the Hub has them, or tables
(csv, tsv, plain or packed), whose values all stay text (tables.py).

Everything read here is data. Nothing is executed (no dataset script, no pickle), a text is cut at MAX_FIELD_CHARS, a
line at MAX_LINE_BYTES, and rows come one by one or in small batches, so that a hostile or huge file costs bounded
memory; more than MAX_COLUMNS columns are refused. What the card says is shown as text and believed in nothing but its
licence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TextIO

import yaml

from posttrain_crew.errors import DatasetError
from posttrain_crew.target import Target
from posttrain_crew.tools.data.parquet import parquet_rows
from posttrain_crew.tools.data.parquet_layout import MAX_COLUMNS, broken_file, layout
from posttrain_crew.tools.data.tables import TABLE_SUFFIXES, table_rows
from posttrain_crew.tools.sources import builtin_source, candidate_folders

__all__ = [
    "Card",
    "Dataset",
    "RawRow",
    "bytes_of",
    "denied_name",
    "find_dataset",
    "is_denied",
    "list_datasets",
    "open_dataset",
]

MAX_FIELD_CHARS = 100_000
"""A longer text is cut here, and the row counts as too long later."""
MAX_LINE_BYTES = 8 * 2**20
MAX_JSON_BYTES = 64 * 2**20
"""A .json file that is one object must be held as a whole; a list of objects, .jsonl and .parquet have no limit."""
MAX_CARD_BYTES = 2**20
MAX_DEPTH = 12
SUFFIXES = (".parquet", ".jsonl", ".json")
"""Of the files that a folder is read from; where it has none of them, its tables (TABLE_SUFFIXES) are."""
FETCH_FILE = "fetch.json"
"""What hub/fetch.py says of a dataset that it brought, in the dataset's folder."""
_NO_DATA = frozenset({FETCH_FILE, "dataset_infos.json"})
_BLOCK = 1 << 16
_BLANK = "\ufeff \t\r\n"

RawRow = dict[str, object]


@dataclass(frozen=True)
class Card:
    """What a dataset says of itself."""

    text: str
    """Body of README.md, without the front matter."""
    licence: str | None
    title: str | None
    source_datasets: tuple[str, ...]
    """Datasets that it is made from, where the card names them: the deny list applies to them, too."""
    problem: str | None = None
    """Why the front matter cannot be read, where it cannot."""


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk."""

    name: str
    folder: Path
    files: tuple[Path, ...]
    card: Card

    @property
    def fetched(self) -> bool:
        """Whether it was brought from the Hub (hub/fetch.py)."""
        return (self.folder / FETCH_FILE).is_file()

    def rows(self, limit: int | None = None) -> Iterator[RawRow | None]:
        """Its rows in file order; None stands for a row that cannot be read.

        Raises:
            DatasetError: a file is broken as a whole.
        """
        if not self.files:
            raise DatasetError(self.card.problem or f"{self.folder} holds no data files.")
        return islice((row for path in self.files for row in _rows_of(path)), limit)

    def columns(self) -> list[str]:
        """Column names, from the first rows. Raises DatasetError as `rows` does."""
        names: dict[str, None] = {}
        for row in self.rows(50):
            names.update(dict.fromkeys(row or ()))
        return list(names)[:100]

    def count(self) -> int:
        """Number of rows: from the footer of parquet files, by lines otherwise. Raises DatasetError."""
        return sum(_count(path) for path in self.files)


def list_datasets(target: Target, cache: Path, seed: int, shipped: bool = True) -> list[Dataset]:
    """The candidates of a target. One without data files is among them, with the problem told in its card.

    Args:
        shipped: with the `builtin:` catalogues; folders that the user named are always among the candidates.

    Raises:
        TargetError, DatasetError: the catalogue is missing.
    """
    found: list[Dataset] = []
    for place in target.candidates:
        if place.startswith("builtin:") and not shipped:
            continue
        root = _root(target, place, cache, seed)
        for folder in candidate_folders(target.model_copy(update={"candidates": [place]}), cache, seed):
            name = folder.relative_to(root).as_posix() if folder != root else folder.name
            try:
                found.append(open_dataset(folder, name))
            except DatasetError as error:
                card = _card(folder / "README.md")
                found.append(Dataset(name, folder, (), replace(card, problem=str(error))))
    return found


def is_denied(dataset: Dataset, patterns: Iterable[str]) -> str | None:
    """The pattern of a deny list that a dataset, its title, the repository that it was brought from or one of its named
    sources meets, or None."""
    names = [dataset.name, dataset.card.title or "", _repository(dataset.folder), *dataset.card.source_datasets]
    return denied_name(names, patterns)


def _repository(folder: Path) -> str:
    """Where a folder, or the folder of a single file, was brought from (hub/fetch.py); empty where it was not."""
    for place in (folder / FETCH_FILE, folder.parent / FETCH_FILE):
        try:
            about = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        return str(about.get("repository") or "")[:200] if isinstance(about, dict) else ""
    return ""


def denied_name(names: Iterable[str], patterns: Iterable[str]) -> str | None:
    """The pattern of a deny list that one of some names meets, or None.

    Patterns are names or globs; `owner/name` is compared as a whole and by its last part, without regard to case, and
    of `owner/name:configuration` the dataset, too.
    """
    whole = [form for name in names for form in (name, name.partition(":")[0])]
    forms = {form.lower() for name in whole for form in (name, name.rsplit("/", 1)[-1]) if form}
    for pattern in patterns:
        if any(fnmatchcase(form, pattern.lower()) for form in forms):
            return pattern
    return None


def find_dataset(datasets: list[Dataset], name: str) -> Dataset:
    """The dataset with this name. Raises DatasetError that lists the known ones."""
    for dataset in datasets:
        if dataset.name == name:
            return dataset
    raise DatasetError(
        f"there is no candidate dataset `{name[:200]}`. Candidates: {', '.join(d.name for d in datasets) or '(none)'}."
    )


def open_dataset(place: Path, name: str | None = None) -> Dataset:
    """A folder (data files in it or in its `data` folder) or a single file.

    A table that lies beside other data files is none of the data: it is their index or their scores.

    Raises:
        DatasetError: nothing readable is there.
    """
    if place.is_file():
        if not place.name.endswith((*SUFFIXES, *TABLE_SUFFIXES)):
            raise DatasetError(
                f"{place} is no dataset file: crew reads {', '.join((*SUFFIXES, *TABLE_SUFFIXES))}. Convert it first."
            )
        return Dataset(name or place.name, place.parent, (place,), Card("", None, None, ()))
    if not place.is_dir():
        raise DatasetError(f"there is no dataset at {place}: give a folder with data files, or one such file.")
    home = place.resolve()
    found = tuple(
        path
        for folder in (place / "data", place)
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        # a link out of the folder could show any file of this machine to an agent
        if path.name.endswith((*SUFFIXES, *TABLE_SUFFIXES))
        and path.name not in _NO_DATA
        and path.is_file()
        and path.resolve().is_relative_to(home)
    )
    if not found:
        raise DatasetError(
            f"{place} holds no data file ({', '.join((*SUFFIXES, *TABLE_SUFFIXES))}), neither itself nor in `data/`. "
            "Other formats (arrow, scripts) are not read: convert them to parquet."
        )
    files = tuple(path for path in found if path.suffix in SUFFIXES) or found
    return Dataset(name or place.name, place, files, _card(place / "README.md"))


def bytes_of(value: object) -> int:
    """About the bytes of memory that a row, or a value of it, takes."""
    if isinstance(value, str):
        return 50 + len(value)
    if isinstance(value, list):
        return 56 + sum(map(bytes_of, value))
    if isinstance(value, dict):
        return 64 + sum(50 + len(name) + bytes_of(part) for name, part in value.items())
    return 32


def _root(target: Target, place: str, cache: Path, seed: int) -> Path:
    scheme, _, rest = place.partition(":")
    if scheme == "builtin":
        return builtin_source(rest).candidates(cache, seed)
    path = Path(place).expanduser()
    return path if path.is_absolute() or target.origin is None else target.origin.parent / path


def _card(path: Path) -> Card:
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_CARD_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        return Card("", None, None, (), problem=f"the card {path} cannot be read: {error.strerror or error}")
    if not text.startswith("---"):
        return Card(text.strip(), None, None, ())
    _, front, *rest = text.split("---", 2)
    body = rest[0].strip() if rest else ""
    try:
        raw = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Card(body, None, None, (), problem=f"the front matter of {path} is no YAML: {str(error)[:200]}")
    if not isinstance(raw, dict):
        return Card(body, None, None, ())
    licence, title, sources = raw.get("license"), raw.get("pretty_name"), raw.get("source_datasets")
    return Card(
        body,
        str(licence[0] if isinstance(licence, list) and licence else licence)[:100] if licence else None,
        str(title)[:200] if title else None,
        tuple(str(source)[:200] for source in sources[:50]) if isinstance(sources, list) else (),
    )


def _rows_of(path: Path) -> Iterator[RawRow | None]:
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
    elif path.suffix == ".jsonl":
        yield from _jsonl_rows(path)
    elif path.name.endswith(TABLE_SUFFIXES):
        yield from (_row(row, path) for row in table_rows(path))
    else:
        yield from _json_rows(path)


def _parquet_rows(path: Path) -> Iterator[RawRow | None]:
    for row in parquet_rows(path):
        yield {str(name): _bounded(value) for name, value in row.items()}


def _jsonl_rows(path: Path) -> Iterator[RawRow | None]:
    readable = unreadable = 0
    try:
        with path.open("rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES):
                whole = len(line) < MAX_LINE_BYTES or line.endswith(b"\n")
                while not whole:
                    rest = stream.readline(MAX_LINE_BYTES)
                    whole = len(rest) < MAX_LINE_BYTES or rest.endswith(b"\n")
                    line = b"!"
                if not line.strip():
                    continue
                row = _parsed(line, path)
                readable, unreadable = readable + (row is not None), unreadable + (row is None)
                if not readable and unreadable >= 100:
                    raise DatasetError(
                        f"{path}: none of the first {unreadable} lines is a JSON object. Is it JSON Lines at all? "
                        "Leave the dataset out, or convert it."
                    )
                yield row
    except OSError as error:
        raise broken_file(path, error) from error


def _json_rows(path: Path) -> Iterator[RawRow | None]:
    """A list of objects, an object with such a list in it, or lines of objects under the wrong suffix."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            first = stream.read(_BLOCK).lstrip(_BLANK)
            if first.startswith("["):
                yield from (_row(value, path) for value in _elements(stream, first[1:], path))
                return
        line, _, rest = first.partition("\n")
        if rest.lstrip().startswith("{") and _parsed(line.encode(), path) is not None:
            yield from _jsonl_rows(path)
            return
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise DatasetError(f"{path} is one JSON value of {size / 2**20:.0f} MiB: convert it to parquet or jsonl.")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise broken_file(path, error) from error
    if isinstance(value, dict):
        value = _only_list(value, path)
    if not isinstance(value, list):
        raise DatasetError(f"{path} must hold a list of objects, or an object with such a list in it.")
    yield from (_row(each, path) for each in value)


def _only_list(value: dict[str, object], path: Path) -> object:
    """The list of rows in an object, or the object as the only row. Raises DatasetError where lists are several."""
    if len(value) == 1 and isinstance(part := next(iter(value.values())), list):
        return part
    lists = {str(name): part for name, part in value.items() if isinstance(part, list) and _has_objects(part)}
    if len(lists) < 2:
        return next(iter(lists.values()), [value])
    if "train" in lists:
        return lists["train"]
    raise DatasetError(
        f"{path} holds several lists of objects ({', '.join(lists)[:200]}), and none is called `train`: which one is "
        "the data cannot be told. Write the right one to a file of its own."
    )


def _has_objects(part: list[object]) -> bool:
    return any(isinstance(each, dict) for each in part[:100])


def _elements(stream: TextIO, text: str, path: Path) -> Iterator[object]:
    """The elements of a JSON list, of which `text` is the beginning behind `[`; one of them is in memory at a time."""
    decoder, place = json.JSONDecoder(), 0
    while True:
        while place < len(text) and text[place] in _BLANK + ",":
            place += 1
        if text.startswith("]", place):
            return
        try:
            value, place = decoder.raw_decode(text, place)
        except ValueError:
            text, place = text[place:], 0
            if len(text) > MAX_LINE_BYTES:
                raise DatasetError(f"{path}: one object takes more than {MAX_LINE_BYTES / 2**20:.0f} MiB.") from None
            more = stream.read(max(_BLOCK, len(text)))  # twice as much each time: a long object is not parsed for ever
            if not more:
                raise
            text += more
        else:
            yield value


def _parsed(line: bytes, path: Path) -> RawRow | None:
    try:
        return _row(json.loads(line), path)
    except (ValueError, RecursionError):
        return None


def _row(value: object, path: Path) -> RawRow | None:
    """A row with everything in it bounded; None for what is no object, or holds half of a surrogate pair (`\\ud83d`),
    which is no text and can be written nowhere. Raises DatasetError of too many columns."""
    if not isinstance(value, dict):
        return None
    if len(value) > MAX_COLUMNS:
        raise DatasetError(
            f"{path}: a row has {len(value)} columns, and {MAX_COLUMNS} are read at most. Leave it out, or convert it "
            "to the few columns that training needs."
        )
    try:
        return {_text(str(name)): _bounded(part) for name, part in value.items()}
    except UnicodeEncodeError:
        return None


def _text(value: str) -> str:
    """The text as it is. Raises UnicodeEncodeError where it is none."""
    if not value.isascii():
        value.encode()
    return value


def _bounded(value: object, depth: int = 0) -> object:
    """Texts cut, lists cut, binary and what is nested too deeply replaced by None."""
    if isinstance(value, str):
        return _text(value[:MAX_FIELD_CHARS])
    if isinstance(value, bytes | bytearray) or depth > MAX_DEPTH:
        return None
    if isinstance(value, list):
        return [_bounded(item, depth + 1) for item in value[:1000]]
    if isinstance(value, dict):
        return {_text(str(name)[:200]): _bounded(item, depth + 1) for name, item in islice(value.items(), 1000)}
    return value


def _count(path: Path) -> int:
    if path.suffix != ".parquet":
        return sum(1 for _ in _rows_of(path))
    return layout(path).rows
