"""What the trainer agent can do: look at the compute, plan, launch an experiment, and find out why one went wrong."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Decision, Experiment, JobOutcome, JobStarted, Method, TrainingSet
from posttrain_crew.errors import BudgetError, ConfigError, CrewError, GateError, InputError
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.settings import Settings
from posttrain_crew.state import ExperimentView, RunState
from posttrain_crew.target import Training
from posttrain_crew.tools.compute.jobs import JobRequest, held_slots, launch_many, poll
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.training.config import TrainingConfig, check_trainer, one_name, rewards_of, trainer_value
from posttrain_crew.tools.training.diagnose import diagnose
from posttrain_crew.tools.training.estimate import estimate_seconds, memory_gib, model_shape, steps_of
from posttrain_crew.tools.training.metrics import METRICS_FILE, read_metrics
from posttrain_crew.tools.training.preflight import job_config, preflight
from posttrain_crew.tools.training.relief import as_ordered, next_order, ran_in, room_of
from posttrain_crew.tools.training.spread import SHAPE_FIELDS, Spread, Wanted, spread_over
from posttrain_crew.tools.workspace import Workspace

__all__ = ["TrainingDesk", "running_jobs", "starting_point"]

Changes = dict[str, Any]

METHODS: tuple[Method, ...] = ("sft", "dpo", "grpo")
_OF_THE_MACHINE = (
    "bf16",
    "fp16",
    "gradient_checkpointing",
    "use_cpu",
    "dataloader_pin_memory",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
)
"""Fields of a target's SFT that hold for DPO on the same model and machine."""
TYPICAL_ROWS = 1000
"""Rows that `typical_seconds` is told for, where a config counts in epochs."""
SLOWER_THAN_PLANNED = 4.0
"""A job stops itself cleanly, and keeps its model, after this many times its estimate."""
LEAST_SECONDS = 300.0
SAVING_SECONDS = 60.0
"""Between the clean stop and the hard one: the last step and the saving of the model."""
MOST_SEEDS = 5
ADAPTER: Changes = {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "lora_target_modules": "all-linear"}
"""What is proposed where all weights do not fit."""
ADAPTER_RATE = 10.0
"""An adapter learns best at about ten times the rate of full training (Schulman et al. 2025, LoRA Without Regret)."""


class TrainingDesk:
    """Training tools of one run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @agent_tool
    def describe_compute(self) -> dict[str, Any]:
        """What there is to train on: device, slots, memory, trainer versions, the target's starting points for each
        method, the seconds left for experiments and how long a typical job takes."""
        workspace = self._workspace
        capacity = workspace.compute.capacity()
        training = workspace.target.training
        return {
            "device": capacity.device,
            "slots": capacity.slots,
            "free_slots": max(0, capacity.slots - held_slots(capacity, running_jobs(workspace))),
            "devices_per_job": capacity.devices_per_job,
            "nodes_per_job": capacity.nodes_per_job,
            "memory_gib_per_job": capacity.device_memory_gib,
            "threads_per_job": capacity.threads_per_job,
            "description": capacity.description,
            "trainer_versions": {name: importlib.metadata.version(name) for name in ("trl", "transformers", "torch")},
            "starting_points": {name: starting_point(training, name) for name in METHODS},
            "seconds_left_for_experiments": round(workspace.budget.for_experiments),
            "typical_seconds": {
                name: round(estimate_seconds(workspace, name, starting_point(training, name), TYPICAL_ROWS))
                for name in METHODS
            },
        }

    @agent_tool
    def plan_training(
        self,
        method: Annotated[Method, "sft, dpo or grpo"],
        training_set: Annotated[str, "id of a training_set entry, like ts-1"],
        parent: Annotated[str, "`base`, or the id of a finished experiment to start from"],
        changes: Annotated[
            Changes,
            "TRL config fields that differ from the target's starting points; `reward` for GRPO; `devices`, `nodes`, "
            "`sharding` to start the job on several devices or machines",
        ] = {},  # noqa: B006 - read only; a literal default is what the tool schema shows
        recipe: Annotated[str | None, "id of the recipe entry behind it"] = None,
    ) -> dict[str, Any]:
        """Work out a training job without launching it: its full config, steps, seconds, memory and every problem.

        Where one device is not enough and several are, or `changes` name some, `spread` says how the launch will use
        them: the effective batch stays as ordered. Where no batch of all weights fits the memory and a LoRA adapter
        does, `adapter` holds the changes for one.
        """
        workspace = self._workspace
        problems: list[str] = []
        answer: dict[str, Any] = {"config": {}, "steps": 0, "estimate_seconds": 0.0, "memory_gib": 0.0}
        try:
            ts = workspace.board.typed(training_set, TrainingSet)
            if recipe is not None:
                workspace.board.get(recipe)
            config, wanted = _config(workspace, method, ts, parent, dict(changes))
            answer["config"] = _recorded(config, wanted)
            config = config.model_copy(update={"trainer": check_trainer(method, config.trainer)})
            rows = ts.body.rows
            answer["steps"] = steps_of(method, config.trainer, rows)
            answer["estimate_seconds"] = round(estimate_seconds(workspace, method, config.trainer, rows), 1)
            shape = model_shape(workspace.checkpoint(parent))
            capacity = workspace.compute.capacity()

            def memory(trainer: dict[str, Any]) -> float:
                return memory_gib(
                    method,
                    trainer,
                    shape,
                    ts.body.max_tokens,
                    dtype=config.dtype,
                    on_cpu=capacity.device == "cpu",
                    device_gib=capacity.device_memory_gib,
                )

            answer["memory_gib"] = round(memory(config.trainer), 2)
            spread = spread_over(config, shape, ts.body.max_tokens, capacity, wanted)
        except CrewError as error:
            problems.append(str(error))
            return {**answer, "problems": problems}
        if ts.body.method != method:
            problems.append(f"{training_set} was prepared for {ts.body.method}, not for {method}.")
        if not ts.body.contamination.passed:
            problems.append(f"{training_set} did not pass the contamination check.")
        if spread is not None:
            answer["spread"] = spread.told()
        elif answer["memory_gib"] > (have := capacity.device_memory_gib):
            problems.append(f"it needs {answer['memory_gib']} GiB, and a job has {have} GiB.")
            if (changed := _adapter(method, config.trainer, memory, have)) is not None:
                answer["adapter"] = changed
                problems.append("All weights do not fit at any batch; a LoRA adapter does: `adapter` has its changes.")
        if answer["estimate_seconds"] > workspace.budget.for_experiments:
            problems.append(f"{workspace.budget.for_experiments:.0f} s are left for experiments.")
        return {**answer, "problems": problems}

    @agent_tool
    def launch_training(
        self,
        method: Annotated[Method, "sft, dpo or grpo"],
        training_set: Annotated[str, "id of a training_set entry, like ts-1"],
        parent: Annotated[str, "`base`, or the id of a finished experiment to start from"],
        hypothesis: Annotated[str, "what this experiment is expected to show, in one or two sentences"],
        changes: Annotated[
            Changes,
            "TRL config fields that differ from the target's starting points; `reward` for GRPO; `devices`, `nodes`, "
            "`sharding` to start the job on several devices or machines",
        ] = {},  # noqa: B006 - as above
        recipe: Annotated[str | None, "id of the recipe entry behind it"] = None,
        purpose: Annotated[Literal["candidate", "ablation", "remedy"], "why it is run"] = "candidate",
        ablates: Annotated[str | None, "for an ablation: the experiment of which one part is left out"] = None,
        seeds: Annotated[
            list[int] | None, "2 to 5 seeds: the same experiment once for each; leave it out for one with the run's own"
        ] = None,
    ) -> dict[str, Any]:
        """Put an experiment on the blackboard, check it (with a two-step smoke run) and start its training job.

        Returns at once after the checks; the job goes on by itself. An experiment that was tried before is not run
        again. Only `changes` alter the target's starting points: values of papers about much larger models are not
        applied by themselves. With `seeds` each seed is an experiment of its own, listed in `experiments`. Where the
        smoke run was out of memory, `remedy` holds the changes with which the same training needs less.
        """
        workspace = self._workspace
        ts = workspace.board.typed(training_set, TrainingSet)
        config, wanted = _config(workspace, method, ts, parent, dict(changes))
        spread = _spread(workspace, config, ts, wanted)
        if seeds is not None:
            _check_seeds(workspace, config, ts, spread, seeds)

        def body(seed: int) -> Experiment:
            return Experiment(
                parent=parent,
                hypothesis=hypothesis,
                method=method,
                training_set=ts.id,
                recipe=recipe,
                config=_recorded(config, wanted),
                purpose=purpose,
                ablates=ablates,
                seed=seed,
            )

        refs = [ts.id, *([parent] if parent != "base" else []), *([recipe] if recipe else [])]
        refs += [ablates] if ablates and ablates not in refs else []
        answers: list[dict[str, Any]] = []
        requests: list[JobRequest] = []
        for seed in seeds or [config.seed]:
            one = config.model_copy(update={"seed": seed})
            answer, request = _prepared(workspace, body(seed), refs, one, ts, spread, waits=bool(requests))
            answers.append(answer)
            if request is not None:
                requests.append(request)
            elif answer["refused"]:
                break  # what failed for one seed fails for the next
        jobs = {job.body.subject: job.id for job in launch_many(workspace, requests)}
        for answer in answers:
            answer["job"] = jobs.get(answer["experiment"], answer["job"])
        told = next((answer for answer in answers if answer["launched"]), answers[0])
        for answer in answers:
            answer.pop("refused")
        return told if seeds is None else {**told, "experiments": [dict(answer) for answer in answers]}

    @agent_tool
    def diagnose_experiment(
        self, experiment: Annotated[str, "id of an experiment whose job has run"]
    ) -> dict[str, Any]:
        """Find out from its metrics why an experiment went as it went: a cause of a fixed set, the numbers that show
        it, and the config changes that the next attempt should make."""
        workspace = self._workspace
        view = _view(workspace, experiment)
        if not view.jobs:
            raise InputError(f"`{experiment}` has no job, so there is nothing to diagnose: it was never launched.")
        body = view.entry.body
        history = read_metrics(workspace.run.absolute(view.jobs[-1].body.directory) / METRICS_FILE)
        trainer = {name: value for name, value in body.config.items() if name not in ("reward", *SHAPE_FIELDS)}
        outcome, room = view.outcome, room_of(workspace.compute.capacity())
        found = diagnose(history, None if outcome is None else outcome.body, body.method, trainer, room=room)
        if outcome is not None and outcome.body.error_class == "out_of_memory":
            job = view.jobs[-1].body
            ran = ran_in(workspace.run.absolute(job.directory), job, body.method, trainer)
            remedy, reason = next_order(ran, trainer, room)
            advice = f"Out of memory: {reason}. (out_of_memory: {outcome.body.message[:400]})"
            found = found.model_copy(update={"remedy": remedy, "advice": advice})
        refs = [experiment, *([outcome.id] if outcome is not None else [])]
        point = outcome.id if outcome is not None else f"log-{len(history)}"
        entry = workspace.board.post(found, author="trainer", refs=refs, key=f"diagnosis:{experiment}:{point}")
        return {"id": entry.id, **entry.body.model_dump(mode="json")}


def running_jobs(workspace: Workspace) -> list[Entry[JobStarted]]:
    """Jobs on the board that hold a slot now."""
    return [job for job in RunState.of(workspace.board).running if poll(workspace, job) in ("queued", "running")]


def _spread(workspace: Workspace, config: TrainingConfig, ts: Entry[TrainingSet], wanted: Wanted) -> Spread | None:
    """How the job is run on several devices; None where one is enough, and where the preflight says what is wrong.
    Raises ConfigError where what is wanted cannot be had."""
    try:
        checked = config.model_copy(update={"trainer": check_trainer(config.method, config.trainer)})
        shape = model_shape(Path(config.model))
    except CrewError:
        return None
    return spread_over(checked, shape, ts.body.max_tokens, workspace.compute.capacity(), wanted)


def _check_seeds(
    workspace: Workspace, config: TrainingConfig, ts: Entry[TrainingSet], spread: Spread | None, seeds: list[int]
) -> None:
    """Raises InputError for seeds that make no comparison, BudgetError where not all of them fit what is left."""
    if not 2 <= len(seeds) <= MOST_SEEDS or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise InputError(f"`seeds` must be 2 to {MOST_SEEDS} different whole numbers from 0 on, but are {seeds}.")
    each = estimate_seconds(workspace, config.method, check_trainer(config.method, config.trainer), ts.body.rows)
    world, budget, capacity = 1 if spread is None else spread.world, workspace.budget, workspace.compute.capacity()
    beside = max(1, capacity.slots // (1 if capacity.job_is_slot else world))
    wall, device = each * math.ceil(len(seeds) / beside), each * world * len(seeds)
    told = f"{len(seeds)} seeds of about {each:.0f} s each, {beside} at a time, need"
    if wall > budget.for_experiments:
        raise BudgetError(f"{told} {wall:.0f} s, but {budget.for_experiments:.0f} s are left. Take fewer of them.")
    limits, used = budget.limits, budget.usage()
    if limits.device_hours is not None and used.device_s + device > limits.device_hours * 3600:
        left = max(0.0, limits.device_hours * 3600 - used.device_s)
        raise BudgetError(f"{told} {device:.0f} device seconds, but {left:.0f} are left. Take fewer of them.")
    nodes = 1 if spread is None else spread.nodes
    price = (workspace.compute.price() or 0.0) * each * nodes * len(seeds) / 3600
    if limits.usd is not None and used.usd + price > limits.usd:
        raise BudgetError(f"{told} {price:.2f} USD, but {max(0.0, limits.usd - used.usd):.2f} are left.")


def _prepared(
    workspace: Workspace,
    body: Experiment,
    refs: list[str],
    config: TrainingConfig,
    ts: Entry[TrainingSet],
    spread: Spread | None,
    *,
    waits: bool,
) -> tuple[dict[str, Any], JobRequest | None]:
    """Post one experiment and check it: the answer, and the job to launch or None.

    Args:
        waits: it belongs to a job that finds a slot, and may wait for its own.

    Raises:
        GateError: no slot is free, or too few for a job of several processes.
    """
    key = _key(body.method, ts.body.sha256, body.parent, body.config, config.seed)
    existing = workspace.board.by_key(key)
    if existing is not None:
        view = RunState.of(workspace.board).experiments[existing.id]
        if view.jobs or view.decision is not None:
            return _answer(view.entry, view.jobs[-1].id if view.jobs else None, False, _tried(view)), None
    capacity = workspace.compute.capacity()
    slots, needed = capacity.slots, 1 if spread is None or capacity.job_is_slot else spread.world
    own = existing.id if existing is not None else None  # its smoke run may have outlived a killed session
    busy = [job for job in running_jobs(workspace) if own is None or job.body.subject != own]
    if not waits and held_slots(capacity, busy) + needed > slots:
        more = f", and it takes {needed}" if needed > 1 else ""
        raise GateError(
            f"no free slot: {', '.join(job.body.label for job in busy)} run on the {slots} slot(s){more}. "
            "Wait for one to end, or do other work meanwhile."
        )
    experiment = workspace.board.post(body, author="trainer", refs=refs, status="hypothesis", key=key)
    result, supported = preflight(workspace, config, ts, experiment.id, spread)
    entry = workspace.board.post(
        result,
        author="crew",
        refs=(experiment.id, *supported),
        key=f"preflight:{experiment.id}:{result.config_sha256}:{supported[-1]}:{result.passed}",
    )
    if not result.passed:
        failed = result.checks[-1]
        reason = f"preflight failed at `{failed.name}`: {failed.detail}"
        workspace.board.post(
            Decision(action="abandon", subject=experiment.id, reason=reason[:1000]),
            author="crew",
            refs=(entry.id,),
            status="decision",
            key=f"decision:{experiment.id}",
        )
        answer = _answer(experiment, None, False, reason, result.estimate_seconds, refused=True)
        smoke = workspace.board.get(supported[-1]).body
        if isinstance(smoke, JobOutcome) and smoke.error_class == "out_of_memory":
            ran = as_ordered(config.method, config.trainer, spread)
            answer["remedy"], why = next_order(ran, config.trainer, room_of(capacity))
            answer["reason"] += f" Next: {why}."
        return answer, None
    request = _request(workspace, experiment, config, result.estimate_seconds, entry.id, spread)
    return _answer(experiment, None, True, "launched", result.estimate_seconds), request


def _request(
    workspace: Workspace,
    experiment: Entry[Experiment],
    config: TrainingConfig,
    estimate: float,
    preflight_id: str,
    spread: Spread | None,
) -> JobRequest:
    left = max(30.0, workspace.budget.for_experiments - SAVING_SECONDS)
    limit = min(max(LEAST_SECONDS, SLOWER_THAN_PLANNED * estimate), left)
    # a job that is killed is started again with this very config: `resume` then finds its last checkpoint
    config = config.model_copy(update={"max_seconds": round(limit, 1), "resume": True, "run_name": experiment.id})
    return JobRequest(
        label=experiment.id,
        role="train",
        subject=experiment.id,
        module=f"posttrain_crew.tools.training.{config.method}",
        directory=workspace.run.experiments / experiment.id,
        config=job_config(config if spread is None else spread.applied(config)),
        estimate_seconds=estimate,
        refs=(experiment.id, preflight_id),
        timeout_s=limit + SAVING_SECONDS,  # it stops itself first, and keeps its model
        nodes=1 if spread is None else spread.nodes,
        processes=1 if spread is None else spread.processes,
        environment={} if spread is None else spread.environment(),
    )


def _config(
    workspace: Workspace,
    method: Method,
    training_set: Entry[TrainingSet],
    parent: str,
    changes: Changes,
) -> tuple[TrainingConfig, Wanted]:
    """The job's config, which is the target's starting points overlaid by `changes`, and the shape that it is to be
    started in. Raises CrewError for what cannot be."""
    if method not in METHODS:
        raise ConfigError(f"`{method}` cannot be trained here: choose sft, dpo or grpo.")
    target = workspace.target
    start = starting_point(target.training, method)
    if training_set.body.order != "interleaved":  # a curriculum: TRL shuffles if nobody tells it not to
        start |= {"shuffle_dataset": False} if method == "grpo" else {"train_sampling_strategy": "sequential"}
    reward, wanted = changes.pop("reward", None), Wanted.taken_from(changes)
    if method == "grpo" and reward is None:
        reward = "mcq_letter" if target.answer.kind == "choice" else "exact"
    if method != "grpo" and reward is not None:
        raise ConfigError(f"`reward` belongs to GRPO: leave it out of the changes of a {method.upper()} job.")
    config = TrainingConfig(
        method=method,
        model=str(workspace.checkpoint(parent)),
        data=workspace.run.absolute(training_set.body.path),
        data_sha256=training_set.body.sha256,
        seed=workspace.started.seed,
        environment=Settings().gpu_python if workspace.compute.name == "local" else None,
        trackio_project=workspace.run.id,
        trackio_dir=workspace.run.root / "trackio",
        reward=rewards_of(reward),
        answer_template=target.answer.template,
        answer_labels=target.answer.labels,
        trainer={**start, **one_name(changes)},
    )
    return config, wanted


def _adapter(
    method: Method, trainer: dict[str, Any], memory: Callable[[dict[str, Any]], float], have: float
) -> Changes | None:
    """The changes that make a LoRA job of one whose weights do not fit `have` GiB; None where they do not help."""
    least = {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    if trainer.get("use_peft") or memory({**trainer, **least}) <= have:
        return None
    rate = ADAPTER_RATE * float(trainer_value(method, trainer, "learning_rate"))
    changes = {**ADAPTER, "learning_rate": float(f"{rate:.3g}")}
    return changes if memory({**trainer, **least, **changes}) <= have else None


def _recorded(config: TrainingConfig, wanted: Wanted) -> dict[str, Any]:
    """What an experiment holds of its config: trainer fields, rewards and the shape that was ordered, no paths."""
    rewards = [spec.model_dump() for spec in config.reward]
    return {**config.trainer, **({"reward": rewards} if rewards else {}), **wanted.recorded()}


def _key(method: str, sha256: str, parent: str, recorded: dict[str, Any], seed: int) -> str:
    return f"experiment:{sha256_text(canonical_json([method, sha256, parent, recorded, seed]))[:24]}"


def _view(workspace: Workspace, experiment: str) -> ExperimentView:
    view = RunState.of(workspace.board).experiments.get(experiment)
    if view is None:
        raise InputError(f"there is no experiment `{experiment}` on the blackboard.")
    return view


def starting_point(training: Training, method: Method) -> dict[str, Any]:
    """The target's fields for a method; for DPO they lie over those of its SFT that are about the machine."""
    if method != "dpo":
        return dict(training.grpo if method == "grpo" else training.sft)
    shared = {name: training.sft[name] for name in _OF_THE_MACHINE if name in training.sft}
    return shared | training.dpo


def _tried(view: ExperimentView) -> str:
    told = f"this very experiment was tried before, as {view.id} (its stage is `{view.stage}`)"
    return told if view.decision is None else f"{told}: {view.decision.body.reason[:300]}"


def _answer(
    experiment: Entry[Experiment],
    job: str | None,
    launched: bool,
    reason: str,
    estimate: float | None = None,
    *,
    refused: bool = False,
) -> dict[str, Any]:
    return {
        "experiment": experiment.id,
        "job": job,
        "launched": launched,
        "reason": reason,
        "estimate_seconds": estimate,
        "refused": refused,
    }
