"""Jobs that nobody waits for: alive on the backend under the run's tag, and not at work by the blackboard.

They come from a kill between a submission and what follows it, or from a backend that was silent when a job should
have been ended. They cost money and hold accelerators, so a run looks for them when it starts and when it ends.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from posttrain_crew.entries import Incident, JobOutcome, JobStarted
from posttrain_crew.errors import CrewError
from posttrain_crew.tools.compute.base import OUTCOME_FILE, JobHandle
from posttrain_crew.tools.workspace import Workspace

__all__ = ["orphans", "sweep"]

LEAVING_S = 30.0
"""What a job gets to leave that has said how it ended: an interpreter with torch takes seconds, and ended before that
it would be FAILED or CANCELLED in the cluster's own books."""
_POLL_S = 0.2


def orphans(workspace: Workspace, *, at_the_end: bool = False) -> list[JobHandle]:
    """The run's live jobs that are not at work by the blackboard; at the end of a run, all of its live jobs.

    Raises:
        JobError: the backend does not answer.
    """
    over = {entry.body.label for entry in workspace.board.of(JobOutcome)}
    at_work = {entry.body.label for entry in workspace.board.of(JobStarted)} - over
    alive = workspace.compute.alive(workspace.run.root)
    return [handle for handle in alive if at_the_end or handle.label not in at_work]


def sweep(workspace: Workspace, *, at_the_end: bool = False) -> list[JobHandle]:
    """Cancel the orphans and report each on the blackboard. Returns those that were cancelled.

    A job that has said how it ended is left to leave by itself, at most LEAVING_S, and is then ended without a report.
    """
    try:
        found = orphans(workspace, at_the_end=at_the_end)
    except CrewError as error:
        _report(workspace, str(error), "they are looked for again when the run is resumed or ends", "orphans")
        return []
    ended: list[JobHandle] = []
    directories = {
        entry.body.label: workspace.run.absolute(entry.body.directory) for entry in workspace.board.of(JobStarted)
    }

    leaving = {h.id for h in found if (directories.get(h.label, h.directory) / OUTCOME_FILE).exists()}
    if leaving:
        _wait_gone(workspace, leaving)
    for handle in found:
        try:
            workspace.compute.cancel(handle)
        except CrewError as error:
            _report(workspace, f"{handle.label} ({handle.id}): {error}", "it may still run: end it by hand", handle.id)
            continue
        if handle.id not in leaving:
            what = f"`{handle.label}` ({handle.id}) was alive on {handle.backend}, and nobody waited for it"
            _report(workspace, what, "it was cancelled", handle.id)
            ended.append(handle)
    return ended


def _wait_gone(workspace: Workspace, ids: Collection[str]) -> None:
    """Until none of them is alive, or cannot be asked, at most LEAVING_S."""
    deadline = time.monotonic() + LEAVING_S
    try:
        while time.monotonic() < deadline and any(h.id in ids for h in workspace.compute.alive(workspace.run.root)):
            time.sleep(_POLL_S)  # no backend has an event for it
    except CrewError:
        return  # what follows reports it


def _report(workspace: Workspace, what: str, instead: str, about: str) -> None:
    where = f"backend {workspace.compute.name}"
    workspace.board.post(Incident(where=where, what=what[:1000], instead=instead), author="crew")
    workspace.events.emit("incident", where=where, what=what, instead=instead, job=about)
