"""What crew adds to a training step: our scripts' callbacks and tracking against the bare TRL trainer.

Each round trains the same model on the same rows with the same arguments four times, in the order SFT bare, SFT crew,
GRPO bare, GRPO crew, and the next round in the reverse order, all in one process: load on the machine then touches both
sides alike. Reported are the medians per step over all rounds, first step of each training left out: wall seconds, and
CPU seconds of the whole process (trackio's threads with them), which other programs on the machine disturb less. Aim: a
ratio crew / bare of at most 1.03.

    python benchmarks/trainer_overhead.py                  # the embedded base (made on first use, about two minutes)
    python benchmarks/trainer_overhead.py --model DIR --rounds 6
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

SFT = {"learning_rate": 2e-3, "max_steps": 20, "per_device_train_batch_size": 32, "max_length": 256}
GRPO = {
    "learning_rate": 1e-4,
    "max_steps": 4,
    "per_device_train_batch_size": 128,
    "num_generations": 8,
    "max_completion_length": 40,
}


def rows(method: str) -> list[dict[str, Any]]:
    """600 training questions of the embedded benchmark's train side."""
    from posttrain_crew.tools.embedded.benchmark import prompt, train_items

    made: list[dict[str, Any]] = []
    for item in train_items(600, 0):
        asked = [{"role": "user", "content": prompt(item.question, item.choices)}]
        answered: dict[str, Any] = {"answer": item.answer}
        if method == "sft":
            answered = {"completion": [{"role": "assistant", "content": item.solution}]}
        made.append({"prompt": asked, **answered})
    return made


def step_seconds(method: str, crew: bool, model_path: str, folder: Path, trackio: bool) -> list[tuple[float, float]]:
    """(wall, CPU) seconds of each step but the first."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed

    from posttrain_crew.tools.training import grpo, session, sft
    from posttrain_crew.tools.training.callbacks import JobCallback
    from posttrain_crew.tools.training.config import RewardSpec, TrainingConfig

    class Clock(TrainerCallback):
        """Times the end of each step; the same on both sides."""

        def __init__(self) -> None:
            self.times: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append((time.perf_counter(), time.process_time()))

    config = TrainingConfig(
        method="sft" if method == "sft" else "grpo",
        model=model_path,
        data=folder / "unused.jsonl",
        reward=() if method == "sft" else (RewardSpec(name="mcq_letter"),),
        trackio_project="overhead" if crew and trackio else None,
        trainer=SFT if method == "sft" else GRPO,
    )
    session._prepare_environment(config)
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    arguments = session._arguments(config, folder, on_cpu=not torch.cuda.is_available())
    callback = JobCallback(folder / "metrics.jsonl", time.monotonic() + 1e6, lambda: False)
    job = session.Job(config, folder, arguments, model, tokenizer, rows(method), None, callback)
    trainer = (sft if method == "sft" else grpo).make_trainer(job)
    if not crew:
        trainer.remove_callback(callback)
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return [(b[0] - a[0], b[1] - a[1]) for a, b in zip(clock.times, clock.times[1:], strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a local model directory")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-trackio", action="store_true", help="leave tracking out on crew's side")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import torch

    torch.set_num_threads(options.threads)
    model = options.model
    if model is None:
        from posttrain_crew.tools.embedded.base_model import default_cache_dir, ensure_base

        model = str(ensure_base(default_cache_dir(), print))
    order = [("sft", False), ("sft", True), ("grpo", False), ("grpo", True)]
    measured: dict[tuple[str, bool], list[tuple[float, float]]] = {side: [] for side in order}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRACKIO_DIR"] = str(Path(folder) / "trackio")
        for turn in range(options.rounds):
            for side in order if turn % 2 == 0 else order[::-1]:
                measured[side] += step_seconds(*side, model, Path(folder), not options.no_trackio)
    print(f"\n{'method':8}{'clock':6}{'bare s/step':>14}{'crew s/step':>14}{'ratio':>8}{'steps each':>12}")
    for method in ("sft", "grpo"):
        for position, clock in enumerate(("wall", "cpu")):
            bare, crew = (median(pair[position] for pair in measured[method, side]) for side in (False, True))
            count = len(measured[method, True])
            print(f"{method:8}{clock:6}{bare:14.4f}{crew:14.4f}{crew / bare:8.3f}{count:12}")
    print(json.dumps({"threads": options.threads, "rounds": options.rounds, "load": os.getloadavg()}))


if __name__ == "__main__":
    main()
