"""The blackboard: a run's append-only, typed, hash-chained log on SQLAlchemy Core.

SQLite (WAL) in the run directory is the default; any SQLAlchemy URL can be given. Rows can be added, never changed:
triggers refuse UPDATE and DELETE, and each row carries the SHA-256 of its own content and its predecessor's hash, so
that `verify` finds a change made behind the library's back.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from posttrain_crew.entries import BODY_TYPES, EntryBody, Status
from posttrain_crew.errors import BlackboardError
from posttrain_crew.files import canonical_json, sha256_text

__all__ = ["Blackboard", "Entry"]

BodyT = TypeVar("BodyT", bound=EntryBody)
BodyT_co = TypeVar("BodyT_co", bound=EntryBody, covariant=True)

_METADATA = sa.MetaData()
_ENTRIES = sa.Table(
    "entries",
    _METADATA,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(64), nullable=False, unique=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("author", sa.String(128), nullable=False),
    sa.Column("created_at", sa.String(40), nullable=False),
    sa.Column("key", sa.String(256), nullable=True, unique=True),
    sa.Column("refs", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("prev_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index("entries_kind_seq", "kind", "seq"),
)
_GENESIS = "0" * 64
_APPEND_ONLY = [
    f"CREATE TRIGGER IF NOT EXISTS entries_no_{verb.lower()} BEFORE {verb} ON entries "
    "BEGIN SELECT RAISE(ABORT, 'the blackboard is append-only'); END"
    for verb in ("UPDATE", "DELETE")
]


@dataclass(frozen=True)
class Entry(Generic[BodyT_co]):
    """One row of the blackboard."""

    seq: int
    """Position in the log, from 1."""
    id: str
    status: Status
    author: str
    """The role that posted it, or `crew` for code that no agent controls."""
    created_at: str
    """UTC, ISO 8601."""
    refs: tuple[str, ...]
    body: BodyT_co
    hash: str

    @property
    def kind(self) -> str:
        return self.body.kind

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, as `crew log --json` prints it."""
        return {
            "seq": self.seq,
            "id": self.id,
            "kind": self.kind,
            "status": self.status,
            "author": self.author,
            "created_at": self.created_at,
            "refs": list(self.refs),
            "body": self.body.model_dump(mode="json"),
            "hash": self.hash,
        }


class Blackboard:
    """The log of one run. Safe for several threads, and for several processes on SQLite's own locking.

    Args:
        location: path of an SQLite file, or an SQLAlchemy URL.
        create: make the table when it is missing; without it, a missing or foreign database is an error.

    Raises:
        BlackboardError: the file is no blackboard, is damaged, or cannot be opened.
    """

    def __init__(self, location: Path | str, *, create: bool = False) -> None:
        self.location = str(location)
        if isinstance(location, Path):
            if not create and not location.is_file():
                raise BlackboardError(
                    f"there is no blackboard at {location}. Give the directory of a run (see `crew runs`)."
                )
            url = f"sqlite:///{location}"
        else:
            url = location
        self._engine = sa.create_engine(url, poolclass=NullPool if url.startswith("postgresql") else None)
        self._sqlite = self._engine.dialect.name == "sqlite"
        self._lock = threading.Lock()
        if self._sqlite:
            _prepare_sqlite(self._engine)
        with self._translated():
            if create:
                self._create()
            elif not sa.inspect(self._engine).has_table("entries"):
                raise BlackboardError(
                    f"{self.location} holds no table `entries`: it is not a crew blackboard, or it is damaged. "
                    "Restore blackboard.db from a copy, or start a new run."
                )

    def _create(self) -> None:
        _METADATA.create_all(self._engine)
        if self._sqlite:
            with self._engine.begin() as connection:
                for statement in _APPEND_ONLY:
                    connection.execute(sa.text(statement))

    def close(self) -> None:
        """Close the connections. The object can be used again afterwards."""
        self._engine.dispose()

    def post(
        self,
        body: BodyT,
        *,
        author: str,
        refs: Sequence[str] = (),
        status: Status = "observation",
        key: str | None = None,
    ) -> Entry[BodyT]:
        """Append one entry and return it.

        Args:
            refs: ids of the supporting entries; each must exist, and the body's class says how many are needed.
            key: makes the post idempotent: where an entry with this key exists, that entry is returned unchanged.

        Raises:
            BlackboardError: a ref is unknown or missing, the kind is unknown, or the database refused the write.
        """
        if BODY_TYPES.get(body.kind) is not type(body):
            raise BlackboardError(f"`{type(body).__name__}` is not a kind of entry. Known: {', '.join(BODY_TYPES)}.")
        if len(refs) < body.min_refs:
            raise BlackboardError(
                f"an entry of kind `{body.kind}` needs at least {body.min_refs} supporting entr"
                f"{'y' if body.min_refs == 1 else 'ies'}, but {len(refs)} were given: pass their ids as `refs`."
            )
        text = canonical_json(body.model_dump(mode="json"))
        with self._translated(), self._lock, self._writing() as connection:
            if not self._sqlite:
                connection.execute(sa.text("LOCK TABLE entries IN EXCLUSIVE MODE"))
            if key is not None:
                row = connection.execute(sa.select(_ENTRIES).where(_ENTRIES.c.key == key)).first()
                if row is not None:
                    return cast("Entry[BodyT]", _entry(row))
            self._check_refs(connection, refs)
            last = connection.execute(
                sa.select(_ENTRIES.c.seq, _ENTRIES.c.hash).order_by(_ENTRIES.c.seq.desc()).limit(1)
            ).first()
            number = connection.execute(
                sa.select(_ENTRIES.c.id).where(_ENTRIES.c.kind == body.kind).order_by(_ENTRIES.c.seq.desc()).limit(1)
            ).scalar()
            row_values: dict[str, Any] = {
                "seq": 1 if last is None else last.seq + 1,
                "id": f"{body.prefix}-{1 if number is None else int(number.rsplit('-', 1)[1]) + 1}",
                "kind": body.kind,
                "status": status,
                "author": author,
                "created_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "key": key,
                "refs": canonical_json(list(refs)),
                "body": text,
                "prev_hash": _GENESIS if last is None else last.hash,
            }
            row_values["hash"] = _row_hash(row_values)
            connection.execute(sa.insert(_ENTRIES).values(**row_values))
        return Entry(
            row_values["seq"],
            row_values["id"],
            status,
            author,
            row_values["created_at"],
            tuple(refs),
            body,
            row_values["hash"],
        )

    def get(self, entry_id: str) -> Entry[EntryBody]:
        """The entry with this id. Raises BlackboardError when there is none."""
        found = self._rows(sa.select(_ENTRIES).where(_ENTRIES.c.id == entry_id))
        if not found:
            raise BlackboardError(f"there is no entry `{entry_id}` on this blackboard. `crew log RUN` lists all ids.")
        return found[0]

    def typed(self, entry_id: str, body_type: type[BodyT]) -> Entry[BodyT]:
        """The entry with this id, which must be of this kind. Raises BlackboardError otherwise."""
        entry = self.get(entry_id)
        if not isinstance(entry.body, body_type):
            raise BlackboardError(f"entry `{entry_id}` is a `{entry.kind}`, not a `{body_type.kind}`.")
        return cast("Entry[BodyT]", entry)

    def of(self, body_type: type[BodyT], *, newest: int | None = None) -> list[Entry[BodyT]]:
        """All entries of a kind in order, or only the `newest` ones (still in order)."""
        query = sa.select(_ENTRIES).where(_ENTRIES.c.kind == body_type.kind)
        if newest is not None:
            rows = self._rows(query.order_by(_ENTRIES.c.seq.desc()).limit(newest))
            return cast("list[Entry[BodyT]]", rows[::-1])
        return cast("list[Entry[BodyT]]", self._rows(query.order_by(_ENTRIES.c.seq)))

    def latest(self, body_type: type[BodyT]) -> Entry[BodyT] | None:
        """The newest entry of a kind, or None."""
        found = self.of(body_type, newest=1)
        return found[0] if found else None

    def by_key(self, key: str) -> Entry[EntryBody] | None:
        """The entry posted with this idempotency key, or None."""
        found = self._rows(sa.select(_ENTRIES).where(_ENTRIES.c.key == key))
        return found[0] if found else None

    def since(self, seq: int = 0, *, kind: str | None = None, limit: int | None = None) -> list[Entry[EntryBody]]:
        """Entries after a position, in order."""
        query = sa.select(_ENTRIES).where(_ENTRIES.c.seq > seq)
        if kind is not None:
            query = query.where(_ENTRIES.c.kind == kind)
        return self._rows(query.order_by(_ENTRIES.c.seq).limit(limit))

    def counts(self) -> dict[str, int]:
        """Number of entries per kind."""
        query = sa.select(_ENTRIES.c.kind, sa.func.count()).group_by(_ENTRIES.c.kind)
        with self._translated(), self._engine.connect() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(query)}

    def last_seq(self) -> int:
        """Position of the newest entry, 0 on an empty board."""
        with self._translated(), self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.max(_ENTRIES.c.seq))).scalar() or 0)

    def verify(self) -> int:
        """Recompute the hash chain and re-validate every body. Returns the number of entries.

        Raises:
            BlackboardError: a row was changed, removed or inserted, naming the first such position.
        """
        previous, expected = _GENESIS, 1
        with self._translated(), self._engine.connect() as connection:
            for row in connection.execute(sa.select(_ENTRIES).order_by(_ENTRIES.c.seq)):
                values = dict(row._mapping)
                if row.seq != expected or row.prev_hash != previous or _row_hash(values) != row.hash:
                    raise BlackboardError(
                        f"{self.location}: the hash chain breaks at entry {expected} (found `{row.id}`): the log was "
                        "changed or cut outside crew. Restore blackboard.db from a copy, or start a new run."
                    )
                _entry(row)
                previous, expected = row.hash, expected + 1
        return expected - 1

    def _check_refs(self, connection: sa.Connection, refs: Sequence[str]) -> None:
        if not refs:
            return
        wanted = set(refs)
        found = set(connection.execute(sa.select(_ENTRIES.c.id).where(_ENTRIES.c.id.in_(wanted))).scalars())
        if missing := sorted(wanted - found):
            raise BlackboardError(
                f"these supporting entries do not exist on the blackboard: {', '.join(missing)}. "
                "Cite only ids that a tool or the brief has shown."
            )

    def _rows(self, query: sa.Select[Any]) -> list[Entry[EntryBody]]:
        with self._translated(), self._engine.connect() as connection:
            return [_entry(row) for row in connection.execute(query)]

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._engine.connect().execution_options(write=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise BlackboardError(
                f"the blackboard at {self.location} cannot be read or written ({cause}). If the file is damaged, "
                "restore it from a copy or start a new run; if the disk is full, free space and `crew resume`."
            ) from error


def _prepare_sqlite(engine: sa.Engine) -> None:
    """WAL for readers beside the writer; BEGIN IMMEDIATE so that two writers queue instead of failing."""

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")


def _row_hash(values: dict[str, Any]) -> str:
    fields = ("seq", "id", "kind", "status", "author", "created_at", "key", "refs", "body", "prev_hash")
    return sha256_text(canonical_json([values[name] for name in fields]))


def _entry(row: sa.Row[Any]) -> Entry[EntryBody]:
    body_type = BODY_TYPES.get(row.kind)
    if body_type is None:
        raise BlackboardError(
            f"entry `{row.id}` is of the unknown kind `{row.kind}`: it was written by another version of crew or by a "
            "plugin that is not installed here."
        )
    try:
        body = body_type.model_validate_json(row.body)
        refs = tuple(json.loads(row.refs))
    except (ValidationError, ValueError) as error:
        raise BlackboardError(f"entry `{row.id}` does not fit its kind `{row.kind}`: {error}") from error
    return Entry(row.seq, row.id, row.status, row.author, row.created_at, refs, body, row.hash)
