"""Where a run stands, derived from its blackboard and stored nowhere else.

The loop, `crew status`, the report and the coordinator's brief all read this one view.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from posttrain_crew.blackboard import Blackboard, Entry
from posttrain_crew.entries import (
    Comparison,
    Decision,
    Diagnosis,
    Evaluation,
    Experiment,
    JobOutcome,
    JobStarted,
    RunStarted,
    TestLook,
)
from posttrain_crew.errors import BlackboardError

__all__ = ["ExperimentView", "RunState", "Stage", "checkpoint_of"]

Stage = Literal["planned", "training", "trained", "failed", "evaluating", "evaluated", "decided"]


@dataclass
class ExperimentView:
    """One node of the search tree with all that is known of it."""

    entry: Entry[Experiment]
    jobs: list[Entry[JobStarted]] = field(default_factory=list)
    outcome: Entry[JobOutcome] | None = None
    diagnosis: Entry[Diagnosis] | None = None
    evaluation: Entry[Evaluation] | None = None
    comparison: Entry[Comparison] | None = None
    """Strict dev comparison with the best at that time."""
    decision: Entry[Decision] | None = None
    evaluating: bool = False

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def stage(self) -> Stage:
        if self.decision is not None:
            return "decided"
        if self.evaluation is not None:
            return "evaluated"
        if self.evaluating:
            return "evaluating"
        if self.outcome is not None:
            return "trained" if self.outcome.body.ok else "failed"
        return "training" if self.jobs else "planned"


@dataclass
class RunState:
    """One run, as its blackboard tells it."""

    run: Entry[RunStarted] | None
    experiments: dict[str, ExperimentView]
    """By id, in order of creation."""
    baseline: Entry[Evaluation] | None
    """Zero-shot dev evaluation of the base."""
    few_shot: Entry[Evaluation] | None
    """Few-shot dev evaluation of the base, for reference."""
    tests: dict[str, Entry[Evaluation]]
    """Test evaluations by subject."""
    running: list[Entry[JobStarted]]
    """Jobs without an outcome."""
    best: str
    """`base`, or the experiment promoted last."""
    stop: Entry[Decision] | None
    verdict: Entry[Decision] | None
    test_looks: int

    @classmethod
    def of(cls, board: Blackboard) -> RunState:
        """Read the board. Raises BlackboardError as the board does."""
        views = {entry.id: ExperimentView(entry) for entry in board.of(Experiment)}
        outcomes = board.of(JobOutcome)
        finished = {entry.body.label for entry in outcomes}
        jobs = board.of(JobStarted)
        for job in jobs:
            view = views.get(job.body.subject)
            if view is None:
                continue
            if job.body.role == "train":
                view.jobs.append(job)
            elif job.body.role == "evaluate" and job.body.label not in finished:
                view.evaluating = True
        by_label = {job.body.label: job for job in jobs}
        for outcome in outcomes:
            job_of = by_label.get(outcome.body.label)
            view = views.get(job_of.body.subject) if job_of is not None and job_of.body.role == "train" else None
            if view is not None and view.jobs[-1] is job_of:  # a killed attempt says nothing once the next one runs
                view.outcome = outcome
        for diagnosis in board.of(Diagnosis):
            for ref in diagnosis.refs:
                if ref in views:
                    views[ref].diagnosis = diagnosis
        baseline = few_shot = None
        tests: dict[str, Entry[Evaluation]] = {}
        for evaluation in board.of(Evaluation):
            body = evaluation.body
            if body.split == "test":
                tests[body.subject] = evaluation
            elif body.subject == "base":
                if body.few_shot:
                    few_shot = evaluation
                else:
                    baseline = evaluation
            elif body.subject in views and not body.few_shot:
                views[body.subject].evaluation = evaluation
        for comparison in board.of(Comparison):
            body_c = comparison.body
            if body_c.split == "dev" and body_c.metric == "strict" and body_c.candidate in views:
                views[body_c.candidate].comparison = comparison
        best, stop, verdict = "base", None, None
        for decision in board.of(Decision):
            action, subject = decision.body.action, decision.body.subject
            if action == "stop":
                stop = decision
            elif action in ("accept", "reject"):
                verdict = decision
            elif subject in views:
                views[subject].decision = decision
                if action == "promote":
                    best = subject
        return cls(
            run=board.latest(RunStarted),
            experiments=views,
            baseline=baseline,
            few_shot=few_shot,
            tests=tests,
            running=[job for job in jobs if job.body.label not in finished],
            best=best,
            stop=stop,
            verdict=verdict,
            test_looks=len(board.of(TestLook)),
        )

    @property
    def best_evaluation(self) -> Entry[Evaluation] | None:
        """Dev evaluation of the best so far."""
        return self.baseline if self.best == "base" else self.experiments[self.best].evaluation


def checkpoint_of(board: Blackboard, experiment: str) -> str:
    """Path, relative to the run, of an experiment's finished model.

    Raises:
        BlackboardError: the experiment is unknown or has no finished checkpoint.
    """
    view = RunState.of(board).experiments.get(experiment)
    if view is None:
        raise BlackboardError(f"there is no experiment `{experiment}` on the blackboard.")
    if view.outcome is None or not view.outcome.body.ok or view.outcome.body.checkpoint is None:
        raise BlackboardError(f"`{experiment}` has no finished checkpoint (its stage is `{view.stage}`).")
    return view.outcome.body.checkpoint
