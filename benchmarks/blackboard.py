"""The blackboard under load: 1,000 typed posts from 4 threads, and reading a board of 100,000 entries.

    python benchmarks/blackboard.py [--entries 100000]

Ratios are to bare sqlite3 doing the same number of one-row transactions in the same run, so that they mean the same on
a slow disk. The big board is filled row by row through SQL with true hashes (posting it would measure nothing new).
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from posttrain_crew.blackboard import _GENESIS, Blackboard, _row_hash
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.crews.brief import brief
from posttrain_crew.crews.runs import find_target
from posttrain_crew.entries import Incident, PaperRead, RunStarted
from posttrain_crew.events import Events
from posttrain_crew.files import canonical_json
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.state import RunState
from posttrain_crew.tools.compute.local import LocalCompute
from posttrain_crew.tools.workspace import Workspace

POSTS, THREADS = 1000, 4


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def bare(path: Path) -> float:
    """One-row transactions with sqlite3 alone, with the board's own settings."""
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, body TEXT)")

        def work() -> None:
            for number in range(POSTS):
                database.execute("BEGIN IMMEDIATE")
                database.execute("INSERT INTO entries VALUES (?, ?)", (number, "x" * 200))
                database.execute("COMMIT")

        return timed(work)


def posts(path: Path) -> float:
    """Typed posts from several threads; the chain must hold afterwards."""
    board = Blackboard(path, create=True)

    def post(number: int) -> None:
        board.post(Incident(where=f"thread {number}", what="a measurement " * 8, instead="nothing"), author="bench")

    with ThreadPoolExecutor(THREADS) as pool:
        seconds = timed(lambda: list(pool.map(post, range(POSTS))))
    assert board.verify() == POSTS
    return seconds


def fill(path: Path, entries: int) -> Blackboard:
    """A board of many entries with a valid chain."""
    board = Blackboard(path, create=True)
    start = RunStarted.model_construct(
        run="bench", target="gpqa-mini", base_model="base", base_model_path="/base", llm="playbook", seed=0, hours=1.0
    )
    board.post(RunStarted.model_validate(start.model_dump()), author="crew")
    first = board.since()[0]
    body = PaperRead(
        arxiv_id="2402.03300", title="A paper", year=2024, techniques=["grpo"], findings=["x" * 100], source="library"
    )
    text, previous, rows = canonical_json(body.model_dump(mode="json")), first.hash, []
    for seq in range(2, entries + 1):
        row = {
            "seq": seq, "id": f"pap-{seq - 1}", "kind": "paper", "status": "observation", "author": "bench",
            "created_at": first.created_at, "key": None, "refs": "[]", "body": text, "prev_hash": previous,
        }  # fmt: skip
        previous = _row_hash(row)
        rows.append((*row.values(), previous))
    board.close()
    with sqlite3.connect(path) as database:
        database.executemany(f"INSERT INTO entries VALUES ({', '.join('?' * 11)})", rows)
    return board


def brief_of(board: Blackboard, folder: Path) -> float:
    """Seconds for what the coordinator reads before each plan."""
    run = RunDirectory.create(folder / "run")
    budget = Budget(board, Limits(hours=1.0))
    workspace = Workspace(board, run, find_target("gpqa-mini"), budget, LocalCompute(), Events(run.events))
    return timed(lambda: brief(workspace, []))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    entries = parser.parse_args().entries
    assert len(_GENESIS) == 64
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = statistics.median(bare(folder / f"bare{i}.db") for i in range(3))
        mine = statistics.median(posts(folder / f"posts{i}.db") for i in range(3))
        board = fill(folder / "big.db", entries)
        state = timed(lambda: RunState.of(board))
        coordinator = brief_of(board, folder)
        newest = timed(lambda: board.since(entries - 50))
        counts = timed(board.counts)
        one = timed(lambda: board.post(Incident(where="w", what="w", instead="i"), author="bench"))
        chain = timed(board.verify)
    print(f"{'what':<52} {'seconds':>9} {'ratio':>7}")
    print(f"{f'{POSTS} one-row transactions, bare sqlite3':<52} {base:>9.3f} {1:>7.1f}")
    print(f"{f'{POSTS} typed posts from {THREADS} threads':<52} {mine:>9.3f} {mine / base:>7.1f}")
    for label, seconds in (
        ("the coordinator's brief", coordinator),
        ("state of the run", state),
        ("the newest 50 entries", newest),
        ("counts per kind", counts),
        ("one post", one),
        ("verify the whole chain", chain),
    ):
        print(f"{f'{entries} entries: {label}':<52} {seconds:>9.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
