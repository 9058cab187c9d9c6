"""`job.json` in a job's directory: which job of the backend it is. And what only the backend knows of its end."""

from __future__ import annotations

import json
import time
from collections.abc import Set
from pathlib import Path
from typing import Any

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import JobError
from posttrain_crew.files import atomic_write_json
from posttrain_crew.tools.compute.base import OUTCOME_FILE

__all__ = ["JOB_FILE", "add_to_outcome", "is_open", "load_record", "read_record", "write_record"]

JOB_FILE = "job.json"


def load_record(directory: Path, needed: Set[str]) -> dict[str, Any] | None:
    """`job.json` as it stands, or None where there is none. Raises JobError on a file that crew did not write."""
    path = directory / JOB_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be read ({error}): delete it if no job of this directory runs.") from error
    if not isinstance(record, dict) or not needed <= record.keys():
        raise JobError(f"{path} is no record of a job: delete it if no job of this directory runs.")
    return record


def read_record(directory: Path, backend: str, label: str) -> dict[str, Any] | None:
    """The record of this label, or None where the directory has none or that of another attempt.

    Its `id` is None from before the submission until the backend has answered it.

    Raises:
        JobError: the file is not crew's, or of a job that another backend runs.
    """
    record = load_record(directory, {"label"})
    if record is None:
        return None
    if record["label"] != label:
        return None
    if record.get("backend", "local") != backend:
        raise JobError(
            f"`{label}` was submitted to the backend `{record.get('backend', 'local')}`, not to `{backend}`: a run "
            "stays with its backend. If that job is gone for good, delete " + str(directory / JOB_FILE)
        )
    return record


def write_record(directory: Path, backend: str, label: str, job_id: str | None, **fields: Any) -> None:
    """Write `job.json`. Raises OSError."""
    value = {"label": label, "backend": backend, "id": job_id, "written_at": time.time(), **fields}
    atomic_write_json(directory / JOB_FILE, value)


def is_open(directory: Path) -> bool:
    """Whether the outcome lacks the backend's word: there is none, or it says only that the job was ended."""
    told = _told(directory)
    return not told.get("ok") and told.get("error_class") in (None, "cancelled", "killed")


def add_to_outcome(directory: Path, error_class: ErrorClass, message: str, wall_s: float) -> None:
    """Say how a job ended that did not say it itself, or said only that it was ended. One that ended well stays so."""
    if not is_open(directory):
        return
    told = _told(directory)
    ending = {"ok": False, "error_class": error_class, "message": message, "checkpoint": None}
    atomic_write_json(
        directory / OUTCOME_FILE, {"steps": 0, "metrics": {}, "wall_s": round(wall_s, 3), **told, **ending}
    )


def _told(directory: Path) -> dict[str, Any]:
    try:
        told = json.loads((directory / OUTCOME_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
