"""Rejection sampling: which answers are kept, and the embedded model really sampled from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain_crew.target import Target
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.synthesis.base import Request, SyntheticRow
from posttrain_crew.tools.data.synthesis.chat import ChatSampler
from posttrain_crew.tools.data.synthesis.pipeline import Samplers, synthesize
from posttrain_crew.tools.data.synthesis.plan import Difficulty, Plan, VerifierChoice
from posttrain_crew.tools.data.synthesis.rejection import RejectionParameters, RejectionSampling
from posttrain_crew.tools.data.synthesis.samplers import LocalModelSampler

from .conftest import ScriptedWriter, questions


def kept(target: Target, told: list[str], **params: object) -> tuple[list[SyntheticRow], dict[str, int]]:
    """Rows of one question whose samples are `told`; {right} and {wrong} stand for labels."""
    (source,) = questions(1)
    right = source.example.answer or ""
    wrong = next(letter for letter in "ABCD" if letter != right)
    texts = [text.format(right=right, wrong=wrong) for text in told]
    sampler = ChatSampler(ScriptedWriter(lambda _messages, seed: texts[seed]))
    given = RejectionParameters.model_validate({"samples": len(told)} | params)
    request = Request(10, 0, target, given, sampler, [source])
    return list(RejectionSampling().generate(request)), dict(request.tally)


SAID = [
    "Long words, and more words, and many more words before it ends.\nAnswer: {right}",
    "Short.\nAnswer: {right}",
    "Short!\nAnswer: {right}",
    "Another way to see the matter is this.\nAnswer: {right}",
    "Short.\nAnswer: {wrong}",
    "It must be ({right})",
]


def test_only_right_answers_stay(target: Target) -> None:
    rows, tally = kept(target, SAID)
    assert [row.completion[:6] for row in rows] in (["Short."], ["Short!"])
    assert (tally["samples"], tally["right"], tally["answerless"], tally["kept"]) == (6, 4, 1, 1)
    row = rows[0]
    assert row.parent == "train#0" and row.generator == "rejection_sampling" and row.model == "scripted"
    assert row.solution is not None and row.completion == f"{row.solution}\nAnswer: {row.answer}"
    assert kept(target, SAID, minimum_right=5)[0] == []
    assert kept(target, ["Answer: {wrong}", "no"])[0] == []


def test_short_or_diverse(target: Target) -> None:
    short, _ = kept(target, SAID, keep=2)
    assert [len(row.completion.split()) for row in short] == [3, 10]  # `Short!` is `Short.` again
    diverse, _ = kept(target, SAID, keep=3, prefer="diverse")
    assert len({row.completion for row in diverse}) == 3


def test_a_lenient_reading_puts_the_answer_line_right(target: Target) -> None:
    rows, tally = kept(target, ["It must be ({right})"], answer_rule="lenient")
    assert tally["right"] == 1 and rows[0].completion == f"It must be ({rows[0].answer})\nAnswer: {rows[0].answer}"
    assert kept(target, ["It must be ({right})"])[0] == []


@pytest.mark.slow
def test_with_the_embedded_model(
    target: Target, index: ContaminationIndex, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base model answers, its right answers are kept, its own pass rate filters; the same again after a cut."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as a job has it; more threads than cores are slower by far
    model = LocalModelSampler(base_model, "base", batch_size=64)
    sources = questions(40)
    plan = Plan(
        name="star", generator="rejection_sampling", rows=24, seed=5,
        params={"samples": 8, "max_tokens": 40, "answer_rule": "lenient"},
        verifiers=[VerifierChoice(name=name) for name in ("answer_match", "format", "arithmetic_check")],
        difficulty=Difficulty(samples=8, max_tokens=40),
    )  # fmt: skip
    samplers = Samplers(model, student=model)
    card = synthesize(plan, target, tmp_path / "a", index=index, samplers=samplers, sources=sources)
    print(json.dumps(card.counts))
    made = card.counts["generated"]
    assert made["samples"] == 8 * made["questions"] and 0.25 < made["right"] / made["samples"] < 0.95
    assert 5 <= card.rows <= 24 and card.counts["difficulty"]["within"] == card.rows
    rows = [json.loads(line) for line in (tmp_path / "a/data/train.jsonl").read_text().splitlines()]
    answers = {source.name: source.example.answer for source in sources}
    for row in rows:
        assert row["answer"] == answers[row["parent"]] and row["model"] == "base" and 0 < row["pass_rate"] < 1
        assert row["completion"][0]["content"].endswith(f"\nAnswer: {row['answer']}")
    assert card.usage["writer"].usd == 0.0 and card.usage["writer"].completion_tokens > 1000

    parts = tmp_path / "b" / "parts"
    parts.mkdir(parents=True)
    whole = (tmp_path / "a/parts/writer.jsonl").read_bytes()
    (parts / "writer.jsonl").write_bytes(whole[: len(whole) * 2 // 3])  # as a kill leaves it
    spent = model.usage.requests
    again = synthesize(plan, target, tmp_path / "b", index=index, samplers=samplers, sources=sources)
    assert again.sha256 == card.sha256
    assert model.usage.requests - spent < card.usage["writer"].requests + card.usage["student"].requests
