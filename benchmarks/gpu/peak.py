"""Peak memory and speed of one training on this GPU, against the planner: within 10 % is the aim.

    python benchmarks/gpu/peak.py sft                        Qwen3-1.7B's exact shape, random weights
    python benchmarks/gpu/peak.py grpo --set use_vllm=false --seconds 300
    python benchmarks/gpu/peak.py sft --model qwen3-0.6b --tokens 1024 --set per_device_train_batch_size=4
    python benchmarks/gpu/peak.py sft --against-defaults     our settings and TRL's defaults, one after the other
    python benchmarks/gpu/peak.py sft --cpu-smoke            a tiny shape on the CPU: does this file work?

The job is the real script (tools/training/{sft,dpo,grpo}.py) in a process of its own; this file adds a look at
`torch.cuda.max_memory_allocated` when it ends. The weights are random, so rewards and losses mean nothing.
On a GPU it was NOT RUN so far: none was lent to the session that wrote it. The smoke was run; it has no peak to compare
with (tests/training/test_planner.py measures that on CPUs). throughput.py runs both methods beside TRL's defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.tools.embedded.pretraining import build_tokenizer
from posttrain_crew.tools.training.hardware import Cluster, Device, devices, sharding
from posttrain_crew.tools.training.memory import GIB, Work, memory_of
from posttrain_crew.tools.training.planner import plan, usual_request
from posttrain_crew.tools.training.shape import ModelShape, known_shapes

WATCH = """
import json, sys, torch
from posttrain_crew.tools.training import {method}, session
code = session.main("{method}", {method}.make_trainer, sys.argv[1:])
on = torch.cuda.is_available()
json.dump({{"allocated": torch.cuda.max_memory_allocated() if on else None,
           "reserved": torch.cuda.max_memory_reserved() if on else None}}, open("peak.json", "w"))
sys.exit(code)
"""
TOLERANCE = 0.10


def main() -> int:
    """Print one JSON line for each training; exit 1 where the planner is off by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("sft", "dpo", "grpo"))
    parser.add_argument("--model", default="qwen3-1.7b", choices=sorted(known_shapes()))
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--completion", type=int, default=512)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=16, help="effective")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="trainer fields")
    parser.add_argument("--against-defaults", action="store_true")
    parser.add_argument("--seconds", type=float, default=580.0, help="limit of one job")
    parser.add_argument("--cpu-smoke", action="store_true", help="a tiny shape on the CPU")
    given = parser.parse_args()
    import torch

    if given.cpu_smoke:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        given.tokens, given.completion, given.steps, given.batch = 64, 16, 2, 8
    elif not torch.cuda.is_available():
        print(
            "this measures a GPU, and torch sees none here (no driver, or a torch without CUDA: `crew setup gpu`). "
            "`--cpu-smoke` runs a tiny shape on the CPU.",
            file=sys.stderr,
        )
        return 2
    given.shape = tiny_shape() if given.cpu_smoke else known_shapes()[given.model]
    given.device = devices()["cpu"] if given.cpu_smoke else this_device()
    fields = stated(given.set)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = random_model(root / "model", given.shape, "cpu" if given.cpu_smoke else "cuda")
        rows = made_rows(given.method, given.tokens)
        off = [abs(measure(root / "ours", model, rows, given, planned_fields(given) | fields)) > TOLERANCE]
        if given.against_defaults:
            off.append(abs(measure(root / "defaults", model, rows, given, fields)) > TOLERANCE)
    return 1 if any(off) else 0


def stated(settings: list[str]) -> dict[str, Any]:
    """Trainer fields from `FIELD=VALUE`; ends the program where one is not of that form."""
    wrong = [item for item in settings if "=" not in item]
    if wrong:
        sys.exit(f"`--set {wrong[0]}` is not of the form FIELD=VALUE")
    return {name: yaml.safe_load(value) for name, value in (item.split("=", 1) for item in settings)}


def tiny_shape() -> ModelShape:
    """A shape of the same architecture for the smoke: half a million parameters."""
    one, layers, hidden, mlp, heads, kv, head, words = 32, 2, 128, 384, 4, 2, 32, 1024
    block = 2 * hidden * heads * head + 2 * hidden * kv * head + 3 * hidden * mlp + 2 * hidden + 2 * one
    return ModelShape(
        parameters=words * hidden + layers * block + hidden, layers=layers, hidden=hidden, vocabulary=words,
        kv_width=kv * head, architecture="Qwen3ForCausalLM", intermediate=mlp, query_width=heads * head, heads=heads,
        kv_heads=kv, tied=True, qk_norm=True,
    )  # fmt: skip


def this_device() -> Device:
    """The GPU of this machine, with an H100's speed: memory decides here."""
    import torch

    found = torch.cuda.get_device_properties(0)
    return Device("here", found.name, found.total_memory / GIB, 989, 3350, 450, 50, 200, 50)


def planned_fields(given: argparse.Namespace) -> dict[str, Any]:
    """What the planner would choose on this GPU."""
    completion = given.completion if given.method == "grpo" else 0
    request = usual_request(
        given.shape,
        given.method,
        Cluster(given.device),
        tokens=given.tokens,
        completion=completion,
        batch=given.batch,
        sampling="plain",
        only="single",
    )
    best = plan(request).best
    if best is None:
        sys.exit(f"the planner says that it does not fit: {plan(request).why}")
    return best.trainer()


def random_model(folder: Path, shape: ModelShape, device: str) -> Path:
    """The exact shape, with random weights, and a small tokenizer whose ids the vocabulary holds."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = build_tokenizer(["0 1 2 3 4 5 6 7 8 9 a b c d"])
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen3Config(**shape.config_fields(), **ends)
    with torch.device(device):
        model = Qwen3ForCausalLM(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    if counted != shape.parameters:
        sys.exit(f"the model has {counted} parameters, but the planner's shape {shape.parameters}")
    model.to("cpu", torch.bfloat16).save_pretrained(folder)
    if device == "cuda":
        torch.cuda.empty_cache()  # what this process keeps, the job that is measured cannot have
    tokenizer.save_pretrained(folder)
    return folder


def made_rows(method: str, tokens: int) -> list[dict[str, Any]]:
    """Rows longer than `tokens`, which the trainer then cuts: every row has the full length."""
    rng = random.Random(0)

    def text(length: int) -> str:
        return "".join(rng.choice("0123456789abcd") for _ in range(length))

    if method == "grpo":
        return [{"prompt": text(tokens), "answer": "B"} for _ in range(64)]
    if method == "dpo":
        return [{"prompt": text(16), "chosen": text(2 * tokens), "rejected": text(2 * tokens)} for _ in range(64)]
    return [{"text": text(2 * tokens)} for _ in range(64)]


def measure(
    folder: Path, model: Path, rows: list[dict[str, Any]], given: argparse.Namespace, fields: dict[str, Any]
) -> float:
    """Run the job, print what was measured and planned; (planned - measured) / measured."""
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = {"max_steps": given.steps, "learning_rate": 1e-6, **fields}
    trainer |= {"max_completion_length": given.completion} if given.method == "grpo" else {"max_length": given.tokens}
    config = {
        "method": given.method,
        "model": str(model),
        "data": str(folder / "train.jsonl"),
        "save_seconds": None,
        "trainer": trainer,
    }
    if given.method == "grpo":
        config["reward"] = [{"name": "mcq_letter"}]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "watch.py").write_text(WATCH.format(method=given.method))
    command = [sys.executable, "watch.py", "config.yaml"]
    with (folder / "log.txt").open("w") as log:
        try:
            subprocess.run(command, cwd=folder, stdout=log, stderr=log, timeout=given.seconds, check=False)
        except subprocess.TimeoutExpired:
            log.write(f"killed after {given.seconds:.0f} s\n")
    try:
        outcome = json.loads((folder / "outcome.json").read_text())
        peak = json.loads((folder / "peak.json").read_text())
    except (OSError, ValueError):
        outcome = {"ok": False, "message": (folder / "log.txt").read_text()[-1000:]}
    if not outcome["ok"]:
        print(json.dumps({"name": folder.name, "trainer": trainer, "failed": outcome}))
        return float("inf")
    device = given.device
    work = Work.of(given.method, trainer, given.shape, given.tokens, on_cpu=device.on_cpu)
    memory = memory_of(work, sharding("single"), device_gib=device.memory_gib)
    # what torch allocates: without the context, and without what its allocator cannot use again
    counted = sum(part.bytes for part in memory.parts if part.name not in ("process", "fragmentation"))
    seconds = outcome["metrics"]["seconds_per_step"]
    tokens = work.rows * work.length * work.accumulation
    error = 0.0 if given.cpu_smoke else (counted - peak["allocated"]) / peak["allocated"]
    told = {
        "name": folder.name,
        "device": device.title,
        "trainer": trainer,
        "planned_gib": round(counted / GIB, 3),
        "allocated_gib": None if given.cpu_smoke else round(peak["allocated"] / GIB, 2),
        "reserved_gib": None if given.cpu_smoke else round(peak["reserved"] / GIB, 2),
        "error": None if given.cpu_smoke else round(error, 4),
        "moment": memory.moment,
        "seconds_per_step": seconds,
        "tokens_per_s": round(tokens / seconds, 1) if seconds else None,
    }
    print(json.dumps(told))
    return error


if __name__ == "__main__":
    sys.exit(main())
