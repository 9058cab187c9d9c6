"""The checks before a launch, cheapest first; the last is a two-step smoke run of exactly this kind of job.

The first failed check ends the list: what comes after would cost time and tell nothing. The result is bound to the
sha256 of the job's config (without the name and time limit that a launch adds), so a change asks for a new preflight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import JobOutcome, JobStarted, Preflight, PreflightCheck, TrainingSet
from posttrain_crew.errors import BudgetError, CrewError
from posttrain_crew.files import canonical_json, sha256_file, sha256_text
from posttrain_crew.rundir import free_gib
from posttrain_crew.tools.compute.jobs import JobRequest, launch, wait
from posttrain_crew.tools.training.config import (
    TrainingConfig,
    check_job,
    check_trainer,
    trainer_value,
    without_effect,
)
from posttrain_crew.tools.training.environment import look_for_vllm
from posttrain_crew.tools.training.estimate import (
    ModelShape,
    estimate_seconds,
    memory_gib,
    model_shape,
    trained_parameters,
)
from posttrain_crew.tools.training.ladder import Refusal, Room, Settings, first_that_fits
from posttrain_crew.tools.training.rewards import check_rewards, check_rows, columns_of
from posttrain_crew.tools.training.rows import read_rows
from posttrain_crew.tools.training.session import SMOKE_STEPS
from posttrain_crew.tools.training.spread import Spread
from posttrain_crew.tools.workspace import Workspace

__all__ = ["config_sha256", "job_config", "preflight", "smoke_label"]

NOT_IN_SMOKE = ("learning_rate", "max_steps", "num_train_epochs", "warmup_steps", "seed")
"""Trainer fields that do not decide whether a job runs: configs that differ in them alone share a smoke run."""
DISK_MARGIN_GIB = 0.25


class _FailedCheckError(CrewError):
    """A check did not hold; its message is the check's detail."""


@dataclass
class _Estimates:
    seconds: float = 0.0
    memory_gib: float = 0.0


def job_config(config: TrainingConfig) -> dict[str, Any]:
    """The config as the YAML of a job: JSON values, without what is left at its default."""
    return config.model_dump(mode="json", exclude_defaults=True)


def config_sha256(config: TrainingConfig) -> str:
    """Hash of a job config."""
    return sha256_text(canonical_json(config.model_dump(mode="json")))


def preflight(
    workspace: Workspace,
    config: TrainingConfig,
    training_set: Entry[TrainingSet],
    subject: str,
    spread: Spread | None = None,
) -> tuple[Preflight, tuple[str, ...]]:
    """Check a job before its launch. Blocks for the smoke run, seconds to minutes.

    Args:
        config: as ordered, for one process.
        subject: id of the experiment that is to be launched.
        spread: how it is run on several devices; the smoke run is then of the same shape.

    Returns:
        The result, and the ids of the entries that support it.

    Raises:
        JobError: the backend refused the smoke run. A failed check is no error.
    """
    estimates, refs = _Estimates(), [training_set.id]
    job = config if spread is None else spread.applied(config)
    checks: list[PreflightCheck] = []
    steps: list[tuple[str, Callable[[], str]]] = [
        ("config", lambda: _check_config(workspace, job)),
        ("data", lambda: _check_data(workspace, config, training_set)),
        ("parent", lambda: _check_parent(config)),
        ("rewards", lambda: _check_rewards(config)),
        ("memory", lambda: _check_memory(workspace, job, training_set.body, estimates, spread)),
        ("disk", lambda: _check_disk(workspace, config)),
        ("time", lambda: _check_time(workspace, config, training_set.body, estimates)),
        ("smoke", lambda: _check_smoke(workspace, job, subject, refs, spread)),
    ]
    for name, check in steps:
        try:
            checks.append(PreflightCheck(name=name, ok=True, detail=check()))
        except (_FailedCheckError, BudgetError) as error:
            checks.append(PreflightCheck(name=name, ok=False, detail=str(error)[:1000]))
            break
    result = Preflight(
        config_sha256=config_sha256(job),
        passed=len(checks) == len(steps) and all(check.ok for check in checks),
        checks=checks,
        estimate_seconds=round(estimates.seconds, 1),
        estimate_memory_gib=round(estimates.memory_gib, 3),
    )
    return result, tuple(refs)


def smoke_label(config: TrainingConfig, shape: ModelShape, spread: Spread | None = None) -> str:
    """Label of the smoke run of a config: equal for all configs that stress a machine alike.

    The data is not part of it: the smoke run takes the longest rows, and how long rows may be is a trainer field.
    """
    fields = {name: value for name, value in config.trainer.items() if name not in NOT_IN_SMOKE}
    rewards = [spec.name for spec in config.reward]
    model = [shape.architecture, shape.parameters, shape.layers, shape.hidden, shape.vocabulary]
    alike: list[Any] = [config.method, model, fields, rewards, config.dtype]
    if spread is not None:
        alike += [spread.processes, spread.nodes, spread.launch.profile]
    return f"smoke-{sha256_text(canonical_json(alike))[:12]}"


def _check_config(workspace: Workspace, config: TrainingConfig) -> str:
    try:
        check_trainer(config.method, config.trainer)
        check_job(config)
    except CrewError as error:
        raise _FailedCheckError(str(error)) from error
    if workspace.compute.capacity().device == "cpu":
        for name in ("load_in_4bit", "load_in_8bit"):
            if config.trainer.get(name):
                raise _FailedCheckError(
                    f"`trainer.{name}` (QLoRA) needs a CUDA device, but this backend has none. Leave it out: plain "
                    "LoRA (`use_peft` alone) runs on a CPU."
                )
    try:
        look_for_vllm(config, workspace.compute.name, workspace.compute.capacity().device)
    except CrewError as error:
        raise _FailedCheckError(str(error)) from error
    told = f"{len(config.trainer)} trainer fields are valid for the installed {config.method.upper()} trainer"
    return "; ".join([told, *without_effect(config.method, config.trainer, config.eval_data)])


def _check_data(workspace: Workspace, config: TrainingConfig, training_set: Entry[TrainingSet]) -> str:
    body = training_set.body
    if body.method != config.method:
        raise _FailedCheckError(f"{training_set.id} was prepared for {body.method}, but the job is {config.method}.")
    verdict = body.contamination
    if not verdict.passed:
        raise _FailedCheckError(
            f"{training_set.id} did not pass the contamination check: {verdict.rows_matched} of its rows overlap with "
            "the benchmark. Prepare it again with those rows dropped."
        )
    path = workspace.run.absolute(body.path)
    try:
        found = sha256_file(path)
    except OSError as error:
        raise _FailedCheckError(f"the file of {training_set.id}, {path}, cannot be read: {error}") from error
    if not found == body.sha256 == verdict.sha256:
        raise _FailedCheckError(
            f"the contamination verdict of {training_set.id} is for sha256 {verdict.sha256[:12]}, but the file has "
            f"{found[:12]} now: prepare and audit it again."
        )
    return f"{body.rows} rows, sha256 {found[:12]}, verdict passed on {verdict.rows_checked} rows"


def _check_parent(config: TrainingConfig) -> str:
    try:
        shape = model_shape(Path(config.model))
    except CrewError as error:
        raise _FailedCheckError(str(error)) from error
    return f"{shape.parameters:,} parameters, {shape.architecture}"


def _check_rewards(config: TrainingConfig) -> str:
    if config.method != "grpo":
        return f"not needed for {config.method.upper()}"
    names, weights = [spec.name for spec in config.reward], [spec.weight for spec in config.reward]
    try:
        told = check_rewards(names, config.answer_template, config.answer_labels, weights)
        check_rows(names, read_rows(config) if any("tests" in columns_of(name) for name in names) else ())
        return "; ".join(told)
    except CrewError as error:
        raise _FailedCheckError(str(error)) from error


def _check_memory(
    workspace: Workspace,
    config: TrainingConfig,
    training_set: TrainingSet,
    estimates: _Estimates,
    spread: Spread | None,
) -> str:
    capacity = workspace.compute.capacity()
    if spread is not None:
        estimates.memory_gib = spread.memory_gib
        return (
            f"about {spread.memory_gib:.1f} of {capacity.device_memory_gib:.1f} GiB on each of {spread.world} "
            f"device(s) with {spread.launch.profile}"
        )
    shape, have, on_cpu = model_shape(Path(config.model)), capacity.device_memory_gib, capacity.device == "cpu"

    def needed(trainer: Mapping[str, Any]) -> float:
        return memory_gib(
            config.method, trainer, shape, training_set.max_tokens, dtype=config.dtype, on_cpu=on_cpu, device_gib=have
        )

    need = estimates.memory_gib = needed(config.trainer)
    if need > have:
        job, room = Settings(config.method, config.trainer), Room(on_cpu=on_cpu)
        rungs = first_that_fits(job, room, lambda settings: needed(settings.trainer) <= have)
        told = f"needs about {need:.1f} GiB, but one job has {have:.1f} GiB on this backend."
        if isinstance(rungs, Refusal):
            raise _FailedCheckError(f"{told} No smaller steps of the same training fit. {rungs.reason}")
        changes = {name: value for rung in rungs for name, value in rung.changes.items()}
        less = needed(rungs[-1].settings.trainer)
        raise _FailedCheckError(f"{told} The same training needs {less:.1f} GiB with {changes}.")
    return f"about {need:.1f} of {have:.1f} GiB"


def _check_disk(workspace: Workspace, config: TrainingConfig) -> str:
    shape = model_shape(Path(config.model))
    need = 4 * shape.parameters / 2**30 + DISK_MARGIN_GIB  # the finished model, 4 bytes a parameter
    if config.save_seconds is not None or config.trainer.get("save_strategy", "no") != "no":
        # a checkpoint has what is trained and two moments of it; the oldest goes when the newest is whole
        kept = 1 + int(trainer_value(config.method, config.trainer, "save_total_limit") or 2)
        need += 12 * trained_parameters(config.method, config.trainer, shape) * kept / 2**30
    have = free_gib(workspace.run.root)
    if need > have:
        raise _FailedCheckError(
            f"needs about {need:.1f} GiB of disk, but {have:.1f} GiB are free at {workspace.run.root}. Free some, or "
            "keep fewer checkpoints: `save_total_limit: 1`."
        )
    return f"about {need:.2f} of {have:.1f} GiB"


def _check_time(workspace: Workspace, config: TrainingConfig, training_set: TrainingSet, estimates: _Estimates) -> str:
    need = estimate_seconds(workspace, config.method, config.trainer, training_set.rows)
    estimates.seconds = need
    have = workspace.budget.for_experiments
    if need > have:
        raise _FailedCheckError(
            f"needs about {need:.0f} s, but {have:.0f} s are left for experiments. Train for fewer steps, or give the "
            "run more `--hours`."
        )
    return f"about {need:.0f} of {have:.0f} s"


def _check_smoke(
    workspace: Workspace, config: TrainingConfig, subject: str, refs: list[str], spread: Spread | None
) -> str:
    label = smoke_label(config, model_shape(Path(config.model)), spread)
    earlier = _finished(workspace, label)
    if earlier is not None:
        refs.append(earlier.id)
        return _told(earlier.body, f"passed before, as {earlier.id}")
    smoke = config.model_copy(update={"smoke": True, "resume": False, "max_seconds": None, "trackio_project": None})
    outcome = wait(workspace, launch(workspace, _smoke_request(workspace, smoke, label, subject, spread)))
    refs.append(outcome.id)
    return _told(outcome.body, f"{outcome.body.steps} steps in {outcome.body.wall_s:.0f} s")


def _smoke_request(
    workspace: Workspace, smoke: TrainingConfig, label: str, subject: str, spread: Spread | None
) -> JobRequest:
    attempts = sum(1 for job in workspace.board.of(JobStarted) if job.body.label.split(".")[0] == label)
    pending = [job for job in _jobs(workspace, label) if _outcome_of(workspace, job.body.label) is None]
    # a smoke run that failed for this config may pass once the machine is better: a new attempt, not the old answer
    name = pending[-1].body.label if pending else (label if attempts == 0 else f"{label}.{attempts + 1}")
    one_step: Mapping[str, Any] = {**smoke.trainer, "max_steps": SMOKE_STEPS}
    return JobRequest(
        label=name,
        role="smoke",
        subject=subject,
        module=f"posttrain_crew.tools.training.{smoke.method}",
        directory=workspace.run.root / "smoke" / name,
        config=job_config(smoke),
        estimate_seconds=estimate_seconds(workspace, smoke.method, one_step, rows=1),
        attempt=max(1, attempts + (0 if pending else 1)),
        nodes=1 if spread is None else spread.nodes,
        processes=1 if spread is None else spread.processes,
        environment={} if spread is None else spread.environment(),
    )


def _jobs(workspace: Workspace, label: str) -> list[Entry[JobStarted]]:
    return [job for job in workspace.board.of(JobStarted) if job.body.label.split(".")[0] == label]


def _outcome_of(workspace: Workspace, label: str) -> Entry[JobOutcome] | None:
    return next((entry for entry in workspace.board.of(JobOutcome) if entry.body.label == label), None)


def _finished(workspace: Workspace, label: str) -> Entry[JobOutcome] | None:
    """A smoke run of this label that passed."""
    found = [_outcome_of(workspace, job.body.label) for job in _jobs(workspace, label)]
    return next((entry for entry in found if entry is not None and entry.body.ok), None)


def _told(outcome: JobOutcome, when_ok: str) -> str:
    if not outcome.ok:
        raise _FailedCheckError(f"the smoke run failed ({outcome.error_class}): {outcome.message}")
    return when_ok
