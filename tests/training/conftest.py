"""A run with a hand-made base, for the training tools without any training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.blackboard import Blackboard, Entry
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.entries import ContaminationVerdict, RunStarted, SourceShare, TrainingSet
from posttrain_crew.events import Events
from posttrain_crew.files import sha256_file
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.target import EvaluationTask, Target, Training
from posttrain_crew.tools.compute.base import Backend, Capacity, JobHandle, JobSpec, JobState
from posttrain_crew.tools.workspace import Workspace


@dataclass
class ScriptedCompute(Backend):
    """A backend on which every job ends at once with the outcome that the test wants."""

    name: str = "scripted"
    outcome: dict[str, Any] | None = field(
        default_factory=lambda: {"ok": True, "steps": 2, "wall_s": 3.0, "metrics": {"seconds_per_step": 0.5}}
    )
    memory_gib: float = 8.0
    slots: int = 2
    state: JobState = "ended"
    submitted: list[JobSpec] = field(default_factory=list)

    def submit(self, spec: JobSpec) -> JobHandle:
        self.submitted.append(spec)
        if self.outcome is not None and (self.state == "ended" or spec.label.startswith("smoke")):
            (spec.config.parent / "outcome.json").write_text(json.dumps(self.outcome))
        return JobHandle(spec.label, self.name, spec.config.parent, spec.label)

    def find(self, label: str, directory: Path) -> JobHandle | None:
        known = any(spec.label == label for spec in self.submitted)
        return JobHandle(label, self.name, directory, label) if known else None

    def status(self, handle: JobHandle) -> JobState:
        return self.state

    def logs(self, handle: JobHandle, tail: int = 100) -> str:
        return ""

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        return None

    def capacity(self) -> Capacity:
        return Capacity(self.slots, "cpu", self.memory_gib, 1, "scripted")


@pytest.fixture
def compute() -> ScriptedCompute:
    return ScriptedCompute()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model directory of which only the shape can be read."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"],
                "num_hidden_layers": 2,
                "hidden_size": 64,
                "vocab_size": 512,
                "num_attention_heads": 4,
            }
        )
    )
    header = json.dumps({"w": {"dtype": "F32", "shape": [1000, 100], "data_offsets": [0, 400_000]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(400_000))
    return folder


@pytest.fixture
def workspace(tmp_path: Path, base: Path, compute: ScriptedCompute) -> Workspace:
    run = RunDirectory.create(tmp_path / "run-1")
    board = Blackboard(run.blackboard, create=True)
    board.post(
        RunStarted(
            run="run-1",
            target="t",
            base_model="base",
            base_model_path=str(base),
            llm="playbook",
            seed=3,
            hours=1.0,
        ),
        author="crew",
    )
    target = Target(
        name="t",
        title="t",
        description="t",
        base_model=str(base),
        evaluation=EvaluationTask(dev_task="dev", test_task="test"),
        items="jsonl:none",
        training=Training(
            sft={"learning_rate": 1e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8, "max_length": 128},
            grpo={
                "learning_rate": 1e-4,
                "max_steps": 10,
                "per_device_train_batch_size": 16,
                "num_generations": 4,
                "max_completion_length": 32,
            },
            seconds_per_step={"sft": 0.2, "grpo": 1.5},
        ),
    )
    return Workspace(board, run, target, Budget(board, Limits(hours=1.0)), compute, Events(run.events))


@pytest.fixture
def training_set(workspace: Workspace) -> Callable[..., Entry[TrainingSet]]:
    """Posts a prepared file."""

    def make(method: str = "sft", rows: int = 20, passed: bool = True) -> Entry[TrainingSet]:
        folder = workspace.run.data / f"{method}-{rows}"
        folder.mkdir(parents=True)
        path = folder / "train.jsonl"
        prompt = [{"role": "user", "content": "6 * 7?\n(A) 41\n(B) 42"}]
        row: dict[str, Any] = {"prompt": prompt, "answer": "B"}
        if method == "sft":
            row = {"prompt": prompt, "completion": [{"role": "assistant", "content": "6 * 7 = 42\nAnswer: B"}]}
        if method == "dpo":
            chosen, rejected = ([{"role": "assistant", "content": f"Answer: {letter}"}] for letter in "BA")
            row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        path.write_text("".join(json.dumps(row) + "\n" for _ in range(rows)))
        digest = sha256_file(path)
        verdict = ContaminationVerdict(
            sha256=digest,
            passed=passed,
            rows_checked=rows,
            rows_matched=0 if passed else 2,
            benchmark_items=10,
            by_check={},
        )
        body = TrainingSet(
            sha256=digest,
            path=workspace.run.relative(path),
            rows=rows,
            method=method,  # type: ignore[arg-type]
            style="worked",
            sources=[SourceShare(dataset="d", rows_in=rows, rows_out=rows)],
            contamination=verdict,
            mean_tokens=30.0,
            max_tokens=40,
            seed=0,
        )
        return workspace.board.post(body, author="data", refs=("run-1",))

    return make
