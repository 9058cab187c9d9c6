"""What the data agent can have made: gates before it, a job for it, and an audit after it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain_crew.budget import Budget, Limits
from posttrain_crew.entries import JobOutcome, JobStarted
from posttrain_crew.errors import GateError, InputError, JobError
from posttrain_crew.files import sha256_file
from posttrain_crew.tools.compute.base import JobHandle, JobSpec, JobState
from posttrain_crew.tools.compute.local import LocalCompute
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.cleaning import read
from posttrain_crew.tools.data.desk import DataDesk
from posttrain_crew.tools.data.synthesis import run
from posttrain_crew.tools.data.synthesis.desk import SynthesisDesk, synthetic_datasets
from posttrain_crew.tools.embedded.benchmark import train_items
from posttrain_crew.tools.tool import tools_of

from ..conftest import MakeWorkspace, ScriptedCompute
from .tiny_server import TinyServer, server

__all__ = ["server"]

STEPS, FEW = "lab/steps", "lab/few"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Two candidates: one that is clean, and one of 20 rows, which an audit rejects."""
    root = tmp_path / "shelf"
    for name, count in ((STEPS, 160), (FEW, 20)):
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n\n# Steps\n")
        rows = [
            {"question": item.question, "choices": item.choices, "answer": item.answer, "solution": item.solution}
            for item in train_items(count, name)
        ]
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


class InProcess(ScriptedCompute):
    """Runs the job's module here. The first `kills` jobs end without an outcome, as killed ones do."""

    def __init__(self, kills: int = 0) -> None:
        super().__init__()
        self.kills = kills

    def submit(self, spec: JobSpec) -> JobHandle:
        self.submitted.append(spec.label)
        if self.kills:
            self.kills -= 1
        else:
            run.main([str(spec.config)])
        return JobHandle(spec.label, self.name, spec.config.parent, "1")

    def status(self, handle: JobHandle) -> JobState:
        return "ended"


def test_gates_before_anything_is_sampled(make_workspace: MakeWorkspace, shelf: Path) -> None:
    compute = InProcess()
    workspace = make_workspace([shelf], compute=compute)
    desk = SynthesisDesk(workspace)
    with pytest.raises(InputError, match="needs `dataset`"):
        desk.synthesize_rows("rejection_sampling")
    with pytest.raises(GateError, match="not audited"):
        desk.synthesize_rows("rejection_sampling", STEPS)
    DataDesk(workspace).audit_dataset(FEW)
    with pytest.raises(GateError, match="rejected"):
        desk.synthesize_rows("rejection_sampling", FEW)
    with pytest.raises(InputError, match="`llm`"):
        desk.synthesize_rows("specification", parameters={"spec": "hedged_medical"})
    with pytest.raises(InputError, match="playbook"):
        desk.synthesize_rows("specification", parameters={"spec": "hedged_medical"}, model="llm")
    with pytest.raises(InputError, match="emergency_messages"):  # a path would let an agent read any file
        desk.synthesize_rows("specification", parameters={"spec": "/etc/passwd"}, model="llm")
    with pytest.raises(InputError, match="5000"):
        desk.synthesize_rows("procedural", rows=10**6)
    with pytest.raises(InputError, match="no verifier truth"):
        desk.synthesize_rows("procedural", verifiers=["truth"])
    assert compute.submitted == [] and synthetic_datasets(workspace) == []
    tools = {tool.name: tool for tool in tools_of(desk)}
    answer = json.loads(tools["synthesize_rows"]({"generator": "procedural", "parameters": {"colour": 1}}))
    assert answer["error"] == "InputError" and "colour" in answer["message"] and compute.submitted == []
    listed = json.loads(tools["list_generators"]({}))
    assert {"rejection_sampling", "answer_match"} <= {each["name"] for each in listed}


def test_made_by_a_job_and_audited_like_any_other(make_workspace: MakeWorkspace, shelf: Path) -> None:
    compute = InProcess()
    workspace = make_workspace([shelf], compute=compute)
    desk = SynthesisDesk(workspace)
    made = desk.synthesize_rows("gpqa_mini_train", rows=160, parameters={"level": 3})
    assert made["rows"] == made["counts"]["verified"]["out"] == 160 and made["left_out"] == {}
    assert desk.synthesize_rows("gpqa_mini_train", rows=160, parameters={"level": 3}) == made
    assert len(compute.submitted) == 1
    (dataset,) = synthetic_datasets(workspace)
    assert dataset.name == made["dataset"] and sha256_file(dataset.files[0]) == made["sha256"]
    auditor = Auditor(workspace.target)
    profile = auditor.audit(auditor.examine(read(dataset)))
    assert profile.verdict != "rejected" and profile.measures["contamination_rate"] == 0


def test_a_killed_job_goes_on_when_it_is_asked_for_again(make_workspace: MakeWorkspace, shelf: Path) -> None:
    compute = InProcess(kills=1)
    workspace = make_workspace([shelf], compute=compute)
    with pytest.raises(JobError, match="killed"):
        SynthesisDesk(workspace).synthesize_rows("procedural", rows=40)
    made = SynthesisDesk(workspace).synthesize_rows("procedural", rows=40)
    assert made["rows"] == 40 and len(compute.submitted) == 2
    assert SynthesisDesk(workspace).synthesize_rows("procedural", rows=40) == made and len(compute.submitted) == 2
    assert [entry.body.attempt for entry in workspace.board.of(JobStarted)] == [1, 2]


def test_the_runs_language_model_is_asked_within_its_budget(
    make_workspace: MakeWorkspace, shelf: Path, server: TinyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREW_LLM_BASE_URL", server.url)
    monkeypatch.setenv("CREW_LLM_API_KEY", "sk-very-secret-indeed-1234")
    workspace = make_workspace([shelf], compute=InProcess())
    asked = workspace.started.model_copy(update={"llm": "openai/tiny"})
    workspace.board.post(asked, author="crew")
    DataDesk(workspace).audit_dataset(STEPS)
    desk = SynthesisDesk(workspace)
    how: dict[str, str | int | float | bool] = {"samples": 1}
    made = desk.synthesize_rows("rejection_sampling", STEPS, 4, how, model="llm", verifiers=["answer_match"])
    assert made["rows"] == made["counts"]["generated"]["kept"] == 4
    paid = len(server.answered)
    usage = workspace.budget.usage()
    assert usage.tokens == 42 * paid > 0  # what was set aside and not used is given back
    assert desk.synthesize_rows("rejection_sampling", STEPS, 4, how, model="llm", verifiers=["answer_match"]) == made
    assert len(server.answered) == paid and workspace.budget.usage().tokens == usage.tokens
    written = [path.read_text(errors="ignore") for path in workspace.run.data.rglob("*") if path.is_file()]
    assert not any("very-secret" in text for text in written)
    poor = replace(workspace, budget=Budget(workspace.board, Limits(hours=1.0, tokens=42 * paid + 2500)))
    few = SynthesisDesk(poor).synthesize_rows("rejection_sampling", STEPS, 40, how, model="llm", verifiers=["format"])
    assert few["left_out"]["budget"] > 0 and poor.budget.usage().tokens <= 42 * paid + 2500


@pytest.mark.slow
def test_rejection_sampling_as_a_real_job(
    make_workspace: MakeWorkspace, shelf: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_workspace([shelf], compute=LocalCompute(slots=1, threads_per_job=1), base_model=base_model)
    DataDesk(workspace).audit_dataset(STEPS)
    how: dict[str, str | int | float | bool] = {"samples": 4, "max_tokens": 40, "answer_rule": "lenient"}
    made = SynthesisDesk(workspace).synthesize_rows("rejection_sampling", STEPS, 20, how, difficulty=True)
    outcome = workspace.board.of(JobOutcome)[-1].body
    assert outcome.ok and outcome.metrics["rows"] == made["rows"] > 0 and outcome.metrics["tokens"] > 0
    (dataset,) = synthetic_datasets(workspace)
    rows = [row for row in dataset.rows() if row is not None]
    assert all(str(row["parent"]).startswith(f"{STEPS}#") and row["model"] == "base" for row in rows)
    assert dataset.card.source_datasets == (STEPS,) and dataset.card.licence == "cc-by-4.0"
