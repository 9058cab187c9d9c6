"""Makes the histories of the confusion matrix by really training the embedded model, well and badly.

    python -m tests.training.histories.make --work /tmp/histories --seeds 0-4,100-105 [--classes healthy] [--keep]

Each history is a run of TRL's own trainer from a small parent, with the settings that recipes.py draws for the class
and seed. Nothing stops a run: the watcher comes afterwards. A run that did not go the way of its class
(recipes.happened) is not kept, and said so. One run takes 10 to 30 s on a quiet core; the parents are made once for
each side (rule, test).

Written to made/: CLASS-SEED.jsonl.gz, the records of metrics.jsonl, and CLASS-SEED.yaml, how it was made.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import os
import random
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.tools.embedded.base_model import default_cache_dir, ensure_base
from posttrain_crew.tools.embedded.benchmark import ANSWER_FORMAT, LETTERS, Item, extract_strict, prompt, train_items
from posttrain_crew.tools.training.metrics import metric_line
from tests.training.histories.recipes import CLASSES, Recipe, happened, recipe, side_of, split_of
from tests.training.histories.rewards import REWARDS, toss_anew

MADE = Path(__file__).parent / "made"
QUESTIONS = 128
_DIGITS = 6


def main() -> int:
    parser = argparse.ArgumentParser(description="Make histories by training.")
    parser.add_argument("--work", type=Path, required=True, help="folder for parents and checkpoints")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--classes", default=",".join(CLASSES))
    parser.add_argument("--into", type=Path, default=MADE)
    parser.add_argument("--keep", action="store_true", help="leave histories that are there as they are")
    chosen = parser.parse_args()
    _quiet()
    chosen.into.mkdir(parents=True, exist_ok=True)
    for seed in _seeds(chosen.seeds):
        for name in chosen.classes.split(","):
            target = chosen.into / f"{name}-{seed}"
            if chosen.keep and target.with_suffix(".yaml").exists():
                continue
            begun = time.monotonic()
            told = _make(name, seed, chosen.work, target)
            sys.stdout.write(f"{target.name} {told} in {time.monotonic() - begun:.0f} s\n")
            sys.stdout.flush()
    return 0


def _make(name: str, seed: int, work: Path, target: Path) -> str:
    made = recipe(name, seed)
    parent = _parent(made.parent, side_of(seed), work)
    before = _parent_accuracy(parent, side_of(seed))
    records, seen_until, model = _train(made, parent, seed, work)
    after = _accuracy(model, side_of(seed))
    ok = happened(name, made.method, records, (before, after))
    label = {
        "class": name,
        "seed": seed,
        "split": split_of(seed),
        "done": made.done,
        "method": made.method,
        "parent": made.parent,
        "rows": made.rows,
        "rewards": made.rewards,
        "held_out_rows": made.held_out,
        "trainer": made.trainer,
        "steps": max((int(r["step"]) for r in records), default=0),
        "seen_until": seen_until,
        "accuracy_before": round(before, 4),
        "accuracy_after": round(after, 4),
    }
    told = f"{before:.2f}->{after:.2f}"
    if not ok:
        target = target.parent / "not" / target.name
        target.parent.mkdir(exist_ok=True)
        told = f"DID NOT HAPPEN {told}"
    with gzip.GzipFile(target.with_suffix(".jsonl.gz"), "wb", mtime=0) as stream:
        stream.write("".join(metric_line(_short(r)) + "\n" for r in records).encode())
    target.with_suffix(".yaml").write_text(yaml.safe_dump(label, sort_keys=False))
    return f"{made.method} {told}"


def _train(made: Recipe, parent: Path, seed: int, work: Path) -> tuple[list[dict[str, Any]], float, Any]:
    """The records, the time at which the run was looked at last, and the model as it is then."""
    import torch
    import transformers
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    records: list[dict[str, Any]] = []

    class Recorder(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "train_runtime" not in logs:
                numbers = {k: float(v) for k, v in logs.items() if isinstance(v, int | float)}
                records.append(
                    {"step": state.global_step, "epoch": state.epoch, "time": round(time.time(), 3)} | numbers
                )

    transformers.set_seed(seed)
    toss_anew(seed)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(parent), AutoTokenizer.from_pretrained(parent)
    fields = dict(made.trainer)
    if fields.get("generation_kwargs"):
        fields["generation_kwargs"] = {"suppress_tokens": [tokenizer.eos_token_id, tokenizer.pad_token_id]}
    arguments = {
        **fields,
        "output_dir": str(work / "out"),
        "seed": seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "logging_nan_inf_filter": False,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }
    side = side_of(seed)
    data = Dataset.from_list(_rows(made, made.rows, f"{side} {seed}"))
    held_out = Dataset.from_list(_rows(made, made.held_out, f"{side} {seed} held out")) if made.held_out else None
    common = {
        "model": model,
        "train_dataset": data,
        "eval_dataset": held_out,
        "processing_class": tokenizer,
        "callbacks": [Recorder()],
    }
    trainer: Any
    if made.method == "grpo":
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer

        arguments["reward_weights"] = list(made.rewards.values())
        if held_out is not None:
            arguments["num_generations_eval"] = 1
        trainer = GRPOTrainer(args=GRPOConfig(**arguments), reward_funcs=[REWARDS[n] for n in made.rewards], **common)
    elif made.method == "dpo":
        from trl.trainer.dpo_config import DPOConfig
        from trl.trainer.dpo_trainer import DPOTrainer

        trainer = DPOTrainer(args=DPOConfig(**arguments), **common)
    else:
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        trainer = SFTTrainer(args=SFTConfig(**arguments), **common)
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    if made.stall is not None:
        trainer.data_collator = _Stalling(trainer.data_collator, *made.stall)
    try:
        trainer.train()
    except Stalled:
        pass
    except RuntimeError as error:
        if "probability tensor" not in str(error):  # the model is lost, which is what divergence means
            raise
    torch.manual_seed(0)
    return records, round(time.time(), 3), (trainer.model, tokenizer)


class Stalled(Exception):  # noqa: N818 - reads as the fact that it is
    """The watcher has seen enough of a loader that gives nothing."""


class _Stalling:
    """A collator whose data source hangs at one batch."""

    def __init__(self, inner: Any, batch: int, seconds: float) -> None:
        self._inner, self._left, self._seconds = inner, batch, seconds

    def __call__(self, rows: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            time.sleep(self._seconds)  # the fault itself, not a synchronisation
            raise Stalled
        return self._inner(rows)


def _rows(made: Recipe, count: int, seed: str) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    rows = []
    for item in train_items(count, seed):
        row: dict[str, Any] = {"prompt": [{"role": "user", "content": prompt(item.question, item.choices)}]}
        if made.method == "grpo":
            row["answer"] = item.answer
        elif made.method == "dpo":
            wrong = rng.choice([letter for letter in LETTERS if letter != item.answer])
            row["chosen"] = _says(item, item.answer, True)
            row["rejected"] = _says(item, wrong, rng.random() < 0.5)
        else:
            row["completion"] = _says(item, item.answer, _shows_work(made.style, rng))
        rows.append(row)
    return rows


def _shows_work(style: str, rng: random.Random) -> bool:
    return style == "worked" or (style == "mixed" and rng.random() < 0.4)


def _says(item: Item, letter: str, work: bool) -> list[dict[str, str]]:
    line = ANSWER_FORMAT.format(letter=letter)
    return [{"role": "assistant", "content": f"Compute {item.working} ({letter}).\n{line}" if work else line}]


def _parent(name: str, side: str, work: Path) -> Path:
    base = ensure_base(default_cache_dir())
    if name == "base":
        return base
    folder = work / f"parent-{name}-{side}"
    if folder.exists():
        return folder
    style: Any = name
    fields = {"learning_rate": 2e-3, "lr_scheduler_type": "cosine", "num_train_epochs": 2, "warmup_steps": 5}
    trainer = {**fields, "per_device_train_batch_size": 32, "max_length": 256, "weight_decay": 0.0}
    made = Recipe("a parent", "sft", "base", trainer, 400 if name != "mixed" else 300, style)
    seed = {"rule": 0, "test": 100}[side]
    _, _, (model, tokenizer) = _train(made, base, seed, work)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    with contextlib.suppress(OSError):  # another process was first
        partial.rename(folder)
    return folder


@cache
def _parent_accuracy(parent: Path, side: str) -> float:
    return _accuracy(parent, side)


def _accuracy(of: Any, side: str) -> float:
    """Share of strict right answers, greedy, on questions that no run trains on."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = (
        of if isinstance(of, tuple) else (AutoModelForCausalLM.from_pretrained(of), AutoTokenizer.from_pretrained(of))
    )
    items = train_items(QUESTIONS, f"accuracy {side}")
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt(i.question, i.choices)}], tokenize=False, add_generation_prompt=True
        )
        for i in items
    ]
    batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        return 0.0
    model.eval()
    with torch.no_grad():
        out = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=40, do_sample=False
        )
    answers = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(extract_strict(a) == i.answer for a, i in zip(answers, items, strict=True)) / len(items)


def _short(record: dict[str, Any]) -> dict[str, Any]:
    """Six digits, and no timings within a step."""
    return {
        k: (float(f"{v:.{_DIGITS}g}") if isinstance(v, float) and k != "time" else v)
        for k, v in record.items()
        if not k.startswith(("profiling/", "eval_runtime", "eval_samples_per", "eval_steps_per"))
    }


def _seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        found += range(int(low), int(high or low) + 1)
    return found


def _quiet() -> None:
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()


if __name__ == "__main__":
    sys.exit(main())
