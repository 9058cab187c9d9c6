# ruff: noqa: E501
"""The estimator of label accuracy, and what a working says about a label."""

from __future__ import annotations

import random

import pytest

from posttrain_crew.tools.data.formats import Example, detect_format, normalise_row
from posttrain_crew.tools.data.label_probe import ProbeRow, lenient_answer, tally
from posttrain_crew.tools.data.labels import estimate_label_accuracy, wilson, working_supports_label


@pytest.mark.parametrize("share", [0.25, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("accuracy", [0.45, 0.7])
def test_estimator_recovers_the_share_of_right_labels(share: float, accuracy: float) -> None:
    rng = random.Random(7)
    inside, estimates = 0, []
    for _ in range(200):
        agree = 0
        for _ in range(120):
            truth = rng.randrange(4)
            label = truth if rng.random() < share else rng.choice([c for c in range(4) if c != truth])
            said = truth if rng.random() < accuracy else rng.choice([c for c in range(4) if c != truth])
            agree += said == label
        estimate = estimate_label_accuracy(agree, 120, accuracy, 4)
        assert estimate.informative
        estimates.append(estimate.accuracy)
        inside += estimate.low <= share <= estimate.high
    # cut at 1, so biased there by half a standard error
    assert sum(estimates) / len(estimates) == pytest.approx(share, abs=0.02 if share < 0.9 else 0.09)
    assert inside >= 180


def test_estimator_says_when_it_knows_nothing() -> None:
    assert not estimate_label_accuracy(30, 120, 0.25, 4).informative
    assert not estimate_label_accuracy(10, 20, 0.6, 4).informative
    assert not estimate_label_accuracy(0, 0, 0.6, 4).informative


def test_wilson_is_the_textbook_interval() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("choices", "answer", "solution", "expected"),
    [
        (("3", "12"), "B", "3 * 4 = 12 (B).", "consistent"),
        (("3", "12"), "A", "3 * 4 = 12.", "contradicts"),
        (("3", "12"), "A", "3 * 4 = 12 (B), so 3", "contradicts"),
        (("3", "5"), "A", "3 * 4 = 12", "unsupported"),
        (("3", "5"), "A", "It takes about 7 tries", "unknown"),
        (("3 N", "12.0 N"), "B", "so the force is 12 N", "consistent"),
        (("the liver", "the heart"), "B", "Not the liver; blood is pumped by the heart.", "consistent"),
        (("the liver", "the heart"), "A", "Not the liver; blood is pumped by the heart.", "contradicts"),
        (("3", "5"), "A", None, "unknown"),
    ],
)
def test_working_and_label(choices: tuple[str, ...], answer: str, solution: str | None, expected: str) -> None:
    assert working_supports_label(Example("q", choices, answer, solution, None)) == expected


ROWS: list[tuple[dict[str, object], str, tuple[str, ...], str | None, bool]] = [
    ({"question": "q?", "choices": ["1", "2"], "answer": 1}, "mcq", ("1", "2"), "B", False),
    ({"question": "q?", "choices": ["x", "y"], "answer": "y"}, "mcq", ("x", "y"), "B", False),
    ({"question": "q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, "mcq", ("x", "y"), "B", False),
    ({"question": "q?", "opa": "x", "opb": "y", "opc": "z", "opd": "w", "cop": 3}, "mcq", ("x", "y", "z", "w"), "C", False),
    ({"question": "q?", "options": {"A": "x", "B": "y"}, "answer": "(b)".upper()}, "mcq", ("x", "y"), "B", False),
    ({"prompt": "q?\nA) 12\nB) 13", "completion": "6 + 7 is 13. The answer is (B)."}, "prompt_completion", ("12", "13"), "B", True),
    ({"prompt": "q?\nA. 12\nB. 13", "completion": "B"}, "prompt_completion", ("12", "13"), "B", False),
    ({"instruction": "q? (A) 12 (B) 13", "input": "", "output": "Answer: B"}, "alpaca", ("12", "13"), "B", False),
    ({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q?\n(A) x\n(B) y"},
                   {"role": "assistant", "content": "We look at it closely.\nAnswer: A"}]}, "messages", ("x", "y"), "A", True),
    ({"conversations": [{"from": "human", "value": "q?\n(A) x\n(B) y"}, {"from": "gpt", "value": "\\boxed{B}"}]},
     "sharegpt", ("x", "y"), "B", False),
    ({"question": "How many?", "answer": "3 boxes of 4 make 12.\n#### 12"}, "prompt_completion", (), "12", True),
    ({"prompt": "q?\n(A) x\n(B) y", "chosen": "It is plainly x here. Answer: A", "rejected": "B"}, "preference", ("x", "y"), "A", True),
    ({"text": "once upon a time"}, "text", (), None, False),
]  # fmt: skip


@pytest.mark.parametrize(("row", "kind", "choices", "answer", "worked"), ROWS)
def test_formats(row: dict[str, object], kind: str, choices: tuple[str, ...], answer: str | None, worked: bool) -> None:
    found = detect_format([row])
    assert found == kind
    example = normalise_row(row, found)
    assert example is not None
    assert (example.choices, example.answer, example.worked) == (choices, answer, worked)


def test_probe_counts() -> None:
    assert lenient_answer("So it is (C), not B. Answer: D", "ABCD") == "D"
    assert lenient_answer("A Big Dog", "BCD") is None
    rows = [ProbeRow(dataset="x", prompt="", label=label) for label in "AB"] + [
        ProbeRow(dataset="y", prompt="", label="C")
    ]
    assert tally(rows, ["(A)", "no idea", "C"], "ABCD") == {
        "x": {"n": 2, "answered": 1, "agree": 1},
        "y": {"n": 1, "answered": 1, "agree": 1},
    }
