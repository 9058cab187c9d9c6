"""Jobs as processes of this machine.

A job runs in a session of its own, so that it outlives the crew that started it; `job.json` in its directory says which
process it is (pid with its start time, since pids are used again), and a later crew finds it there. Should the crew die
between the start of the process and the writing of that file, the process is still found by the label in its
environment, so a label is never launched twice.

Everything that a job starts inherits a variable of this one launch. Where the first process is killed, others may go
on without it, such as the workers of torchrun: they are found by it, and ended before the job counts as ended.

A job of several processes takes as many slots, and as many GPUs where there are some. Each GPU has a lock file that
the job holds open as long as it lives, so that two crews on one machine do not meet on a GPU.

Nothing queues here: `submit` on a full machine is a SlotsBusyError, and callers look at `capacity` first.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from posttrain_crew.errors import JobError, SlotsBusyError
from posttrain_crew.files import atomic_write_json
from posttrain_crew.redact import child_environment
from posttrain_crew.settings import Settings
from posttrain_crew.tools.compute.base import (
    DIRECTORY_VARIABLE,
    LABEL_VARIABLE,
    LOG_FILE,
    OUTCOME_FILE,
    Backend,
    Capacity,
    JobHandle,
    JobSpec,
    JobState,
)
from posttrain_crew.tools.compute.command import job_command, job_variables
from posttrain_crew.tools.compute.limits import limit_memory, release, was_out_of_memory
from posttrain_crew.tools.compute.record import JOB_FILE, add_to_outcome, load_record

__all__ = ["JOB_FILE", "LOG_FILE", "LocalCompute"]

_TIMEOUT_GRACE_S = 2.0
_LEAVING_S = 15.0
_REMAINS_S = 2.0
"""How long what a killed job has left may take to notice it, before it is killed too."""
LAUNCH_VARIABLE = "CREW_JOB_LAUNCH"
_SAME_START_S = 2.0
"""Two readings of one process's start time may differ by this much when the clock was set in between."""

_log = logging.getLogger(__name__)


class LocalCompute(Backend):
    """Processes of this machine, one for each slot.

    Args:
        slots: jobs side by side; 0 means one per GPU, or min(2, cores) without one.
        threads_per_job: threads of the numerical libraries in each job; 0 shares the cores among the slots. More
            threads than cores make small models several times slower, so the default never overcommits.
        memory_gib: RAM that one job may take, see limits.py; 0: no limit; None: CREW_JOB_MEMORY_GIB.
    """

    name = "local"

    def __init__(self, slots: int = 0, threads_per_job: int = 0, memory_gib: float | None = None) -> None:
        self._memory_gib = Settings().job_memory_gib if memory_gib is None else memory_gib
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._gpus = _gpus()
        self._slots = slots or len(self._gpus) or min(2, cores)
        self._threads = threads_per_job or max(1, cores // self._slots)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._known: dict[str, JobHandle] = {}
        self._cleared: set[str] = set()
        """Ids of jobs that have left nothing."""
        self._lock = threading.Lock()

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start `python -m module config` in the config's directory, or return the live job of this label.

        Raises:
            SlotsBusyError: fewer slots or GPUs are free than the job has processes (the message names the jobs).
            JobError: the process cannot be started, or the machine is too small for it.
        """
        directory = spec.config.resolve().parent
        with self._lock:
            existing = self.find(spec.label, directory)
            if existing is not None and self._process(existing) is not None:
                return existing
            if existing is not None:
                self._end_remains(existing)
            slots = self._slots_for(spec)
            self._let_finished_leave()
            busy = self._busy()
            records = [_read_record(self._known[label].directory) or {} for label in busy]
            free = self._slots - sum(int(record.get("slots", 1)) for record in records)
            if slots > free:
                which = f"all {self._slots} slot(s)" if free <= 0 else f"all but {free} of {self._slots} slots"
                raise SlotsBusyError(
                    f"`{spec.label}` cannot start with {spec.processes} process(es): {which} of this machine are busy "
                    f"with {', '.join(busy)}. Wait for one to end, or make the backend with more slots."
                )
            taken = {gpu for record in records for gpu in record.get("gpus", [])}
            locks = self._take_gpus(spec, taken)
            try:
                return self._start(spec, directory, slots, locks)
            finally:
                for lock in locks.values():
                    if lock is not None:
                        os.close(lock)  # the job has it open now

    def find(self, label: str, directory: Path) -> JobHandle | None:
        """The job that carries this label in this directory, alive or ended, or None."""
        record = _read_record(directory)
        if record is None or record["label"] != label:
            record = _unrecorded(label, directory)
            if record is None:
                return None
        handle = JobHandle(label, self.name, directory, _id_of(record))
        self._known[label] = handle
        return handle

    def status(self, handle: JobHandle) -> JobState:
        """`running` while that very process lives; a job over its time limit is ended here, with class `timeout`."""
        record = _read_record(handle.directory)
        if record is None and self._process(handle) is None:
            return "lost"
        if self._process(handle) is None:
            self._end_remains(handle)
            return "ended"
        if record is not None and record["label"] == handle.label:
            limit, used = float(record["timeout_s"]), time.time() - float(record["started_at"])
            if used > limit:
                self.cancel(handle, grace_s=_TIMEOUT_GRACE_S)
                _write_timeout(handle.directory, limit, used)
                return "ended"
        return "running"

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        """SIGTERM to the job's process group, after `grace_s` seconds SIGKILL to its whole tree; returns when gone."""
        process = self._process(handle)
        if process is None:
            self._end_remains(handle)
            return
        tree = [process, *_descendants(process)]
        try:
            os.killpg(process.pid, signal.SIGTERM)
        except ProcessLookupError:  # it leads no group: one that a killed launcher has left
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        self._wait(tree, grace_s)
        tree += [child for member in list(tree) for child in _descendants(member) if child not in tree]
        for member in tree:
            if _alive(member):
                _kill(member)
        self._wait(tree, 10.0)
        self._end_remains(handle)

    def fetch(self, handle: JobHandle) -> None:
        """Say of a job that the kernel killed for its memory that it was so."""
        record = _read_record(handle.directory) or {}
        group = record.get("cgroup")
        if group is None or record.get("label") != handle.label or self._process(handle) is not None:
            return
        if was_out_of_memory(group):
            message = f"the kernel killed it: it took more than its {self._memory_gib:g} GiB (CREW_JOB_MEMORY_GIB)"
            add_to_outcome(handle.directory, "out_of_memory", message, time.time() - float(record["started_at"]))
        release(group)

    def alive(self, root: Path) -> list[JobHandle]:
        """Processes of this machine that carry a label and work in a directory of the run."""
        return [
            JobHandle(label, self.name, directory, f"{pid}@{created}")
            for pid, created, label, directory in _labelled()
            if directory.is_relative_to(root.resolve())
        ]

    def price(self) -> float:
        """This machine is there already."""
        return 0.0

    def capacity(self) -> Capacity:
        """Slots and memory. On a CPU the memory of a job is what is available now, shared among the slots."""
        if self._gpus:
            device, memory_gib = self._gpus[0][0], self._gpus[0][1]
            description = f"{len(self._gpus)} x {device}, one job on each, or one of several processes on several"
        else:
            device, memory_gib = "cpu", _available_gib() / self._slots
            if self._memory_gib:
                memory_gib = min(memory_gib, self._memory_gib)
            description = f"this machine's CPU, {self._slots} job(s) side by side, {self._threads} thread(s) each"
        together = max(1, len(self._gpus))
        return Capacity(self._slots, device, round(memory_gib, 2), self._threads, description, together)

    def _slots_for(self, spec: JobSpec) -> int:
        """Slots that a job takes: one for each process. Raises JobError where the machine never has so many."""
        if spec.nodes != 1:
            raise JobError(f"`{spec.label}` asks for {spec.nodes} nodes, and this is one machine. Use slurm or ray.")
        most, what = (len(self._gpus), "GPU(s)") if self._gpus else (self._slots, "slot(s)")
        if spec.processes > most:
            raise JobError(f"`{spec.label}` asks for {spec.processes} processes, and this machine has {most} {what}.")
        return min(spec.processes, self._slots)  # fewer slots than GPUs: the user wants fewer jobs side by side

    def _start(self, spec: JobSpec, directory: Path, slots: int, locks: Mapping[int, int | None]) -> JobHandle:
        command = job_command(spec, None, str(spec.config.resolve()))
        offline = {"HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
        launch = {LAUNCH_VARIABLE: secrets.token_hex(8)}
        environment = child_environment({**offline, **job_variables(spec, str(directory), self._threads), **launch})
        if locks:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(gpu) for gpu in locks)
        try:
            with (directory / LOG_FILE).open("ab") as log:
                child = subprocess.Popen(
                    command,
                    cwd=directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=[lock for lock in locks.values() if lock is not None],
                )
        except OSError as error:
            raise JobError(
                f"`{spec.label}` cannot be started in {directory} ({error.strerror or error}). Check that the "
                "directory exists and is writable, and that the machine has processes and memory left."
            ) from error
        self._children[child.pid] = child
        created = psutil.Process(child.pid).create_time()
        group = None
        if self._memory_gib > 0:
            name = re.sub(r"[^A-Za-z0-9]", "-", spec.label)
            group = limit_memory(child.pid, name, self._memory_gib * spec.processes, gpu=bool(locks))
        atomic_write_json(
            directory / JOB_FILE,
            {
                "label": spec.label,
                "pid": child.pid,
                "create_time": created,
                "command": command,
                "timeout_s": spec.timeout_s,
                "started_at": time.time(),
                "launch": launch[LAUNCH_VARIABLE],
                "slots": slots,
                "gpus": list(locks),
                "cgroup": group,
            },
        )
        handle = JobHandle(spec.label, self.name, directory, f"{child.pid}@{created}")
        self._known[spec.label] = handle
        return handle

    def _busy(self) -> list[str]:
        return [label for label, handle in list(self._known.items()) if self._process(handle) is not None]

    def _let_finished_leave(self) -> None:
        """A job that has written its outcome only tears its interpreter down: wait rather than refuse the next."""
        leaving = [h for h in list(self._known.values()) if (h.directory / OUTCOME_FILE).exists()]
        self._wait([process for h in leaving if (process := self._process(h)) is not None], _LEAVING_S)

    def _take_gpus(self, spec: JobSpec, taken: set[int]) -> dict[int, int | None]:
        """As many free GPUs as the job has processes, as the user's CUDA_VISIBLE_DEVICES numbers them, each with its
        lock as an open file. {} without GPUs. Raises SlotsBusyError where not all are free; then none is taken."""
        locks: dict[int, int | None] = {}
        for _, _, gpu in self._gpus:
            if gpu not in taken and len(locks) < spec.processes and (lock := _lock(gpu)) is not None:
                locks[gpu] = lock
        if len(locks) == spec.processes or not self._gpus:
            return locks
        for lock in locks.values():
            if lock is not None:
                os.close(lock)
        if spec.processes == 1 and self._slots > len(self._gpus):
            return {self._gpus[0][2]: None}  # more slots than GPUs: the user asked to share
        raise SlotsBusyError(
            f"`{spec.label}` cannot start: it takes {spec.processes} GPU(s), and {len(locks)} of the "
            f"{len(self._gpus)} of this machine are free. The others belong to other jobs, maybe of another crew."
        )

    def _process(self, handle: JobHandle) -> psutil.Process | None:
        """The live process of a handle; a finished child of ours is reaped on the way."""
        pid_text, _, created = handle.id.partition("@")
        pid = int(pid_text)
        child = self._children.get(pid)
        if child is not None and child.poll() is not None:
            self._children.pop(pid, None)
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - float(created)) > _SAME_START_S or not _alive(process):
                return None
        except psutil.NoSuchProcess:
            return None
        return process

    def _end_remains(self, handle: JobHandle) -> None:
        """End what a job has left whose first process is gone; of a later start in its directory nothing is touched."""
        record = _read_record(handle.directory) or {}
        if handle.id in self._cleared or _id_of(record) != handle.id or "launch" not in record:
            return
        self._wait(remains := _of_launch(record["launch"]), _REMAINS_S)
        if left := [process for process in remains if _alive(process)]:
            _log.warning("the first process of %s is gone, and %d went on without it: ended", handle.label, len(left))
        for process in left:
            _kill(process)
        self._wait(left, 10.0)
        self._cleared.add(handle.id)

    def _wait(self, tree: list[psutil.Process], seconds: float) -> None:
        """Until none of the tree lives, at most `seconds`. Reaps our own children, which else stay as zombies."""
        deadline = time.monotonic() + seconds
        while any(_alive(member) for member in tree) and time.monotonic() < deadline:
            for child in list(self._children.values()):
                child.poll()
            time.sleep(0.02)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _id_of(record: Mapping[str, Any]) -> str:
    return f"{record.get('pid')}@{record.get('create_time')}"


def _of_launch(launch: str) -> list[psutil.Process]:
    """The live processes of this machine that come from one launch."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(LAUNCH_VARIABLE) == launch and _alive(process):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
            continue
    return found


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _read_record(directory: Path) -> dict[str, Any] | None:
    """`job.json`, or None where there is none. Raises JobError on a file that crew did not write."""
    return load_record(directory, {"label", "pid", "create_time", "timeout_s", "started_at"})


def _labelled() -> Iterator[tuple[int, float, str, Path]]:
    """Of each job on this machine its first process: (pid, start time, label, directory)."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if LABEL_VARIABLE not in environment or DIRECTORY_VARIABLE not in environment or not _alive(process):
                continue
            if not _same_job(_environment_of(process.parent()), environment):
                directory = Path(environment[DIRECTORY_VARIABLE])
                yield process.pid, process.create_time(), environment[LABEL_VARIABLE], directory
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
            continue


def _environment_of(process: psutil.Process | None) -> Mapping[str, str]:
    """{} where it may not be read: a job whose crew was killed is a child of the system's first process."""
    try:
        return {} if process is None else process.environ()
    except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess, OSError):
        return {}


def _same_job(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(one.get(name) == other.get(name) for name in (LABEL_VARIABLE, DIRECTORY_VARIABLE))


def _unrecorded(label: str, directory: Path) -> dict[str, Any] | None:
    """A live process with this label and directory in its environment, whose starter died before it wrote the file."""
    for pid, created, its_label, its_directory in _labelled():
        if (its_label, its_directory) == (label, directory):
            return {"pid": pid, "create_time": created}
    return None


def _write_timeout(directory: Path, limit: float, used: float) -> None:
    """Say that the time limit ended the job, unless the job finished well in its last moment."""
    path = directory / OUTCOME_FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        told = {}
    if not told.get("ok"):
        message = f"ended after {used:.0f} s: its time limit was {limit:.0f} s"
        atomic_write_json(
            path, {"steps": 0, "metrics": {}, **told, "ok": False, "error_class": "timeout", "message": message,
                   "wall_s": round(used, 3), "checkpoint": None}
        )  # fmt: skip


def _available_gib() -> float:
    """RAM that new processes can use, GiB: what the kernel has, or what the container's limit leaves if less."""
    available = float(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit.isdigit():
            available = min(available, int(limit) - int((group / "memory.current").read_text()))
    except OSError:
        pass  # no cgroup v2 here: the kernel's number stands
    return max(0.0, available) / 2**30


def _lock(gpu: int) -> int | None:
    """The lock of a GPU as an open file, or None where another job has it. Who has the file open holds the lock, and
    the kernel lets go of it with the last process of a job, however that ends."""
    folder = Path(tempfile.gettempdir()) / f"posttrain-crew-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(folder / f"{gpu}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JobError(f"the lock of GPU {gpu} cannot be opened in {folder} ({error.strerror or error}).") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _gpus() -> list[tuple[str, float, int]]:
    """(name, memory GiB, index) of the visible GPUs by nvidia-smi; torch is not imported for this."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return []
    query = ["nvidia-smi", "--query-gpu=index,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=10, check=True, env=child_environment()
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[tuple[str, float, int]] = []
    for line in answer.splitlines():
        index, name, memory = (part.strip() for part in line.split(","))
        if visible is None or index in visible.replace(" ", "").split(","):
            found.append((name, float(memory) / 1024, int(index)))
    if visible is not None and not found:
        _log.warning("CUDA_VISIBLE_DEVICES=%s names no GPU by index that nvidia-smi lists; using the CPU", visible)
    return found
