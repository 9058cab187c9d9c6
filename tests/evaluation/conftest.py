"""Evaluations made of chosen answers: the files that a job would have left, without the job."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Evaluation, Experiment, Incident, JobOutcome, JobStarted
from posttrain_crew.files import atomic_write_json, sha256_file
from posttrain_crew.tools.evaluation.collect import collect
from posttrain_crew.tools.workspace import Workspace

Evaluated = Callable[..., Entry[Evaluation]]


def write_result_files(
    directory: Path, strict: Sequence[bool], lenient: Sequence[bool], split: str, few_shot: int, salt: str
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "doc_id": i,
            "id": f"item-{i}",
            "doc_hash": f"d{i}",
            "prompt_hash": f"p{i}{salt}",
            "target": "A",
            "response": "Answer: A" if ok else "hm",
            "strict_answer": "A" if ok else "[invalid]",
            "strict_ok": ok,
            "lenient_answer": "A" if patient else "B",
            "lenient_ok": patient,
        }
        for i, (ok, patient) in enumerate(zip(strict, lenient, strict=True))
    ]
    samples = directory / "samples.jsonl"
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results: dict[str, Any] = {
        "task": f"gpqa_mini_{split}",
        "split": split,
        "few_shot": few_shot,
        "n": len(lines),
        "strict": {"correct": sum(strict)},
        "lenient": {"correct": sum(lenient)},
        "invalid_answer": "[invalid]",
        "truncated": 3,
        "generated": len(lines),
        "harness": "lm-eval 0",
        "samples_sha256": sha256_file(samples),
        "versions": {"torch": "0"},
    }
    atomic_write_json(directory / "results.json", results)
    atomic_write_json(directory / "outcome.json", {"ok": True, "wall_s": 4.0, "steps": len(lines), "metrics": {}})


@pytest.fixture
def experiment(workspace: Workspace, make_model: Callable[..., Path]) -> Callable[..., str]:
    """Posts an experiment with a finished checkpoint and returns its id."""

    def make(purpose: str = "candidate", ablates: str | None = None) -> str:
        board = workspace.board
        support = board.post(Incident(where="t", what="w", instead="i"), author="test")
        entry = board.post(
            Experiment.model_validate(
                {
                    "parent": "base",
                    "hypothesis": "it helps",
                    "method": "sft",
                    "training_set": support.id,
                    "config": {"learning_rate": 1e-3},
                    "seed": 0,
                    "purpose": purpose,
                    "ablates": ablates,
                }
            ),
            author="trainer",
            refs=(support.id,),
        )
        folder = workspace.run.experiments / entry.id
        make_model(folder / "model", entry.id)
        job = board.post(
            JobStarted(
                label=entry.id,
                role="train",
                subject=entry.id,
                backend="local",
                module="m",
                directory=workspace.run.relative(folder),
                estimate_seconds=1,
            ),
            author="crew",
            refs=(entry.id,),
        )
        board.post(
            JobOutcome(label=entry.id, ok=True, wall_s=1, checkpoint=workspace.run.relative(folder / "model")),
            author="crew",
            refs=(job.id,),
        )
        return entry.id

    return make


@pytest.fixture
def evaluated(workspace: Workspace) -> Evaluated:
    """Posts the evaluation of a subject whose first `strict` (and `lenient`) of `n` items are right."""

    def make(
        subject: str,
        strict: int | Sequence[bool],
        lenient: int | None = None,
        n: int = 200,
        split: str = "dev",
        few_shot: int = 0,
        salt: str = "",
    ) -> Entry[Evaluation]:
        right = [i < strict for i in range(n)] if isinstance(strict, int) else list(strict)
        patient = right if lenient is None else [i < lenient for i in range(len(right))]
        label = f"{subject}-{split}" + (f"-{few_shot}shot" if few_shot else "")
        folder = workspace.run.evaluations / label
        write_result_files(folder, right, patient, split, few_shot, salt)
        job = workspace.board.post(
            JobStarted(
                label=label,
                role="evaluate",
                subject=subject,
                backend="local",
                module="m",
                directory=workspace.run.relative(folder),
                estimate_seconds=1,
            ),
            author="crew",
            key=f"job:{label}",
        )
        workspace.board.post(
            JobOutcome(label=label, ok=True, wall_s=4.0), author="crew", refs=(job.id,), key=f"outcome:{label}"
        )
        return collect(workspace, job)

    return make
