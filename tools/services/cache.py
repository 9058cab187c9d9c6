"""Answers of services on disk, with their age. A broken or half-written file is a miss, never an error."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AnswerCache", "CachedAnswer"]


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
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
