"""How Hugging Face says that a job stands and how it ended, in crew's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from posttrain_crew.entries import ErrorClass
from posttrain_crew.redact import redact
from posttrain_crew.tools.compute import hf_remote
from posttrain_crew.tools.compute.base import LOG_FILE, OUTCOME_FILE, JobHandle

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

__all__ = ["OVER", "deleted_job", "ending_of", "said_of", "seconds_of", "stage_of"]

OVER = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
_EXIT_CODE = re.compile(r"exit code:? (\d+)")


def said_of(error: Exception) -> str:
    """Of an error of the client, in one line without secrets."""
    return redact(" ".join(f"{type(error).__name__}: {error}".split()))[:500]


def stage_of(job: Any) -> str:
    """The Hub's own word, such as RUNNING."""
    stage = job.status.stage if job.status is not None else "SCHEDULING"
    return str(getattr(stage, "value", stage))


def deleted_job() -> Any:
    """A job that the Hub does not have any more."""
    from types import SimpleNamespace

    return SimpleNamespace(status=SimpleNamespace(stage="DELETED", message="the Hub does not know it any more"))


def seconds_of(job: JobInfo | None) -> float:
    """Seconds that it ran, which are those that it costs; 0.0 where the Hub does not say."""
    durations = getattr(job, "durations", None)
    return float(getattr(durations, "running_secs", None) or 0.0)


def _log_lines(handle: JobHandle) -> list[str]:
    path = handle.directory / LOG_FILE
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def ending_of(job: JobInfo | None, handle: JobHandle) -> tuple[ErrorClass, str] | None:
    """Class and message of an end that the job may not have told; None for one that it did."""
    stage = "DELETED" if job is None else stage_of(job)
    said = "" if job is None or job.status is None else job.status.message or ""
    if stage in ("CANCELED", "DELETED"):
        return "cancelled", f"the Hugging Face job {handle.id} was ended ({stage}) {said}"
    if stage == "ERROR" and "timeout" in said.lower():
        return "timeout", f"the Hugging Face job {handle.id} was ended at its time limit: {said}"
    if (handle.directory / OUTCOME_FILE).exists():
        return None
    code = _EXIT_CODE.search(said.lower())
    if stage == "ERROR" and code is not None and int(code[1]) == hf_remote.NO_FILES:
        last = next((line for line in reversed(_log_lines(handle)) if line.startswith("the files could not")), "")
        return "crashed", f"the Hugging Face job {handle.id} lost its files: {last or 'see its log'}"
    if stage == "ERROR" and code is not None and int(code[1]) >= 128:
        return "killed", f"the Hugging Face job {handle.id} was killed: {said}"
    return "crashed", f"the Hugging Face job {handle.id} left no outcome ({stage}): {said or 'see its log'}"
