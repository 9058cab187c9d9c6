"""How long `crew` takes to answer: `--help` and `status` must do so within half a second on two cores.

    python benchmarks/cli_startup.py [--repeat 10]

Prints the median and the slowest of each command, and the ratio to the start of a bare interpreter; exit 1 over
the limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 0.5
CREW = [sys.executable, "-m", "posttrain_crew.crews.cli"]


def seconds(command: list[str], repeat: int) -> list[float]:
    """Wall-clock times, after one start that warms the file cache."""
    found = []
    for _ in range(repeat + 1):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - begun)
    return found[1:]


def demo_run(folder: Path) -> None:
    """A run that `status` can show."""
    from posttrain_crew.blackboard import Blackboard

    run = folder / "demo"
    run.mkdir()
    Blackboard(run / "blackboard.db", create=True).close()
    status = {
        "run": "demo",
        "target": "gpqa-mini",
        "state": "finished",
        "best": "exp-1",
        "best_score": 0.8,
        "hours": 0.5,
    }
    (run / "status.json").write_text(json.dumps(status))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=10)
    repeat = parser.parse_args().repeat
    with tempfile.TemporaryDirectory() as name:
        demo_run(Path(name))
        place = ["--runs-dir", name]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "crew --help": [*CREW, "--help"],
            "crew status": [*CREW, "status", *place],
            "crew runs": [*CREW, "runs", *place],
            "crew log demo": [*CREW, "log", "demo", *place],
        }
        times = {label: seconds(command, repeat) for label, command in commands.items()}
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':<16} {'median s':>9} {'slowest s':>10} {'x bare python':>14} {'limit':>6}")
    over = False
    for label, values in times.items():
        median = statistics.median(values)
        bound = label in ("crew --help", "crew status")
        over |= bound and median > LIMIT_S
        limit = f"{LIMIT_S:g}" if bound else ""
        print(f"{label:<16} {median:>9.3f} {max(values):>10.3f} {median / bare:>14.1f} {limit:>6}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
