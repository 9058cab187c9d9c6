"""csv, tsv and packed files as JSON Lines, line by line, with a bound on what they unpack to. Nothing is guessed: every
value of a csv stays the text that it is, an empty one becomes null."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
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


def to_jsonl(source: Path, to: Path, *, max_bytes: int) -> None:
    """Write a csv, tsv, ndjson or gz file as JSON Lines.

    Raises:
        DatasetError: it is damaged, has too many columns or too long a field, or unpacks to more than `max_bytes`.
    """
    kind = suffix_of(source.name).removesuffix(".gz")
    if source.name.endswith(".gz"):
        max_bytes = min(max_bytes, max(BOMB_BYTES, BOMB_RATIO * source.stat().st_size))
    part = to.with_name(to.name + ".part")
    try:
        with _opened(source) as stream, part.open("wb") as out:
            if kind in (".csv", ".tsv"):
                _table(stream, out, "\t" if kind == ".tsv" else ",", source, max_bytes)
            elif kind == ".json":
                _list(stream, out, source, max_bytes)
            else:
                _copy(stream, out, source, max_bytes)
        part.replace(to)
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(
            f"the data file {source.name} cannot be unpacked: {type(error).__name__}: {str(error)[:200]}. It is "
            "damaged, or not what its suffix says; leave the dataset out."
        ) from error
    finally:
        part.unlink(missing_ok=True)


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


def _table(stream: IO[bytes], out: IO[bytes], delimiter: str, source: Path, max_bytes: int) -> None:
    # the module's own bound of 128 KiB is below what a worked solution may take; it is one for the whole process
    csv.field_size_limit(MAX_FIELD_CHARS)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    rows = csv.reader(_lines(text, source, max_bytes), delimiter=delimiter)
    header = next(rows, [])
    if len(header) > MAX_COLUMNS:
        raise DatasetError(
            f"{source.name} has {len(header)} columns, and {MAX_COLUMNS} are read at most: leave it out."
        )
    size = 0
    for row in rows:
        if row:
            values = {name: value or None for name, value in zip(header, row, strict=False)}
            line = json.dumps(values, ensure_ascii=False).encode(errors="replace") + b"\n"
            size += len(line)
            if size > 2 * max_bytes:  # names of columns stand in each line
                raise _too_large(source, 2 * max_bytes)
            out.write(line)


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
