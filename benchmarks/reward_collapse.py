"""A reward that collapses by itself: stopped, diagnosed, tried again with the remedy. From the command line, for real.

    python benchmarks/reward_collapse.py              # seed 0; about three minutes on two quiet cores
    python benchmarks/reward_collapse.py --seeds 0 1

The target is gpqa-mini with a supervised stage of 16 steps, which leaves reinforcement something to gain, and GRPO at
40 times the shipped learning rate, in groups of four. Nothing else is arranged: whether the policy collapses, the watch
sees it, and the remedy (the diagnosis's tenth of the rate) helps is what the training says, so on another machine
or seed it may go another way. Prints each GRPO experiment with its rate, its end, its diagnosis and its decision.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import Diagnosis, Experiment, JobOutcome
from posttrain_crew.state import RunState

SHIPPED = Path(__file__).parents[1] / "targets" / "gpqa-mini.yaml"
RATE = 4e-3


def target(folder: Path) -> Path:
    """gpqa-mini with a rate that is much too high."""
    raw = yaml.safe_load(SHIPPED.read_text())
    raw |= {"name": "collapsing", "goal": 0.69}
    raw["evaluation"] |= {"limit": 300, "few_shot_reference": 0}
    raw["training"]["sft"] |= {"num_train_epochs": 1, "max_steps": 16}
    raw["training"]["grpo"] |= {"learning_rate": RATE, "max_steps": 30, "num_generations": 4, "temperature": 0.8}
    path = folder / "collapsing.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def tell(run: Path) -> None:
    """What the blackboard says of each GRPO experiment."""
    board = Blackboard(run / "blackboard.db")
    decisions = {name: told.decision for name, told in RunState.of(board).experiments.items()}
    ends = {entry.body.label: entry.body for entry in board.of(JobOutcome)}
    told = {name: entry.body for entry in board.of(Diagnosis) for name in entry.refs}
    for entry in board.of(Experiment):
        if entry.body.method != "grpo":
            continue
        end, diagnosis, decision = ends.get(entry.id), told.get(entry.id), decisions[entry.id]
        print(
            f"  {entry.id} ({entry.body.purpose}, from {entry.body.parent}), rate {entry.body.config['learning_rate']}"
        )
        if end is not None:
            print(f"    ended    {end.error_class or 'well'} after {end.steps} steps {end.message}")
        if diagnosis is not None:
            print(f"    cause    {diagnosis.cause}, remedy {diagnosis.remedy or 'none'}")
        if decision is not None:
            print(f"    decision {decision.body.action}: {decision.body.reason}")


def main() -> None:
    """Run the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    folder = Path(tempfile.mkdtemp(prefix="reward-collapse-"))
    for seed in parser.parse_args().seeds:
        command = [
            sys.executable,
            "-m",
            "posttrain_crew.crews.cli",
            "run",
            "posttrain",
            "--target",
            str(target(folder)),
        ]
        command += ["--seed", str(seed), "--runs-dir", str(folder), "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        summary = json.loads(done.stdout.strip().splitlines()[-1])
        if "run" not in summary:
            raise SystemExit(f"seed {seed} failed: {summary}")
        print(f"seed {seed}: exit {done.returncode}, {summary['verdict']}, {summary['reason']}", flush=True)
        tell(folder / summary["run"])


if __name__ == "__main__":
    main()
