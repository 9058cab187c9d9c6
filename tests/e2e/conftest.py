"""End-to-end helpers: the real command line on a smaller target, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain_crew.target import load_target

SHIPPED = Path(__file__).parents[2] / "targets" / "gpqa-mini.yaml"


@dataclass
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def last(self) -> dict[str, Any]:
        """The last line of `--json` output."""
        lines = self.stdout.strip().splitlines()
        assert lines, self.stderr[-3000:]
        value: dict[str, Any] = json.loads(lines[-1])
        return value


def crew(*arguments: str, environment: dict[str, str] | None = None, timeout: float = 1200) -> Finished:
    """Run the command line to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "posttrain_crew.crews.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def small_target(tmp_path: Path) -> Path:
    """gpqa-mini with fewer items and steps: the same loop in about a minute."""
    raw = yaml.safe_load(SHIPPED.read_text())
    raw["name"] = "small"
    raw["goal"] = 0.5
    raw["evaluation"] |= {"limit": 150, "few_shot_reference": 0}
    raw["training"]["sft"] |= {"num_train_epochs": 1}
    raw["training"]["grpo"] |= {"max_steps": 4}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(raw))
    load_target(path)
    return path
