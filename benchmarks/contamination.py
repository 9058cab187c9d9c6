"""What the contamination check finds and what it accuses wrongly, on planted sets; and its speed on 200,000 rows.

    python -m benchmarks.contamination                     # from the repository's root; about a minute on one core
    python -m benchmarks.contamination --rows 20000 --seeds 1

Two benchmarks: gpqa-mini (1,200 templated items), and general questions written by hand (general_questions.py here).
Prints recall by kind of disguise, false alarms by kind of clean row, and then, for one file of --rows rows with 1 %
planted among train-side rows of the same templates: recall, false alarms, rows per second, peak memory. Aims: exact >=
99 %, reworded >= 90 %, false alarms <= 1 %.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from benchmarks.general_questions import general_items, same_context, siblings

import posttrain_crew.targets
from posttrain_crew.target import load_target
from posttrain_crew.tools.data.contamination import ContaminationIndex
from posttrain_crew.tools.data.planted import DISGUISES, dressed, plant
from posttrain_crew.tools.data.reader import RawRow
from posttrain_crew.tools.embedded.benchmark import make_item, train_params
from posttrain_crew.tools.embedded.families import FAMILIES
from posttrain_crew.tools.sources import BenchmarkItem, benchmark_items

NEEDLES = 0.01


def mini_items() -> list[BenchmarkItem]:
    """Dev and test of gpqa-mini."""
    target = load_target(Path(posttrain_crew.targets.__path__[0]) / "gpqa-mini.yaml")
    return [*benchmark_items(target, "dev"), *benchmark_items(target, "test")]


def clean_mini(seed: int) -> Iterator[BenchmarkItem]:
    """Train-side questions without end: the benchmark's templates and wordings, other numbers, no instance of it."""
    rng = random.Random(f"clean {seed}")
    pools = {name: train_params(name) for name in FAMILIES}
    for name in cycle(FAMILIES):
        found = make_item(FAMILIES[name], rng.choice(pools[name]), rng)
        yield BenchmarkItem(found.id, found.question, found.choices, found.answer)


def line(benchmark: str, kind: str, index: ContaminationIndex, rows: Sequence[RawRow]) -> tuple[int, int]:
    """Check rows of one kind and print how many are matched, in all and by check."""
    matches = index.check_raw(rows)
    by_check = " ".join(f"{count:6}" for count in matches.by_check.values())
    print(f"{benchmark:9} {kind:22} {len(rows):6} {matches.rate:8.2%}  {by_check}", flush=True)
    return len(matches.rows), len(rows)


def tables(seeds: int) -> None:
    """Recall by disguise, and false alarms by kind of clean row, for both benchmarks."""
    benchmarks = {"gpqa-mini": mini_items(), "general": general_items()}
    indices = {name: ContaminationIndex(items) for name, items in benchmarks.items()}
    head = f"{'benchmark':9} {'kind':22} {'rows':>6} {'matched':>8}   exact ngram13 ngram8 near_d rewrdd"
    print("recall: rows that are items of the benchmark\n" + head)
    for name, items in benchmarks.items():
        for kind in DISGUISES:
            rows = [row for seed in range(seeds) for row in plant(items, kind, seed)]
            if rows:
                line(name, kind, indices[name], rows)
    print("\nfalse alarms: rows that are none\n" + head)
    swapped, inverse = siblings()
    clean = clean_mini(1)
    mini_rows = [dressed(next(clean), i) for i in range(20_000)]
    kinds: list[tuple[str, str, list[RawRow]]] = [
        ("gpqa-mini", "train side", mini_rows),
        ("gpqa-mini", "other numbers", plant(benchmarks["gpqa-mini"], "other_numbers", 0)),
        ("gpqa-mini", "general questions", plant(benchmarks["general"], "exact", 0)),
        ("general", "other numbers", plant(benchmarks["general"], "other_numbers", 0)),
        ("general", "inverse problem", [dressed(item, dress) for item in inverse for dress in range(6)]),
        ("general", "entity swapped", [dressed(item, dress) for item in swapped for dress in range(6)]),
        ("general", "gpqa-mini items", plant(benchmarks["gpqa-mini"], "exact", 0)),
    ]
    counts = [line(name, kind, indices[name], rows) for name, kind, rows in kinds]
    matched, seen = (sum(column) for column in zip(*counts, strict=True))
    print(f"{'all clean rows':32} {seen:6} {matched / seen:8.2%}")
    print("\nby design: another question about the very words and numbers of an item is matched by the n-gram rules")
    line("general", "same context", indices["general"], [dressed(i, d) for i in same_context() for d in range(6)])


def needles(rows: int) -> None:
    """1 % planted in one file: recall, false alarms, time, memory."""
    items = mini_items()
    planted = [row for kind in DISGUISES for row in plant(items, kind, 7)]
    rng = random.Random("needles")
    count = round(NEEDLES * rows)
    where = set(rng.sample(range(rows), count))
    clean = clean_mini(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        with path.open("w", encoding="utf-8") as stream:
            for i in range(rows):
                row = rng.choice(planted) if i in where else dressed(next(clean), i)
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        index = ContaminationIndex(items)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, cpu = time.perf_counter(), time.process_time()
        verdict = index.verdict(path)
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        from posttrain_crew.tools.data.reader import open_dataset

        found = set(index.check_raw(open_dataset(path).rows()).rows)
    print(
        f"\n{rows:,} rows ({path.suffix}), {count} needles: recall {len(found & where) / count:.2%}, false alarms "
        f"{len(found - where) / (rows - count):.4%}, passed {verdict.passed}"
    )
    print(
        f"verdict in {took:.1f} s, {cpu:.1f} s of them on the processor ({rows / cpu:,.0f} rows/s), memory "
        f"{before / 1024:.0f} MiB before, at most {after / 1024:.0f} MiB after"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    tables(arguments.seeds)
    needles(arguments.rows)


if __name__ == "__main__":
    sys.exit(main())
