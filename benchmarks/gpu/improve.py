"""A real improvement run of gpqa-mini on CUDA: `crew run` with a copy of the target whose training uses the GPU.

    python benchmarks/gpu/improve.py                       one run, seed 0
    python benchmarks/gpu/improve.py --seeds 0 1 --hours 0.5 --bf16
    python benchmarks/gpu/improve.py --cpu-smoke           the copy is made and checked, and its SFT trains three steps

The copy is targets/gpqa-mini.yaml without `use_cpu`, and without what is there for a CPU's sake (pinned memory off).
Learning rates, steps and lengths stay, so that results compare with the CPU's (README, benchmarks/embedded_run.py).
Weights stay float32. With --bf16, SFT and DPO compute in bfloat16 (mixed precision); GRPO stays float32: a model of
this size is bound by latency, so there is nothing to gain, and its policy ratios are kept exact.
Exit 0 where every run improved, confirmed by the paired test on the test split, and was evaluated on CUDA; 1 where one
did not; 2 without a GPU.
NOT RUN on a GPU so far: none was lent to the session that wrote it. The smoke was run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.target import load_target
from posttrain_crew.tools.training.config import check_trainer

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "targets" / "gpqa-mini.yaml"
FOR_CPU = ("use_cpu", "dataloader_pin_memory")
SMOKE_STEPS, SMOKE_ROWS = 3, 96


def main() -> int:
    """Make the copy, run it, print one line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--hours", type=float, default=None, help="default: the target's own")
    parser.add_argument("--runs-dir", type=Path, default=None)
    parser.add_argument("--bf16", action="store_true", help="mixed precision for SFT and DPO")
    parser.add_argument("--cpu-smoke", action="store_true")
    given = parser.parse_args()
    import torch

    if not given.cpu_smoke and not torch.cuda.is_available():
        print(
            "this trains on a GPU, and torch sees none here (no driver, or a torch without CUDA: `crew setup gpu`). "
            "`--cpu-smoke` tries the copy of the target on the CPU.",
            file=sys.stderr,
        )
        return 2
    runs_dir = (given.runs_dir or Path(tempfile.mkdtemp(prefix="improve-"))).resolve()
    runs_dir.mkdir(parents=True, exist_ok=True)
    copy = write_copy(runs_dir / "gpqa-mini.yaml", bf16=given.bf16)
    if given.cpu_smoke:
        return smoke(copy, runs_dir / "smoke")
    print(f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, runs in {runs_dir}", flush=True)
    print("seed exit  base  final        p  experiments  wall s", flush=True)
    codes = [improve(copy, seed, runs_dir, given.hours) for seed in given.seeds]
    return 1 if any(codes) else 0


def write_copy(path: Path, *, bf16: bool) -> Path:
    """The target for CUDA. Raises ConfigError or TargetError where it is no target or no config any more."""
    target = yaml.safe_load(TARGET.read_text())
    for method in ("sft", "dpo", "grpo"):
        fields = {name: value for name, value in target["training"][method].items() if name not in FOR_CPU}
        fields["bf16"] = bf16 and method != "grpo"
        target["training"][method] = check_trainer(method, fields)
    path.write_text(yaml.safe_dump(target, sort_keys=False))
    load_target(path)
    return path


def improve(target: Path, seed: int, runs_dir: Path, hours: float | None) -> int:
    """One run; 0 where it improved and its jobs were on the GPU."""
    command = [sys.executable, "-m", "posttrain_crew.crews.cli", "run", "posttrain", "--target", str(target), "--json"]
    command += ["--seed", str(seed), "--runs-dir", str(runs_dir), *(["--hours", str(hours)] if hours else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "run" not in told:
        print(f"{seed:4} {done.returncode:4}  failed: {told}", flush=True)
        return 1
    p_value = (told["comparison"] or {}).get("p_value", 1.0)
    print(
        f"{seed:4} {done.returncode:4} {told['base']['score']:5.3f}  {told['final']['score']:5.3f} {p_value:8.1e}"
        f"  {told['experiments']:11}  {told['wall_s']:6.0f}",
        flush=True,
    )
    if strangers := not_on_cuda(runs_dir / told["run"]):
        print(f"     not on CUDA: {', '.join(strangers)}", flush=True)
    return 0 if done.returncode == 0 and told["verdict"] == "improved" and not strangers else 1


def not_on_cuda(run: Path) -> list[str]:
    """The evaluations whose model was not on a GPU."""
    found = {path.parent.name: json.loads(path.read_text()) for path in run.glob("evaluations/*/results.json")}
    return sorted(name for name, told in found.items() if not told["generation"]["device"].startswith("cuda"))


def smoke(target: Path, folder: Path) -> int:
    """Train three SFT steps by the copy's own fields, on the CPU; 0 where the job ended well."""
    from posttrain_crew.tools.embedded.base_model import default_cache_dir, ensure_base
    from posttrain_crew.tools.embedded.benchmark import prompt, train_items

    base = ensure_base(default_cache_dir())
    folder.mkdir(exist_ok=True)
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt(item.question, item.choices)}],
            "completion": [{"role": "assistant", "content": item.solution}],
        }
        for item in train_items(SMOKE_ROWS, 0)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = yaml.safe_load(target.read_text())["training"]["sft"]
    config = {
        "method": "sft",
        "model": str(base),
        "data": str(folder / "train.jsonl"),
        "save_seconds": None,
        "trainer": {**fields, "max_steps": SMOKE_STEPS, "bf16": False},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "posttrain_crew.tools.training.sft", str(folder / "config.yaml")]
    with (folder / "log.txt").open("w") as log:
        code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
    outcome = json.loads((folder / "outcome.json").read_text()) if (folder / "outcome.json").is_file() else {}
    told = {name: outcome.get(name) for name in ("ok", "message", "steps", "metrics")}
    print(json.dumps({"smoke": "sft on the CPU", "target": str(target), **told}))
    return 0 if code == 0 and outcome.get("steps") == SMOKE_STEPS else 1


if __name__ == "__main__":
    sys.exit(main())
