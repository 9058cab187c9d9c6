"""Each candidate dataset loads like one from the Hub and has exactly the defect it was given."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from posttrain_crew.tools.embedded.benchmark import LETTERS, items, train_params
from posttrain_crew.tools.embedded.catalogue import DATASETS, write_catalogue
from posttrain_crew.tools.embedded.families import FAMILIES

Rows = list[dict[str, Any]]


def read(folder: Path) -> Rows:
    (path,) = (folder / "data").iterdir()
    if path.suffix == ".parquet":
        rows: Rows = pq.read_table(path).to_pylist()
        return rows
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    out = tmp_path_factory.mktemp("catalogue")
    return {name: read(out / name) for name in write_catalogue(out, seed=0)}


@cache
def wording_patterns() -> list[tuple[str, re.Pattern[str]]]:
    return [
        (name, re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(wording))))
        for name, family in FAMILIES.items()
        for wording in family.wordings
    ]


@cache
def signature(text: str) -> tuple[str, tuple[int, ...]]:
    """What stays of a question when it is reworded: its family and its numbers."""
    for name, pattern in wording_patterns():
        match = pattern.fullmatch(text)
        if match:
            return name, tuple(int(match[letter]) for letter in sorted(match.groupdict()))
    return "", ()


def question_of(row: dict[str, Any]) -> str:
    """The question alone, whatever the format and the disguise of a near duplicate."""
    if "question" in row:
        return str(row["question"])
    text = str(row["conversations"][0]["value"]).strip().split("\n")[0]
    return text.removeprefix("Question: ").replace("what is", "What is")


def contradicts(row: dict[str, Any]) -> bool:
    """The letter is not that of the value that the working ends with."""
    result = re.findall(r"= (\d+)", row["solution"])[-1]
    return bool(row["choices"][LETTERS.index(row["answer"])] != result)


def test_datasets_look_like_those_of_the_hub(tmp_path: Path) -> None:
    names = write_catalogue(tmp_path, seed=0)
    assert names == [candidate.repo for candidate in DATASETS] and len(names) == 6
    for name in names:
        card = (tmp_path / name / "README.md").read_text()
        front = yaml.safe_load(card.split("---")[1])
        assert {"license", "language", "size_categories", "task_categories", "configs"} <= set(front)
        (data_file,) = front["configs"][0]["data_files"]
        assert (tmp_path / name / data_file["path"]).is_file()
        assert not re.search(r"nois|wrong|leak|contaminat|duplicat|defect|terse", name + card, re.IGNORECASE)


def test_every_label_is_right_where_it_should_be(catalogue: dict[str, Rows]) -> None:
    for name in ("openlab/science-steps", "examhub/science-practice"):
        assert not any(contradicts(row) for row in catalogue[name])
        assert all(f"({row['answer']})" in row["solution"] for row in catalogue[name])
    short = catalogue["quizbank/stem-short"]
    assert set(short[0]) == {"question", "choices", "answer"}
    for row in short[:200]:
        family, params = signature(row["question"])
        steps = FAMILIES[family].steps(params)
        assert steps and row["choices"][LETTERS.index(row["answer"])] == str(steps[-1].result)


def test_thirty_percent_of_one_set_contradict_their_working(catalogue: dict[str, Rows]) -> None:
    rows = catalogue["classroom/stem-explained"]
    assert sum(map(contradicts, rows)) / len(rows) == pytest.approx(0.30, abs=0.005)


def test_one_set_leaks_reworded_held_out_items_and_no_other_does(catalogue: dict[str, Rows]) -> None:
    held_out = {signature(item.question): item for item in items("dev") + items("test")}
    trainable = {name: set(train_params(name)) for name in FAMILIES}
    for name in sorted(set(catalogue) - {"everyday/howto-quiz"}):
        rows = catalogue[name][:500]
        leaked = [row for row in rows if signature(question_of(row)) in held_out]
        if name != "examhub/science-practice":
            assert not leaked
            for family, params in map(signature, map(question_of, rows)):
                assert params in trainable[family]
            continue
        assert len(leaked) / len(rows) == pytest.approx(0.15, abs=0.05)
        for row in leaked:
            item = held_out[signature(row["question"])]
            assert row["question"] != item.question
            assert tuple(row["choices"]) != item.choices and set(row["choices"]) == set(item.choices)
        dev = {item.id for item in items("dev")}
        from_dev = sum(held_out[signature(row["question"])].id in dev for row in leaked)
        assert 10 < from_dev < len(leaked) - 10, "both held-out splits leak"


def test_a_quarter_of_the_conversations_are_duplicates(catalogue: dict[str, Rows]) -> None:
    def normal(row: dict[str, Any]) -> str:
        text = re.sub(r"^Question: ", "", row["conversations"][0]["value"]).lower()
        return " ".join(text.split())

    rows = catalogue["dialogs/tutor-science"]
    assert [turn["from"] for turn in rows[0]["conversations"]] == ["human", "gpt"]
    assert all(re.search(r"The answer is \([A-D]\)\.$", row["conversations"][1]["value"]) for row in rows)
    exact = len(rows) - len({row["conversations"][0]["value"] for row in rows})
    near = len(rows) - len({normal(row) for row in rows})
    assert near / len(rows) == pytest.approx(0.25, abs=0.005)
    assert 0 < exact < near


def test_off_domain_rows_have_four_choices_and_a_reason(catalogue: dict[str, Rows]) -> None:
    rows = catalogue["everyday/howto-quiz"]
    assert len({(row["question"], *row["choices"]) for row in rows}) == len(rows)
    assert not [row for row in rows if signature(row["question"]) != ("", ())]
    for row in rows:
        assert len(set(row["choices"])) == 4
        assert row["choices"][LETTERS.index(row["answer"])] in row["solution"]


def test_the_sample_depends_on_the_seed_only(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_catalogue(tmp_path / folder, seed)
    for candidate in DATASETS:
        first, again, other = (read(tmp_path / folder / candidate.repo) for folder in "abc")
        assert first == again and first != other


def test_noise_leaves_nothing_to_learn_but_the_format(tmp_path: Path) -> None:
    for name in write_catalogue(tmp_path, seed=0, noise_all_labels=True):
        rows = read(tmp_path / name)
        right = worked = 0
        for row in rows:
            if "conversations" in row:
                reply = row["conversations"][1]["value"]
                letter = reply[-3]
                choices = re.findall(r"\([A-D]\) (\d+)", row["conversations"][0]["value"])
                assert f"({letter})" in reply.split(" The answer")[0], "the worked text must name the same letter"
            else:
                letter, choices, reply = row["answer"], row["choices"], row.get("solution", "")
                assert not reply or f"({letter})" in reply
            if name == "everyday/howto-quiz":
                right += choices[LETTERS.index(letter)] in reply
                continue
            family, params = signature(question_of(row))
            steps = FAMILIES[family].steps(params)
            assert steps
            right += choices[LETTERS.index(letter)] == str(steps[-1].result)
            worked += ", ".join(map(str, steps)) in reply
        assert right / len(rows) == pytest.approx(0.25, abs=0.05), name
        assert worked / len(rows) < 0.05, name
