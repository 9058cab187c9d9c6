"""The confusion matrix of the watch rules over the histories beside this file.

    python -m tests.training.histories.matrix [--side rule|test|fresh] [--misses] [--bare]

Each history is replayed as a watcher sees the job: after every log the rules read all records so far, and the first
`stop` ends it. The verdict is the cause of that stop, or, where none came, the diagnosis of the finished job. A false
alarm is any finding at any moment of a healthy run, a warning included.

`--bare` shows instead what `crew diagnose` makes of the complete metrics.jsonl of each run alone: no config beside it,
so that neither batch nor group size nor method is known, and no watcher that saw the run on its way.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.tools.training.diagnose import diagnose
from posttrain_crew.tools.training.job_folder import guess_method
from posttrain_crew.tools.training.watch import Finding, findings
from tests.training.histories.recipes import CLASSES

MADE = Path(__file__).parent / "made"


@dataclass(frozen=True)
class History:
    """A real run with its label."""

    name: str
    label: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def failure(self) -> str:
        return str(self.label["class"])


@dataclass(frozen=True)
class Verdict:
    """What the rules said of a run."""

    history: History
    cause: str
    stopped_at: int | None
    """Step of the log at which the job was ended."""
    alarms: tuple[str, ...]
    """Causes of all findings at any moment, in their order."""
    finding: Finding | None = None
    """What ended the job."""

    @property
    def right(self) -> bool:
        return self.cause == self.history.failure

    @property
    def saved(self) -> int:
        """Steps that the stop spared."""
        return 0 if self.stopped_at is None else max(0, int(self.history.label["steps"]) - self.stopped_at)


def histories(side: str | None = None, folder: Path = MADE) -> list[History]:
    """All kept runs, or those of one side (`rule`, `test`, `fresh`), in the order of the classes."""
    found = []
    for path in folder.glob("*.yaml"):
        label = yaml.safe_load(path.read_text())
        if side is None or label["split"] == side:
            found.append(History(path.stem, label, _records(path.with_suffix(".jsonl.gz"))))
    return sorted(found, key=lambda h: (CLASSES.index(h.failure), h.label["seed"]))


def judge(history: History) -> Verdict:
    """Replay a run log by log."""
    label, alarms = history.label, []
    for count in range(1, len(history.records) + 1):
        seen = history.records[:count]
        # the rules read a running job within a second or two of its newest log
        now = float(seen[-1]["time"]) if count < len(history.records) else float(label["seen_until"])
        found = findings(seen, label["method"], label["trainer"], now=now)
        alarms += [finding.cause for finding in found if finding.cause not in alarms]
        if found and found[0].stop:
            return Verdict(history, found[0].cause, int(seen[-1]["step"]), tuple(alarms), found[0])
    at_end = float(label["seen_until"]) if history.failure == "stalled_data" else None
    told = diagnose(history.records, None, label["method"], label["trainer"], now=at_end)
    return Verdict(history, told.cause, None, tuple(alarms))


def judge_bare(history: History) -> Verdict:
    """The diagnosis of the metrics alone; a stalled run is looked at while it stalls, as a file that has ended has no
    wait in it."""
    now = float(history.label["seen_until"]) if history.failure == "stalled_data" else None
    told = diagnose(history.records, None, guess_method(history.records), {}, now=now)
    alarms = () if told.cause == "healthy" else (told.cause,)
    return Verdict(history, told.cause, None, alarms)


def table(verdicts: Iterable[Verdict]) -> str:
    """The matrix, one row for each class that was done to a run, with recall and the steps saved."""
    verdicts = list(verdicts)
    names = [name for name in CLASSES if any(v.history.failure == name for v in verdicts)]
    other = sorted({v.cause for v in verdicts} - set(names))
    columns = [*names, *other]
    wide = max(len(name) for name in names) + 1
    lines = [" " * wide + "".join(f"{name[:9]:>10}" for name in columns) + f"{'recall':>10}{'saved':>8}"]
    for name in names:
        own = [v for v in verdicts if v.history.failure == name]
        counts = "".join(f"{sum(v.cause == column for v in own) or '.':>10}" for column in columns)
        saved = f"{saved_share(own):.0%}" if name != "healthy" else ""
        lines.append(f"{name:<{wide}}{counts}{recall(own):>10.2f}{saved:>8}")
    failing = [v for v in verdicts if v.history.failure != "healthy"]
    healthy = [v for v in verdicts if v.history.failure == "healthy"]
    false = [v for v in healthy if v.alarms]
    lines += [
        "",
        f"{len(verdicts)} runs; false alarms on {len(false)} of {len(healthy)} healthy runs; "
        f"{saved_share(failing):.1%} of the failing jobs' steps saved by early stops "
        f"({saved_share(failing, stalled=True):.1%} with the steps that stalled jobs took before their stall)",
    ]
    return "\n".join(lines)


def recall(verdicts: list[Verdict]) -> float:
    """Share of verdicts that are right."""
    return sum(v.right for v in verdicts) / len(verdicts)


def saved_share(verdicts: list[Verdict], *, stalled: bool = False) -> float:
    """Share of the steps of these jobs that came after their stops. Stalled jobs count only where `stalled` is set:
    they take no step after the stall, so that ending them spares hours and never a step."""
    counted = [v for v in verdicts if stalled or v.history.failure != "stalled_data"]
    return sum(v.saved for v in counted) / max(1, sum(int(v.history.label["steps"]) for v in counted))


def _records(path: Path) -> list[dict[str, Any]]:
    special = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    with gzip.open(path, "rt") as stream:
        rows = [json.loads(line) for line in stream]
    return [{k: special.get(v, v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description="The confusion matrix of the watch rules.")
    parser.add_argument("--side", choices=("rule", "test", "fresh"))
    parser.add_argument("--misses", action="store_true", help="say what was missed")
    parser.add_argument("--bare", action="store_true", help="the metrics alone, without their config")
    parser.add_argument("--folder", type=Path, default=MADE)
    chosen = parser.parse_args()
    for side in (chosen.side,) if chosen.side else ("rule", "test", "fresh"):
        verdicts = [(judge_bare if chosen.bare else judge)(h) for h in histories(side, chosen.folder)]
        sys.stdout.write(f"{side} seeds (done to the run: down; said by the rules: across)\n{table(verdicts)}\n\n")
        for v in verdicts if chosen.misses else []:
            if not v.right or (v.history.failure == "healthy" and v.alarms):
                told = f"{v.cause} at {v.stopped_at}, alarms {', '.join(v.alarms) or 'none'}"
                sys.stdout.write(f"  {v.history.name} ({v.history.label['done']}): {told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
