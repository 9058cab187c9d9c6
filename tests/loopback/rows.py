"""Rows of the datasets of the loopback world, made from gpqa-mini: what is clean, what leaks, what is off the domain.

All rows are train-side but those that `contaminated` takes from dev and test on purpose.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posttrain_crew.tools.embedded import catalogue, off_domain
from posttrain_crew.tools.embedded.benchmark import LETTERS, Item, items, prompt, stable_hash, train_items
from posttrain_crew.tools.embedded.catalogue import SHARES
from posttrain_crew.tools.embedded.families import FAMILIES
from tests.loopback.bombs import packed

__all__ = ["Rows"]

Rows = Sequence[Mapping[str, Any]]
LEAKED = 0.15
OTHER = 4096
"""Added to the seed where a maker of the shipped catalogue is used, so that its rows are not those of the catalogue."""


def _sample(name: str, count: int, seed: int) -> list[Item]:
    return train_items(count, f"loopback {name} {seed}", SHARES)


def _columns(item: Item) -> dict[str, Any]:
    return {"question": item.question, "choices": list(item.choices), "answer": item.answer, "solution": item.solution}


def worked(name: str, count: int, seed: int) -> Rows:
    """Clean rows with a working."""
    return [_columns(item) for item in _sample(name, count, seed)]


def contaminated(count: int, seed: int) -> Rows:
    """Worked rows; LEAKED of them are dev and test items in other words and with their choices in another order."""
    rng = random.Random(stable_hash("loopback", "contaminated", seed))
    found = _sample("contaminated", round(count * (1 - LEAKED)), seed)
    held_out = rng.sample(items("dev") + items("test"), count - len(found))
    found += [catalogue._reworded(item, rng) for item in held_out]
    rng.shuffle(found)
    return [_columns(item) for item in found]


def letters(count: int, seed: int) -> Rows:
    """Clean rows without a working."""
    return [
        {"question": item.question, "choices": list(item.choices), "answer": item.answer}
        for item in _sample("letters", count, seed)
    ]


def dialogues(seed: int) -> Rows:
    """ShareGPT turns with another answer format; a quarter are duplicates or nearly."""
    return catalogue._tutor(seed + OTHER, False)


def everyday(seed: int) -> Rows:
    """Worked, clean, and about other things."""
    return catalogue._howto(seed + OTHER, False)


def pairs(count: int, seed: int) -> Rows:
    """Preference pairs: a right working, and one of another question with a wrong letter."""
    rng = random.Random(stable_hash("loopback", "pairs", seed))
    found = _sample("pairs", count, seed)
    rows = []
    for item, other in zip(found, [*found[1:], found[0]], strict=True):
        wrong = rng.choice([letter for letter in LETTERS if letter != item.answer])
        rows.append(
            {
                "prompt": prompt(item.question, item.choices),
                "chosen": f"{item.solution}\nAnswer: {item.answer}",
                "rejected": f"Compute {other.working} ({wrong}).\nAnswer: {wrong}",
            }
        )
    return rows


def notes(domain: str, count: int, seed: int) -> Rows:
    """Plain text: a rule, an example, a working."""
    names = [family.name for family in FAMILIES.values() if family.domain == domain]
    found = train_items(count, f"loopback notes {domain} {seed}", names)
    return [{"text": f"{item.formula}. {item.question} {item.working}."} for item in found]


def capitals(count: int, seed: int) -> Rows:
    """Prompt and completion, off the domain."""
    rng = random.Random(stable_hash("loopback", "capitals", seed))
    return [
        {"prompt": question, "completion": f" {choices[LETTERS.index(letter)]}"}
        for question, choices, letter, _ in off_domain.questions(count, rng)
    ]


def instructions(count: int, seed: int) -> Rows:
    """Alpaca columns, off the domain."""
    rng = random.Random(stable_hash("loopback", "instructions", seed))
    return [
        {"instruction": question, "input": "", "output": f"{reason}."}
        for question, _, _, reason in off_domain.questions(count, rng)
    ]


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: Rows) -> bytes:
    import pyarrow as pa  # slow to import, and most requests do without
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), out, row_group_size=500)
    return out.getvalue()


def wide_parquet(columns: int) -> bytes:
    """Three rows of so many columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    column = pa.array([1, 2, 3], pa.int8())
    names = [f"c{number}" for number in range(columns)]
    pq.write_table(pa.Table.from_arrays([column] * columns, names), out, compression="none", write_statistics=False)
    return out.getvalue()


def huge_field(count: int, size: int, seed: int) -> bytes:
    """Worked rows as JSON lines; the working of the tenth has `size` characters."""
    rows = [dict(row) for row in worked("huge", count, seed)]
    rows[9]["solution"] = "Compute " + "1 + 1 = 2, " * (size // 11) + "(A)."
    return as_jsonl(rows)


def gzip_bomb(gibibytes: int, seed: int) -> bytes:
    """Packed JSON lines: 50 rows, then one whose question is a string of so many GiB."""
    head = as_jsonl(worked("bomb", 50, seed)) + b'{"question": "'
    return packed(head, b"A" * 2**20, 1024 * gibibytes, b'"}\n')


def nested(count: int, depth: int, seed: int) -> bytes:
    """Rows with a field of lists inside each other; the tenth is `depth` deep, which no recursive parser survives."""
    lines = as_jsonl(worked("nested", count, seed)).splitlines()
    deep = ["[" * level + "]" * level for level in [depth if number == 9 else 2 for number in range(count)]]
    return b"".join(line[:-1] + f', "extra": {extra}}}\n'.encode() for line, extra in zip(lines, deep, strict=True))
