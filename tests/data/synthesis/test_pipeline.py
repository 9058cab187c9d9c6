"""The pipeline on rows whose faults are known: each is dropped at its stage, and counted there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from posttrain_crew.errors import DatasetError, GateError, InputError
from posttrain_crew.files import sha256_file
from posttrain_crew.target import Target
from posttrain_crew.tools.data.audit import audit_path
from posttrain_crew.tools.data.contamination import ContaminationIndex, Matches
from posttrain_crew.tools.data.formats import Example
from posttrain_crew.tools.data.rendering import render_completion
from posttrain_crew.tools.data.synthesis.base import NoParameters, Request, SyntheticRow
from posttrain_crew.tools.data.synthesis.chat import ChatSampler
from posttrain_crew.tools.data.synthesis.dataset_card import Origin
from posttrain_crew.tools.data.synthesis.pipeline import Samplers, synthesize
from posttrain_crew.tools.data.synthesis.plan import Card, Difficulty, Plan, Upsampling, VerifierChoice
from posttrain_crew.tools.data.synthesis.rows import make_row
from posttrain_crew.tools.data.synthesis.run import JobConfig, carry_out
from posttrain_crew.tools.data.synthesis.sources import usable_sources
from posttrain_crew.tools.embedded.benchmark import Item, items, train_items
from posttrain_crew.tools.sources import benchmark_items

from .conftest import Planted, ScriptedWriter, example_of, questions

CHECKS = [VerifierChoice(name=name) for name in ("answer_match", "format", "arithmetic_check")]


def row_of(item: Item, target: Target, completion: str | None = None, weight: float = 1.0) -> SyntheticRow:
    example = example_of(item)
    told = completion or render_completion(example, item.answer, target.answer, worked=True)
    working = told.rpartition("\n")[0] or None
    return make_row(
        example, Request(1, 3, target, NoParameters()), completion=told, label=item.answer, solution=working,
        generator="planted", parent=item.id, model="computed", weight=weight,
    )  # fmt: skip


def plan(**more: object) -> Plan:
    return Plan.model_validate(
        {"name": "t", "generator": "planted", "rows": 1000, "seed": 3, "verifiers": CHECKS} | more
    )


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "data/train.jsonl").read_text(encoding="utf-8").splitlines()]


def test_planted_faults_are_dropped_and_counted(
    planted: type[Planted], target: Target, index: ContaminationIndex, tmp_path: Path
) -> None:
    good = train_items(60, "good")
    rows = [row_of(item, target) for item in good]
    rows += [row_of(item, target) for item in good[:7]]  # word for word
    rows += [row_of(replace(item, question=f"Please, {item.question}"), target) for item in good[7:12]]  # nearly
    rows += [row_of(item, target) for item in [*items("dev")[:9], *items("test")[:8]]]  # the benchmark's own
    wrong = train_items(5, "other")
    letters = [next(letter for letter in "ABCD" if letter != item.answer) for item in wrong]
    rows += [row_of(i, target, f"{i.solution}\nAnswer: {x}") for i, x in zip(wrong, letters, strict=True)]
    sums = [row_of(item, target, f"2 * 7 = 13, so ({item.answer}).\nAnswer: {item.answer}") for item in wrong[:3]]
    late = [row_of(item, target, f"Answer: {item.answer}\nor so") for item in wrong[:2]]
    planted.rows = [*rows, *sums, *late]

    card = synthesize(plan(), target, tmp_path / "out", index=index, samplers=Samplers(), origin=Origin(licence="mit"))

    assert card.counts["generated"] == {"out": 99}
    assert card.counts["verified"] == {
        "in": 99, "answer_match: another answer": 5, "format: text after the answer line": 2,
        "arithmetic_check: a wrong equation": 3, "out": 89,
    }  # fmt: skip
    found = card.counts["deduplicated"]
    assert (found["exact"], found["near"], found["out"]) == (7, 5, 77)
    assert card.counts["decontaminated"] == {"exact": 17, "out": 60}
    kept = lines(tmp_path / "out")
    assert card.rows == len(kept) == 60 and card.sha256 == sha256_file(tmp_path / "out/data/train.jsonl")
    assert card.contamination.passed and card.contamination.sha256 == card.sha256
    held_out = {item.question for split in ("dev", "test") for item in items(split)}  # type: ignore[arg-type]
    assert not held_out & {str(row["question"]) for row in kept}
    for row in kept:
        assert row["generator"] == "planted" and row["seed"] == 3 and row["model"] == "computed"
        assert row["parent"] in {item.id for item in good} and len(str(row["parent_sha256"])) == 64
        assert row["checks"] == {"answer_match": "ok", "format": "ok", "arithmetic_check": "ok"}
    profile = audit_path(tmp_path / "out", target)
    assert (profile.rows, profile.licence, profile.measures["contamination_rate"]) == (60, "mit", 0)
    assert profile.measures["exact_duplicate_rate"] == 0 and profile.measures["missing_answer_rate"] == 0
    assert profile.measures["workings_checked"] == 60 and profile.answer_style == "worked"
    stored = Card.model_validate_json((tmp_path / "out/provenance/card.json").read_text())
    assert stored == card and "deduplicated" in (tmp_path / "out/README.md").read_text()


def test_difficulty_keeps_what_the_student_gets_right_sometimes(
    planted: type[Planted], target: Target, index: ContaminationIndex, tmp_path: Path
) -> None:
    chosen = train_items(30, "difficulty")
    planted.rows = [row_of(item, target) for item in chosen]
    right = {item.question: item.answer for item in chosen}
    group = {item.question: i % 3 for i, item in enumerate(chosen)}  # 0 always, 1 never, 2 every other time

    def answer(messages: list[dict[str, str]], seed: int) -> str:
        asked = messages[-1]["content"].partition("\n")[0]
        good = group[asked] == 0 or (group[asked] == 2 and seed % 2 == 0)
        return f"Answer: {right[asked]}" if good else "I do not know."

    student = ChatSampler(ScriptedWriter(answer))
    wanted = plan(difficulty=Difficulty(samples=4))
    card = synthesize(wanted, target, tmp_path / "a", index=index, samplers=Samplers(student=student))
    assert card.counts["difficulty"] == {"too_easy": 10, "too_hard": 10, "within": 10, "out": 10}
    assert {(group[str(row["question"])], row["pass_rate"]) for row in lines(tmp_path / "a")} == {(2, 0.5)}

    hard = plan(difficulty=Difficulty(samples=4, high=0.9), upsampling=Upsampling(hard_weight=3.0, max_repeats=2))
    card = synthesize(hard, target, tmp_path / "b", index=index, samplers=Samplers(student=student))
    assert card.counts["upsampled"] == {"rows_2_times": 10, "out": 20} and (card.rows, card.distinct) == (20, 10)
    assert sorted(str(row["copy"]) for row in lines(tmp_path / "b")) == ["0"] * 10 + ["1"] * 10
    with pytest.raises(InputError, match="student"):
        synthesize(wanted, target, tmp_path / "c", index=index, samplers=Samplers())


def test_weights_thin_out_and_repeat_by_seed(
    planted: type[Planted], target: Target, index: ContaminationIndex, tmp_path: Path
) -> None:
    chosen = train_items(200, "weights")
    planted.rows = [row_of(item, target, weight=0.25 if i < 100 else 2.5) for i, item in enumerate(chosen)]
    wanted = plan(upsampling=Upsampling(max_repeats=3))
    card = synthesize(wanted, target, tmp_path / "a", index=index, samplers=Samplers())
    light = {item.id for item in chosen[:100]}
    parents = [row["parent"] for row in lines(tmp_path / "a")]
    assert 10 <= sum(parent in light for parent in parents) <= 45
    heavy = sum(parent not in light for parent in parents)
    assert 220 <= heavy <= 280
    again = synthesize(wanted, target, tmp_path / "b", index=index, samplers=Samplers())
    assert again.sha256 == card.sha256


def test_same_folder_same_plan_or_refused(
    planted: type[Planted], target: Target, index: ContaminationIndex, tmp_path: Path
) -> None:
    planted.rows = [row_of(item, target) for item in train_items(20, "again")]
    first = synthesize(plan(), target, tmp_path, index=index, samplers=Samplers())
    planted.rows = ()  # nothing is made again: the finished folder is the answer
    assert synthesize(plan(), target, tmp_path, index=index, samplers=Samplers()) == first
    with pytest.raises(InputError, match="another plan"):
        synthesize(plan(seed=4), target, tmp_path, index=index, samplers=Samplers())
    (tmp_path / "data/train.jsonl").write_text("changed")
    with pytest.raises(DatasetError, match="no row is left"):  # a damaged file is not passed on as finished
        synthesize(plan(), target, tmp_path, index=index, samplers=Samplers())
    other = tmp_path / "taken"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="other files"):
        synthesize(plan(), target, other, index=index, samplers=Samplers())


def test_contamination_fails_closed(
    planted: type[Planted],
    target: Target,
    index: ContaminationIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planted.rows = [row_of(item, target) for item in train_items(20, "closed")]
    unreadable = target.model_copy(update={"items": "jsonl:/nowhere/{split}.jsonl"})
    with pytest.raises(DatasetError):
        carry_out(JobConfig.of(plan(), unreadable, tmp_path / "a"))
    assert not (tmp_path / "a").exists()

    class Blind(ContaminationIndex):
        def check(self, rows: Iterable[Example]) -> Matches:
            return Matches((), {}, len(list(rows)))

    planted.rows = [*planted.rows, row_of(items("test")[0], target)]
    blind = Blind([*benchmark_items(target, "dev"), *benchmark_items(target, "test")])
    with pytest.raises(
        GateError, match="1 of 21 rows"
    ):  # the finished file is checked as a whole, whatever came before
        synthesize(plan(), target, tmp_path / "a", index=blind, samplers=Samplers())
    assert not list((tmp_path / "a").rglob("train.jsonl")) and not list((tmp_path / "a").rglob("card.json"))
    with pytest.raises(GateError, match="sandbox"):
        runs_code = plan(verifiers=[VerifierChoice(name="code_tests")])
        monkeypatch.setenv("PATH", str(tmp_path))
        synthesize(runs_code, target, tmp_path / "b", index=index, samplers=Samplers())


def test_benchmark_questions_are_never_sampled_from(target: Target, index: ContaminationIndex) -> None:
    mixed = [source.example for source in questions(30)] + [example_of(item) for item in items("test")[:10]]
    unlabelled = replace(mixed[0], answer=None, question="What is the mass in kg if nothing is known?")
    sources, counts = usable_sources([*mixed, unlabelled, mixed[1], None], "data", target, index)
    assert counts == {"read": 42, "contaminated": 10, "without_answer": 1, "repeated": 1, "used": 30}
    assert [source.name for source in sources[:2]] == ["data#0", "data#1"]
