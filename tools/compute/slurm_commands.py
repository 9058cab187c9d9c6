"""Slurm's own commands, and what they say, as values. Works with and without an accounting database."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from posttrain_crew.errors import ConfigError, CrewError
from posttrain_crew.redact import child_environment

__all__ = ["NodeGroup", "SlurmCommands", "SlurmJob", "SlurmRefusedError", "SlurmSilentError"]

_SEPARATOR = "|"
_SQUEUE_FORMAT = _SEPARATOR.join(("%i", "%T", "%j", "%N", "%r", "%k"))
_QUEUED: Final = frozenset(
    ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
)
_RUNNING: Final = frozenset(("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED", "RESIZING"))
_SILENT = re.compile(
    r"unable to contact|communication (connection )?failure|connection refused|timed out|socket timed|"
    r"zero bytes were transmitted|slurm backup controller|try again later|temporarily (disabled|unavailable)",
    re.IGNORECASE,
)
_FIELD = re.compile(r"(\w+)=(\S*)")


class SlurmSilentError(CrewError):
    """The controller does not answer, or its answer was lost."""


class SlurmRefusedError(CrewError):
    """Slurm answers, and does not do it."""


@dataclass(frozen=True)
class SlurmJob:
    """One job, or one task of an array, as Slurm sees it."""

    id: str
    """`17`, or `17_3` for a task of an array."""
    state: str
    """Slurm's own word, such as NODE_FAIL."""
    name: str
    node: str = ""
    reason: str = ""
    comment: str = ""
    exit_code: int = 0
    signal: int = 0
    seconds: float = 0.0
    """It ran so long."""

    @property
    def queued(self) -> bool:
        return self.state in _QUEUED

    @property
    def running(self) -> bool:
        return self.state in _RUNNING

    @property
    def alive(self) -> bool:
        return self.queued or self.running


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of one partition in one state."""

    up: bool
    """The partition takes jobs."""
    state: str
    """In lower case; `not_responding` for nodes that the controller cannot reach."""
    nodes: int
    memory_gib: float


class SlurmCommands:
    """sbatch, squeue, scontrol, scancel and sacct.

    Args:
        bin: their folder; None takes them from PATH.
        seconds: how long one of them may take.
    """

    def __init__(self, bin: str | None = None, seconds: float = 30.0) -> None:
        self._bin, self._seconds = bin, seconds
        self._accounting: bool | None = None

    def submit(self, script: Path) -> str:
        """The id of the submitted job. Raises SlurmRefusedError; SlurmSilentError: it may be submitted or not."""
        answer = self._run("sbatch", "--parsable", str(script)).strip()
        job_id = answer.splitlines()[-1].split(";")[0] if answer else ""
        if not job_id.isdigit():
            raise SlurmSilentError(f"sbatch answered {answer[:100]!r} and no job id")
        return job_id

    def mine(self) -> dict[str, SlurmJob]:
        """The user's jobs by id: those that wait or run, and those that ended within the last minutes."""
        user = getpass.getuser()
        lines = self._run(
            "squeue", "--noheader", "--array", f"--user={user}", "--states=all", f"--format={_SQUEUE_FORMAT}"
        ).splitlines()
        jobs: dict[str, SlurmJob] = {}
        for line in lines:
            parts = line.split(_SEPARATOR, 5)
            if len(parts) == 6:
                job_id, state, name, node, reason, comment = parts
                jobs[job_id] = SlurmJob(job_id, state, name, node, reason, comment)
        return jobs

    def details(self, job_id: str) -> SlurmJob | None:
        """One job with its exit code, from the controller, else from the accounting database, else None."""
        try:
            text = self._run("scontrol", "show", "job", "--oneliner", job_id)
        except SlurmRefusedError:  # "Invalid job id": the controller has forgotten it
            return self._from_accounting(f"--jobs={job_id}")
        fields = dict(_FIELD.findall(text.splitlines()[0] if text else ""))
        code, _, signal = fields.get("ExitCode", "0:0").partition(":")
        return SlurmJob(
            id=job_id,
            state=fields.get("JobState", ""),
            name=fields.get("JobName", ""),
            node=fields.get("NodeList", "").replace("(null)", ""),
            reason=fields.get("Reason", ""),
            exit_code=int(code or 0),
            signal=int(signal or 0),
            seconds=_seconds(fields.get("RunTime", "")),
        )

    def forgotten(self, name: str) -> SlurmJob | None:
        """The newest job of this name that only the accounting database still knows."""
        return self._from_accounting(f"--name={name}")

    def cancel(self, job_id: str) -> None:
        """Take it from the queue, or end it: SIGTERM, and SIGKILL after the cluster's KillWait."""
        self._run("scancel", job_id)

    def terminate(self, job_id: str) -> None:
        """SIGTERM to the batch process and to all steps of a running job."""
        self._run("scancel", "--full", "--signal=TERM", job_id)

    def kill(self, job_id: str) -> None:
        """SIGKILL to all processes of a running job."""
        self._run("scancel", "--full", "--signal=KILL", job_id)

    def partitions(self, partition: str | None) -> list[NodeGroup]:
        """The nodes of the partition, or of the default one, by their state."""
        options = [f"--partition={partition}"] if partition else []
        groups = []
        for line in self._run("sinfo", "--noheader", *options, "--format=%P|%a|%T|%D|%m").splitlines():
            parts = line.split(_SEPARATOR)
            if len(parts) == 5 and (partition or parts[0].endswith("*")):
                state = "not_responding" if parts[2].endswith("*") else parts[2].rstrip("~#!%$@^-")
                groups.append(NodeGroup(parts[1] == "up", state.lower(), int(parts[3]), _number(parts[4]) / 1024))
        return groups

    def _from_accounting(self, which: str) -> SlurmJob | None:
        if self._accounting is False:
            return None
        try:
            text = self._run(
                "sacct", "--noheader", "--parsable2", "--allocations", "--starttime=now-30days", which,
                "--format=JobID,State,JobName,NodeList,ExitCode,ElapsedRaw",
            )  # fmt: skip
        except SlurmRefusedError:
            self._accounting = False  # "Slurm accounting storage is disabled"
            return None
        self._accounting = True
        rows = [line.split(_SEPARATOR) for line in text.splitlines()]
        if not rows or len(rows[-1]) != 6:
            return None
        job_id, state, name, node, code, seconds = rows[-1]
        exit_code, _, signal = code.partition(":")
        word = state.split()[0] if state else ""  # "CANCELLED by 1000"
        return SlurmJob(
            job_id, word, name, node, exit_code=int(exit_code or 0), signal=int(signal or 0), seconds=float(seconds)
        )

    def _run(self, program: str, *arguments: str) -> str:
        path = shutil.which(program, path=self._bin) if self._bin else shutil.which(program)
        if path is None:
            raise ConfigError(
                f"the Slurm command `{program}` is not there. Run crew on a login node of the cluster, or say with "
                "CREW_SLURM_BIN in which folder it lies."
            )
        try:
            done = subprocess.run(
                [path, *arguments], capture_output=True, text=True, timeout=self._seconds, env=child_environment()
            )
        except subprocess.TimeoutExpired as error:
            raise SlurmSilentError(f"`{program}` did not end within {self._seconds:.0f} s") from error
        except OSError as error:
            raise SlurmSilentError(f"`{program}` cannot be started: {error}") from error
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[:500]
            if _SILENT.search(said) or done.returncode < 0:
                raise SlurmSilentError(f"`{program}`: {said or 'killed'}")
            raise SlurmRefusedError(f"`{program}`: {said or f'exit code {done.returncode}'}")
        return done.stdout


def _seconds(text: str) -> float:
    """`1-02:03:04` in seconds; 0.0 for what is no time."""
    days, _, rest = text.rpartition("-")
    try:
        hours, minutes, seconds = (int(part) for part in rest.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60.0 + seconds
    except ValueError:
        return 0.0


def _number(text: str) -> float:
    match = re.match(r"\d+", text)
    return float(match.group()) if match else 0.0
