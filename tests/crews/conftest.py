"""A plausible run on a real blackboard, for the report and the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import (
    Comparison,
    ContaminationVerdict,
    DatasetProfile,
    Decision,
    Defect,
    Diagnosis,
    Evaluation,
    Experiment,
    Incident,
    JobOutcome,
    JobStarted,
    MetricEvidence,
    PaperRead,
    Recipe,
    RunStarted,
    SessionStarted,
    SourceShare,
    TestLook,
    TrainingSet,
    WorkOrder,
    WorkResult,
)
from posttrain_crew.rundir import RunDirectory

EVIL = "<script>alert('x')</script>"


def evaluation(subject: str, split: str, score: float, few_shot: int = 0) -> Evaluation:
    return Evaluation.model_validate(
        {
            "subject": subject,
            "split": split,
            "task": f"gpqa_mini_{split}",
            "few_shot": few_shot,
            "n": 600,
            "score": score,
            "ci_low": max(0.0, score - 0.03),
            "ci_high": min(1.0, score + 0.03),
            "lenient_score": min(1.0, score + 0.1),
            "lenient_ci_low": score + 0.07,
            "lenient_ci_high": min(1.0, score + 0.13),
            "format_valid_rate": 0.5,
            "accuracy_given_valid": 0.4,
            "mean_output_chars": 120.0,
            "truncated_rate": 0.0,
            "harness": "lm-eval 0.4.13",
            "directory": f"evaluations/{subject}-{split}",
            "samples_sha256": "a" * 64,
        }
    )


class RunMaker:
    """Posts the entries of a run step by step, so that a test can stop where it wants."""

    def __init__(self, root: Path) -> None:
        self.run = RunDirectory.create(root)
        self.board = Blackboard(self.run.blackboard, create=True)
        self.ids: dict[str, str] = {}

    def begin(self, target: str = "gpqa-mini") -> None:
        post = self.board.post
        run = RunStarted(
            run=self.run.id, target=target, base_model="builtin:gpqa-mini", base_model_path="/cache/base",
            llm="playbook", seed=7, hours=0.5,
        )  # fmt: skip
        self.ids["run"] = post(run, author="crew").id
        post(SessionStarted(pid=1, host="here", resumed=False), author="crew")

    def baseline(self) -> None:
        self.job("base-dev", "evaluate", "base")
        self.ids["base-dev"] = self.board.post(
            evaluation("base", "dev", 0.1234), author="crew", refs=[self.ids["base-dev:job"]]
        ).id

    def job(self, label: str, role: str, subject: str, *, ok: bool = True) -> None:
        directory = f"experiments/{subject}" if role == "train" else f"evaluations/{label}"
        started = self.board.post(
            JobStarted.model_validate(
                {
                    "label": label, "role": role, "subject": subject, "backend": "local", "directory": directory,
                    "estimate_seconds": 10.0, "module": "posttrain_crew.tools.training.sft",
                }
            ),
            author="crew",
        )  # fmt: skip
        time.sleep(0.03)  # the report's time line needs a job that took some time
        outcome = JobOutcome(
            label=label, ok=ok, error_class=None if ok else "diverged", message="" if ok else "loss is NaN",
            wall_s=12.0, steps=60, checkpoint=f"{directory}/model" if ok else None,
        )  # fmt: skip
        self.board.post(outcome, author="crew", refs=[started.id])
        self.ids[f"{label}:job"] = started.id

    def research(self) -> None:
        post, ids = self.board.post, self.ids
        order = post(
            WorkOrder(specialist="literature", objective="Find recipes.", budget_seconds=60, result_type="literature"),
            author="coordinator",
        )
        paper = PaperRead(
            arxiv_id="2402.03300", title="DeepSeekMath", year=2024, techniques=["grpo"], findings=[], source="library"
        )
        ids["paper"] = post(paper, author="literature").id
        recipe = Recipe(
            method="sft", title="Worked solutions first", hypothesis="the format is what fails", data_style="worked",
            arxiv_ids=["2402.03300"], prior=0.6,
        )  # fmt: skip
        ids["recipe"] = post(recipe, author="literature", refs=[ids["paper"]], status="hypothesis").id
        time.sleep(0.02)  # an order that took some time
        result = WorkResult(specialist="literature", ok=True, result={"summary": "One recipe."}, wall_s=0.02)
        post(result, author="literature", refs=[order.id])
        noise = Defect(
            name="label_noise", value=0.3017, threshold=0.05, severity="reject", detail="181 of 600 disagree"
        )
        profile = DatasetProfile(
            dataset=f"noisy {EVIL}", path="/cache/noisy", rows=600, columns=["question"], format="mcq",
            answer_style="terse", licence=None, defects=[noise], measures={"label_noise": 0.3017}, verdict="rejected",
            reason="too many wrong letters",
        )  # fmt: skip
        ids["profile"] = post(profile, author="data").id
        verdict = ContaminationVerdict(
            sha256="b" * 64, passed=True, rows_checked=500, rows_matched=0, benchmark_items=1200, by_check={"exact": 0}
        )
        training_set = TrainingSet(
            sha256="b" * 64, path=f"data/{'b' * 64}/train.jsonl", rows=500, method="sft", style="worked",
            sources=[SourceShare(dataset="clean", rows_in=520, rows_out=500, dropped={"duplicate": 20})],
            contamination=verdict, mean_tokens=80, max_tokens=200, seed=7,
        )  # fmt: skip
        ids["set"] = post(training_set, author="data", refs=[ids["profile"]]).id

    def experiment(self, score: float | None, *, parent: str = "base", method: str = "sft", action: str) -> str:
        post, ids = self.board.post, self.ids
        node = Experiment.model_validate(
            {
                "parent": parent, "hypothesis": f"{method} on worked solutions helps", "method": method,
                "training_set": ids["set"], "config": {"learning_rate": 1e-3}, "seed": 7, "recipe": ids["recipe"],
            }
        )  # fmt: skip
        name = post(node, author="trainer", refs=[ids["set"]], status="hypothesis").id
        self.metrics(name, "reward" if method == "grpo" else "loss")
        self.job(name, "train", name, ok=score is not None)
        support = [name]
        if score is None:
            numbers = [MetricEvidence(metric="loss", step=9, value=40.0, threshold=10.0)]
            diagnosis = Diagnosis(cause="divergence", evidence=numbers, confidence=0.9, advice="halve the rate")
            support = [post(diagnosis, author="crew", refs=[name]).id]
        else:
            self.job(f"{name}-dev", "evaluate", name)
            ids[f"{name}-dev"] = post(evaluation(name, "dev", score), author="crew", refs=[ids[f"{name}-dev:job"]]).id
            comparison = self.compare(name, "base", "dev", score - 0.1234)
            support = [comparison]
        decision = Decision.model_validate({"action": action, "subject": name, "reason": f"{action} by the interval"})
        post(decision, author="crew", refs=support, status="decision")
        return name

    def compare(self, candidate: str, reference: str, split: str, delta: float) -> str:
        body = Comparison.model_validate(
            {
                "candidate": candidate, "reference": reference, "split": split, "metric": "strict", "n": 600,
                "delta": delta, "ci_low": delta - 0.04, "ci_high": delta + 0.04, "p_value": 1.5e-30, "gained": 420,
                "lost": 6,
            }
        )  # fmt: skip
        refs = [self.ids[f"{candidate}-{split}"], self.ids[f"{reference}-{split}"]]
        return self.board.post(body, author="crew", refs=refs).id

    def metrics(self, name: str, metric: str) -> None:
        folder = self.run.experiments / name
        folder.mkdir(parents=True)
        rows = [{"step": step, metric: 2.0 / step} for step in range(1, 61)]
        text = "\n".join(json.dumps(row) for row in rows) + '\n{"step": 61, "lo'  # as a kill leaves it
        (folder / "metrics.jsonl").write_text(text)

    def finish(self, best: str) -> None:
        post, ids = self.board.post, self.ids
        incident = Incident(where="literature", what="arXiv is down", instead="the shipped library was used")
        post(incident, author="crew")
        stop = Decision(action="stop", subject=best, reason="the goal is reached")
        post(stop, author="coordinator", refs=[ids[f"{best}-dev"]], status="decision")
        post(TestLook(subjects=["base", best], purpose="final gate"), author="crew", refs=[ids[f"{best}-dev"]])
        for subject, score in (("base", 0.1317), (best, 0.8117)):
            self.job(f"{subject}-test", "evaluate", subject)
            ids[f"{subject}-test"] = post(
                evaluation(subject, "test", score), author="crew", refs=[ids[f"{subject}-test:job"]]
            ).id
        comparison = self.compare(best, "base", "test", 0.68)
        accept = Decision(action="accept", subject=best, reason="the interval is above zero")
        post(accept, author="crew", refs=[comparison], status="decision")
        self.run.manifest.write_text(json.dumps({"versions": {"trl": "1.16"}, "seed": 7}))

    def status(self, **changes: object) -> None:
        status = {
            "run": self.run.id, "target": "gpqa-mini", "state": "finished", "phase": "done",
            "started_at": "2026-01-01T00:00:00+00:00", "elapsed_s": 300.0, "hours": 0.5, "best": "exp-1",
            "best_score": 0.8, "best_ci": [0.77, 0.83], "baseline_score": 0.1234, "goal": 0.75, "running": [],
            "working": None, "experiments": 3, "verdict": "improved", "summary": None, "pid": 1,
        }  # fmt: skip
        self.run.status.write_text(json.dumps({**status, **changes}))


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """An empty run in tmp_path/runs/demo."""
    return RunMaker(tmp_path / "runs" / "demo")


@pytest.fixture
def finished(maker: RunMaker) -> RunMaker:
    """A finished run: baseline, a promoted SFT, a diverged one, a promoted GRPO on top, an improved test score."""
    maker.begin()
    maker.baseline()
    maker.research()
    first = maker.experiment(0.55, action="promote")
    maker.experiment(None, action="abandon")
    maker.experiment(0.5, action="discard")
    best = maker.experiment(0.8, parent=first, method="grpo", action="promote")
    maker.finish(best)
    maker.status(best=best, experiments=4)
    return maker
