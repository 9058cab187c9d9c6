"""Jobs on a Ray cluster (KubeRay's too), by the REST interface of Ray Jobs; this process needs no ray.

The submission id is made of the run and the label, so Ray itself refuses to run a label twice. The job works in its
directory, which must lie on a file system that the cluster shares with crew; a working directory uploaded to Ray would
bring nothing back. Its output goes to log.txt there, and its time limit is kept by `timeout` beside it, since Ray has
none. A job on several nodes is started by ray_nodes.py.
"""

from __future__ import annotations

import shlex
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from posttrain_crew.entries import ErrorClass
from posttrain_crew.errors import JobError, SlotsBusyError
from posttrain_crew.redact import is_secret_name, redact
from posttrain_crew.tools.compute.backend_settings import RaySettings, read_settings
from posttrain_crew.tools.compute.base import LOG_FILE, OUTCOME_FILE, Backend, Capacity, JobHandle, JobSpec, JobState
from posttrain_crew.tools.compute.command import job_command, job_variables
from posttrain_crew.tools.compute.contact import Contact
from posttrain_crew.tools.compute.names import cluster_name, root_of, tag_of
from posttrain_crew.tools.compute.record import add_to_outcome, is_open, read_record, write_record
from posttrain_crew.tools.training.environment import python_for

__all__ = ["RayCompute"]

_OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_KILL_AFTER_S = 10
_TIMED_OUT = 124
_STOP_S = 30.0
_LAST_WORD_S = 10.0
"""How long Ray may take to notice that a job has ended which has said so itself."""


class RayCompute(Backend):
    """Jobs by `POST /api/jobs/`.

    Args:
        slots: jobs of the run at a time; 0 takes the settings'.
        settings: read from CREW_RAY_* and compute.yaml without it.
    """

    name = "ray"

    def __init__(self, slots: int = 0, settings: RaySettings | None = None) -> None:
        self._settings = settings or read_settings(RaySettings)
        self._slots = slots or self._settings.slots
        self._python = self._settings.python
        headers = {}
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.get_secret_value()}"
        self._http = httpx.Client(
            base_url=self._settings.address.rstrip("/"), headers=headers, timeout=self._settings.request_seconds
        )
        self._contact = Contact(self.name, pause_s=max(self._settings.poll_seconds, 0.2))
        self._lock = threading.RLock()
        self._last: Capacity | None = None
        self._seen: dict[str, tuple[float, dict[str, Any] | None]] = {}
        self._missed: dict[str, float] = {}
        self._listed: tuple[float, list[dict[str, Any]]] | None = None
        self._ours: dict[Path, dict[str, JobHandle]] = {}
        """The jobs of a run that may be at work, by id: asked for one by one, the cluster's list only once."""

    @property
    def trouble(self) -> str:
        return self._contact.trouble

    def submit(self, spec: JobSpec) -> JobHandle:
        """Once for a label: the submission id is made from it.

        Raises:
            SlotsBusyError: as many jobs of the run are at work as may be, or the head does not answer. JobError: Ray
            refuses the job.
        """
        config = spec.config.resolve()
        directory = config.parent
        name = cluster_name(directory, spec.label)
        root, handle = root_of(directory), JobHandle(spec.label, self.name, directory, name)
        with self._lock:
            if not self._contact.may_ask:
                raise self._contact.refuse(spec.label)
            try:
                if (
                    read_record(directory, self.name, spec.label) is not None
                    and self._job(name, fresh=True) is not None
                ):
                    self._ours.get(root, {})[name] = handle  # its submission's answer may have been lost
                    return handle
                busy = self._at_work(root).values()
                if len(busy) >= self._slots:
                    raise SlotsBusyError(f"`{spec.label}` waits: {', '.join(h.label for h in busy)} are on Ray.")
                write_record(directory, self.name, spec.label, name, timeout_s=spec.timeout_s, started_at=time.time())
                self._post(spec, config, name)
            except httpx.HTTPError as error:
                self._contact.lost(_said(error))
                raise self._contact.refuse(spec.label) from error
            self._seen.pop(name, None)
            self._ours[root][name] = handle
        return handle

    def find(self, label: str, directory: Path) -> JobHandle | None:
        """By its submission id; None where Ray says that it does not have it."""
        directory = directory.resolve()
        record = read_record(directory, self.name, label)
        if record is None:
            return None
        name = str(record["id"])
        handle = JobHandle(label, self.name, directory, name)
        if (directory / OUTCOME_FILE).exists() or (directory / LOG_FILE).exists():
            return handle  # it has run; where Ray has forgotten it since, it has ended
        try:
            return None if self._job(name, fresh=False) is None else handle
        except httpx.HTTPError as error:
            self._contact.lost(_said(error))
            return None

    def status(self, handle: JobHandle) -> JobState:
        """As Ray says. While the head is silent, the last known state; a job that Ray has forgotten has ended."""
        try:
            job = self._job(handle.id, fresh=False)
        except httpx.HTTPError as error:
            self._contact.lost(_said(error))
            job = self._seen.get(handle.id, (0.0, {"status": "RUNNING"}))[1]
        state = "STOPPED" if job is None else str(job.get("status"))
        if state not in _OVER:
            return "queued" if state == "PENDING" else "running"
        if not (handle.directory / OUTCOME_FILE).exists() and not self._files_settled(handle):
            return "running"
        return "ended"

    def logs(self, handle: JobHandle, tail: int = 100) -> str:
        """From log.txt; before there is one, what Ray itself says of the start."""
        if text := super().logs(handle, tail):
            return text
        try:
            told = self._get(f"/api/jobs/{handle.id}/logs")
        except httpx.HTTPError:
            return ""
        return redact("\n".join(str((told or {}).get("logs", "")).splitlines()[-tail:]))

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        """Ray sends SIGTERM, and SIGKILL after its own RAY_JOB_STOP_WAIT_TIME_S, which jobs get as 5 seconds.

        Raises:
            JobError: the head does not answer, or the job goes on.
        """
        try:
            job = self._job(handle.id, fresh=True)
            if job is None or job.get("status") in _OVER:
                return
            self._http.post(f"/api/jobs/{handle.id}/stop").raise_for_status()
            self._listed = None
            deadline = time.monotonic() + grace_s + _STOP_S
            while (job := self._job(handle.id, fresh=True)) is not None and job.get("status") not in _OVER:
                if time.monotonic() > deadline:
                    raise JobError(f"the Ray job {handle.id} goes on after it was stopped: see `ray job status`.")
                time.sleep(0.2)  # Ray has no event for it
        except httpx.HTTPError as error:
            self._contact.lost(_said(error))
            raise JobError(f"the Ray job {handle.id} could not be stopped: {_said(error)}") from error

    def fetch(self, handle: JobHandle) -> None:
        """Nothing travels; how Ray saw the job end is added to its outcome."""
        if not is_open(handle.directory):
            return
        deadline = time.monotonic() + _LAST_WORD_S
        try:
            while (job := self._job(handle.id, fresh=True)) is not None and job.get("status") not in _OVER:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.2)
        except httpx.HTTPError as error:
            self._contact.lost(_said(error))
            return
        if (ending := _ending(job, handle)) is not None:
            add_to_outcome(handle.directory, *ending, wall_s=_seconds(job))

    def alive(self, root: Path) -> list[JobHandle]:
        """Jobs whose submission id has the run's tag, listed at most every poll_seconds. Raises JobError: the head does
        not answer."""
        try:
            jobs = self._listing()
        except httpx.HTTPError as error:
            self._contact.lost(_said(error))
            raise JobError(
                f"the jobs on Ray at {self._settings.address} cannot be listed: {_said(error)}. Check CREW_RAY_ADDRESS."
            ) from error
        return self._of_run(root, jobs)

    def price(self) -> float | None:
        return self._settings.usd_per_hour

    def capacity(self) -> Capacity:
        """Slots, 0 where the cluster has none of what a job needs. Raises JobError: the head does not answer."""
        settings = self._settings
        try:
            summary = (self._get("/nodes?view=summary") or {}).get("data", {}).get("summary", [])
        except httpx.HTTPError as error:
            if self._last is not None:
                return self._last
            raise JobError(
                f"Ray does not answer at {settings.address}: {_said(error)}. Set CREW_RAY_ADDRESS to its dashboard."
            ) from error
        nodes = [node for node in summary if (node.get("raylet") or {}).get("state") == "ALIVE"]
        totals = [(node.get("raylet") or {}).get("resourcesTotal") or {} for node in nodes]
        gpus = sum(float(total.get("GPU", 0.0)) for total in totals)
        cpus = sum(float(total.get("CPU", 0.0)) for total in totals)
        largest = max((float(total.get("GPU", 0.0)) for total in totals), default=0.0)
        fits = cpus >= settings.cpus and gpus >= settings.gpus
        memory = settings.device_memory_gib or min((float(t.get("memory", 0.0)) for t in totals), default=0.0) / 2**30
        self._last = Capacity(
            slots=self._slots if fits else 0,
            device=settings.device,
            device_memory_gib=round(memory, 2),
            threads_per_job=settings.threads,
            description=f"Ray at {settings.address}: {len(nodes)} node(s), {cpus:g} CPUs, {gpus:g} GPUs, "
            f"at most {self._slots} job(s) of a run",
            devices_per_job=max(1, int(largest / settings.gpus)) if settings.gpus else 1,
            nodes_per_job=max(1, len(nodes)),
            job_is_slot=True,
        )
        return self._last

    def _post(self, spec: JobSpec, config: Path, name: str) -> None:
        """Submit; an answer that says that the id is taken is as good as one that says that it is not."""
        directory = config.parent
        if spec.nodes == 1:
            command = job_command(spec, self._python, str(config))
        else:
            shape = [str(value) for value in (spec.nodes, spec.processes, self._settings.cpus, self._settings.gpus)]
            module = "posttrain_crew.tools.compute.ray_nodes"
            command = [python_for(spec.config, self._python), "-m", module, *shape, spec.module, str(config)]
        limit = ["timeout", f"--kill-after={_KILL_AFTER_S}", f"{spec.timeout_s:.3f}"]
        log = shlex.quote(str(directory / LOG_FILE))
        lines = [
            f"cd {shlex.quote(str(directory))} || exit 72",
            f"echo the output is in {log}",
            *filter(None, [self._settings.setup]),
            f"exec {shlex.join([*limit, *command])} >>{log} 2>&1",
        ]
        variables = {**job_variables(spec, str(directory), self._settings.threads), "RAY_JOB_STOP_WAIT_TIME_S": "5"}
        request = {
            "entrypoint": "\n".join(lines),
            "submission_id": name,
            "runtime_env": {"env_vars": {k: v for k, v in variables.items() if not is_secret_name(k)}},
            "metadata": {"label": spec.label, "crew": name.split("-")[1]},
            "entrypoint_num_cpus": self._settings.cpus if spec.nodes == 1 else 0,
            "entrypoint_num_gpus": self._settings.gpus * spec.processes if spec.nodes == 1 else 0,
            "entrypoint_resources": self._settings.resources or None,
        }
        try:
            answer = self._http.post("/api/jobs/", json=request)
        except httpx.HTTPError:
            if self._job(name, fresh=True) is None:
                raise
            return
        self._contact.made()
        self._listed = None
        if answer.is_success or self._job(name, fresh=True) is not None:
            return
        if answer.status_code in (408, 425, 429, 502, 503, 504):
            answer.raise_for_status()
        said = redact(" ".join(answer.text.split()))[-500:]
        raise JobError(f"Ray refuses `{spec.label}` ({answer.status_code}): {said}")

    def _at_work(self, root: Path) -> dict[str, JobHandle]:
        """The jobs of the run at `root` that wait or run. One process at a time submits them, so that it knows them.

        Raises httpx.HTTPError."""
        if root not in self._ours:
            self._ours[root] = {handle.id: handle for handle in self._of_run(root, self._listing())}
        ours = self._ours[root]
        for name in list(ours):
            if (job := self._job(name, fresh=False)) is None or job.get("status") in _OVER:
                del ours[name]
        return ours

    def _of_run(self, root: Path, jobs: list[dict[str, Any]]) -> list[JobHandle]:
        """Of the cluster's jobs those of the run that wait or run."""
        prefix = f"crew-{tag_of(root)}-"
        return [
            JobHandle(str((job.get("metadata") or {}).get("label", name)), self.name, root, name)
            for job in jobs
            if (name := str(job.get("submission_id") or "")).startswith(prefix) and job.get("status") not in _OVER
        ]

    def _listing(self) -> list[dict[str, Any]]:
        """All jobs of the cluster, asked for at most every poll_seconds. Raises httpx.HTTPError."""
        with self._lock:
            if self._listed is None or time.monotonic() - self._listed[0] >= self._settings.poll_seconds:
                self._listed = time.monotonic(), list(self._get("/api/jobs/") or [])
            return self._listed[1]

    def _job(self, name: str, *, fresh: bool) -> dict[str, Any] | None:
        """What Ray says of a job, asked for at most every poll_seconds; None: it has none. Raises httpx.HTTPError."""
        with self._lock:
            at, known = self._seen.get(name, (None, None))
            if not fresh and at is not None:
                if time.monotonic() - at < self._settings.poll_seconds or not self._contact.may_ask:
                    return known
                if known is not None and known.get("status") in _OVER:
                    return known
            job: dict[str, Any] | None = self._get(f"/api/jobs/{name}")
            self._seen[name] = time.monotonic(), job
            return job

    def _get(self, path: str) -> Any:
        """JSON, or None for 404. Raises httpx.HTTPError, also for an answer that is no JSON."""
        answer = self._http.get(path)
        if answer.status_code == 404:
            self._contact.made()
            return None
        answer.raise_for_status()
        try:
            value = answer.json()
        except ValueError as error:
            raise httpx.DecodingError(f"{path} answered with no JSON", request=answer.request) from error
        self._contact.made()
        return value

    def _files_settled(self, handle: JobHandle) -> bool:
        """Whether an ended job had time for its outcome to show on a shared file system, which caches directories."""
        first = self._missed.setdefault(handle.id, time.monotonic())
        list(handle.directory.iterdir())  # makes NFS look again
        return time.monotonic() - first >= self._settings.settle_seconds


def _said(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}")[:300]


def _seconds(job: dict[str, Any] | None) -> float:
    start, end = ((job or {}).get(name) or 0 for name in ("start_time", "end_time"))  # milliseconds
    return max(0.0, float(end - start) / 1000)


def _ending(job: dict[str, Any] | None, handle: JobHandle) -> tuple[ErrorClass, str] | None:
    """Class and message of an end that the job may not have told; None for one that it did."""
    where = f"the Ray job {handle.id}"
    if job is None:
        return "killed", f"{where} is not known to Ray any more: its head was started again"
    code, said = job.get("driver_exit_code"), str(job.get("message") or "")[-400:]
    if job.get("status") == "STOPPED":
        return "cancelled", f"{where} was stopped"
    limit = (read_record(handle.directory, "ray", handle.label) or {}).get("timeout_s", float("inf"))
    if code == _TIMED_OUT or (code is not None and _seconds(job) >= limit):
        return "timeout", f"{where} was ended after {_seconds(job):.0f} s: its time limit was up"
    if (handle.directory / OUTCOME_FILE).exists():
        return None
    if job.get("status") == "SUCCEEDED":
        return "crashed", f"{where} ended well and left no outcome: the cluster must share {handle.directory}"
    if code == 72:
        return "crashed", f"{where} did not find {handle.directory}: the cluster must share this file system"
    if code is None or code < 0 or code >= 128:
        return "killed", f"{where} was killed, or its node is gone: {said}"
    return "crashed", f"{where} ended with exit code {code}: {said}"
