"""What the evaluation agent may do, and what only the loop may do.

The agent's tools know the dev split alone: there is no argument that could name another. The test split is reached by
`launch_test`, a plain function for the final gate, which counts the look on the blackboard before anything starts.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Evaluation, JobOutcome, JobStarted, RunStarted, TestLook
from posttrain_crew.errors import GateError
from posttrain_crew.state import RunState
from posttrain_crew.tools.compute.jobs import MAX_ATTEMPTS, JobRequest, launch, launch_again, poll, relaunch
from posttrain_crew.tools.evaluation.by_hand import evaluate_path
from posttrain_crew.tools.evaluation.collect import collect, compare
from posttrain_crew.tools.evaluation.config import config_for, task_folder
from posttrain_crew.tools.evaluation.gates import judge
from posttrain_crew.tools.evaluation.run import MODULE
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.workspace import Workspace

__all__ = [
    "EvaluationDesk",
    "config_for",
    "estimate_seconds",
    "evaluate_path",
    "launch_dev",
    "launch_test",
    "task_folder",
]


MAX_FAILURES = 3
"""Executions of one evaluation that fail by themselves before it counts as impossible."""


def estimate_seconds(workspace: Workspace) -> float:
    """Mean wall seconds of this run's finished evaluations, else the target's first guess."""
    jobs = {job.body.label for job in workspace.board.of(JobStarted) if job.body.role == "evaluate"}
    ended = [entry.body for entry in workspace.board.of(JobOutcome) if entry.body.label in jobs]
    walls = [outcome.wall_s for outcome in ended if outcome.ok]
    return sum(walls) / len(walls) if walls else workspace.target.training.evaluation_seconds


def launch_dev(workspace: Workspace, subject: str, few_shot: int = 0) -> Entry[JobStarted]:
    """Start the dev evaluation of a subject, or return the job that has it in hand or has done it.

    Raises:
        BlackboardError: the subject is unknown or has no checkpoint. GateError: no slot is free, or it failed too
        often. BudgetError, JobError: as `launch`.
    """
    model = workspace.checkpoint(subject)
    label = f"{subject}-dev" if few_shot == 0 else f"{subject}-dev-{few_shot}shot"
    if (known := _in_hand(workspace, label)) is not None:
        return known
    running = [job.body.label for job in RunState.of(workspace.board).running]
    slots = workspace.compute.capacity().slots
    if len([name for name in running if _root(name) != label]) >= slots:
        raise GateError(
            f"no free slot: {len(running)} of {slots} are taken by {', '.join(running)}. "
            "Wait until one has ended, then ask again."
        )
    config = config_for(workspace.target, model, "dev", few_shot=few_shot, seed=workspace.started.seed)
    return _launch(workspace, label, subject, config, final=False)


def launch_test(workspace: Workspace, subjects: list[str]) -> list[Entry[JobStarted]]:
    """Start the test evaluations of the final gate; the look is counted first, and once however often this is called.

    What finds no free slot starts when there is one.

    Raises:
        BlackboardError: a subject is unknown or has no checkpoint. GateError: a subject has no dev evaluation, or its
        test evaluation failed too often. BudgetError, JobError: as `launch`.
    """
    models = {subject: workspace.checkpoint(subject) for subject in subjects}
    state = RunState.of(workspace.board)
    refs = []
    for subject in models:
        evaluation = state.baseline if subject == "base" else state.experiments[subject].evaluation
        if evaluation is None:
            raise GateError(f"`{subject}` has no dev evaluation: selection uses dev, and only then test is looked at.")
        refs.append(evaluation.id)
    workspace.board.post(
        TestLook(subjects=list(models), purpose="final gate"),
        author="crew",
        refs=refs,
        status="decision",
        key=f"test-look:{','.join(sorted(models))}",
    )
    jobs: list[Entry[JobStarted]] = []
    for subject, model in models.items():
        label = f"{subject}-test"
        job = _in_hand(workspace, label)
        if job is None:
            config = config_for(workspace.target, model, "test", seed=workspace.started.seed)
            job = _launch(workspace, label, subject, config, final=True)
        jobs.append(job)
    return jobs


def _root(label: str) -> str:
    """A label without the number of its attempt."""
    return re.sub(r"\.\d+$", "", label)


def _latest(workspace: Workspace, label: str) -> Entry[JobStarted] | None:
    found = [job for job in workspace.board.of(JobStarted) if _root(job.body.label) == label]
    return found[-1] if found else None


def _outcome(workspace: Workspace, job: Entry[JobStarted]) -> JobOutcome | None:
    entry = workspace.board.by_key(f"outcome:{job.body.label}")
    return None if entry is None else workspace.board.typed(entry.id, JobOutcome).body


def _in_hand(workspace: Workspace, label: str) -> Entry[JobStarted] | None:
    """The evaluation's newest attempt if it runs or has gone well; None where it is still to be launched."""
    job = _latest(workspace, label)
    if job is None:
        return None
    outcome = _outcome(workspace, job)
    if outcome is not None:
        return job if outcome.ok else None
    return None if poll(workspace, job) == "lost" else job


def _failures(workspace: Workspace, label: str) -> int:
    """Attempts that failed by themselves; a kill or a user's interrupt says nothing against the evaluation."""
    ended = [entry.body for entry in workspace.board.of(JobOutcome) if _root(entry.body.label) == label]
    return sum(not outcome.ok and outcome.error_class not in ("killed", "cancelled") for outcome in ended)


def _launch(
    workspace: Workspace, label: str, subject: str, config: dict[str, Any], *, final: bool
) -> Entry[JobStarted]:
    """The first attempt, or the next one after a failed or lost one."""
    earlier = _latest(workspace, label)
    if earlier is not None:
        if _outcome(workspace, earlier) is None:
            return launch_again(workspace, earlier)
        failures = _failures(workspace, label)
        if failures >= MAX_FAILURES or earlier.body.attempt >= MAX_ATTEMPTS:
            raise GateError(f"the evaluation `{label}` failed {failures} times: see {earlier.body.directory}.")
        return relaunch(workspace, earlier)
    run = workspace.board.latest(RunStarted)
    request = JobRequest(
        label=label,
        role="evaluate",
        subject=subject,
        module=MODULE,
        directory=workspace.run.evaluations / label,
        config=config,
        estimate_seconds=estimate_seconds(workspace),
        refs=(run.id,) if run is not None and subject == "base" else (subject,),
        final=final,
    )
    return launch(workspace, request)


class EvaluationDesk:
    """Tools of the evaluation agent, on the dev split alone."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @agent_tool
    def evaluate(
        self,
        subject: Annotated[str, "`base`, or the id of a finished experiment (exp-N)"],
        few_shot: Annotated[int, "examples in the prompt; 0 for every comparison"] = 0,
    ) -> dict[str, Any]:
        """Evaluate a model on the benchmark's dev split, or return its scores if that is done. It runs as a job: the
        answer then has status `running`, and the scores appear on the blackboard when it has ended."""
        if not 0 <= few_shot <= 16:
            raise GateError(f"few_shot must be within 0 and 16, not {few_shot}.")
        if few_shot and subject != "base":
            raise GateError("only the base is evaluated with examples in the prompt, as a reference: use few_shot 0.")
        self._workspace.checkpoint(subject)
        known = self._evaluation(subject, few_shot)
        if known is not None:
            return {"status": "done", **_scores(known)}
        job = launch_dev(self._workspace, subject, few_shot)
        outcome = self._workspace.board.by_key(f"outcome:{job.body.label}")
        if outcome is not None:
            return {"status": "done", **_scores(collect(self._workspace, job))}
        return {
            "status": "running",
            "job": job.id,
            "label": job.body.label,
            "estimate_seconds": round(job.body.estimate_seconds, 1),
        }

    @agent_tool
    def scores(self, subjects: Annotated[list[str], "`base` or experiment ids; empty for all"]) -> list[dict[str, Any]]:
        """Dev scores on the blackboard, with their confidence intervals, format-valid rate and output length."""
        entries = [entry for entry in self._workspace.board.of(Evaluation) if entry.body.split == "dev"]
        return [_scores(entry) for entry in entries if not subjects or entry.body.subject in subjects]

    @agent_tool
    def compare_subjects(
        self,
        candidate: Annotated[str, "`base` or an experiment id"],
        reference: Annotated[str, "`base` or an experiment id"],
    ) -> dict[str, Any]:
        """Paired test of two evaluated models on the dev items: difference, 95 % interval, exact p value."""
        found = []
        for subject in (candidate, reference):
            evaluation = self._evaluation(subject, 0)
            if evaluation is None:
                raise GateError(f"`{subject}` has no zero-shot dev evaluation; call `evaluate` first.")
            found.append(evaluation)
        if candidate == reference:
            raise GateError("a model cannot be compared with itself.")
        answer: dict[str, Any] = {}
        metrics: tuple[Literal["strict", "lenient"], ...] = ("strict", "lenient")
        for metric in metrics:
            entry = compare(self._workspace, found[0], found[1], metric)
            answer[metric] = {"id": entry.id, **entry.body.model_dump(), "finding": judge(entry.body).reason}
        return answer

    def _evaluation(self, subject: str, few_shot: int) -> Entry[Evaluation] | None:
        if not re.fullmatch(r"base|exp-\d+", subject):
            raise GateError(f"`{subject}` is no subject: give `base` or an experiment id such as `exp-1`.")
        for entry in self._workspace.board.of(Evaluation):
            body = entry.body
            if (body.subject, body.split, body.few_shot) == (subject, "dev", few_shot):
                return entry
        return None


def _scores(entry: Entry[Evaluation]) -> dict[str, Any]:
    body = entry.body
    rounded = {
        name: round(value, 4)
        for name, value in body.model_dump().items()
        if isinstance(value, float) and not isinstance(value, bool)
    }
    return {"id": entry.id, "subject": body.subject, "few_shot": body.few_shot, "n": body.n, **rounded}
