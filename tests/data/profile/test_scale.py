"""Memory does not grow with the rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.profile.planted import as_jsonl, as_parquet, mcq

CHILD = """
import sys, json
from pathlib import Path
from posttrain_crew.tools.data.profile.profiler import profile_path
rows = profile_path(Path(sys.argv[1])).rows
peak = [l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1]
print(json.dumps([rows, int(peak) / 1024]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_memory_is_flat(kind: str, tmp_path: Path) -> None:
    rows = mcq(20_000)
    many = [{**row, "question": f"{part} {row['question']}"} for part in range(10) for row in rows]
    peaks = []
    for name, part in (("few", rows), ("many", many)):
        path = tmp_path / f"{name}.{kind}"
        (as_parquet if kind == "parquet" else as_jsonl)(path, part)
        done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True)
        count, peak = json.loads(done.stdout)
        assert count == len(part)
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 60, peaks
    assert peaks[1] < 600, peaks
