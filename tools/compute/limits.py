"""How much memory a job of this machine may take, so that one job cannot take the machine down with it.

With cgroup v2, where this process may make a group of its own beside it (a container with a delegated tree, a systemd
user session), the limit holds for all processes of the job together, and what the kernel kills is known. Elsewhere
RLIMIT_DATA limits each process of a CPU job: an allocation beyond it fails, which the job tells as `out_of_memory`. A
GPU job gets no such limit, since the CUDA driver maps more than it uses.
"""

from __future__ import annotations

import contextlib
import logging
import resource
from pathlib import Path

__all__ = ["limit_memory", "release", "was_out_of_memory"]

_ROOT = Path("/sys/fs/cgroup")
_log = logging.getLogger(__name__)


def limit_memory(pid: int, name: str, gib: float, *, gpu: bool) -> str | None:
    """Limit a process that has just been started, and what it will start.

    Args:
        name: of the group, from letters, digits and `-`.
        gib: GiB of RAM.

    Returns:
        The group's folder, or None where there is no cgroup v2 to use.
    """
    size = int(gib * 2**30)
    if (parent := _delegated()) is not None:
        group = parent / f"crew-{name}-{pid}"
        try:
            group.mkdir()
            (group / "memory.max").write_text(str(size))
            with contextlib.suppress(OSError):  # a kernel without swap accounting
                (group / "memory.swap.max").write_text("0")
            (group / "cgroup.procs").write_text(str(pid))
            return str(group)
        except OSError as error:
            with contextlib.suppress(OSError):
                group.rmdir()
            _log.warning("no cgroup could be made for the job %s (%s)", name, error)
    if gpu or not hasattr(resource, "prlimit"):
        _log.warning("the memory of the job %s is not limited: there is no cgroup v2 to use", name)
        return None
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_DATA, (size, size))
    return None


def was_out_of_memory(group: str) -> bool:
    """Whether the kernel has killed something in this group for its memory."""
    try:
        events = dict(line.split() for line in (Path(group) / "memory.events").read_text().splitlines())
    except (OSError, ValueError):
        return False
    return int(events.get("oom_kill", 0)) > 0


def release(group: str) -> None:
    """Remove the group of an ended job; one that is not empty yet stays."""
    with contextlib.suppress(OSError):
        Path(group).rmdir()


def _delegated() -> Path | None:
    """The group in which this process may make groups with a memory limit, or None."""
    try:
        line = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        parent = (_ROOT / line[3:].lstrip("/")).parent  # a group that holds processes can have none below it
        controllers = (parent / "cgroup.subtree_control").read_text().split()
    except (OSError, StopIteration):
        return None
    return parent if "memory" in controllers else None
