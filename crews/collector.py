"""Collects what jobs have done: outcomes, diagnoses, evaluations, decisions. Watches those that run.

No agent takes part: scores come from result files, promotion from a paired test. Every step looks up what is on the
blackboard already, so collecting again after a kill adds nothing twice.
"""

from __future__ import annotations

import time
from typing import Any

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Decision, Evaluation, Experiment, Incident, JobOutcome, JobStarted, TrainingSet
from posttrain_crew.errors import BudgetError, CrewError, GateError, JobError
from posttrain_crew.state import RunState
from posttrain_crew.tools.compute.jobs import MAX_ATTEMPTS, handle_of, launch_again, poll, post_outcome, relaunch
from posttrain_crew.tools.evaluation.collect import collect
from posttrain_crew.tools.evaluation.gates import promotion
from posttrain_crew.tools.training.desk import TrainingDesk
from posttrain_crew.tools.training.estimate import steps_of
from posttrain_crew.tools.training.watch import Watch
from posttrain_crew.tools.workspace import Workspace

__all__ = ["Collector"]

_OURS = ("train", "evaluate")
"""Roles of the jobs that are collected here."""


class Collector:
    """Turns finished jobs into entries, for one run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._board = workspace.board
        self._progress: dict[str, dict[str, Any]] = {}
        self._followed: set[str] = set()
        self._watches: dict[str, Watch] = {}
        """By the job's entry: a watch raises each alert once."""
        self._doomed: dict[str, str] = {}
        """Why a rule wants a job to end, by the job's entry, until its backend has heard it."""

    def tick(self, *, orders_at_work: bool) -> None:
        """Look at every running job once, then take the steps that finished jobs ask for.

        Args:
            orders_at_work: some agent may be waiting for a smoke run or a probe; without one, they are closed here.
        """
        for job in RunState.of(self._board).running:
            if job.body.role not in _OURS and orders_at_work:
                continue
            state = poll(self._workspace, job)
            if state == "lost" and job.body.role in _OURS:
                self._start_lost(job)
            elif state == "ended":
                post_outcome(self._workspace, job)
            elif state == "running" and job.body.role == "train":
                self._watch(job)
        self._follow_up()
        self._decide()

    def progress(self) -> list[dict[str, Any]]:
        """The running jobs with their last metric, for the live view."""
        rows = []
        for job in RunState.of(self._board).running:
            row = {"label": job.body.label, "role": job.body.role, "subject": job.body.subject}
            rows.append(row | self._progress.get(job.body.label, {}))
        return rows

    def cancel_all(self) -> None:
        """End the running training and evaluation jobs without posting an outcome: a resume starts them again."""
        for job in RunState.of(self._board).running:
            handle = handle_of(self._workspace, job)
            if handle is not None and job.body.role in _OURS:
                try:
                    self._workspace.compute.cancel(handle)
                except JobError as error:
                    self._incident(f"job {job.body.label}", str(error), "a resume finds it again", job.id)

    def abandon_all(self, reason: str) -> None:
        """End the running experiments for good, for example because the time for experiments is used up."""
        for job in RunState.of(self._board).running:
            handle = handle_of(self._workspace, job)
            if handle is None or job.body.role not in _OURS or job.body.final:
                continue
            self._workspace.compute.cancel(handle)
            post_outcome(self._workspace, job, stopped=("timeout", reason))
            if job.body.subject != "base":
                self._abandon(job.body.subject, job.id, reason)
        self._decide(in_order=False)

    def _start_lost(self, job: Entry[JobStarted]) -> None:
        """Submit a job that is posted but runs nowhere: it waited for a slot, or a kill came before its submission."""
        try:
            launch_again(self._workspace, job)
        except (BudgetError, JobError) as error:
            self._incident(f"job {job.body.label}", str(error), "it is given up", job.id)

    def _follow_up(self) -> None:
        """What each outcome asks for, once per session; every step looks up first what an earlier session did."""
        jobs = {job.body.label: job for job in self._board.of(JobStarted)}
        relaunched = {ref for job in jobs.values() for ref in job.refs}
        collected = {ref for entry in self._board.of(Evaluation) for ref in entry.refs}
        for outcome in self._board.of(JobOutcome):
            job = jobs[outcome.body.label]
            if outcome.id in self._followed or job.body.role not in _OURS:
                continue
            self._followed.add(outcome.id)
            if job.id in relaunched or job.id in collected:
                continue
            if job.body.role == "train":
                self._after_training(job, outcome)
            else:
                self._after_evaluation(job, outcome)

    def _after_training(self, job: Entry[JobStarted], outcome: Entry[JobOutcome]) -> None:
        if self._started_again(job, outcome):
            return
        self._diagnose(job.body.subject)
        if not outcome.body.ok:
            reason = f"training failed ({outcome.body.error_class}): {outcome.body.message[:300]}"
            self._abandon(job.body.subject, outcome.id, reason)

    def _after_evaluation(self, job: Entry[JobStarted], outcome: Entry[JobOutcome]) -> None:
        if self._started_again(job, outcome):
            return
        reason = f"evaluation failed ({outcome.body.error_class}): {outcome.body.message[:300]}"
        if outcome.body.ok:
            try:
                collect(self._workspace, job)
                return
            except (GateError, JobError) as error:
                reason = f"its result files cannot be used: {error}"
        where = f"evaluation of {job.body.subject}"
        self._incident(where, reason, "it has no score and cannot be promoted", outcome.id)
        if job.body.subject != "base" and not job.body.final:
            self._abandon(job.body.subject, outcome.id, reason)

    def _started_again(self, job: Entry[JobStarted], outcome: Entry[JobOutcome]) -> bool:
        if outcome.body.error_class not in ("killed", "cancelled") or job.body.attempt >= MAX_ATTEMPTS:
            return False
        try:
            relaunch(self._workspace, job)
        except BudgetError as error:
            what = f"it was {outcome.body.error_class}, and {error}"
            self._incident(f"job {job.body.label}", what, "it is given up", outcome.id)
            return False
        what = f"the job was {outcome.body.error_class} in attempt {job.body.attempt}"
        self._incident(f"job {job.body.label}", what, "it was started again", outcome.id)
        return True

    def _decide(self, *, in_order: bool = True) -> None:
        """Promote or discard every evaluated experiment that is not decided yet, in the order of the experiments.

        Args:
            in_order: one whose evaluation runs holds back those after it. Which of two equals is promoted, and what is
                compared with it from then on, must not hang on whose evaluation happened to end first.
        """
        state = RunState.of(self._board)
        at_work = {job.body.subject for job in state.running if job.body.role == "evaluate" and in_order}
        for view in state.experiments.values():
            if state.stop is not None:
                return  # the final test has begun: nothing is promoted behind its back
            if view.id in at_work and view.decision is None:
                return
            if view.evaluation is None or view.decision is not None:
                continue
            try:
                promotion(self._workspace, view.id)
            except GateError as error:  # not comparable: it cannot be promoted, but it must not end the run either
                self._abandon(view.id, view.evaluation.id, f"it cannot be compared with the best: {error}")

    def _watch(self, job: Entry[JobStarted]) -> None:
        """Read the metrics of a running training; end it when a rule says so."""
        experiment = self._board.typed(job.body.subject, Experiment).body
        run = self._workspace.run
        if (watch := self._watches.get(job.id)) is None:
            metrics = run.absolute(job.body.directory) / "metrics.jsonl"
            tracked = run.root / "trackio" / f"{run.id}.db", job.body.subject
            watch = self._watches[job.id] = Watch(metrics, experiment.method, experiment.config, tracked)
        found = watch.look(now=time.time())
        if watch.history:
            self._note_progress(job, experiment, watch.history)
        fatal = [finding for finding in found if finding.stop]
        if fatal:
            self._doomed.setdefault(job.id, f"{fatal[0].cause}: {fatal[0].message}")
        handle = handle_of(self._workspace, job)
        if job.id in self._doomed and handle is not None:
            try:
                self._workspace.compute.cancel(handle)
            except JobError as error:
                self._incident(f"job {job.body.label}", str(error), "it is tried again until the job has ended", job.id)
                return
            post_outcome(self._workspace, job, stopped=("stopped_by_rule", self._doomed[job.id]))

    def _note_progress(self, job: Entry[JobStarted], experiment: Experiment, history: list[dict[str, Any]]) -> None:
        first, last = history[0], history[-1]
        training_set = self._board.typed(experiment.training_set, TrainingSet).body
        step = int(last.get("step", 0))
        total = steps_of(experiment.method, experiment.config, training_set.rows)
        metric = next((name for name in ("reward", "loss") if isinstance(last.get(name), int | float)), None)
        steps = step - int(first.get("step", 0))
        per_step = (float(last["time"]) - float(first["time"])) / steps if steps > 0 else None
        row: dict[str, Any] = {
            "step": step,
            "total_steps": total,
            "metric": metric,
            "value": round(float(last[metric]), 4) if metric else None,
            "eta_s": round(per_step * max(0, total - step), 1) if per_step is not None else None,
        }
        if self._progress.get(job.body.label) != row:
            self._progress[job.body.label] = row
            named = {metric: row["value"]} if metric else {}
            self._workspace.events.emit(
                "job_progress", label=job.body.label, step=step, total_steps=total, eta_s=row["eta_s"], **named
            )

    def _diagnose(self, experiment: str) -> None:
        try:
            TrainingDesk(self._workspace).diagnose_experiment(experiment)
        except CrewError as error:
            self._incident(f"diagnosis of {experiment}", str(error), "it goes on without one", experiment)

    def _abandon(self, subject: str, ref: str, reason: str) -> None:
        self._board.post(
            Decision(action="abandon", subject=subject, reason=reason),
            author="crew",
            refs=(subject, ref),
            status="decision",
            key=f"decision:{subject}",
        )
        self._workspace.events.emit("decision", action="abandon", subject=subject, reason=reason)

    def _incident(self, where: str, what: str, instead: str, about: str) -> None:
        body = Incident(where=where, what=what[:1000], instead=instead)
        self._board.post(body, author="crew", refs=(about,), key=f"incident:{about}:{instead}")
        self._workspace.events.emit("incident", where=where, what=what, instead=instead)
