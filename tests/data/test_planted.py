"""Planted contamination on two benchmarks: what is found, what is accused wrongly, and what cannot be checked."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from benchmarks.contamination import clean_mini, mini_items
from benchmarks.general_questions import QUESTIONS, general_items, siblings

from posttrain_crew.errors import DatasetError
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.planted import DISGUISES, dressed, plant, spelled
from posttrain_crew.tools.data.quantities import read_text
from posttrain_crew.tools.data.reader import MAX_FIELD_CHARS
from posttrain_crew.tools.sources import BenchmarkItem


@pytest.fixture(scope="module")
def mini() -> list[BenchmarkItem]:
    return mini_items()


@pytest.fixture(scope="module")
def mini_index(mini: list[BenchmarkItem]) -> ContaminationIndex:
    return ContaminationIndex(mini)


@pytest.fixture(scope="module")
def general_index() -> ContaminationIndex:
    return ContaminationIndex(general_items())


@pytest.mark.parametrize("kind", sorted(DISGUISES))
def test_recall(kind: str, mini: list[BenchmarkItem], mini_index: ContaminationIndex,
                general_index: ContaminationIndex) -> None:  # fmt: skip
    least = 0.99 if kind == "exact" else 0.90
    for name, rows, index in (
        ("gpqa-mini", plant(mini[::4], kind, 11), mini_index),
        ("general", [row for seed in range(2) for row in plant(general_items(), kind, seed)], general_index),
    ):
        if rows:
            matches = index.check_raw(rows)
            print(f"{name:10} {kind:22} {len(rows):5} {matches.rate:.1%} {matches.by_check}")
            assert matches.rate >= least and not matches.unchecked


def test_reworded_rows_are_really_reworded(mini: list[BenchmarkItem]) -> None:
    for items in (mini[:200], general_items()):
        plain = {tuple(read_text(item.question).words) for item in items}
        asked = [row["question"] for row in plant(items, "reworded", 3) if "question" in row]
        assert len(asked) >= 5 and sum(tuple(read_text(str(q)).words) in plain for q in asked) <= 0.02 * len(asked)


def test_false_alarms(mini: list[BenchmarkItem], mini_index: ContaminationIndex,
                      general_index: ContaminationIndex) -> None:  # fmt: skip
    clean = clean_mini(5)
    swapped, inverse = siblings()
    kinds = (
        ("train side", mini_index, [dressed(next(clean), i) for i in range(4000)], 0.01),
        ("other numbers", mini_index, plant(mini[::2], "other_numbers", 4), 0.01),
        ("other benchmark", mini_index, plant(general_items(), "exact", 4), 0.01),
        ("other numbers, general", general_index, plant(general_items(), "other_numbers", 4), 0.01),
        ("inverse problem", general_index, [dressed(item, d) for item in inverse for d in range(6)], 0.01),
        # one question of 31 is in all but one word an item, and its answer cannot be compared
        ("entity swapped", general_index, [dressed(item, d) for item in swapped for d in range(6)], 0.04),
    )
    found = rows = 0
    for name, index, planted, most in kinds:
        matches = index.check_raw(planted)
        print(f"{name:24} {len(planted):5} {matches.rate:.2%} {matches.by_check}")
        assert matches.rate <= most, name
        found, rows = found + len(matches.rows), rows + len(planted)
    assert found <= 0.01 * rows


def test_needles_in_a_file(mini: list[BenchmarkItem], mini_index: ContaminationIndex, tmp_path: Path) -> None:
    clean = clean_mini(6)
    needles = plant(mini, "reworded", 5)[:20] + plant(mini, "arabic_digits", 5)[:20]
    path = tmp_path / "train.jsonl"
    with path.open("w") as stream:
        for i in range(4000):
            row = needles[i // 100] if i % 100 == 50 else dressed(next(clean), i)
            stream.write(json.dumps(row) + "\n")
    verdict = mini_index.verdict(path)
    assert not verdict.passed and verdict.rows_checked == 4000 and 38 <= verdict.rows_matched <= 45
    told = verdict.model_dump_json()
    assert not any(word in told for word in ("force", "mass", "question", "Answer"))


@pytest.mark.parametrize(
    "row",
    [
        "not json",
        '["a list"]',
        '{"question": null}',
        "{}",
        json.dumps({"prompt": "x " * MAX_FIELD_CHARS, "completion": "y"}),
        json.dumps({"messages": [{"role": "user", "content": "a"}] * 1001}),
    ],
)
def test_what_cannot_be_checked_does_not_pass(row: str, general_index: ContaminationIndex, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    good = json.dumps({"prompt": "Which bird lays the largest eggs of all?", "completion": "the ostrich"})
    path.write_text(f"{good}\n{good}\n")
    assert general_index.verdict(path).passed
    path.write_text(f"{good}\n{row}\n")
    verdict = general_index.verdict(path)
    assert (verdict.passed, verdict.rows_checked, verdict.rows_matched) == (False, 1, 0)
    assert verdict.rows_unchecked == 1 and set(verdict.by_check.values()) == {0}


def test_a_benchmark_without_items_checks_nothing() -> None:
    with pytest.raises(DatasetError, match="has no items"):
        ContaminationIndex([])
    with pytest.raises(DatasetError, match="1 of 2 items without a word"):
        ContaminationIndex([BenchmarkItem("1", "What is it?", (), "x"), BenchmarkItem("2", "???", (), "y")])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi."},
                      {"role": "user", "content": "{q}"}, {"role": "assistant", "content": "{a}"}]},
        {"messages": [{"role": "system", "content": "Know this: {q} {a}"}, {"role": "user", "content": "Hello!"},
                      {"role": "assistant", "content": "Hi."}]},
        {"prompt": "Tell me something.", "chosen": "Very well, here is a story.", "rejected": "{q} It is {a}."},
        {"prompt": [{"role": "user", "content": "Write a quiz."}],
         "completion": [{"role": "assistant", "content": "1. {q}\n2. {a}"}]},
        {"question": "Why?", "answer": "Because.", "context": ["Other.", "{q}"]},
        {"text": "Question: {q}\nAnswer: {a}"},
        {"strange": {"nested": [{"deep": "{q}"}]}},
    ],
)  # fmt: skip
def test_items_are_found_wherever_they_stand(row: dict[str, object], general_index: ContaminationIndex) -> None:
    for question, answer in (
        (QUESTIONS[0][0], QUESTIONS[0][1]),
        ("What is the capital city of Australia?", "Canberra"),
    ):
        filled = json.loads(json.dumps(row).replace("{q}", question).replace("{a}", answer))
        assert general_index.match_raw(filled) in ("exact", "ngram13"), filled


def test_hidden_characters_hide_nothing(general_index: ContaminationIndex) -> None:
    question = QUESTIONS[0][0]
    for disguised in ("\u200b".join(question), question.replace("e", "e\u00ad"),
                      "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in question)):  # fmt: skip
        assert general_index.match_raw({"question": disguised, "answer": "?"}) == "exact"


def test_a_benchmark_in_another_script() -> None:
    item = BenchmarkItem("1", "植物细胞中哪个细胞器能够捕获阳光的能量并将其储存在糖中？", (), "叶绿体")
    index = ContaminationIndex([item])
    assert index.match_raw({"prompt": f"请回答：{item.question}", "completion": "叶绿体"}) == "ngram13"
    assert index.match_raw({"prompt": "哪条河流经过维也纳和布达佩斯？", "completion": "多瑙河"}) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("forty-two", "42"), ("two hundred and five", "205"), ("one thousand two hundred thirty-four", "1,234"),
        ("12 000", "12000"), ("1.234.567", "1234567"), ("3.0", "3"), ("٤٢٫٥", "42.5"), ("1,5 kg", "1.5 kg"),
        ("three point five volts", "3.5 V"), ("m/s²", "m/s^2"), ("m/s^{2}", "m/s2"), ("5 kilograms", "5 kg"),
        ("one million two hundred and fifty thousand", "1250000"), ("3 x 10^8 m", "300000000 m"), ("3e8", "3×10⁸"),
        ("$1.5\\times 10^{-3}$ M", "0.0015 M"), ("10<sup>-9</sup> s", "1e-9 s"), ("$10^{-9}\\,\\text{s}$", "10⁻⁹ s"),
        ("H<sub>2</sub>SO<sub>4</sub>", "H2SO4"), ("$\\ce{H2SO4}$", "H₂SO₄"), ("$\\mathrm{H_2SO_4}$", "H_{2}SO_{4}"),
        ("Ca<sup>2+</sup>", "Ca2+"), ("9.8 m s<sup>-2</sup>", "$9.8\\,\\mathrm{m/s^2}$"),
        ("25&nbsp;&lt;&nbsp;x", "25 < x"),
        ("10**6 cells", "1000000 cells"), ("25^{\\circ}C", "25 °C"), ("first<br/>second", "first second"),
    ],
)  # fmt: skip
def test_numbers_have_one_form(one: str, other: str) -> None:
    assert read_text(one).words == read_text(other).words


def test_units_and_spelling_do_not_hide_numbers() -> None:
    assert read_text("3 km in 2 min").has_the_numbers_of(read_text("3000 m in 120 s"))
    assert read_text("72 km/h").has_the_numbers_of(read_text("20 m/s"))
    assert read_text("which two of 5 and 7").has_the_numbers_of(read_text("5 or 7"))
    assert read_text("a one kg mass at 5 m").has_the_numbers_of(read_text("a 1 kg mass at 5 m"))
    assert not read_text("three apples").has_the_numbers_of(read_text("five apples"))
    assert not read_text("5 and 7").has_the_numbers_of(read_text("5 and 8"))
    assert read_text("thirty and four").words == ("30", "4")
    for value in (0, 7, 19, 20, 99, 100, 342, 1000, 48_000, 875_000, 1_250_000):
        assert read_text(spelled(str(value))).words == (str(value),)


SCIENCE = BenchmarkItem(
    "1",
    "A proton beam crosses a field of 1.5 x 10^-3 T in a chamber that holds Ca2+ ions, and it leaves the far end of "
    "the chamber with a radius of curvature of 4 m. Which change doubles the radius?",
    ("twice the momentum", "twice the field", "half the momentum", "four times the field"),
    "A",
)


@pytest.mark.parametrize(
    "asked",
    [
        SCIENCE.question.replace("1.5 x 10^-3 T", "1.5e-3 T"),
        SCIENCE.question.replace("1.5 x 10^-3 T", "0.0015 T"),
        SCIENCE.question.replace("1.5 x 10^-3 T", "$1.5\\times10^{-3}\\,\\mathrm{T}$").replace(
            "Ca2+", "$\\mathrm{Ca^{2+}}$"
        ),
        SCIENCE.question.replace("10^-3", "10<sup>-3</sup>").replace("Ca2+", "Ca<sup>2+</sup>"),
    ],
)
def test_notation_hides_no_item(asked: str) -> None:
    index = ContaminationIndex([SCIENCE, *general_items()])
    assert index.match_raw({"text": asked}) == "exact"
    assert index.match_raw({"question": asked, "choices": list(reversed(SCIENCE.choices)), "answer": 3}) == "exact"


def test_thirteen_words_with_the_choices_or_the_answer_are_the_item_whatever_its_numbers() -> None:
    index = ContaminationIndex([SCIENCE, *general_items()])
    unknown = SCIENCE.question.replace("1.5 x 10^-3 T", "15 gauss")
    assert index.match_raw({"question": unknown, "choices": list(SCIENCE.choices), "answer": 0}) == "ngram13"
    assert index.match_raw({"prompt": unknown, "completion": "It takes twice the momentum."}) is None  # two words
    other = ["10 m", "20 m", "30 m", "40 m"]
    assert index.match_raw({"question": unknown, "choices": other, "answer": 0}) is None


@pytest.mark.parametrize(
    "text",
    ["1" * 90_000 + " km", "hundred " * 11_000, "one " * 20_000, "1 km " * 18_000, "1." * 45_000, "1,000" * 18_000,
     "<sup" * 20_000, "\\text{" * 15_000, "10^{" * 20_000, "1 x 10^1 " * 9_000, "_{" * 40_000, "1e9" * 30_000,
     "&lt;" * 20_000,
     "twenty" + " " * 90_000, "a b " * 22_000, "\ufdfa" * 30_000, "m^{1}" * 18_000, "(A) x " * 15_000],
)  # fmt: skip
def test_hostile_texts_take_bounded_time(text: str, general_index: ContaminationIndex) -> None:
    started = time.process_time()
    assert general_index.match_raw({"prompt": text, "completion": text}) is None
    assert time.process_time() - started < 2.5
