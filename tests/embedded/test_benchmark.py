"""The questions of gpqa-mini are right, fixed, and apart from each other by split."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest
import yaml

from posttrain_crew.errors import InputError
from posttrain_crew.tools.embedded import corpus
from posttrain_crew.tools.embedded.benchmark import (
    LENIENT,
    LETTERS,
    STRICT,
    TASKS_DIR,
    Item,
    extract_lenient,
    extract_strict,
    items,
    lm_eval_dataset,
    prompt,
    stable_hash,
    train_items,
    train_params,
)
from posttrain_crew.tools.embedded.families import BIGGEST, FAMILIES, facts, instances, is_fact


def instance_group(item: Item) -> tuple[str, tuple[int, ...]]:
    """The family and the sorted parameters: the unit that must not be in two splits."""
    return item.family, tuple(sorted(int(number) for number in item.id.partition("/")[2].split("-")))


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"(?<![\w])\d+", text)]


def test_there_are_enough_families_in_three_domains_and_levels() -> None:
    assert len(FAMILIES) >= 18
    assert set(Counter(family.domain for family in FAMILIES.values()).values()) == {len(FAMILIES) // 3}
    assert Counter(family.level for family in FAMILIES.values()) == {1: 8, 2: 6, 3: 10}
    for family in FAMILIES.values():
        assert len(set(family.wordings)) >= 3
        letters = set("abcd"[: len(family.ranges)])
        for wording in family.wordings:
            assert set(re.findall(r"\{(\w)\}", wording)) == letters


def test_level_three_needs_an_order_of_steps_that_no_easier_family_has() -> None:
    def order(program: str) -> tuple[str, ...]:
        return tuple(re.findall(r"[-+*/]", program))

    easy = {order(family.program) for family in FAMILIES.values() if family.level < 3}
    assert not easy & {order(family.program) for family in FAMILIES.values() if family.level == 3}


@pytest.mark.parametrize("split", ["dev", "test"])
def test_held_out_splits_have_600_balanced_items(split: str) -> None:
    found = items(split)  # type: ignore[arg-type]
    assert len(found) == 600
    assert len({item.id for item in found}) == 600
    assert set(Counter(item.family for item in found).values()) == {25}
    assert set(Counter(item.family for item in found[:120]).values()) == {5}, "a prefix must be balanced as well"
    assert all(120 <= count <= 180 for count in Counter(item.answer for item in found).values())


@pytest.mark.parametrize("found", [items("dev"), items("test"), train_items(2000, 3)], ids=["dev", "test", "train"])
def test_the_answer_follows_from_the_working_and_the_working_from_the_question(found: list[Item]) -> None:
    for item in found:
        assert len(set(item.choices)) == 4
        assert item.choices[LETTERS.index(item.answer)] == item.value
        results: list[int] = []
        given = numbers(item.question)
        for step in item.working.split(", "):
            match = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", step)
            assert match, step
            left, right, result = int(match[1]), int(match[3]), int(match[4])
            assert left in given + results and right in given + results
            assert {"+": left + right, "-": left - right, "*": left * right, "/": left / right}[match[2]] == result
            assert is_fact(left, match[2], right)
            results.append(result)
        assert item.value == str(results[-1])
        assert max(map(int, item.choices)) <= BIGGEST and min(map(int, item.choices)) > 0


def test_splits_share_no_instance_in_any_order_of_parameters() -> None:
    dev, test = ({instance_group(item) for item in items(split)} for split in ("dev", "test"))  # type: ignore[arg-type]
    train = {(name, tuple(sorted(params))) for name in FAMILIES for params in train_params(name)}
    assert not dev & test and not dev & train and not test & train
    for name, family in FAMILIES.items():
        assert 60 <= len(train_params(name)) <= len(instances(family)) - 50, name
    of_many = [instance_group(item) for item in items("dev") if item.level > 1]
    assert len(set(of_many)) > 0.9 * len(of_many), "few dev items may be the same numbers in another order"


def test_no_held_out_question_is_in_the_pretraining_corpus() -> None:
    documents = list(corpus.documents(4000, "any seed"))
    held_out = {item.question for split in ("dev", "test") for item in items(split)}  # type: ignore[arg-type]
    assert not [question for question in held_out if any(question in document for document in documents)]
    level_three = [family.wordings[0].split("{")[0] for family in FAMILIES.values() if family.level == 3]
    assert not [start for start in level_three if any(start in document for document in documents)]
    chats = [document for document in documents if "<|im_start|>assistant" in document]
    with_line = sum("\nAnswer: " in chat for chat in chats) / len(chats)
    assert 0.1 < with_line < 0.3, "few exams close with the benchmark's answer line"


def test_train_items_are_drawn_by_seed() -> None:
    first, again, other = train_items(300, 1), train_items(300, 1), train_items(300, 2)
    assert first == again and first != other
    big = train_items(2400, 1)
    assert len({(item.id, item.question) for item in big}) == 2400
    assert set(Counter(item.family for item in big).values()) == {100}
    with pytest.raises(InputError, match="too few"):
        train_items(10_000, 0)


def test_items_and_documents_do_not_depend_on_the_process() -> None:
    code = (
        "from posttrain_crew.tools.embedded import benchmark as b, corpus as c;"
        "import sys; sys.stdout.write(str(b.stable_hash(b.items('dev'), b.items('test'), b.train_items(99, 0),"
        "list(c.documents(99, 0)))))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    here = stable_hash(items("dev"), items("test"), train_items(99, 0), list(corpus.documents(99, 0)))
    assert seen == {str(here)}


def test_fact_tables_are_small_and_true() -> None:
    assert sum(len(facts(operator)) for operator in "+-*/") < 1000
    for operator in "+-*/":
        for fact in facts(operator):
            assert is_fact(fact.left, operator, fact.right)
            assert 0 < fact.result <= BIGGEST


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("Compute 6 * 7 = 42 (C).\nAnswer: C", "C", "C"),
        ("Compute 6 * 7 = 42 (C).", None, "C"),
        ("Answer: A\nAnswer: B", "B", "B"),
        ("The answer is (D).", None, "D"),
        ("it is B", None, "B"),
        ("Answer: Because", None, None),
        ("Compute 6 * 7 = 42.", None, None),
        ("", None, None),
    ],
)
def test_extraction(text: str, strict: str | None, lenient: str | None) -> None:
    assert extract_strict(text) == strict
    assert extract_lenient(text) == lenient


def test_task_files_use_the_same_patterns_and_splits() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    shared = yaml.load((TASKS_DIR / "_gpqa_mini.yaml").read_text(), Loader)  # noqa: S506
    patterns = {entry["name"]: entry["filter"][0]["regex_pattern"] for entry in shared["filter_list"]}
    assert patterns == {"strict-match": STRICT.pattern, "flexible-extract": LENIENT.pattern}
    assert shared["custom_dataset"] == f"{lm_eval_dataset.__module__}.{lm_eval_dataset.__name__}"
    for split in ("dev", "test"):
        task = yaml.load((TASKS_DIR / f"gpqa_mini_{split}.yaml").read_text(), Loader)  # noqa: S506
        assert task["task"] == f"gpqa_mini_{split}"
        assert task["test_split"] == task["dataset_kwargs"]["split"] == split


def test_lm_eval_gets_the_items_and_a_train_side_for_few_shot() -> None:
    data = lm_eval_dataset("dev", version=1.0)
    assert set(data) == {"dev", "train"}
    assert [row["id"] for row in data["dev"]] == [item.id for item in items("dev")]
    first = items("dev")[0]
    assert data["dev"][0]["prompt"] == prompt(first.question, first.choices)
    assert data["dev"][0]["prompt"].count("\n") == 4
    assert not {row["id"] for row in data["train"]} & {row["id"] for row in data["dev"]}
