"""Jobs on Hugging Face, through huggingface_hub (1.x and 2.x).

Each job carries two labels, `crew-run` (the run's tag) and `crew-job` (its own name), and is looked up by them before
it is submitted: the client neither repeats a submission nor can it be repeated without harm. Nothing is shared with a
job: hf_files.py brings its files through a private repository, hf_remote.py is what runs there, hf_logs.py follows it.
Files go and come in threads of their own (hf_transfers.py): a checkpoint may take minutes.

Prices are those of the Hub's own list at the time; what has no price there is not submitted.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain_crew.errors import BudgetError, ConfigError, JobError, SlotsBusyError
from posttrain_crew.tools.compute import hf_remote
from posttrain_crew.tools.compute.backend_settings import HfJobsSettings, read_settings
from posttrain_crew.tools.compute.base import (
    LOG_FILE,
    OUTCOME_FILE,
    Backend,
    Capacity,
    JobHandle,
    JobSpec,
    JobState,
    LogPage,
)
from posttrain_crew.tools.compute.command import job_command, job_variables
from posttrain_crew.tools.compute.contact import Contact
from posttrain_crew.tools.compute.hf_ending import OVER, deleted_job, ending_of, said_of, seconds_of, stage_of
from posttrain_crew.tools.compute.hf_files import bring_back, send_job
from posttrain_crew.tools.compute.hf_hardware import Flavor, flavors
from posttrain_crew.tools.compute.hf_logs import LogFollower, complete_lines
from posttrain_crew.tools.compute.hf_transfers import Transfers
from posttrain_crew.tools.compute.names import cluster_name, root_of, tag_of
from posttrain_crew.tools.compute.record import add_to_outcome, read_record, write_record
from posttrain_crew.tools.services.hub_client import client_errors, without_progress_bars

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

__all__ = ["HfJobsCompute"]

TRANSFER_S = 1800.0
"""Beyond the job's own limit: its container starts, and its files come and go."""
PATIENCE_S = 600.0
"""How long a job asks a Hub again that does not give it its files, and one that does not take them."""
PRICES_S = 600.0
"""How long a price list is believed."""
_TRY_LATER = (408, 425, 429, 500, 502, 503, 504)
_LOG_END_S = 20.0


class HfJobsCompute(Backend):
    """Jobs by `run_job`.

    Args:
        slots: jobs of the run at a time; 0 takes the settings'.
        settings: read from CREW_HF_JOBS_* and compute.yaml without it.
        token: of the Hub; without it HF_TOKEN, else what `hf auth login` stored.

    Raises:
        ConfigError: no token, or the client is set to offline.
    """

    name = "hf-jobs"

    def __init__(self, slots: int = 0, settings: HfJobsSettings | None = None, token: str | None = None) -> None:
        from huggingface_hub import HfApi, constants, get_token

        without_progress_bars()
        self._settings = settings or read_settings(HfJobsSettings)
        self._slots = slots or self._settings.slots
        self._token = token or get_token()
        if not self._token:
            raise ConfigError("Hugging Face Jobs need a token with write access: set HF_TOKEN, or `hf auth login`.")
        if constants.is_offline_mode():
            raise ConfigError("HF_HUB_OFFLINE is set, so Hugging Face Jobs cannot be reached: unset it.")
        self._api: HfApi = HfApi(endpoint=self._settings.endpoint, token=self._token)
        self._contact = Contact(self.name, pause_s=max(self._settings.poll_seconds, 0.2))
        self._lock = threading.RLock()
        self._last: Capacity | None = None
        self._seen: dict[str, tuple[float, list[JobInfo]]] = {}
        self._flavors: tuple[float, dict[str, Flavor]] | None = None
        self._followers: dict[str, LogFollower] = {}
        self._transfers = Transfers()
        self._fetched: set[str] = set()

    @property
    def trouble(self) -> str:
        return self._contact.trouble

    @cached_property
    def namespace(self) -> str:
        """Who pays. Raises JobError: the Hub does not know the token or does not answer."""
        if self._settings.namespace:
            return self._settings.namespace
        try:
            return str(self._api.whoami()["name"])
        except client_errors() as error:
            raise JobError(f"the Hub does not say whose the token is: {error}. Set CREW_HF_JOBS_NAMESPACE.") from error

    def submit(self, spec: JobSpec) -> JobHandle:
        """Send the files, then `run_job`, once for a label.

        Raises:
            BudgetError: the flavor has no known price, or the account has no credit left. SlotsBusyError: as many jobs
            of the run are at work as may be, its files are still on their way, or the Hub does not answer. JobError:
            the Hub refuses the job.
        """
        directory = spec.config.resolve().parent
        if spec.nodes != 1:
            raise JobError(f"`{spec.label}` asks for {spec.nodes} nodes: on Hugging Face take a flavor with more GPUs.")
        name, tag = cluster_name(directory, spec.label), tag_of(root_of(directory))
        if (known := self._known_or_free(spec.label, directory, tag)) is not None:
            return known
        code = self._sent(spec.label, name, directory / spec.config.name)
        with self._lock:  # what is sent may have taken a while
            if (known := self._known_or_free(spec.label, directory, tag)) is not None:
                return known
            try:
                fields = {"name": name, "before": complete_lines(directory / LOG_FILE), "flavor": self._settings.flavor}
                write_record(directory, self.name, spec.label, None, **fields)
                job_id = self._run_job(spec, name, tag, code)
            except client_errors() as error:
                raise self._failure(error, spec.label) from error
            write_record(directory, self.name, spec.label, job_id, **fields)
            self._seen.pop(tag, None)
            self._contact.made()
        self._transfers.forget(f"send {name}")
        handle = JobHandle(spec.label, self.name, directory, job_id)
        self._follow(handle)
        return handle

    def find(self, label: str, directory: Path) -> JobHandle | None:
        """By the id in `job.json`; where a submission's answer is missing, by its labels."""
        with self._lock:
            try:
                return self._known(label, directory.resolve(), fresh=False)
            except client_errors() as error:
                self._contact.lost(said_of(error))
                return None

    def status(self, handle: JobHandle) -> JobState:
        """`ended` once its files are here. While the Hub is silent, `running`."""
        if handle.id in self._fetched:
            return "ended"
        with self._lock:
            job = self._look(handle)
            if job is None:
                return "running"
        if stage_of(job) not in OVER:
            self._follow(handle)
            return "queued" if stage_of(job) == "SCHEDULING" else "running"
        try:
            here, _ = self._transfers.ask(f"fetch {handle.id}", lambda: self._bring(handle), 0.0)
        except JobError as error:
            self._contact.lost(str(error))
            return "running"
        if here and handle.id not in self._fetched:
            self._transfers.forget(f"fetch {handle.id}")  # the Hub did not say it of this job alone: asked again
        return "ended" if handle.id in self._fetched else "running"

    def logs(self, handle: JobHandle, tail: int = 100) -> str:
        """As followed so far, without the rows of metrics."""
        text = super().logs(handle, tail=100_000)
        return "\n".join([line for line in text.splitlines() if not line.startswith("crew-metrics")][-tail:])

    def stream(self, handle: JobHandle, cursor: int = 0) -> LogPage:
        """As followed so far, without the rows of metrics."""
        page = super().stream(handle, cursor)
        lines = page.text.splitlines(keepends=True)
        return LogPage("".join(line for line in lines if not line.startswith("crew-metrics")), page.cursor)

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        """Ask the Hub to end it, and wait until it says so. How long a job has between SIGTERM and its end is the Hub's
        affair. Raises JobError: the Hub does not answer, or the job goes on."""
        try:
            job = self._inspect(handle.id)
            if job is None or stage_of(job) in OVER:
                return
            self._api.cancel_job(job_id=handle.id, namespace=self.namespace)
            deadline = time.monotonic() + grace_s + 15.0
            while (job := self._inspect(handle.id)) is not None and stage_of(job) not in OVER:
                if time.monotonic() > deadline:
                    raise JobError(f"the job {handle.id} (`{handle.label}`) goes on after its cancellation.")
                time.sleep(0.2)  # the Hub has no event for it
        except client_errors() as error:
            raise JobError(
                f"the job {handle.id} (`{handle.label}`) could not be cancelled: {said_of(error)}"
            ) from error
        self._seen.clear()

    def fetch(self, handle: JobHandle) -> None:
        """Bring its files, and say how the Hub ended it where the job did not.

        Raises:
            JobError: the Hub does not answer.
        """
        if handle.id not in self._fetched:
            self._transfers.ask(f"fetch {handle.id}", lambda: self._bring(handle), None)
            self._transfers.forget(f"fetch {handle.id}")  # until it has ended there is nothing to fetch

    def alive(self, root: Path) -> list[JobHandle]:
        """By the label of the run. Raises JobError: the Hub does not answer."""
        try:
            jobs = self._jobs(tag_of(root), fresh=False)
        except client_errors() as error:
            raise JobError(f"the jobs on Hugging Face cannot be listed: {said_of(error)}") from error
        return [
            JobHandle(str((job.environment or {}).get("CREW_JOB_LABEL", job.id)), self.name, root, job.id)
            for job in jobs
            if stage_of(job) not in OVER
        ]

    def price(self) -> float | None:
        """USD per hour of the flavor by the Hub's list; None where it has none, or does not answer."""
        try:
            flavor = self._hardware().get(self._settings.flavor)
        except client_errors() as error:
            self._contact.lost(said_of(error))
            return None
        return None if flavor is None else flavor.usd_per_hour

    def capacity(self) -> Capacity:
        """What the flavor has. Raises JobError: the Hub does not answer. ConfigError: there is no such flavor."""
        try:
            known = self._hardware()
        except client_errors() as error:
            if self._last is not None:
                return self._last
            raise JobError(f"the Hub's list of hardware cannot be had: {said_of(error)}") from error
        flavor = known.get(self._settings.flavor)
        if flavor is None:
            raise ConfigError(f"there is no flavor `{self._settings.flavor}`; the Hub offers {', '.join(known)}.")
        price = "unknown price" if flavor.usd_per_hour is None else f"{flavor.usd_per_hour:.2f} USD/h"
        self._last = Capacity(
            slots=self._slots,
            device=flavor.device,
            device_memory_gib=self._settings.device_memory_gib or flavor.memory_gib,
            threads_per_job=self._settings.threads,
            description=f"Hugging Face Jobs, flavor {flavor.name} ({price}), at most {self._slots} job(s) of a run",
            devices_per_job=flavor.devices,
            job_is_slot=True,
        )
        return self._last

    @property
    def _repo(self) -> str:
        return self._settings.repo or f"{self.namespace}/crew-jobs"

    def _known_or_free(self, label: str, directory: Path, tag: str) -> JobHandle | None:
        """The job of this label, or None where it may be submitted. Raises as `submit`."""
        with self._lock:
            if not self._contact.may_ask:
                raise self._contact.refuse(label)
            try:
                if (known := self._known(label, directory, fresh=True)) is not None:
                    return known
                busy = [job for job in self._jobs(tag, fresh=False) if stage_of(job) not in OVER]
                if len(busy) >= self._slots:
                    raise SlotsBusyError(f"`{label}` waits: {len(busy)} job(s) of this run are on Hugging Face.")
                self._check_price(label)
            except client_errors() as error:
                raise self._failure(error, label) from error
        return None

    def _sent(self, label: str, name: str, config: Path) -> str:
        """The path of the code in the repo, once all files are there. Raises SlotsBusyError until then."""
        try:
            there, code = self._transfers.ask(
                f"send {name}", lambda: send_job(self._api, self._repo, name, config), self._settings.send_seconds
            )
        except _transfer_errors() as error:
            raise self._failure(error, label) from error
        if not there:
            raise SlotsBusyError(f"`{label}` waits: its files are being sent to {self._repo}.")
        return str(code)

    def _bring(self, handle: JobHandle) -> None:
        """`fetch`, in the thread of the transfer."""
        try:
            job = self._inspect(handle.id)
            if job is not None and stage_of(job) not in OVER:
                return
            with self._lock:
                self._follow(handle)
            self._followers[handle.id].finish(_LOG_END_S)
            record = read_record(handle.directory, self.name, handle.label) or {}
            name = str(record.get("name") or cluster_name(handle.directory, handle.label))
            bring_back(self._api, self._repo, name, handle.directory)
            if record:
                fields = {key: record.get(key) for key in ("name", "before", "flavor")}
                write_record(handle.directory, self.name, handle.label, handle.id, **fields, billed_s=seconds_of(job))
        except _transfer_errors() as error:
            if (handle.directory / OUTCOME_FILE).exists():  # an earlier session brought it
                self._contact.lost(said_of(error))
                return
            raise JobError(f"the files of `{handle.label}` cannot be fetched: {said_of(error)}") from error
        if (ending := ending_of(job, handle)) is not None:
            add_to_outcome(handle.directory, *ending, wall_s=seconds_of(job))
        self._fetched.add(handle.id)

    def _hardware(self) -> dict[str, Flavor]:
        """By name; while the Hub is silent, as it was told last. Raises the client's errors: it never was."""
        with self._lock:
            if self._flavors is None or time.monotonic() - self._flavors[0] > PRICES_S:
                try:
                    self._flavors = time.monotonic(), flavors(self._api.list_jobs_hardware())
                except client_errors() as error:
                    if self._flavors is None:
                        raise
                    self._contact.lost(said_of(error))
            return self._flavors[1]

    def _check_price(self, label: str) -> None:
        flavor = self._hardware().get(self._settings.flavor)
        if flavor is None or flavor.usd_per_hour is None:
            raise BudgetError(
                f"`{label}` is not submitted: the Hub's list has no price for the flavor `{self._settings.flavor}`, "
                "and unknown prices are refused. Choose another with CREW_HF_JOBS_FLAVOR (`hf jobs hardware`)."
            )

    def _run_job(self, spec: JobSpec, name: str, tag: str, code: str) -> str:
        """The id of the new job, or of that which a lost answer left behind."""
        settings = self._settings
        directory = str(spec.config.resolve().parent)
        told = {
            "repo": self._repo,
            "endpoint": self._api.endpoint,
            "code": code,
            "job": f"jobs/{name}",
            "command": job_command(spec, settings.python or "python", "config.yaml"),
            "directory": directory,
            "timeout_s": spec.timeout_s,
            "sync_s": settings.checkpoint_seconds,
            "keep": settings.secrets,
            "patience_s": PATIENCE_S,
        }
        program = Path(hf_remote.__file__).read_text(encoding="utf-8")
        start = f'exec {settings.python or "python"} -c "$CREW_PROGRAM"'
        missing = [secret for secret in settings.secrets if secret not in os.environ]
        if missing:
            raise ConfigError(f"CREW_HF_JOBS_SECRETS names {', '.join(missing)}, which this process does not have.")
        try:
            job = self._api.run_job(
                image=settings.image,
                command=["sh", "-c", f"{settings.setup}\n{start}" if settings.setup else start],
                env={
                    **job_variables(spec, directory, settings.threads),
                    "HF_HUB_OFFLINE": "0",
                    "CREW_REMOTE": json.dumps(told),
                    "CREW_PROGRAM": program,
                },
                secrets={**{secret: os.environ[secret] for secret in settings.secrets}, "HF_TOKEN": self._token},
                flavor=settings.flavor,
                timeout=int(spec.timeout_s + TRANSFER_S),
                labels={"crew-run": tag, "crew-job": name},
                namespace=self.namespace,
            )
        except client_errors() as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is not None and status not in _TRY_LATER:
                raise
            self._contact.lost(said_of(error))
            if (found := self._by_name(name, tag)) is not None:
                return found
            raise
        return job.id

    def _known(self, label: str, directory: Path, *, fresh: bool) -> JobHandle | None:
        record = read_record(directory, self.name, label)
        if record is None:
            return None
        if record["id"] is None:
            tag = tag_of(root_of(directory))
            found = self._by_name(str(record["name"]), tag, fresh=fresh)
            if found is None:
                return None
            fields = {key: record.get(key) for key in ("name", "before", "flavor")}
            write_record(directory, self.name, label, found, **fields)
            record["id"] = found
        return JobHandle(label, self.name, directory, str(record["id"]))

    def _by_name(self, name: str, tag: str, *, fresh: bool = True) -> str | None:
        jobs = [job for job in self._jobs(tag, fresh=fresh) if (job.labels or {}).get("crew-job") == name]
        return jobs[0].id if jobs else None

    def _jobs(self, tag: str, *, fresh: bool) -> list[JobInfo]:
        """The run's jobs, asked for at most every poll_seconds. Raises the client's errors."""
        at, jobs = self._seen.get(tag, (None, []))
        if fresh or at is None or time.monotonic() - at >= self._settings.poll_seconds:
            # without a namespace the client would ask for that of its global token
            jobs = list(self._api.list_jobs(labels={"crew-run": tag}, namespace=self.namespace))
            self._seen[tag] = time.monotonic(), jobs
            self._contact.made()
        return jobs

    def _look(self, handle: JobHandle) -> JobInfo | None:
        """The job as it is now known, or None while the Hub is silent."""
        if not self._contact.may_ask:
            return None
        try:
            jobs = self._jobs(tag_of(root_of(handle.directory)), fresh=False)
            return next((job for job in jobs if job.id == handle.id), None) or self._inspect(handle.id) or deleted_job()
        except client_errors() as error:
            self._contact.lost(said_of(error))
        except JobError as error:  # the Hub did not say whose the token is
            self._contact.lost(str(error))
        return None

    def _inspect(self, job_id: str) -> JobInfo | None:
        """One job, or None where the Hub does not have it. Raises the client's other errors."""
        try:
            return self._api.inspect_job(job_id=job_id, namespace=self.namespace)
        except client_errors() as error:
            if getattr(getattr(error, "response", None), "status_code", None) == 404:
                return None
            raise

    def _follow(self, handle: JobHandle) -> None:
        if handle.id in self._followers:
            return
        record = read_record(handle.directory, self.name, handle.label) or {}

        def lines() -> Iterable[str]:
            return self._api.fetch_job_logs(job_id=handle.id, namespace=self.namespace, follow=True)

        def ended() -> bool:
            try:
                job = self._inspect(handle.id)
            except client_errors():
                return False
            return job is None or stage_of(job) in OVER

        before = int(record.get("before") or 0)
        self._followers[handle.id] = LogFollower(handle.directory, lines, ended, before, client_errors())

    def _failure(self, error: Exception, label: str) -> Exception:
        """The typed form of what the client raised at a submission."""
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 402:
            return BudgetError(
                f"`{label}` is not submitted: Hugging Face wants a positive credit balance of `{self.namespace}` "
                f"(402). Add credits at https://huggingface.co/settings/billing. {said_of(error)}"
            )
        if status is None or status in _TRY_LATER:
            self._contact.lost(said_of(error))
            return self._contact.refuse(label)
        if status in (401, 403):
            return JobError(
                f"Hugging Face refuses `{label}`: the token may not do this for `{self.namespace}`. {said_of(error)}"
            )
        return JobError(f"Hugging Face refuses `{label}`: {said_of(error)}")


def _transfer_errors() -> tuple[type[Exception], ...]:
    """What sending and bringing files raise beyond the client's own: Xet's library tells of the network by built-in
    errors, and a disk may be full here."""
    return (*client_errors(), OSError, RuntimeError)
