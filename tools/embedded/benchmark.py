"""gpqa-mini: four-choice science questions, their splits, their prompt, and how an answer is read.

Split by construction: the instances of a family are grouped by their sorted parameters, so that "3 kg at 5 m/s2" and
"5 kg at 3 m/s2" stay together; the groups are put in the order of a keyed hash; the first become dev, the next test,
the rest train. No wording or order of choices of a dev or test item can therefore be met in a train item. Dev and test
are fixed for all time (no seed enters): 25 items of each of the 24 families, 600 each, interleaved so that any prefix
is balanced. Only the evaluator may call `items("test")`; the catalogue does, to plant a dataset that leaks.

Left out on purpose: an instruction in the prompt that asks for the answer format. As with GPQA and a base model, the
format is what the model has to be taught.

By hand, with nothing on disk but a model:

    lm_eval --model hf --model_args pretrained=DIR --tasks gpqa_mini_dev --apply_chat_template \
        --include_path "$(python -m posttrain_crew.tools.embedded.benchmark)"
"""

from __future__ import annotations

import hashlib
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import cycle, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from posttrain_crew.errors import InputError
from posttrain_crew.tools.embedded.families import BIGGEST, FAMILIES, Family, instances

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "ANSWER_FORMAT",
    "LETTERS",
    "TASKS_DIR",
    "Item",
    "Split",
    "extract_lenient",
    "extract_strict",
    "items",
    "lm_eval_dataset",
    "make_item",
    "prompt",
    "stable_hash",
    "train_items",
    "train_params",
]

LETTERS = "ABCD"
ANSWER_FORMAT = "Answer: {letter}"
"""The last line that the strict metric wants."""
STRICT = re.compile(r"Answer: ([A-D])\b")
LENIENT = re.compile(r"\b([A-D])\b")
TASKS_DIR = Path(__file__).parent / "tasks" / "gpqa_mini"
"""lm-eval `--include_path`; its YAML files use the same two patterns as this module."""

PER_FAMILY = 25
Split = Literal["train", "dev", "test"]
Params = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """One question with its four choices and its solution."""

    id: str
    """`family/6-7`: family and parameters; one id per instance, whatever the wording and the order of choices."""
    family: str
    domain: str
    level: int
    question: str
    choices: tuple[str, ...]
    """Four different whole numbers, as text."""
    answer: str
    """The letter of the right choice."""
    value: str
    """The right choice itself."""
    formula: str
    working: str
    """The steps: `3 + 4 = 7, 7 * 5 = 35`."""

    @property
    def solution(self) -> str:
        """The worked solution with the letter, but without the benchmark's last line."""
        return f"Compute {self.working} ({self.answer})."


def stable_hash(*parts: object) -> int:
    """A 64-bit hash of the repr of `parts`, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


@cache
def _splits(name: str) -> dict[Split, tuple[Params, ...]]:
    """All instances of a family by split; in dev and test, one instance of every group comes before any second."""
    groups: dict[Params, list[Params]] = {}
    for params in instances(FAMILIES[name]):
        groups.setdefault(tuple(sorted(params)), []).append(params)
    enough = min(PER_FAMILY, len(groups) // 5)
    splits: dict[Split, list[list[Params]]] = {"dev": [], "test": [], "train": []}
    for group in sorted(groups, key=lambda group: stable_hash("split", name, group)):
        members = sorted(groups[group], key=lambda params: stable_hash("rank", name, params))
        split: Split = "train"
        for held_out in ("dev", "test"):
            if len(splits[held_out]) < enough or sum(map(len, splits[held_out])) < PER_FAMILY:
                split = held_out
                break
        splits[split].append(members)
    return {
        split: tuple(params for turn in zip_longest(*chosen) for params in turn if params is not None)
        for split, chosen in splits.items()
    }


def train_params(family: str) -> tuple[Params, ...]:
    """The train-side instances of a family: all that corpora and training sets may use."""
    return _splits(family)["train"]


def _distractors(family: Family, params: Params, rng: random.Random) -> list[int]:
    """Three wrong choices: results of the wrong calculation, and numbers close to the right one."""
    steps = family.steps(params)
    if steps is None:
        raise InputError(f"{params} is no instance of family {family.name!r}")
    right = steps[-1].result
    mistakes = {step.result for step in steps}
    for i, first in enumerate(params):
        for second in params[i + 1 :]:
            mistakes |= {first + second, abs(first - second), first * second}
    slips = {right + slip for slip in range(-4, 5)} | {right + params[-1], right - params[-1]}
    mistakes = {value for value in mistakes if 0 < value <= BIGGEST} - {right}
    slips = {value for value in slips if 0 < value <= BIGGEST} - {right}
    chosen = rng.sample(sorted(mistakes), min(len(mistakes), rng.choice((1, 2))))
    return chosen + rng.sample(sorted(slips - set(chosen)), 3 - len(chosen))


def make_item(family: Family, params: Params, rng: random.Random, wording: int | None = None) -> Item:
    """An instance as a question: `rng` draws the wrong choices, the order and, unless given, the wording."""
    steps = family.steps(params)
    if steps is None:
        raise InputError(f"{params} is no instance of family {family.name!r}")
    right = steps[-1].result
    choices = [*_distractors(family, params, rng), right]
    rng.shuffle(choices)
    if wording is None:
        wording = rng.randrange(len(family.wordings))
    return Item(
        id=f"{family.name}/{'-'.join(map(str, params))}",
        family=family.name,
        domain=family.domain,
        level=family.level,
        question=family.question(params, wording),
        choices=tuple(map(str, choices)),
        answer=LETTERS[choices.index(right)],
        value=str(right),
        formula=family.formula,
        working=", ".join(map(str, steps)),
    )


@cache
def items(split: Literal["dev", "test"]) -> tuple[Item, ...]:
    """The 600 items of a held-out split, families interleaved, always the same."""
    chosen = []
    for rank in range(PER_FAMILY):
        for name in sorted(FAMILIES, key=lambda name: stable_hash("order", split, rank, name)):
            params = _splits(name)[split][rank]
            rng = random.Random(stable_hash("item", split, name, params))
            chosen.append(make_item(FAMILIES[name], params, rng))
    return tuple(chosen)


def train_items(count: int, seed: int | str, families: Sequence[str] | None = None) -> list[Item]:
    """`count` train-side items in random order, families balanced, no instance twice in the same wording.

    A name that is given twice in `families` has a double share.

    Raises:
        InputError: the families do not have so many different items.
    """
    rng = random.Random(stable_hash("train", seed))
    names = list(families or FAMILIES)
    pools: dict[str, Iterator[tuple[Params, int]]] = {}
    for name in dict.fromkeys(names):
        wordings = len(FAMILIES[name].wordings)
        drawn = [
            (params, rng.randrange(wordings)) for params in rng.sample(train_params(name), len(train_params(name)))
        ]
        # every instance once before any comes again in another wording
        pools[name] = iter([(params, (first + turn) % wordings) for turn in range(wordings) for params, first in drawn])
    chosen: list[Item] = []
    for name in islice(cycle(names), count):
        params, wording = next(pools[name], (None, 0))
        if params is None:
            raise InputError(f"family {name!r} has too few train items for {count} in all; ask for fewer")
        chosen.append(make_item(FAMILIES[name], params, rng, wording))
    rng.shuffle(chosen)
    return chosen


def prompt(question: str, choices: Iterable[str]) -> str:
    """The user turn: the question and one line for each choice, `(A) 35`."""
    return question + "".join(f"\n({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))


def extract_strict(text: str) -> str | None:
    """The letter in the last `Answer: X`, or None: what the benchmark's headline metric counts."""
    found: list[str] = STRICT.findall(text)
    return found[-1] if found else None


def extract_lenient(text: str) -> str | None:
    """The last capital A to D that stands alone, bracketed or not: what a patient reader would take as the answer."""
    found: list[str] = LENIENT.findall(text)
    return found[-1] if found else None


def lm_eval_dataset(split: Literal["dev", "test"], **_metadata: object) -> dict[str, Dataset]:
    """For `custom_dataset:` of the lm-eval task files: the split, and a train side to draw few-shot examples from."""
    from datasets import Dataset  # heavy, and only lm-eval needs it

    def table(rows: Iterable[Item]) -> Dataset:
        return Dataset.from_list(
            [asdict(row) | {"prompt": prompt(row.question, row.choices), "solution": row.solution} for row in rows]
        )

    return {split: table(items(split)), "train": table(train_items(240, "few-shot"))}


if __name__ == "__main__":
    sys.stdout.write(f"{TASKS_DIR}\n")
