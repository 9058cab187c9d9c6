"""csv, tsv and packed files as JSON Lines, line by line, with a bound on what they unpack to. Nothing is guessed: every
value of a csv stays the text that it is, an empty one becomes null. A table in another encoding than UTF-8, with two
columns of one name or with quotes that do not close is refused; a row with more or fewer values than the header has
becomes `null`, a row that cannot be read, and is counted in what is told."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.hub.files import suffix_of
from posttrain_crew.tools.data.parquet_layout import MAX_COLUMNS

__all__ = ["needs_conversion", "to_jsonl"]

_AS_THEY_ARE = (".parquet", ".jsonl", ".json")
MAX_FIELD_CHARS = 8 * 2**20
BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 50
"""What unpacks to more than BOMB_BYTES, and to more than so many times its size, is a bomb; text packs by 3 to 10."""
_BLOCK = 1 << 20


def needs_conversion(path: str) -> bool:
    """Whether a file is not read as it is."""
    return suffix_of(path) not in _AS_THEY_ARE


def to_jsonl(source: Path, to: Path, *, max_bytes: int) -> list[str]:
    """Write a csv, tsv, ndjson or gz file as JSON Lines. Returns what is not as it was, a line each.

    Raises:
        DatasetError: it is damaged, no UTF-8, has too many columns, two of one name or too long a field, or unpacks to
            more than `max_bytes`.
    """
    notes: list[str] = []
    kind = suffix_of(source.name).removesuffix(".gz")
    if source.name.endswith(".gz"):
        max_bytes = min(max_bytes, max(BOMB_BYTES, BOMB_RATIO * source.stat().st_size))
    part = to.with_name(to.name + ".part")
    try:
        with _opened(source) as stream, part.open("wb") as out:
            if kind in (".csv", ".tsv"):
                notes = _table(stream, out, "\t" if kind == ".tsv" else ",", source, max_bytes)
            elif kind == ".json":
                _list(stream, out, source, max_bytes)
            else:
                _copy(stream, out, source, max_bytes)
        part.replace(to)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"the table {source.name} is no UTF-8 text (byte {error.object[error.start]:#04x}: {error.reason}), and "
            "crew does not guess encodings: a wrong guess changes letters in silence. Leave it out, or make it UTF-8."
        ) from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DatasetError(
            f"the data file {source.name} cannot be unpacked: {type(error).__name__}: {str(error)[:200]}. It is "
            "damaged, or not what its suffix says; leave the dataset out."
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return notes


def _opened(source: Path) -> IO[bytes]:
    return gzip.open(source, "rb") if source.name.endswith(".gz") else source.open("rb")  # type: ignore[return-value]


def _copy(stream: IO[bytes], out: IO[bytes], source: Path, max_bytes: int) -> None:
    size = 0
    while block := stream.read(_BLOCK):
        size += len(block)
        if size > max_bytes:
            raise _too_large(source, max_bytes)
        out.write(block)


def _list(stream: IO[bytes], out: IO[bytes], source: Path, max_bytes: int) -> None:
    """A packed .json: unpacked beside it, read as the reader reads one, written line by line."""
    from posttrain_crew.tools.data.reader import open_dataset

    plain = source.with_name(source.name.removesuffix(".gz"))
    try:
        with plain.open("wb") as unpacked:
            _copy(stream, unpacked, source, max_bytes)
        for row in open_dataset(plain).rows():
            # what is no row becomes `null`, so that it still counts as one that cannot be read
            out.write(json.dumps(row, ensure_ascii=False, default=str).encode(errors="replace") + b"\n")
    finally:
        plain.unlink(missing_ok=True)


def _table(stream: IO[bytes], out: IO[bytes], delimiter: str, source: Path, max_bytes: int) -> list[str]:
    # the module's own bound of 128 KiB is below what a worked solution may take; it is one for the whole process
    csv.field_size_limit(MAX_FIELD_CHARS)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    rows = csv.reader(_lines(text, source, max_bytes), delimiter=delimiter, strict=True)
    header, notes = _header(next(rows, []), source)
    size = odd = 0
    for row in rows:
        if row:
            values = None
            if len(row) == len(header):
                values = {name: value or None for name, value in zip(header, row, strict=True)}
            odd += values is None
            line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
            size += len(line)
            if size > 2 * max_bytes:  # names of columns stand in each line
                raise _too_large(source, 2 * max_bytes)
            out.write(line)
    if odd:
        notes.append(
            f"{odd} rows of {source.name} have not the {len(header)} values that its header names: they count as rows "
            "that cannot be read"
        )
    return notes


def _header(names: list[str], source: Path) -> tuple[list[str], list[str]]:
    """The columns of a table, those without a name numbered, and what is told of that."""
    if len(names) > MAX_COLUMNS:
        raise DatasetError(f"{source.name} has {len(names)} columns, and {MAX_COLUMNS} are read at most: leave it out.")
    header = [name if name.strip() else f"column_{number}" for number, name in enumerate(names, start=1)]
    if twice := sorted(name for name, count in Counter(header).items() if count > 1):
        raise DatasetError(
            f"the header of {source.name} names {', '.join(twice)[:200]} more than once: which of the columns is meant "
            "cannot be told. Leave it out, or rename them."
        )
    new = [name for name, given in zip(header, names, strict=True) if name != given]
    return header, [f"columns of {source.name} without a name were called {', '.join(new)[:200]}"] if new else []


def _lines(text: io.TextIOWrapper, source: Path, max_bytes: int) -> Iterator[str]:
    """Lines; an error of one that is longer than any field may be, and of too many."""
    size = 0
    while line := text.readline(MAX_FIELD_CHARS + 1):
        size += len(line)
        if len(line) > MAX_FIELD_CHARS:
            raise DatasetError(
                f"{source.name} has a line of more than {MAX_FIELD_CHARS / 2**20:.0f} MiB: leave it out."
            )
        if size > max_bytes:
            raise _too_large(source, max_bytes)
        yield line


def _too_large(source: Path, max_bytes: int) -> DatasetError:
    return DatasetError(
        f"{source.name} unpacks to more than {max_bytes / 2**20:.0f} MiB: it is a zip bomb, or too large. Leave the "
        "dataset out, or set CREW_DATASET_MAX_GIB to allow more."
    )
