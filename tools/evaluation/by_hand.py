"""`crew eval MODEL`: the evaluation job outside a run, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import yaml

from posttrain_crew.errors import JobError
from posttrain_crew.files import atomic_write_text
from posttrain_crew.redact import child_environment, redact
from posttrain_crew.target import Target
from posttrain_crew.tools.evaluation.collect import summary
from posttrain_crew.tools.evaluation.config import config_for
from posttrain_crew.tools.evaluation.run import MODULE

__all__ = ["evaluate_path"]


def evaluate_path(
    model: Path,
    target: Target,
    split: Literal["dev", "test"],
    out: Path,
    limit: int | None = None,
    *,
    few_shot: int = 0,
    seed: int = 0,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Evaluate a model directory and return the scores as `collect.summary` gives them.

    Config, log and result files go to `out`.

    Raises:
        JobError: the job failed or took longer than `timeout_s`; the message has its reason.
    """
    out = out.resolve()
    config = config_for(target, model.resolve(), split, few_shot=few_shot, seed=seed)
    if limit is not None:
        config["limit"] = limit
    atomic_write_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    outcome = out / "outcome.json"
    outcome.unlink(missing_ok=True)
    needed = {name: os.environ[name] for name in ("HF_TOKEN",) if target.requires.gated_dataset and name in os.environ}
    log = out / "log.txt"
    with log.open("w", encoding="utf-8") as stream:
        try:
            subprocess.run(
                [sys.executable, "-m", MODULE, str(out / "config.yaml")],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=child_environment(needed),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise JobError(f"the evaluation of {model} was ended after {timeout_s:.0f} s; its log is {log}.") from error
    if not outcome.is_file():
        tail = redact("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]))
        raise JobError(f"the evaluation of {model} left no outcome. End of {log}: {tail}")
    told = json.loads(outcome.read_text(encoding="utf-8"))
    if not told["ok"]:
        raise JobError(f"the evaluation of {model} failed ({told['error_class']}): {told['message']} Its log is {log}.")
    return {**summary(out), "wall_s": told["wall_s"]}
