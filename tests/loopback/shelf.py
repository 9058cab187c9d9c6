"""Files of the dataset repositories on disk, made when they are first asked for; the same for the same seed."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.loopback.repos import REPOS, Repo
from tests.loopback.rows import as_parquet

__all__ = ["File", "Shelf"]

LFS = (".parquet", ".gz", ".zip")
PARQUET = "refs/convert/parquet"
"""The revision with the datasets-server's copy of each dataset as Parquet."""
KEPT = 6
"""Tables in memory."""


@dataclass(frozen=True)
class File:
    """One file of a repository."""

    path: str
    place: Path
    size: int
    oid: str
    """git's name of the blob; of the pointer, for a file that git-lfs keeps."""
    sha256: str | None
    """For a file that git-lfs keeps."""

    @property
    def etag(self) -> str:
        """As the Hub has it."""
        return self.sha256 or self.oid


class Shelf:
    """All repositories of one server."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._files: dict[tuple[str, str], File] = {}
        self._rows: OrderedDict[tuple[str, str], list[dict[str, Any]]] = OrderedDict()
        self._lock = threading.RLock()

    def repo(self, repo_id: str) -> Repo | None:
        """By `OWNER/NAME`."""
        return REPOS.get(repo_id)

    def sha(self, repo: Repo) -> str:
        """The commit of `main`."""
        return hashlib.sha1(f"{repo.id} {self._seed}".encode(), usedforsecurity=False).hexdigest()

    def paths(self, repo: Repo) -> list[str]:
        """The files of `main`; nothing is made."""
        return sorted([".gitattributes", "README.md", *repo.files])

    def file(self, repo: Repo, path: str, revision: str = "main") -> File | None:
        """A file, made now if it is not there yet; None when the repository has no such file."""
        if revision == PARQUET:
            known = any(path == f"default/{split}/0000.parquet" for split in repo.splits)
        else:
            known = path in self.paths(repo)
        if not known:
            return None
        key = (repo.id, f"{revision}/{path}" if revision == PARQUET else path)
        with self._lock:
            if key not in self._files:
                self._files[key] = self._made(repo, path, revision)
            return self._files[key]

    def files(self, repo: Repo) -> Iterator[File]:
        """All files of `main`."""
        for path in self.paths(repo):
            found = self.file(repo, path)
            if found is not None:
                yield found

    def rows(self, repo: Repo, split: str = "train") -> list[dict[str, Any]]:
        """The rows of a split. Raises KeyError, and ValueError where they cannot be read."""
        key = (repo.id, split)
        with self._lock:
            if key not in self._rows:
                self._rows[key] = self._read(repo, repo.splits[split])
                while len(self._rows) > KEPT:
                    self._rows.popitem(last=False)
            return self._rows[key]

    def _read(self, repo: Repo, path: str) -> list[dict[str, Any]]:
        found = self.file(repo, path)
        if found is None or found.place.suffix not in (".parquet", ".jsonl"):
            raise ValueError(f"{repo.id} has no file that can be read")
        if found.place.suffix == ".parquet":
            import pyarrow.parquet as pq  # slow to import

            table: list[dict[str, Any]] = pq.read_table(found.place).to_pylist()
            return table
        return [json.loads(line) for line in found.place.read_text(encoding="utf-8").splitlines()]

    def _made(self, repo: Repo, path: str, revision: str) -> File:
        if revision == PARQUET:
            content = as_parquet(self.rows(repo, path.split("/")[1]))
        elif path == "README.md":
            content = repo.readme
        elif path == ".gitattributes":
            content = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n*.gz filter=lfs diff=lfs merge=lfs -text\n"
        else:
            content = repo.files[path](self._seed)
        place = self._folder / repo.id / revision / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest() if place.suffix in LFS else None
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        blob = content if sha256 is None else pointer
        oid = hashlib.sha1(b"blob %d\0" % len(blob) + blob, usedforsecurity=False).hexdigest()
        return File(path, place, len(content), oid, sha256)
