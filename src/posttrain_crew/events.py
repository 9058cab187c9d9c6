"""events.jsonl: what happened when, one JSON object a line, for people and for the report's time line.

The blackboard is the truth about the research; events are the trace of how the run went (agent turns, tool calls, job
starts). Every line passes through redaction.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posttrain_crew.redact import redact

__all__ = ["Events"]


class Events:
    """Appends events and tells listeners of them. Thread-safe.

    Args:
        path: the file; it is appended to, never rewritten.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._listeners: list[Callable[[dict[str, Any]], None]] = []

    def subscribe(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Call `listener` with every further event, in the thread that emits it."""
        self._listeners.append(listener)

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event. `fields` must be JSON values; strings are redacted and cut at 2,000 characters."""
        record: dict[str, Any] = {"time": round(time.time(), 3), "event": event}
        for name, value in fields.items():
            record[name] = redact(value)[:2000] if isinstance(value, str) else value
        line = json.dumps(record, ensure_ascii=False, default=str)
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
        for listener in self._listeners:
            listener(record)
