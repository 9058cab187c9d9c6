"""Training jobs of a few seconds: a Llama of 2 layers with the embedded model's kind of tokenizer, its rows, and its
process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.files import sha256_file

PATIENCE_S = 300.0
"""A job takes seconds on a quiet machine; a loaded one must not fail a test."""
SUICIDE = """
import os, signal, threading, time
def watch(path, step):
    while True:
        try:
            with open(path) as stream:
                if stream.read().count('"loss"') >= step:
                    os.kill(os.getpid(), int(os.environ["KILL_WITH"]))
                    return
        except OSError:
            pass
        time.sleep(0.0005)
if "KILL_AT" in os.environ:
    path, step = os.environ["KILL_AT"].rsplit(":", 1)
    threading.Thread(target=watch, args=(path, int(step)), daemon=True).start()
"""
"""A sitecustomize.py that ends its process with a signal, at whatever it is doing, once a step has been logged."""


def make_model(folder: Path, steps: int = 40) -> Path:
    """2 layers of 64, taught just enough to write an answer line with a letter of its own choice."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    from posttrain_crew.tools.embedded.pretraining import build_tokenizer

    texts = [text for row in (*made_rows("sft"), *made_rows("dpo")) for text in _texts(row)]
    tokenizer = build_tokenizer(texts)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            eos_token_id=end,
            pad_token_id=pad,
        )
    )
    rng = random.Random(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    prompts = [row["prompt"] for row in made_rows("sft")]
    for _ in range(steps):
        chats = [
            [*prompt, {"role": "assistant", "content": f"Answer: {rng.choice('AB')}"}]
            for prompt in rng.sample(prompts, 8)
        ]
        batch = tokenizer([tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats], padding=True)
        ids = torch.tensor(batch["input_ids"])
        labels = ids.masked_fill(torch.tensor(batch["attention_mask"]) == 0, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def made_rows(method: str, count: int = 48) -> list[dict[str, Any]]:
    rng = random.Random(0)
    rows = []
    for _ in range(count):
        a, b = rng.randrange(2, 9), rng.randrange(2, 9)
        letter, other = rng.sample("AB", 2)
        options = {letter: a * b, other: a * b + 1}
        question = f"{a} * {b}?\n(A) {options['A']}\n(B) {options['B']}"
        row: dict[str, Any] = {"prompt": [{"role": "user", "content": question}]}
        right = [{"role": "assistant", "content": f"{a} * {b} = {a * b}\nAnswer: {letter}"}]
        if method == "sft":
            row["completion"] = right
        elif method == "dpo":
            row |= {"chosen": right, "rejected": [{"role": "assistant", "content": f"Answer: {other}"}]}
        else:
            row["answer"] = letter
        rows.append(row)
    return rows


def write_job(folder: Path, model: Path, method: str, trainer: dict[str, Any], **fields: Any) -> Path:
    """A job's directory with data and config."""
    folder.mkdir()
    data = folder / "train.jsonl"
    rows = fields.pop("rows", None) or made_rows(method)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "method": method,
        "model": str(model),
        "data": str(data),
        "data_sha256": sha256_file(data),
        "trainer": {"per_device_train_batch_size": 8, "learning_rate": 1e-3, **trainer},
        **({"reward": [{"name": "mcq_letter"}, {"name": "format", "weight": 0.1}]} if method == "grpo" else {}),
        **fields,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def start(folder: Path, method: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"posttrain_crew.tools.training.{method}", str(folder / "config.yaml")]
    fixed = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, env={**os.environ, **fixed, **environment}, stdout=log, stderr=log)


def ended(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    try:
        process.wait(timeout=PATIENCE_S)
    finally:
        process.kill()
    path = folder / "outcome.json"
    assert path.exists(), (folder / "log.txt").read_text()[-3000:]
    outcome: dict[str, Any] = json.loads(path.read_text())
    assert (process.returncode == 0) == outcome["ok"], outcome
    return outcome


def start_to_die(folder: Path, method: str, step: int, hooks: Path, number: int) -> subprocess.Popen[bytes]:
    """A job that sends itself this signal once it has logged `step`."""
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(SUICIDE)
    at = f"{folder / 'metrics.jsonl'}:{step}"
    return start(folder, method, PYTHONPATH=str(hooks), KILL_AT=at, KILL_WITH=str(int(number)))


def killed(folder: Path, method: str, step: int, hooks: Path) -> None:
    """Run a job until it has logged `step`, and SIGKILL it there."""
    process = start_to_die(folder, method, step, hooks, signal.SIGKILL)
    try:
        process.wait(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == -9, (folder / "log.txt").read_text()[-3000:]
    assert not (folder / "outcome.json").exists()


def _texts(row: dict[str, Any]) -> list[str]:
    return [message["content"] for value in row.values() if isinstance(value, list) for message in value]
