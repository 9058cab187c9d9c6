"""SFT and GRPO on a model of Qwen3-1.7B's exact shape with random weights: the planner's choice beside TRL's defaults.

    python benchmarks/gpu/throughput.py                       both methods, two rounds of each side, on this GPU
    python benchmarks/gpu/throughput.py --method grpo --rounds 3 --set use_vllm=true
    python benchmarks/gpu/throughput.py --cpu-smoke           a tiny shape on the CPU: does this file work?

Each job is the real script (tools/training/{sft,grpo}.py), on a GPU in a process of its own. Rounds alternate the order
of the two sides, so that what else the machine does touches both alike. Both sides have the same lengths and effective
batch (8, TRL's default) and differ in what the planner chooses: micro-batch and accumulation, checkpointing, bf16. Told
are the medians over the rounds: tokens/s (as the trainer counts them), peak memory, the planner's figure for it, and
the ratio ours / defaults. Exit 1 where the planner is off by more than 10 % of the peak on either side, or a job
failed; 2 without a GPU.

Peak: on CUDA `torch.cuda.max_memory_allocated`; in the smoke the live tensors of the training, one by one
(tests/training/accounting.py), which makes its times no measure of speed; its memory does not decide the exit code.
The weights are random, so losses and rewards mean nothing.
NOT RUN on a GPU so far: none was lent to the session that wrote it. The smoke was run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from peak import TOLERANCE, made_rows, random_model, stated, this_device, tiny_shape

from posttrain_crew.tools.training.hardware import Cluster, Device, devices, sharding
from posttrain_crew.tools.training.memory import GIB, Work, memory_of
from posttrain_crew.tools.training.planner import plan, usual_request
from posttrain_crew.tools.training.shape import ModelShape, known_shapes

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("ours", "defaults")
SHAPE = "qwen3-1.7b"
SMOKE_WORK = {"tokens": 64, "completion": 16, "batch": 8, "steps": 2, "rounds": 1}
JOB = """
import importlib, json, sys
from pathlib import Path
import torch, yaml
from posttrain_crew.tools.training import session

def watched(make_trainer):
    def made(job):
        trainer = make_trainer(job)
        if torch.cuda.is_available():
            return trainer
        sys.path.insert(0, {root!r})
        import trl.trainer.utils
        from tests.training.accounting import LiveTensors
        # TRL's tile of the LM head is wider than a small vocabulary, and main memory that nobody touches costs nothing
        trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = trainer.model.config.vocab_size
        train = trainer.train
        def counted(*given, **named):
            with LiveTensors(list(trainer.model.parameters())) as live:
                result = train(*given, **named)
            (job.directory / "peak.json").write_text(json.dumps({{"allocated": live.peak}}))
            return result
        trainer.train = counted
        return trainer
    return made

for path in map(Path, sys.argv[1:]):
    method = yaml.safe_load(path.read_text())["method"]
    script = importlib.import_module("posttrain_crew.tools.training." + method)
    session.main(method, watched(script.make_trainer), [str(path)])
    if torch.cuda.is_available():
        peak = {{"allocated": torch.cuda.max_memory_allocated()}}
        (path.parent / "peak.json").write_text(json.dumps(peak))
"""


@dataclass(frozen=True)
class Measured:
    """One job. Memory in bytes."""

    tokens_per_s: float
    seconds_per_step: float
    peak: float
    planned: float


def main() -> int:
    """Measure, print one JSON line for each job and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", action="append", choices=("sft", "grpo"), help="default: both")
    parser.add_argument("--model", default=SHAPE, choices=sorted(known_shapes()))
    parser.add_argument("--tokens", type=int, default=2048, help="of a row; of a prompt for GRPO")
    parser.add_argument("--completion", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8, help="effective, on both sides")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="trainer fields, both sides")
    parser.add_argument("--seconds", type=float, default=580.0, help="limit of one job")
    parser.add_argument("--cpu-smoke", action="store_true", help="a tiny shape on the CPU")
    given = parser.parse_args()
    import torch

    if given.cpu_smoke:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        for name, value in SMOKE_WORK.items():
            setattr(given, name, value)
    elif not torch.cuda.is_available():
        print(
            "this measures a GPU, and torch sees none here (no driver, or a torch without CUDA: `crew setup gpu`). "
            "`--cpu-smoke` runs a tiny shape on the CPU.",
            file=sys.stderr,
        )
        return 2
    device = devices()["cpu"] if given.cpu_smoke else this_device()
    shape = tiny_shape() if given.cpu_smoke else known_shapes()[given.model]
    print(json.dumps({"device": device.title, "parameters": shape.parameters, "torch": torch.__version__}), flush=True)
    every: dict[tuple[str, str], list[Measured | None]] = {}
    with tempfile.TemporaryDirectory(prefix="throughput-") as folder:
        model = random_model(Path(folder) / "model", shape, "cpu" if given.cpu_smoke else "cuda")
        jobs = []
        for turn in range(given.rounds):
            for method in given.method or ["sft", "grpo"]:
                for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                    place = Path(folder) / f"{method}-{side}-{turn}"
                    prepare(place, method, model, fields_of(side, method, shape, device, given), given)
                    jobs.append((method, side, place))
        if given.cpu_smoke:
            run([place for _, _, place in jobs], given.seconds)  # one process: it spares importing torch four times
        for method, side, place in jobs:
            if not given.cpu_smoke:
                run([place], given.seconds)
            every.setdefault((method, side), []).append(measured(place, shape, device, given))
    return table(every, strict=not given.cpu_smoke)


def fields_of(side: str, method: str, shape: ModelShape, device: Device, given: argparse.Namespace) -> dict[str, Any]:
    """The trainer fields of one side, without lengths and steps."""
    both = stated(given.set)
    if side == "defaults":
        return both
    request = usual_request(
        shape,
        "grpo" if method == "grpo" else "sft",
        Cluster(device),
        tokens=given.tokens,
        completion=given.completion if method == "grpo" else 0,
        batch=given.batch,
        sampling="plain",
        only="single",
    )
    found = plan(request)
    if found.best is None:
        sys.exit(f"the planner says that it does not fit: {found.why}")
    return found.best.trainer() | both


def prepare(folder: Path, method: str, model: Path, fields: dict[str, Any], given: argparse.Namespace) -> None:
    """Write the rows and the config of one job."""
    folder.mkdir()
    rows = made_rows(method, given.tokens)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    length = {"max_completion_length": given.completion} if method == "grpo" else {"max_length": given.tokens}
    config: dict[str, Any] = {
        "method": method,
        "model": str(model),
        "data": str(folder / "train.jsonl"),
        "save_seconds": None,
        "trainer": {"max_steps": given.steps, "learning_rate": 1e-6, **length, **fields},
    }
    if method == "grpo":
        config["reward"] = [{"name": "mcq_letter"}]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def run(folders: list[Path], seconds: float) -> None:
    """Run the jobs in one process; their outcomes say how they ended."""
    script = folders[0] / "jobs.py"
    script.write_text(JOB.format(root=str(ROOT)))
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, str(script), *(str(folder / "config.yaml") for folder in folders)]
    with (folders[0] / "log.txt").open("w") as log:
        try:
            subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            log.write(f"killed after {seconds:.0f} s\n")


def measured(folder: Path, shape: ModelShape, device: Device, given: argparse.Namespace) -> Measured | None:
    """Read what came of a job, and print it; None where it failed."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    try:
        outcome = json.loads((folder / "outcome.json").read_text())
        peak = float(json.loads((folder / "peak.json").read_text())["allocated"])
    except (OSError, ValueError):
        outcome, peak = {"ok": False, "message": _log(folder)[-1000:]}, 0.0
    if not outcome["ok"]:
        print(json.dumps({"job": folder.name, "trainer": config["trainer"], "failed": outcome}), flush=True)
        return None
    seconds = float(outcome["metrics"]["seconds_per_step"])
    a_step = float(outcome["metrics"]["tokens"]) / int(outcome["steps"])
    work = Work.of(
        "grpo" if config["method"] == "grpo" else "sft", config["trainer"], shape, given.tokens, on_cpu=device.on_cpu
    )
    memory = memory_of(work, sharding("single"), device_gib=device.memory_gib)
    # tensors alone: without the process and without what an allocator cannot use again
    planned = sum(part.bytes for part in memory.parts if part.name not in ("process", "fragmentation"))
    found = Measured(a_step / seconds, seconds, peak, planned)
    told = {
        "job": folder.name,
        "trainer": config["trainer"],
        "moment": memory.moment,
        "tokens_a_step": a_step,
        **vars(found),
    }
    print(json.dumps(told), flush=True)
    return found


def _log(folder: Path) -> str:
    path = folder / "log.txt"
    return path.read_text() if path.is_file() else "no outcome; see the first job of this process"


def table(every: dict[tuple[str, str], list[Measured | None]], *, strict: bool) -> int:
    """Print medians and ratios; the exit code. `strict`: the planner's errors count."""
    print(f"\n{'method':8}{'side':10}{'tokens/s':>12}{'s/step':>10}{'peak GiB':>10}{'planned':>10}{'error':>8}")
    code = 0
    for method in dict.fromkeys(method for method, _ in every):
        medians = {}
        for side in SIDES:
            found = [one for one in every[method, side] if one is not None]
            if len(found) < len(every[method, side]):
                print(f"{method:8}{side:10} {len(every[method, side]) - len(found)} job(s) FAILED, see above")
                code = 1
            if not found:
                continue
            speed, step = median(one.tokens_per_s for one in found), median(one.seconds_per_step for one in found)
            peak, planned = median(one.peak for one in found), median(one.planned for one in found)
            error = (planned - peak) / peak
            code = 1 if strict and abs(error) > TOLERANCE else code
            medians[side] = (speed, peak)
            print(f"{method:8}{side:10}{speed:12.1f}{step:10.3f}{peak / GIB:10.3f}{planned / GIB:10.3f}{error:8.1%}")
        if len(medians) == len(SIDES):
            speed, peak = (ours / theirs for ours, theirs in zip(*(medians[side] for side in SIDES), strict=True))
            print(f"{method:8}ours / defaults: tokens/s x {speed:.2f}, peak memory x {peak:.2f}")
    return code


if __name__ == "__main__":
    sys.exit(main())
