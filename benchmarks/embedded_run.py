"""The embedded run from its command line, once per seed: what it reaches and where the time goes.

    python benchmarks/embedded_run.py                 # seeds 0, 1, 2; about six minutes each on two quiet cores
    python benchmarks/embedded_run.py --seeds 0 --runs-dir /tmp/runs

Prints one line per seed: test score of base and final model, paired p, lenient gain with its p, experiments, wall time,
and the share of the wall time in which no training, evaluation, smoke or probe process ran ("outside", the cost of the
crew itself). Aims: at most 10 minutes with the base cached, at most 15 % outside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def run(seed: int, runs_dir: Path) -> dict[str, Any]:
    """One run; its summary, with the time shares of its report."""
    command = [sys.executable, "-m", "posttrain_crew.crews.cli", "run", "posttrain", "--target", "gpqa-mini"]
    command += ["--seed", str(seed), "--runs-dir", str(runs_dir), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    summary: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "run" not in summary:
        raise SystemExit(f"seed {seed} failed: {summary}")
    report = json.loads((runs_dir / summary["run"] / "report.json").read_text())
    return summary | {"shares": report["time"]["shares"], "exit": done.returncode}


def main() -> None:
    """Run the seeds one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs-dir", type=Path, default=None)
    arguments = parser.parse_args()
    runs_dir = arguments.runs_dir or Path(tempfile.mkdtemp(prefix="embedded-run-"))
    print("seed exit  base  final        p  lenient gain        p  experiments  wall s  outside")
    for seed in arguments.seeds:
        r = run(seed, runs_dir)
        outside = r["shares"].get("agents", 0.0) + r["shares"].get("other", 0.0)
        strict, lenient = r["comparison"] or {}, r["comparison_lenient"] or {}
        p_strict, p_lenient = strict.get("p_value", 1.0), lenient.get("p_value", 1.0)
        print(
            f"{seed:4} {r['exit']:4} {r['base']['score']:5.3f}  {r['final']['score']:5.3f} {p_strict:8.1e}"
            f"  {lenient.get('delta', 0):12.3f} {p_lenient:8.1e}  {r['experiments']:11}  {r['wall_s']:6.0f}"
            f"  {outside:6.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
