"""Profiling a million rows: time, rows a second and peak memory, beside a naive profile on a list of dicts.

    python benchmarks/profile_rows.py [--rows 1000000] [--format parquet|jsonl|both] [--naive 100000]

The parquet file holds questions with four choices and a working, the JSON Lines file the same as messages. Planted,
so that the result can be checked: 5 % of the rows repeat an earlier one, 5 % are an earlier one with a word changed.
Each profile runs in a process of its own, whose peak memory (VmHWM) is told. The naive one holds the rows and a set of
their texts and shingles; it counts nulls, lengths, repeats and answers, and no more. Compare what a row costs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from posttrain_crew.tools.data.profile.profiler import Options, profile_path

_TEXT = """
the a of in on with mass force energy velocity charge field cell gene enzyme acid base bond orbital photon wave
frequency temperature pressure volume gas liquid solid reaction rate constant equilibrium solution concentration
proton neutron electron nucleus decay lifetime spin angular momentum rotation torque friction incline pulley spring
oscillator circuit resistor capacitor inductor voltage current magnetic flux lens mirror refraction index
diffraction grating protein membrane receptor ligand kinase pathway mutation allele chromosome transcription
translation ribosome plasmid vector clone sequence amino peptide helix sheet fold catalyst yield isomer ring carbon
oxygen nitrogen hydrogen sodium calcium iron copper measured calculated observed predicted initial final total
average maximum minimum value ratio between after before during when which what how many much is are was
"""
WORDS = _TEXT.split()
CHUNK = 20_000
REPEATS, NEAR = 0.05, 0.05


def sentence(random_: random.Random, words: int) -> str:
    """Random words with numbers among them."""
    return " ".join(
        random_.choice(WORDS) if random_.random() > 0.08 else f"{random_.random() * 100:.2f}" for _ in range(words)
    )


def rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows of 300 to 500 characters."""
    random_ = random.Random(seed)
    recent: list[dict[str, Any]] = []
    for number in range(count):
        drawn = random_.random()
        if recent and drawn < REPEATS:
            row = dict(random_.choice(recent))
        elif recent and drawn < REPEATS + NEAR:
            row = dict(random_.choice(recent))
            words = row["question"].split()
            words[random_.randrange(len(words))] = "altered"
            row["question"] = " ".join(words)
        else:
            answer = random_.choice("ABCD")
            row = {
                "question": sentence(random_, 30) + "?",
                "choices": [f"{random_.random() * 100:.2f} units" for _ in range(4)],
                "answer": answer,
                "solution": sentence(random_, 20) + f". The answer is ({answer})",
            }
            if len(recent) < 5000:
                recent.append(row)
            else:
                recent[random_.randrange(5000)] = row
        yield {"id": f"row-{number}", **row}


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """The row as a conversation."""
    choices = "\n".join(f"({label}) {text}" for label, text in zip("ABCD", row["choices"], strict=True))
    messages = [
        {"role": "user", "content": f"{row['question']}\n{choices}"},
        {"role": "assistant", "content": row["solution"]},
    ]
    return {"id": row["id"], "messages": messages, "answer": row["answer"]}


def write(folder: Path, count: int, kinds: list[str]) -> dict[str, Path]:
    """The same rows as parquet and as JSON Lines."""
    paths = {kind: folder / f"rows.{kind}" for kind in kinds}
    writer: pq.ParquetWriter | None = None
    lines = paths["jsonl"].open("w", encoding="utf-8") if "jsonl" in paths else None
    batch: list[dict[str, Any]] = []

    def flush() -> None:
        nonlocal writer, batch
        if "parquet" in paths and batch:
            table = pa.Table.from_pylist(batch)
            writer = writer or pq.ParquetWriter(paths["parquet"], table.schema)
            writer.write_table(table)
        if lines is not None:
            lines.writelines(json.dumps(as_messages(row)) + "\n" for row in batch)
        batch = []

    for row in rows(count):
        batch.append(row)
        if len(batch) >= CHUNK:
            flush()
    flush()
    if writer is not None:
        writer.close()
    if lines is not None:
        lines.close()
    return paths


def naive(path: Path, limit: int) -> dict[str, Any]:
    """A list of dicts, a set of texts, a loop for each question."""
    if path.suffix == ".parquet":
        table = pq.read_table(path).slice(0, limit)
        data = table.to_pylist()
    else:
        with path.open(encoding="utf-8") as stream:
            data = [json.loads(line) for line, _ in zip(stream, range(limit), strict=False)]
    nulls: Counter[str] = Counter(name for row in data for name, value in row.items() if value is None)
    texts = [" ".join("".join(c if c.isalnum() else " " for c in content(row).lower()).split()) for row in data]
    shingle_sets = []
    for text in texts:
        words = text.split()
        shingle_sets.append({" ".join(words[i : i + 3]) for i in range(len(words) - 2)})
    return {
        "rows": len(data),
        "nulls": dict(nulls),
        "repeats": 1 - len(set(texts)) / len(texts),
        "mean_chars": sum(map(len, map(content, data))) / len(data),
        "emails": sum("@" in text for text in texts),
        "answers": dict(Counter(r["answer"] for r in data)),
        "shingles": sum(map(len, shingle_sets)),
    }


def content(row: dict[str, Any]) -> str:
    """All texts of a row."""
    if "messages" in row:
        return " ".join(turn["content"] for turn in row["messages"])
    return " ".join([row["question"], *row["choices"], row["solution"]])


def peak_mib() -> float:
    """Largest resident memory of this process so far."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def child(kind: str, path: Path, limit: int) -> int:
    """One profile in this process; its figures as JSON."""
    begun = time.perf_counter()
    if kind == "naive":
        found: dict[str, Any] = naive(path, limit)
        count = found["rows"]
    else:
        profile = profile_path(path, Options())
        count = profile.rows
        repeats, near = profile.repeated_rows, profile.near_duplicates
        found = {
            "repeats": repeats.rate if repeats else None,
            "near": [near.low, near.rate, near.high] if near else None,
        }
    seconds = time.perf_counter() - begun
    print(json.dumps({"rows": count, "seconds": seconds, "peak_mib": peak_mib(), "found": found}))
    return 0


def measured(kind: str, path: Path, limit: int) -> dict[str, Any]:
    """The figures of a child process."""
    command = [sys.executable, __file__, "--child", kind, "--path", str(path), "--naive", str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--naive", type=int, default=100_000)
    parser.add_argument("--format", choices=["parquet", "jsonl", "both"], default="both")
    parser.add_argument("--child", choices=["naive", "profile"])
    parser.add_argument("--path", type=Path)
    given = parser.parse_args()
    if given.child:
        return child(given.child, given.path, given.naive)
    kinds = ["parquet", "jsonl"] if given.format == "both" else [given.format]
    with tempfile.TemporaryDirectory() as name:
        paths = write(Path(name), given.rows, kinds)
        print(
            f"{'what':<34} {'rows':>9} {'MiB':>6} {'seconds':>8} {'rows/s':>8} {'us/row':>7} {'peak MiB':>8} "
            f"{'KiB/row':>8}"
        )
        for kind, path in paths.items():
            size = path.stat().st_size / 2**20
            ours, plain = measured("profile", path, given.naive), measured("naive", path, given.naive)
            for label, each in ((f"profile, {kind}", ours), (f"list of dicts, {kind}", plain)):
                n, seconds, peak = each["rows"], each["seconds"], each["peak_mib"]
                print(
                    f"{label:<34} {n:>9} {size:>6.0f} {seconds:>8.1f} {n / seconds:>8.0f} {seconds / n * 1e6:>7.1f} "
                    f"{peak:>8.0f} {peak * 1024 / n:>8.2f}"
                )
            time_ratio = plain["seconds"] / plain["rows"] / (ours["seconds"] / ours["rows"])
            memory_ratio = plain["peak_mib"] / plain["rows"] / (ours["peak_mib"] / ours["rows"])
            low, rate, high = ours["found"]["near"]
            print(
                f"  per row the list takes {time_ratio:.1f} times the time and {memory_ratio:.0f} times the memory; "
                f"repeats found {ours['found']['repeats']:.4f}, near duplicates {rate:.4f} ({low:.4f}-{high:.4f})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
