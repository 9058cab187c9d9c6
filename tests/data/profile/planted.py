"""Datasets whose repeats, nulls, positions, languages and PII are planted, so that a profile can be checked exactly."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SYLLABLES = ("ba", "ke", "lo", "mi", "nu", "ra", "se", "ti", "vo", "zu", "dar", "fen", "gol", "hip", "jus")


def words(random_: random.Random, count: int) -> str:
    """Made-up words: two texts share no shingle by chance."""
    return " ".join("".join(random_.choices(SYLLABLES, k=3)) for _ in range(count))


def mcq(count: int, seed: int = 0, answers: Sequence[str] = "ABCD") -> list[dict[str, Any]]:
    """Four-choice questions, all different."""
    random_ = random.Random(seed)
    return [
        {
            "id": f"q{number}",
            "question": f"{words(random_, 25)}?",
            "choices": [f"{words(random_, 2)}" for _ in range(4)],
            "answer": answers[number % len(answers)],
        }
        for number in range(count)
    ]


def altered(row: Mapping[str, Any], random_: random.Random) -> dict[str, Any]:
    """The row with one word of its question changed."""
    parts = row["question"].split()
    parts[random_.randrange(len(parts))] = "altered"
    return {**row, "id": f"{row['id']}-near", "question": " ".join(parts)}


def as_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def as_parquet(path: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path
