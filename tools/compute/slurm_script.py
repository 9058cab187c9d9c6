"""The batch scripts that crew gives to sbatch: one job, or an array of jobs."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence

from posttrain_crew.errors import ConfigError
from posttrain_crew.tools.compute.backend_settings import SlurmSettings
from posttrain_crew.tools.compute.base import LOG_FILE, JobSpec
from posttrain_crew.tools.compute.command import job_command, job_variables

__all__ = ["SCRIPT_FILE", "array_script", "single_script"]

SCRIPT_FILE = "job.sbatch"
_PRINTABLE = re.compile(r"[^\x20-\x7e]")


def single_script(spec: JobSpec, name: str, comment: str, settings: SlurmSettings, python: str | None) -> str:
    """The script of one job; its output goes to log.txt in the job's directory."""
    log = spec.config.parent / LOG_FILE
    head = _header(spec, name, comment, settings, log=str(log).replace("%", "%%"))
    return "\n".join([*head, settings.setup, *_body(spec, settings, python), ""])


def array_script(specs: Sequence[JobSpec], name: str, comment: str, settings: SlurmSettings, python: str | None) -> str:
    """One script for jobs of the same shape, told apart by SLURM_ARRAY_TASK_ID; each writes into its own directory.

    Raises:
        ConfigError: they ask for different numbers of nodes or processes.
    """
    if len({(spec.nodes, spec.processes) for spec in specs}) != 1:
        raise ConfigError("jobs of one Slurm array must ask for the same nodes and processes: submit them one by one.")
    longest = max(specs, key=lambda spec: spec.timeout_s)
    lines = _header(longest, name, comment, settings, log="/dev/null")
    lines += [f"#SBATCH --array=0-{len(specs) - 1}", settings.setup, 'case "$SLURM_ARRAY_TASK_ID" in']
    for index, spec in enumerate(specs):
        log = shlex.quote(str(spec.config.parent / LOG_FILE))
        lines += [f"{index})", f"exec >>{log} 2>&1", *_body(spec, settings, python), ";;"]
    return "\n".join([*lines, "esac", ""])


def _header(spec: JobSpec, name: str, comment: str, settings: SlurmSettings, log: str) -> list[str]:
    options = {
        "job-name": name,
        "comment": comment,
        "output": log,
        "open-mode": "append",
        "chdir": str(spec.config.parent) if log != "/dev/null" else "/",
        "time": str(max(1, math.ceil(spec.timeout_s / 60))),  # minutes
        "nodes": str(spec.nodes),
        "ntasks-per-node": "1",
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "gres": settings.gres,
        "mem": settings.mem,
        "constraint": settings.constraint,
    }
    if settings.threads * spec.processes > 1:
        options["cpus-per-task"] = str(settings.threads * spec.processes)
    lines = [f"#SBATCH --{key}={_quoted(value)}" for key, value in options.items() if value]
    lines += [f"#SBATCH {option}" for option in settings.options]
    lines.append("#SBATCH --requeue" if settings.requeue else "#SBATCH --no-requeue")
    return ["#!/bin/bash", *lines]


def _body(spec: JobSpec, settings: SlurmSettings, python: str | None) -> list[str]:
    directory, config = str(spec.config.parent), str(spec.config)
    variables = job_variables(spec, directory, settings.threads)
    lines = [f"cd {shlex.quote(directory)} || exit 72"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    if spec.nodes == 1:
        # exec: the job is the batch process itself, so that a signal reaches it and its exit is the job's
        return [*lines, "exec " + shlex.join(job_command(spec, python, config))]
    rendezvous = ["--node-rank=$SLURM_NODEID", "--master-addr=$CREW_MASTER", "--master-port=$CREW_PORT"]
    command = " ".join(
        part if part.startswith(("--node-rank", "--master-")) else shlex.quote(part)
        for part in job_command(spec, python, config, rendezvous)
    )
    lines += [
        'CREW_MASTER=$(scontrol show node "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)" '
        "| sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')",
        f"CREW_PORT=$(({settings.rendezvous_port} + SLURM_JOB_ID % 1000))",
        "export CREW_MASTER CREW_PORT",
        # each node fills in its own SLURM_NODEID
        f"exec srun --ntasks-per-node=1 --kill-on-bad-exit=1 bash -c {shlex.quote('exec ' + command)}",
    ]
    return lines


def _quoted(value: str) -> str:
    """An option's value as sbatch reads it from a script: in double quotes, on one line."""
    clean = _PRINTABLE.sub("_", value)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"' if re.search(r"[\s\"'\\#]", clean) else clean
