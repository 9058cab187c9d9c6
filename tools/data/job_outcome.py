"""The last act of a data job: outcome.json, whatever came of the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import CrewError
from posttrain_crew.files import atomic_write_json

__all__ = ["carry_through"]


def carry_through(
    directory: Path, work: Callable[[], Mapping[str, Any]], class_of: Callable[[Exception], ErrorClass]
) -> int:
    """Do the work and write outcome.json into `directory`; the exit status is 0 when it succeeded.

    Args:
        work: returns `message`, `steps` and `metrics` of the outcome.

    Raises:
        Exception: what is no CrewError goes on after the outcome is written: its trace belongs in the job's log.
    """
    started = time.monotonic()
    outcome: dict[str, Any] = {"ok": False, "steps": 0, "checkpoint": None, "metrics": {}}
    try:
        outcome |= {"ok": True, "error_class": None, **work()}
        return 0
    except CrewError as error:
        outcome |= {"error_class": class_of(error), "message": str(error)[:2000]}
        return 1
    except Exception as error:
        outcome |= {"error_class": class_of(error), "message": f"{type(error).__name__}: {str(error)[:1900]}"}
        raise
    finally:
        if "error_class" in outcome:  # an interrupt leaves none: the job counts as killed
            outcome["wall_s"] = round(time.monotonic() - started, 3)
            atomic_write_json(directory / "outcome.json", outcome)
