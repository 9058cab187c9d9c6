"""Peak memory and speed of one training on this GPU, against the planner: within 10 % is the aim.

    python benchmarks/gpu/peak.py sft                        Qwen3-1.7B's exact shape, random weights
    python benchmarks/gpu/peak.py grpo --set use_vllm=false --seconds 300
    python benchmarks/gpu/peak.py sft --model qwen3-0.6b --tokens 1024 --set per_device_train_batch_size=4
    python benchmarks/gpu/peak.py sft --against-defaults     our settings and TRL's defaults, one after the other

The job is the real script (tools/training/{sft,dpo,grpo}.py) in a process of its own; this file adds a look at
`torch.cuda.max_memory_allocated` when it ends. The weights are random, so rewards and losses mean nothing.
NOT RUN so far: no GPU was lent to the session that wrote it. throughput.py runs both methods beside TRL's defaults.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.tools.embedded.pretraining import build_tokenizer
from posttrain_crew.tools.training.hardware import Cluster, Device, sharding
from posttrain_crew.tools.training.memory import GIB, Work, memory_of
from posttrain_crew.tools.training.planner import plan, usual_request
from posttrain_crew.tools.training.shape import ModelShape, known_shapes

WATCH = """
import json, sys, torch
from posttrain_crew.tools.training import {method}, session
code = session.main("{method}", {method}.make_trainer, sys.argv[1:])
json.dump({{"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}},
          open("peak.json", "w"))
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
    parser.add_argument("--seconds", type=float, default=580.0)
    given = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("this measures a GPU, and torch sees none here", file=sys.stderr)
        return 2
    fields = {name: yaml.safe_load(value) for name, value in (item.split("=", 1) for item in given.set)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = random_model(root / "model", known_shapes()[given.model], "cuda")
        rows = made_rows(given.method, given.tokens)
        off = [abs(measure(root / "ours", model, rows, given, planned_fields(given) | fields)) > TOLERANCE]
        if given.against_defaults:
            off.append(abs(measure(root / "defaults", model, rows, given, fields)) > TOLERANCE)
    return 1 if any(off) else 0


def this_device() -> Device:
    """The GPU of this machine, with an H100's speed: memory decides here."""
    import torch

    found = torch.cuda.get_device_properties(0)
    return Device("here", found.name, found.total_memory / GIB, 989, 3350, 450, 50, 200, 50)


def planned_fields(given: argparse.Namespace) -> dict[str, Any]:
    """What the planner would choose on this GPU."""
    completion = given.completion if given.method == "grpo" else 0
    request = usual_request(
        known_shapes()[given.model],
        given.method,
        Cluster(this_device()),
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
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.query // shape.heads,
        tie_word_embeddings=shape.tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device(device):
        model = Qwen3ForCausalLM(config)
    counted = sum(parameter.numel() for parameter in model.parameters())
    if counted != shape.parameters:
        sys.exit(f"the model has {counted} parameters, but the planner's shape {shape.parameters}")
    model.to("cpu", torch.bfloat16).save_pretrained(folder)
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
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, timeout=given.seconds, check=False)
    outcome = json.loads((folder / "outcome.json").read_text())
    if not outcome["ok"]:
        print(json.dumps({"name": folder.name, "outcome": outcome}))
        return float("inf")
    peak = json.loads((folder / "peak.json").read_text())
    device = this_device()
    work = Work.of(given.method, trainer, known_shapes()[given.model], given.tokens)
    memory = memory_of(work, sharding("single"), device_gib=device.memory_gib)
    # what torch allocates: without the context, and without what its allocator cannot use again
    counted = sum(part.bytes for part in memory.parts if part.name not in ("process", "fragmentation"))
    seconds = outcome["metrics"]["seconds_per_step"]
    tokens = work.rows * work.length * work.accumulation
    error = (counted - peak["allocated"]) / peak["allocated"]
    told = {
        "name": folder.name,
        "device": device.title,
        "trainer": trainer,
        "planned_gib": round(counted / GIB, 2),
        "allocated_gib": round(peak["allocated"] / GIB, 2),
        "reserved_gib": round(peak["reserved"] / GIB, 2),
        "error": round(error, 4),
        "moment": memory.moment,
        "seconds_per_step": seconds,
        "tokens_per_s": round(tokens / seconds, 1) if seconds else None,
    }
    print(json.dumps(told))
    return error


if __name__ == "__main__":
    sys.exit(main())
