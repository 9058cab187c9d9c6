"""Jobs on a Slurm cluster, by its own commands, with or without an accounting database.

Each job is an sbatch script in its directory (job.sbatch), under a name that is the run's and the label's own. Before
the submission `job.json` says that it was meant, after it which job it became; where the answer of sbatch was lost, the
job is found by its name and not submitted again. The directory must lie on a file system that the nodes share.

A node that fails ends the job with class `killed`, and the run starts it again; Slurm itself excludes the node, which
is down. With `requeue`, Slurm starts it again under the same id, and it goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import JobError, SlotsBusyError
from posttrain_crew.files import atomic_write_text, sha256_text
from posttrain_crew.tools.compute.backend_settings import SlurmSettings, read_settings
from posttrain_crew.tools.compute.base import OUTCOME_FILE, Backend, Capacity, JobHandle, JobSpec, JobState
from posttrain_crew.tools.compute.contact import Contact
from posttrain_crew.tools.compute.names import cluster_name, root_of, tag_of
from posttrain_crew.tools.compute.record import JOB_FILE, add_to_outcome, is_open, read_record, write_record
from posttrain_crew.tools.compute.slurm_commands import (
    NodeGroup,
    SlurmCommands,
    SlurmJob,
    SlurmRefusedError,
    SlurmSilentError,
)
from posttrain_crew.tools.compute.slurm_script import SCRIPT_FILE, array_script, single_script

__all__ = ["SlurmCompute"]

_UNUSABLE = ("down", "drained", "draining", "fail", "failing", "unknown", "maint", "inval", "not_responding")
_COMMENT = "crew "
_ENDING_S = 15.0
_LOOKUPS = 3
"""How often a job is looked for whose submission was not answered: the controller may still be writing it down."""


class SlurmCompute(Backend):
    """Jobs by sbatch.

    Args:
        slots: jobs of crew at a time, waiting ones included; 0 takes the settings'.
        settings: read from CREW_SLURM_* and compute.yaml without it.
    """

    name = "slurm"

    def __init__(self, slots: int = 0, settings: SlurmSettings | None = None) -> None:
        self._settings = settings or read_settings(SlurmSettings)
        self._slots = slots or self._settings.slots
        self._python = self._settings.python
        self._slurm = SlurmCommands(self._settings.bin, self._settings.command_seconds)
        self._contact = Contact(self.name, pause_s=max(self._settings.poll_seconds, 0.2))
        self._lock = threading.RLock()
        self._last: Capacity | None = None
        self._seen: dict[str, SlurmJob] = {}
        self._seen_at: float | None = None
        self._over: dict[str, SlurmJob] = {}
        self._missed: dict[str, float] = {}
        self._is_usable, self._usable_at = False, float("-inf")

    @property
    def trouble(self) -> str:
        return self._contact.trouble

    def submit(self, spec: JobSpec) -> JobHandle:
        """sbatch, once for a label.

        Raises:
            SlotsBusyError: as many jobs of this run wait or run as it may have, no node of the partition is usable, or
            the controller does not answer. JobError: Slurm refuses the job; the message is Slurm's.
        """
        spec = _absolute(spec)
        directory = spec.config.parent
        with self._lock:
            if (handle := self._looked_up(spec)) is not None:
                return handle
            self._check_slots([spec])
            name = cluster_name(directory, spec.label)
            script = directory / SCRIPT_FILE
            text = single_script(spec, name, _COMMENT + spec.label, self._settings, self._python)
            atomic_write_text(script, text)
            write_record(directory, self.name, spec.label, None, name=name, timeout_s=spec.timeout_s)
            job_id = self._submitted(script, name, spec.label)
            write_record(directory, self.name, spec.label, job_id, name=name, timeout_s=spec.timeout_s)
            self._seen_at = None
            return JobHandle(spec.label, self.name, directory, job_id)

    def submit_many(self, specs: Sequence[JobSpec]) -> list[JobHandle]:
        """One array of jobs. Those that are known already are not submitted again. As `submit`."""
        specs = [_absolute(spec) for spec in specs]
        with self._lock:
            known: dict[str, JobHandle | None] = {spec.label: self._looked_up(spec) for spec in specs}
            new = [spec for spec in specs if known[spec.label] is None]
            if len(new) == 1:
                known[new[0].label] = self.submit(new[0])
            elif new:
                self._check_slots(new)
                known |= {handle.label: handle for handle in self._submit_array(new)}
        return [handle for spec in specs if (handle := known[spec.label]) is not None]

    def find(self, label: str, directory: Path) -> JobHandle | None:
        """By the id in `job.json`; where a submission was begun and its answer is missing, by its name in the queue."""
        with self._lock:
            try:
                return self._known(label, directory.resolve(), fresh=False)
            except SlurmSilentError:
                return None

    def status(self, handle: JobHandle) -> JobState:
        """From one listing of the queue for all jobs. While Slurm is silent, the last known state."""
        with self._lock:
            job = self._look(handle.id)
        if job is not None and job.alive:
            return "queued" if job.queued else "running"
        if not (handle.directory / OUTCOME_FILE).exists() and not self._files_settled(handle):
            return "running"
        return "ended"

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        """Out of the queue; or SIGTERM, after `grace_s` seconds SIGKILL, and return when Slurm has cleared it away.

        Raises:
            JobError: Slurm did not answer, so that it may still run.
        """
        try:
            job = self._listing(fresh=True).get(handle.id)
            if job is None or not job.alive:
                return
            if job.running and grace_s > 0:
                self._slurm.terminate(handle.id)
                self._wait_gone(handle.id, grace_s)
            if (job := self._listing(fresh=True).get(handle.id)) is not None and job.running:
                self._slurm.kill(handle.id)
            if job is not None and job.alive:
                self._slurm.cancel(handle.id)
            gone = self._wait_gone(handle.id, _ENDING_S)
        except SlurmRefusedError:
            gone = True  # "Invalid job id": it ended meanwhile
        except SlurmSilentError as error:
            self._contact.lost(str(error))
            raise JobError(f"the Slurm job {handle.id} (`{handle.label}`) could not be cancelled: {error}") from error
        if not gone:
            raise JobError(f"the Slurm job {handle.id} (`{handle.label}`) is still there after scancel: see squeue.")

    def fetch(self, handle: JobHandle) -> None:
        """Nothing travels; how Slurm ended the job is added to its outcome."""
        if not is_open(handle.directory):
            return
        deadline = time.monotonic() + _ENDING_S
        while (job := self._over.get(handle.id) or self._details(handle.id)) is not None and job.alive:
            if time.monotonic() > deadline or self._contact.trouble:
                return
            time.sleep(0.2)  # the job has said that it was ended; Slurm is still clearing it away
        ending = _ending(job, handle) if job is not None else None
        if ending is not None and job is not None:
            add_to_outcome(handle.directory, *ending, wall_s=job.seconds)

    def alive(self, root: Path) -> list[JobHandle]:
        """The run's jobs in the queue. Raises JobError: Slurm does not answer."""
        prefix = f"crew-{tag_of(root)}-"
        try:
            jobs = self._listing(fresh=False)
        except SlurmSilentError as error:
            raise JobError(f"the jobs on Slurm cannot be listed: {error}") from error
        return [
            JobHandle(_label_of(job), self.name, root, job.id)
            for job in jobs.values()
            if job.alive and job.name.startswith(prefix)
        ]

    def price(self) -> float | None:
        return self._settings.usd_per_hour

    def capacity(self) -> Capacity:
        """Slots, 0 where the partition has no usable node; memory from the settings, else the nodes' RAM.

        Raises:
            JobError: Slurm does not answer, or has no such partition.
        """
        settings = self._settings
        try:
            usable = self._usable()
        except SlurmSilentError as error:
            if self._last is not None:
                return self._last
            raise JobError(
                f"Slurm cannot say what it has: {error}. Check `sinfo` and the CREW_SLURM_* settings."
            ) from error
        nodes = sum(row.nodes for row in usable)
        memory = settings.device_memory_gib or min((row.memory_gib for row in usable), default=0.0)
        self._last = Capacity(
            slots=self._slots if nodes else 0,
            device=settings.device,
            device_memory_gib=round(memory, 2),
            threads_per_job=settings.threads,
            description=f"Slurm partition {settings.partition or '(default)'}: {nodes} usable node(s), "
            f"gres {settings.gres or 'none'}, at most {self._slots} job(s) of a run",
            devices_per_job=_gpus(settings.gres),
            nodes_per_job=max(1, nodes),
            job_is_slot=True,
        )
        return self._last

    def _usable(self) -> list[NodeGroup]:
        """What of the partition can run jobs. Raises SlurmSilentError; JobError: there is no such partition."""
        partition = self._settings.partition
        try:
            groups = self._slurm.partitions(partition)
        except SlurmRefusedError as error:
            raise JobError(f"Slurm cannot say what it has: {error}. Check the CREW_SLURM_* settings.") from error
        if not groups:
            wanted = f"partition `{partition}`" if partition else "default partition"
            raise JobError(f"Slurm has no {wanted}: `sinfo` lists them; CREW_SLURM_PARTITION chooses one.")
        return [group for group in groups if group.up and group.state not in _UNUSABLE]

    def _looked_up(self, spec: JobSpec) -> JobHandle | None:
        """As `find`, asking now. Raises SlotsBusyError where Slurm is silent: a submission might be the second."""
        try:
            return self._known(spec.label, spec.config.parent, fresh=True)
        except SlurmSilentError as error:
            raise self._contact.refuse(spec.label) from error

    def _known(self, label: str, directory: Path, *, fresh: bool) -> JobHandle | None:
        record = read_record(directory, self.name, label)
        if record is None:
            return None
        if record["id"] is not None:
            return JobHandle(label, self.name, directory, str(record["id"]))
        found = self._by_name(str(record["name"]), fresh=fresh)
        if found is None:
            return None
        index = record.get("index")
        job_id = found.id.split("_")[0] + ("" if index is None else f"_{index}")
        write_record(directory, self.name, label, job_id, **{k: record.get(k) for k in ("name", "index", "timeout_s")})
        return JobHandle(label, self.name, directory, job_id)

    def _by_name(self, name: str, *, fresh: bool) -> SlurmJob | None:
        """The newest job of this name. Raises SlurmSilentError."""
        jobs = [job for job in self._listing(fresh=fresh).values() if job.name == name]
        return jobs[-1] if jobs else self._slurm.forgotten(name) if fresh else None

    def _submitted(self, script: Path, name: str, label: str) -> str:
        """The id of a new job, its submission's answer lost or not."""
        if not self._contact.may_ask:
            raise self._contact.refuse(label)
        try:
            job_id = self._slurm.submit(script)
        except SlurmRefusedError as error:
            (script.parent / JOB_FILE).unlink(missing_ok=True)
            raise JobError(f"Slurm refuses `{label}`: {error}. The script is {script}.") from error
        except SlurmSilentError as error:
            self._contact.lost(str(error))
            for attempt in range(_LOOKUPS):
                time.sleep(min(1.0, self._settings.poll_seconds) * (attempt > 0))  # it may still write the job down
                with contextlib.suppress(SlurmSilentError):
                    if (found := self._by_name(name, fresh=True)) is not None:
                        return found.id.split("_")[0]
            raise self._contact.refuse(label) from error
        self._contact.made()
        return job_id

    def _submit_array(self, specs: list[JobSpec]) -> list[JobHandle]:
        first = specs[0].config.parent
        labels = [spec.label for spec in specs]
        name = cluster_name(first, f"array-{sha256_text(' '.join(labels))[:12]}")
        script = first / SCRIPT_FILE
        text = array_script(specs, name, _COMMENT + " ".join(labels), self._settings, self._python)
        atomic_write_text(script, text)

        def record(job_id: str | None) -> list[str]:
            ids = []
            for index, spec in enumerate(specs):
                ids.append(f"{job_id}_{index}")
                fields = {"name": name, "index": index, "timeout_s": spec.timeout_s}
                write_record(spec.config.parent, self.name, spec.label, ids[-1] if job_id else None, **fields)
            return ids

        record(None)
        ids = record(self._submitted(script, name, labels[0]))
        self._seen_at = None
        return [
            JobHandle(spec.label, self.name, spec.config.parent, job_id)
            for spec, job_id in zip(specs, ids, strict=True)
        ]

    def _check_slots(self, specs: list[JobSpec]) -> None:
        prefix = f"crew-{tag_of(root_of(specs[0].config.parent))}-"
        try:
            jobs = self._listing(fresh=False)
        except SlurmSilentError as error:
            raise self._contact.refuse(specs[0].label) from error
        busy = [job for job in jobs.values() if job.alive and job.name.startswith(prefix)]
        if len(busy) >= self._slots:
            names = ", ".join(_label_of(job) for job in busy)
            raise SlotsBusyError(f"`{specs[0].label}` waits: {len(busy)} job(s) of this run are on Slurm ({names}).")
        try:
            if time.monotonic() - self._usable_at > self._settings.poll_seconds:  # a waiting job asks at every tick
                self._is_usable, self._usable_at = bool(self._usable()), time.monotonic()
        except SlurmSilentError as error:
            self._contact.lost(str(error))
            raise self._contact.refuse(specs[0].label) from error
        if not self._is_usable:
            raise SlotsBusyError(
                f"`{specs[0].label}` waits: no node of the Slurm partition {self._settings.partition or '(default)'} "
                "is usable. `sinfo -R` says why."
            )

    def _listing(self, *, fresh: bool) -> dict[str, SlurmJob]:
        """The user's jobs, asked for at most every poll_seconds. Raises SlurmSilentError."""
        now = time.monotonic()
        with self._lock:
            if not fresh and self._seen_at is not None and now - self._seen_at < self._settings.poll_seconds:
                return self._seen
            if not self._contact.may_ask and not fresh:
                raise SlurmSilentError(self._contact.trouble)
            try:
                self._seen = self._slurm.mine()
            except (SlurmSilentError, SlurmRefusedError) as error:
                self._contact.lost(str(error))
                raise SlurmSilentError(str(error)) from error
            self._contact.made()
            self._seen_at = time.monotonic()
            return self._seen

    def _look(self, job_id: str) -> SlurmJob | None:
        """The job as it is now known; None where Slurm has forgotten it, which is how an old one ends."""
        if job_id in self._over:
            return self._over[job_id]
        try:
            job = self._listing(fresh=False).get(job_id)
        except SlurmSilentError:
            return self._seen.get(job_id) or SlurmJob(job_id, "RUNNING", "")
        if job is None or not job.alive:
            job = self._details(job_id)
        return job

    def _details(self, job_id: str) -> SlurmJob | None:
        try:
            job = self._slurm.details(job_id)
        except SlurmSilentError as error:
            self._contact.lost(str(error))
            return self._seen.get(job_id)
        if job is not None and not job.alive:
            self._over[job_id] = job
        return job

    def _files_settled(self, handle: JobHandle) -> bool:
        """Whether an ended job had time for its outcome to show on a shared file system, which caches directories."""
        first = self._missed.setdefault(handle.id, time.monotonic())
        list(handle.directory.iterdir())  # makes NFS look again
        return time.monotonic() - first >= self._settings.settle_seconds

    def _wait_gone(self, job_id: str, seconds: float) -> bool:
        """Until Slurm has no live job of this id, at most so long. Slurm has no event to wait for."""
        deadline = time.monotonic() + seconds
        while (job := self._listing(fresh=True).get(job_id)) is not None and job.alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)
        return True


def _absolute(spec: JobSpec) -> JobSpec:
    return JobSpec(**{**spec.__dict__, "config": spec.config.resolve()})


def _label_of(job: SlurmJob) -> str:
    """From the comment, which for an array holds the labels of all its tasks; without one, the job's name."""
    labels = job.comment.removeprefix(_COMMENT).split() if job.comment.startswith(_COMMENT) else [job.name]
    index = job.id.partition("_")[2]
    return labels[int(index)] if index.isdigit() and int(index) < len(labels) else labels[0]


def _ending(job: SlurmJob, handle: JobHandle) -> tuple[ErrorClass, str] | None:
    """Class and message of an end that the job itself may not have told; None for one that it did."""
    where = f"the Slurm job {job.id}" + (f" on {job.node}" if job.node else "")
    if job.state in ("NODE_FAIL", "BOOT_FAIL"):
        return "killed", f"{where} lost its node ({job.state}, {job.reason or 'no reason given'})"
    if job.state in ("PREEMPTED", "REVOKED"):
        return "killed", f"{where} had to give way to another job ({job.state})"
    if job.state == "CANCELLED":
        return "cancelled", f"{where} was cancelled after {job.seconds:.0f} s"
    if job.state in ("TIMEOUT", "DEADLINE"):
        return "timeout", f"{where} was ended after {job.seconds:.0f} s: its time limit was up"
    if job.state == "OUT_OF_MEMORY":
        return "out_of_memory", f"{where} used more memory than it asked for (CREW_SLURM_MEM)"
    if (handle.directory / OUTCOME_FILE).exists():
        return None
    if job.state == "COMPLETED":
        return "crashed", (
            f"{where} ended well and left no outcome in {handle.directory}: the nodes must share this file system"
        )
    if job.exit_code and not job.signal and job.exit_code < 128:
        return "crashed", f"{where} ended with exit code {job.exit_code} and no outcome"
    if job.signal == 9 or job.exit_code == 137:
        return "killed", f"{where} was killed (SIGKILL; often by the kernel when memory is used up)"
    return None


def _gpus(gres: str | None) -> int:
    """GPUs of a node by the setting `gres`, as in `gpu:h100:4` or `gpu:2`; 1 where it names none."""
    counts = [part.rsplit(":", 1)[-1] for part in (gres or "").split(",") if part.startswith("gpu:")]
    return max([1, *(int(count) for count in counts if count.isdigit())])
