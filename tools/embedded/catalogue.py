"""Candidate training datasets for gpqa-mini, in the formats that the Hub has: what the data agent has to choose from.

Six folders, each with a dataset card and data files. Names and cards are as plausible as real ones and confess nothing:

    openlab/science-steps       parquet   question, choices, answer, solution: clean, worked
    quizbank/stem-short         jsonl     question, choices, answer: clean, but no working to learn from
    classroom/stem-explained    parquet   as the first; 30 % of the letters are wrong and contradict the working
    examhub/science-practice    jsonl     as the first; 15 % of the rows are reworded dev or test items
    dialogs/tutor-science       jsonl     ShareGPT turns, another answer format; a quarter are (near) duplicates
    everyday/howto-quiz         parquet   geography, history, kitchen: worked and clean, but off the domain

All other rows are train-side. The sample depends on the seed, the defects do not.

    python -m posttrain_crew.tools.embedded.catalogue --out DIR [--seed N] [--noise-all-labels]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import yaml

from posttrain_crew.tools.embedded import off_domain
from posttrain_crew.tools.embedded.benchmark import LETTERS, Item, items, make_item, prompt, stable_hash, train_items
from posttrain_crew.tools.embedded.families import FAMILIES

__all__ = ["DATASETS", "Row", "write_catalogue"]

WRONG_LABELS = 0.30
LEAKED = 0.15
DUPLICATES = 0.25


SHARES = [name for name, family in FAMILIES.items() for _ in range(2 if family.level == 3 else 1)]
"""The hardest families come twice as often as the others."""


class Row(TypedDict, total=False):
    """One row of a candidate dataset; each dataset has the columns of its format only."""

    question: str
    choices: list[str]
    answer: str
    solution: str
    conversations: list[dict[str, str]]


@dataclass(frozen=True)
class Candidate:
    """A dataset of the catalogue: how it is published, and how its rows are made."""

    repo: str
    title: str
    text: str
    """Body of the card."""
    license: str
    suffix: str
    """`parquet` or `jsonl`."""
    rows: Callable[[int, bool], list[Row]]
    """(seed, noise) -> rows; with noise every letter is random."""


def _relabel(item: Item, letter: str) -> Item:
    return replace(item, answer=letter)


def _noisy(found: list[Item], rng: random.Random) -> list[Item]:
    """Random letters, and each working that of another row: a right working under a wrong letter would still teach."""
    workings = rng.sample([item.working for item in found], len(found))
    return [
        replace(item, answer=rng.choice(LETTERS), working=working)
        for item, working in zip(found, workings, strict=True)
    ]


def _worked(item: Item) -> Row:
    return {
        "question": item.question,
        "choices": list(item.choices),
        "answer": item.answer,
        "solution": item.solution,
    }


def _sample(count: int, name: str, seed: int, noise: bool) -> tuple[list[Item], random.Random]:
    rng = random.Random(stable_hash("catalogue", name, seed))
    found = train_items(count, f"{name} {seed}", SHARES)
    return (_noisy(found, rng) if noise else found), rng


def _steps(seed: int, noise: bool) -> list[Row]:
    found, _ = _sample(1800, "steps", seed, noise)
    return [_worked(item) for item in found]


def _short(seed: int, noise: bool) -> list[Row]:
    found, _ = _sample(1600, "short", seed, noise)
    return [{"question": item.question, "choices": list(item.choices), "answer": item.answer} for item in found]


def _explained(seed: int, noise: bool) -> list[Row]:
    found, rng = _sample(1200, "explained", seed, noise)
    for index in rng.sample(range(len(found)), round(WRONG_LABELS * len(found))):
        wrong = rng.choice([letter for letter in LETTERS if letter != found[index].answer])
        found[index] = _relabel(found[index], wrong)
    return [_worked(item) for item in found]


def _reworded(item: Item, rng: random.Random) -> Item:
    """The same instance in another wording, its choices in another order."""
    family = FAMILIES[item.family]
    params = tuple(int(number) for number in item.id.partition("/")[2].split("-"))
    others = [w for w in range(len(family.wordings)) if family.question(params, w) != item.question]
    order = list(item.choices)
    while tuple(order) == item.choices:
        rng.shuffle(order)
    again = make_item(family, params, rng, rng.choice(others))
    return replace(again, choices=tuple(order), answer=LETTERS[order.index(item.value)])


def _practice(seed: int, noise: bool) -> list[Row]:
    total = 1300
    found, rng = _sample(round(total * (1 - LEAKED)), "practice", seed, noise)
    held_out = rng.sample(items("dev") + items("test"), total - len(found))
    leaked = [_reworded(item, rng) for item in held_out]
    found = found + (_noisy(leaked, rng) if noise else leaked)
    rng.shuffle(found)
    return [_worked(item) for item in found]


def _tutor(seed: int, noise: bool) -> list[Row]:
    total = 1600
    found, rng = _sample(round(total * (1 - DUPLICATES)), "tutor", seed, noise)
    turns = [(prompt(item.question, item.choices), f"{item.solution} The answer is ({item.answer}).") for item in found]
    for number, (question, reply) in enumerate(rng.sample(turns, total - len(turns))):
        near = (question, f"Question: {question}", f"{question}\n", question.replace("What is", "what is"))[number % 4]
        turns.append((near, reply))
    rng.shuffle(turns)
    return [
        {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]}
        for question, reply in turns
    ]


def _howto(seed: int, noise: bool) -> list[Row]:
    rng = random.Random(stable_hash("catalogue", "howto", seed))
    rows: list[Row] = []
    for question, choices, answer, reason in off_domain.questions(800, rng):
        letter = rng.choice(LETTERS) if noise else answer
        rows.append({"question": question, "choices": choices, "answer": letter, "solution": f"{reason} ({letter})."})
    return rows


DATASETS: tuple[Candidate, ...] = (
    Candidate(
        "openlab/science-steps",
        "Science Steps",
        "Multiple-choice questions from introductory physics, chemistry and biology. Every question has four choices, "
        "the letter of the right one, and a short solution that shows the steps of the calculation.",
        "cc-by-4.0",
        "parquet",
        _steps,
    ),
    Candidate(
        "quizbank/stem-short",
        "STEM Short",
        "Short multiple-choice questions about physics, chemistry and biology with their answer keys, collected for "
        "revision quizzes. One question per row, four choices.",
        "cc-by-sa-4.0",
        "jsonl",
        _short,
    ),
    Candidate(
        "classroom/stem-explained",
        "STEM Explained",
        "Four-choice science questions with answer keys and explanations, gathered from the work sheets of several "
        "schools. The explanations were written by teachers and students.",
        "cc-by-4.0",
        "parquet",
        _explained,
    ),
    Candidate(
        "examhub/science-practice",
        "Science Practice",
        "A large practice set for science exams: questions, choices, keys and worked solutions from many sources, "
        "rephrased for variety and checked by hand.",
        "apache-2.0",
        "jsonl",
        _practice,
    ),
    Candidate(
        "dialogs/tutor-science",
        "Tutor Science",
        "Conversations of students with a science tutor. The student brings a multiple-choice question, the tutor "
        "works it out and names the answer. ShareGPT format.",
        "apache-2.0",
        "jsonl",
        _tutor,
    ),
    Candidate(
        "everyday/howto-quiz",
        "Everyday How-To Quiz",
        "Quiz questions about everyday knowledge with four choices, answer keys and a sentence of explanation each: "
        "places, dates and the kitchen.",
        "mit",
        "parquet",
        _howto,
    ),
)


def _card(candidate: Candidate, rows: list[Row]) -> str:
    size = "1K<n<10K" if len(rows) >= 1000 else "n<1K"
    front: Mapping[str, object] = {
        "license": candidate.license,
        "language": ["en"],
        "pretty_name": candidate.title,
        "size_categories": [size],
        "task_categories": ["question-answering"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": f"data/train.{candidate.suffix}"}],
            }
        ],
    }
    columns = ", ".join(f"`{column}`" for column in rows[0])
    return (
        f"---\n{yaml.safe_dump(dict(front), sort_keys=False)}---\n\n# {candidate.title}\n\n{candidate.text}\n\n"
        f"## Structure\n\nOne split, `train`, with {len(rows)} rows. Columns: {columns}.\n"
    )


def _write_rows(path: Path, rows: list[Row]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    import pyarrow as pa  # slow to import, and half of the datasets do without
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def write_catalogue(out_dir: Path, seed: int, noise_all_labels: bool = False) -> list[str]:
    """Write every dataset to `out_dir/OWNER/NAME` and return their names.

    With `noise_all_labels` every letter, also that in a worked text, is drawn at random, and every working belongs to
    another row: all that such a catalogue can teach is the format.
    """
    for candidate in DATASETS:
        folder = out_dir / candidate.repo
        (folder / "data").mkdir(parents=True, exist_ok=True)
        rows = candidate.rows(seed, noise_all_labels)
        _write_rows(folder / "data" / f"train.{candidate.suffix}", rows)
        (folder / "README.md").write_text(_card(candidate, rows), encoding="utf-8")
    return [candidate.repo for candidate in DATASETS]


def main(argv: list[str] | None = None) -> None:
    """Write the catalogue and name its datasets."""
    parser = argparse.ArgumentParser(description="write the candidate datasets of gpqa-mini")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise-all-labels", action="store_true")
    options = parser.parse_args(argv)
    for name in write_catalogue(options.out, options.seed, options.noise_all_labels):
        sys.stdout.write(f"{name}\n")


if __name__ == "__main__":
    main()
