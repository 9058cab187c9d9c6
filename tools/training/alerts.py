"""Alerts of the watch rules in the job's trackio run, where the dashboard and `trackio.Api().alerts` show them.

The watcher is another process than the job, and often on another machine: it opens no run of its own, which would take
a second and a server thread, but adds a row to the run's database. trackio 0.43 has no call for that.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from datetime import datetime, timezone
from pathlib import Path

from posttrain_crew.tools.training.finding import Finding

__all__ = ["raise_alert", "raised"]

_LEVELS = {"warn": "warn", "stop": "error"}
_COLUMNS = ("timestamp", "run_id", "run_name", "title", "text", "level", "step", "alert_id")
LONGEST = 2000
"""Characters of an alert's text."""
PATIENCE_S = 10.0
"""Seconds to wait for the job's own writes."""


def raise_alert(database: Path, run: str, finding: Finding) -> bool:
    """Add an alert to a trackio run, once for each cause and level; False where it could not be: then the database is
    not there yet, or is not what this version of trackio writes. Watching goes on without it.

    Args:
        database: the project's file, `TRACKIO_DIR/PROJECT.db`. It is the job that makes it.
        run: the run's name.
    """
    if not database.is_file():
        return False
    title, level = finding.cause.replace("_", " "), _LEVELS[finding.severity]
    step = finding.evidence[0].step if finding.evidence else None
    text = f"{finding.message}. {finding.advice}"[:LONGEST]
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=PATIENCE_S)) as connection, connection:  # commits
            if (level, title) in _alerts(connection, run):
                return True
            known = connection.execute("SELECT run_id FROM metrics WHERE run_name = ? LIMIT 1", (run,)).fetchone()
            now = datetime.now(timezone.utc).isoformat()
            row = (now, known[0] if known else run, run, title, text, level, step, uuid.uuid4().hex)
            marks = ", ".join("?" for _ in _COLUMNS)
            connection.execute(f"INSERT INTO alerts ({', '.join(_COLUMNS)}) VALUES ({marks})", row)
    except sqlite3.Error:
        return False
    return True


def raised(database: Path, run: str) -> list[tuple[str, str]]:
    """(level, title) of a run's alerts, oldest first; [] where there is no database, or none that can be read."""
    if not database.is_file():
        return []
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=PATIENCE_S)) as connection:
            return _alerts(connection, run)
    except sqlite3.Error:
        return []


def _alerts(connection: sqlite3.Connection, run: str) -> list[tuple[str, str]]:
    found = connection.execute("SELECT level, title FROM alerts WHERE run_name = ? ORDER BY id", (run,))
    return [(str(level), str(title)) for level, title in found]
