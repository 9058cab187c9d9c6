"""GPQA's splits for lm-eval: test is GPQA main, dev is what GPQA extended has beyond main.

The dataset is gated on the Hub; `requirements.missing` says so before a run starts. The order of choices of an item is
drawn from the hash of its record id, so that it is the same in every process and for every checkpoint.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["DATASET", "EXTENDED_FILE", "MAIN_FILE", "GpqaItem", "items_of_split", "lm_eval_dataset", "rows_of_split"]

DATASET = "Idavidrein/gpqa"
MAIN_FILE, EXTENDED_FILE = "gpqa_main.csv", "gpqa_extended.csv"
"""Where the repository has the two subsets."""
LETTERS = "ABCD"


@dataclass(frozen=True)
class GpqaItem:
    """One question with its choices in the order in which every checkpoint sees them."""

    id: str
    question: str
    choices: tuple[str, ...]
    answer: str
    """The label of the right choice."""


def items_of_split(
    split: Literal["dev", "test"], main: Iterable[Mapping[str, str]], extended: Iterable[Mapping[str, str]]
) -> list[GpqaItem]:
    """Items of a split, from the rows of the two subsets as the Hub has them."""
    tested = {row["Record ID"]: row for row in main}
    chosen = list(tested.values()) if split == "test" else [r for r in extended if r["Record ID"] not in tested]
    items = []
    for row in chosen:
        choices = [row["Correct Answer"].strip(), *(row[f"Incorrect Answer {number}"].strip() for number in (1, 2, 3))]
        order = list(range(4))
        random.Random(hashlib.sha256(row["Record ID"].encode()).hexdigest()).shuffle(order)
        shuffled = tuple(choices[index] for index in order)
        items.append(GpqaItem(row["Record ID"], row["Question"].strip(), shuffled, LETTERS[order.index(0)]))
    return items


def rows_of_split(
    split: Literal["dev", "test"], main: Iterable[Mapping[str, str]], extended: Iterable[Mapping[str, str]]
) -> list[dict[str, str]]:
    """Items of a split with the columns id, prompt, answer, from the rows of the two subsets as the Hub has them."""
    rows = []
    for item in items_of_split(split, main, extended):
        lines = "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, item.choices, strict=True))
        prompt = (
            f"What is the correct answer to this question:{item.question}\nChoices:\n{lines}\n"
            "Let's think step by step: "
        )
        rows.append({"id": item.id, "prompt": prompt, "answer": item.answer})
    return rows


def lm_eval_dataset(split: Literal["dev", "test"], **_metadata: object) -> dict[str, Dataset]:
    """For `custom_dataset:` of the task files. Raises what `datasets` raises where the gated data is out of reach."""
    from datasets import Dataset, load_dataset

    main, extended = (load_dataset(DATASET, name, split="train") for name in ("gpqa_main", "gpqa_extended"))
    return {split: Dataset.from_list(rows_of_split(split, main, extended))}
