"""A target, its catalogues and a run to work in, all in temporary folders; no torch anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

import posttrain_crew.targets
from posttrain_crew.blackboard import Blackboard
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.entries import Evaluation, RunStarted
from posttrain_crew.events import Events
from posttrain_crew.files import atomic_write_json, sha256_file
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.target import Target, load_target
from posttrain_crew.tools.compute.base import Backend, Capacity, JobHandle, JobSpec, JobState
from posttrain_crew.tools.data import audit
from posttrain_crew.tools.data.audit import Auditor
from posttrain_crew.tools.data.cleaning import Examination, Reading, examine, read
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.labels import answers_by_question
from posttrain_crew.tools.data.reader import RawRow, open_dataset
from posttrain_crew.tools.embedded.catalogue import write_catalogue
from posttrain_crew.tools.workspace import Workspace

TARGET = Path(posttrain_crew.targets.__path__[0]) / "gpqa-mini.yaml"

Counts = dict[str, dict[str, int]]


@pytest.fixture(scope="session", autouse=True)
def once() -> Iterator[None]:
    """What takes seconds is done once a session for the same input: a benchmark's index, the checks of a file or row.

    Both depend on nothing but that input; each is still done for real the first time.
    """
    indices: dict[str, ContaminationIndex] = {}
    examined: dict[tuple[object, ...], Examination] = {}
    of_target = ContaminationIndex.of_target

    def index_of(target: Target) -> ContaminationIndex:
        key = target.model_dump_json(exclude={"candidates", "deny_datasets"})
        if key not in indices:
            indices[key] = of_target(target)
        return indices[key]

    def examine_once(reading: Reading, index: ContaminationIndex, similarity: float) -> Examination:
        digests = tuple(map(sha256_file, reading.dataset.files))
        key = (digests, len(reading.examples), reading.format, id(index), similarity)
        if id(index) not in map(id, indices.values()) or not digests:
            return examine(reading, index, similarity)
        if key not in examined:
            examined[key] = examine(reading, index, similarity)
        return replace(examined[key], reading=reading)

    matched: dict[tuple[int, str], str | None] = {}
    match_raw = ContaminationIndex.match_raw

    def match_once(index: ContaminationIndex, row: RawRow | None) -> str | None:
        if not any(index is each for each in indices.values()):
            return match_raw(index, row)
        key = (id(index), json.dumps(row, default=str))
        if key not in matched:
            matched[key] = match_raw(index, row)
        return matched[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContaminationIndex, "match_raw", match_once)
        patch.setattr(ContaminationIndex, "of_target", staticmethod(index_of))
        patch.setattr(audit, "examine", examine_once)
        yield


@pytest.fixture(scope="session")
def target() -> Target:
    return load_target(TARGET)


@pytest.fixture(scope="session")
def auditor(target: Target) -> Auditor:
    return Auditor(target)


@dataclass
class Catalogue:
    """The six candidates, examined."""

    root: Path
    examined: dict[str, Examination]
    answers: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def others(self, name: str) -> list[dict[str, set[str]]]:
        return [answers for other, answers in self.answers.items() if other != name]


def _catalogue(auditor: Auditor, root: Path, noise: bool) -> Catalogue:
    examined = {
        name: auditor.examine(read(open_dataset(root / name, name)))
        for name in write_catalogue(root, seed=0, noise_all_labels=noise)
    }
    answers = {name: answers_by_question(map(each.example, each.readable)) for name, each in examined.items()}
    return Catalogue(root, examined, answers)


@pytest.fixture(scope="session")
def catalogue(auditor: Auditor, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return _catalogue(auditor, tmp_path_factory.mktemp("catalogue"), noise=False)


@pytest.fixture(scope="session")
def noise(auditor: Auditor, tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return _catalogue(auditor, tmp_path_factory.mktemp("noise"), noise=True)


class ScriptedCompute(Backend):
    """A backend whose probe job ends at once with the counts it was given. Counts its submissions."""

    name = "scripted"

    def __init__(self) -> None:
        self.counts: Counts = {}
        self.submitted: list[str] = []

    def submit(self, spec: JobSpec) -> JobHandle:
        self.submitted.append(spec.label)
        directory = spec.config.parent
        atomic_write_json(directory / "probe.json", self.counts)
        atomic_write_json(
            directory / "outcome.json",
            {"ok": True, "error_class": None, "message": "", "wall_s": 1.0, "steps": 1, "checkpoint": None,
             "metrics": {}},
        )  # fmt: skip
        return JobHandle(spec.label, self.name, directory, "1")

    def find(self, label: str, directory: Path) -> JobHandle | None:
        return JobHandle(label, self.name, directory, "1") if label in self.submitted else None

    def status(self, handle: JobHandle) -> JobState:
        return "ended"

    def logs(self, handle: JobHandle, tail: int = 100) -> str:
        return ""

    def cancel(self, handle: JobHandle, grace_s: float = 5.0) -> None:
        raise AssertionError("nothing here is cancelled")

    def capacity(self) -> Capacity:
        return Capacity(1, "cpu", 1.0, 1, "scripted")


MakeWorkspace = Callable[..., Workspace]


@pytest.fixture
def make_workspace(tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorkspace]:
    """A workspace on real parts. Arguments: `places` for the candidates, `accuracy` of the base, `base_model`."""
    monkeypatch.setenv("CREW_CACHE", str(tmp_path / "cache"))
    boards: list[Blackboard] = []

    def make(
        places: list[Path] | None = None,
        accuracy: float | None = 0.5,
        base_model: Path | None = None,
        compute: object | None = None,
        deny: list[str] | None = None,
    ) -> Workspace:
        run = RunDirectory.create(tmp_path / "run")
        board = Blackboard(run.blackboard, create=True)
        boards.append(board)
        if base_model is None:
            base_model = tmp_path / "base"
            base_model.mkdir()
            (base_model / "config.json").write_text('{"max_position_embeddings": 1024}')
        update: dict[str, object] = {"deny_datasets": deny or []}
        if places is not None:
            update["candidates"] = list(map(str, places))
        changed = target.model_copy(update=update)
        started = board.post(
            RunStarted(run="run", target=target.name, base_model="x", base_model_path=str(base_model), llm="playbook",
                       seed=0, hours=1.0),
            author="crew",
        )  # fmt: skip
        if accuracy is not None:
            board.post(
                Evaluation(subject="base", split="dev", task="gpqa_mini_dev", few_shot=0, n=600, score=0.1, ci_low=0.05,
                           ci_high=0.15, lenient_score=accuracy, lenient_ci_low=accuracy - 0.04,
                           lenient_ci_high=accuracy + 0.04, format_valid_rate=0.1, accuracy_given_valid=0.5,
                           mean_output_chars=30, truncated_rate=0.0, harness="lm_eval", directory="evaluations/base",
                           samples_sha256="0" * 64),
                author="crew",
                refs=[started.id],
            )  # fmt: skip
        budget = Budget(board, Limits(hours=1.0))
        return Workspace(board, run, changed, budget, compute or ScriptedCompute(), Events(run.events))  # type: ignore[arg-type]

    yield make
    for board in boards:
        board.close()
