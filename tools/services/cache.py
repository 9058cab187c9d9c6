"""Answers of services on disk, with their age, bounded in size: the oldest leave.

A broken or half-written file is a miss, never an error.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MAX_BYTES", "AnswerCache", "CachedAnswer"]

MAX_BYTES = 256 * 2**20
"""Of one service: some thousand answers, or a hundred long papers."""
_KEPT = 0.8  # share that stays when the bound is passed, so that not every answer has the folder listed


@dataclass(frozen=True)
class CachedAnswer:
    """One stored answer."""

    body: bytes
    headers: Mapping[str, str]
    age_s: float
    """Seconds since it was stored."""


class AnswerCache:
    """A folder of answers: one file each, a line of JSON with the headers, then the body.

    Args:
        folder: made when the first answer is stored. A folder that cannot be written is a cache that stores nothing.
        max_bytes: when all answers together are larger, the oldest leave.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max = folder, max_bytes
        self._size: int | None = None
        """Bytes in the folder as far as this process knows; None before it has looked."""
        self._lock = threading.Lock()

    def load(self, key: str) -> CachedAnswer | None:
        """The answer under a key (hex digest), however old, or None."""
        path = self._folder / key
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            stored = json.loads(head)
            if stored["size"] != len(body):
                return None
            return CachedAnswer(body, dict(stored["headers"]), max(0.0, time.time() - float(stored["at"])))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def store(self, key: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep an answer; by rename, so that a reader sees all of it or nothing."""
        head = json.dumps({"at": time.time(), "size": len(body), "headers": dict(headers)}).encode()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._folder)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(head + b"\n" + body)
            Path(temporary).replace(self._folder / key)
        except OSError:  # a full disk costs speed, not the answer
            return
        with self._lock:
            self._size = sum(size for _, size, _ in self._files()) if self._size is None else self._size + len(body)
            if self._size > self._max:
                self._size = self._shrink(int(_KEPT * self._max))

    def size(self) -> tuple[int, int]:
        """Number of files and their bytes."""
        files = list(self._files())
        return len(files), sum(size for _, size, _ in files)

    def oldest(self) -> float | None:
        """When the oldest answer was stored, as time.time() has it."""
        return min((at for at, _, _ in self._files()), default=None)

    def clear(self) -> None:
        """Forget all answers."""
        with self._lock:
            self._size = self._shrink(0)

    def _shrink(self, most: int) -> int:
        """Remove the oldest files until the others have `most` bytes; returns what they have."""
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= most:
                break
            try:
                path.unlink(missing_ok=True)
            except OSError:  # of another user, or read-only: the next one may go
                continue
            left -= size
        return left

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Time, bytes and path of each file; halves that a killed process left behind are among them."""
        try:
            paths = list(self._folder.iterdir())
        except OSError:
            return
        for path in paths:
            try:
                about = path.stat()
            except OSError:  # another process removed it
                continue
            yield about.st_mtime, about.st_size, path
