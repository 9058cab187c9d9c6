"""Tables of strangers as rows: csv and tsv, plain or packed with gzip, streamed record by record.

Nothing is guessed. Every value stays the text that it is (`007`, `1e5`, `NA` and `true` are texts), and an empty one
becomes null, for a csv has no other. The first record names the columns. The encoding is UTF-8, the separator a comma
(.csv) or a tabulator (.tsv), quotes are doubled within quotes: another file is refused with the line at which it shows.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.parquet_layout import MAX_COLUMNS

__all__ = ["TABLE_SUFFIXES", "Table", "packed_bytes", "table_rows", "too_large"]

TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
MAX_RECORD_CHARS = 8 * 2**20
"""A longer record, all its values together, is refused: where it ends cannot be told without holding it."""
BOMB_BYTES = 64 * 2**20
BOMB_RATIO = 50
"""What unpacks to more than BOMB_BYTES, and to more than so many times its size, is a bomb; text packs by 3 to 10."""


class Table:
    """The records of one table.

    Args:
        stream: its bytes, unpacked.
        name: the file as messages call it.
        delimiter: what stands between two values.
        max_bytes: how many characters are read at most; None is all.
        otherwise: what to do about a table that is larger.

    Raises:
        DatasetError: no header, more than MAX_COLUMNS columns, or two of one name; and while records are read: no
            UTF-8, a quote out of place or never closed, a record of more than MAX_RECORD_CHARS, beyond `max_bytes`.
    """

    def __init__(
        self, stream: IO[bytes], name: str, delimiter: str, max_bytes: int | None = None, otherwise: str = ""
    ) -> None:
        # the module's own bound of 128 KiB is below what a worked solution may take; it is one for the whole process
        csv.field_size_limit(MAX_RECORD_CHARS)
        self._name, self._max_bytes, self._otherwise = name, max_bytes, otherwise
        self._text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        self._records = csv.reader(self._lines(), delimiter=delimiter, strict=True)
        self._size = self._held = 0
        self.line = 1
        """Where the last record began, counted from 1."""
        self.notes: list[str] = []
        """What is not as it was, a line each."""
        self.header = self._header()

    def __iter__(self) -> Iterator[dict[str, object] | None]:
        """Records by column; None for one with more or fewer values than the header names. Empty lines are none."""
        while (record := self._next()) is not None:
            if record:
                whole = len(record) == len(self.header)
                yield {n: v or None for n, v in zip(self.header, record, strict=True)} if whole else None

    def _next(self) -> list[str] | None:
        self._held = 0
        self.line = self._records.line_num + 1
        try:
            return next(self._records, None)
        except UnicodeDecodeError as error:
            # what was decoded before and not yet given out holds no end of a line
            line = self._records.line_num + 1 + error.object[: error.start].count(b"\n")
            raise DatasetError(
                f"the table {self._name} is no UTF-8 text (byte {error.object[error.start]:#04x} in line {line}: "
                f"{error.reason}), and crew does not guess encodings: a wrong guess changes letters in silence. Leave "
                "it out, or make it UTF-8, for example by `iconv -f latin1 -t utf-8`."
            ) from error
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            what = "read" if isinstance(error, csv.Error) else "unpacked"
            raise DatasetError(
                f"the table {self._name} cannot be {what}: {type(error).__name__}: {str(error)[:200]}, in the record "
                f"that begins in line {self.line}. It is damaged, cut, or not what its suffix says: mend it there (a "
                "quote within quotes is doubled), or leave it out."
            ) from error

    def _header(self) -> list[str]:
        names = self._next()
        while names == []:
            names = self._next()
        if not names:
            raise DatasetError(f"{self._name} is empty: the first line of a table names its columns. Leave it out.")
        if len(names) > MAX_COLUMNS:
            raise DatasetError(
                f"{self._name} has {len(names)} columns, and {MAX_COLUMNS} are read at most: leave it out, or keep the "
                "few columns that training needs."
            )
        if any("\0" in name for name in names):
            raise DatasetError(f"{self._name} is no UTF-8 text (its first line has NUL characters): make it UTF-8.")
        if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
            raise DatasetError(
                f"the first line of {self._name} names one column, `{names[0][:80]}`: its values seem to be "
                f"separated by {other!r}. Write it with commas (.csv) or tabulators (.tsv), or as parquet."
            )
        header = [name if name.strip() else f"column_{number}" for number, name in enumerate(names, start=1)]
        if twice := sorted(name for name, count in Counter(header).items() if count > 1):
            raise DatasetError(
                f"the header of {self._name} names {', '.join(twice)[:200]} more than once: which of the columns is "
                "meant cannot be told. Leave it out, or rename them."
            )
        if new := [name for name, given in zip(header, names, strict=True) if name != given]:
            self.notes.append(f"columns of {self._name} without a name were called {', '.join(new)[:200]}")
        return header

    def _lines(self) -> Iterator[str]:
        while line := self._text.readline(MAX_RECORD_CHARS + 1):
            self._size += len(line)
            self._held += len(line)
            if len(line) > MAX_RECORD_CHARS:
                raise DatasetError(
                    f"{self._name} has a line of more than {MAX_RECORD_CHARS / 2**20:.0f} MiB (line "
                    f"{self._records.line_num + 1}): leave it out, or shorten it."
                )
            if self._held > MAX_RECORD_CHARS:
                raise DatasetError(
                    f"the record of {self._name} that begins in line {self.line} is longer than "
                    f"{MAX_RECORD_CHARS / 2**20:.0f} MiB: most likely a quote in it is not closed. Mend it there."
                )
            if self._max_bytes is not None and self._size > self._max_bytes:
                raise too_large(self._name, self._max_bytes, self._otherwise)
            yield line


def table_rows(path: Path) -> Iterator[dict[str, object]]:
    """The rows of a file of this machine, in memory one at a time, texts in full.

    Raises:
        DatasetError: as `Table` does; a record that has not as many values as there are columns, for what stands
            before and behind it may be in the wrong column, too; a packed file that is a bomb.
    """
    packed = path.name.endswith(".gz")
    delimiter = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    try:
        stream: IO[bytes] = gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[assignment] # noqa: SIM115
    except OSError as error:
        raise DatasetError(f"the data file {path} cannot be read: {error.strerror or error}.") from error
    with stream:
        most = packed_bytes(path) if packed else None
        table = Table(stream, str(path), delimiter, most, "unpack it yourself (`gunzip`) if you trust it.")
        for row in table:
            if row is None:
                raise DatasetError(
                    f"{path}: the record that begins in line {table.line} has not the {len(table.header)} values that "
                    "the header names. A value with a comma, a quote or a line break in it must stand in quotes; mend "
                    "the line, or write the table again."
                )
            yield row


def packed_bytes(path: Path) -> int:
    """What a packed file may unpack to before it counts as a bomb."""
    return max(BOMB_BYTES, BOMB_RATIO * path.stat().st_size)


def too_large(name: str, max_bytes: int, otherwise: str) -> DatasetError:
    """The error of what unpacks to too much."""
    return DatasetError(
        f"{name} unpacks to more than {max_bytes / 2**20:.0f} MiB: it is a zip bomb, or too large. Leave the dataset "
        f"out, or {otherwise}"
    )
