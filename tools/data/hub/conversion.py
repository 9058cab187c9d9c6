"""csv, tsv and packed files as JSON Lines, line by line, with a bound on what they unpack to. Tables are read as
tables.py says. A row with more or fewer values than the header has becomes `null`, a row that cannot be read, and is
counted in what is told: nobody here can mend a file of the Hub."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import IO

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.hub.files import suffix_of
from posttrain_crew.tools.data.tables import Table, packed_bytes, too_large

__all__ = ["needs_conversion", "to_jsonl"]

_AS_THEY_ARE = (".parquet", ".jsonl", ".json")
_MORE = "set CREW_DATASET_MAX_GIB to allow more."
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
        max_bytes = min(max_bytes, packed_bytes(source))
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
    except (OSError, EOFError, zlib.error) as error:
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
            raise too_large(source.name, max_bytes, _MORE)
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
    table = Table(stream, source.name, delimiter, max_bytes, _MORE)
    size = odd = 0
    for row in table:
        odd += row is None
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        size += len(line)
        if size > 2 * max_bytes:  # names of columns stand in each line
            raise too_large(source.name, 2 * max_bytes, _MORE)
        out.write(line)
    notes = table.notes
    if odd:
        notes.append(
            f"{odd} rows of {source.name} have not the {len(table.header)} values that its header names: they count as "
            "rows that cannot be read"
        )
    return notes
