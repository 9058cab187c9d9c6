"""The training scripts for real: a tiny model with random weights, killed, resumed, interrupted, fed with bad data."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain_crew.files import sha256_file
from posttrain_crew.tools.training.checkpoints import last_checkpoint
from posttrain_crew.tools.training.metrics import read_metrics, series

PATIENCE_S = 300.0
"""A job takes seconds on a quiet machine; a loaded one must not fail a test."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SITECUSTOMIZE = """
import os, socket
def watched(name):
    original = getattr(socket.socket, name)
    def call(self, address, *rest):
        with open(os.environ["SOCKET_LOG"], "a") as log:
            log.write(f"{name} {address}\\n")
        return original(self, address, *rest)
    setattr(socket.socket, name, call)
watched("connect"); watched("connect_ex")
resolve = socket.getaddrinfo
def getaddrinfo(host, *rest, **named):
    with open(os.environ["SOCKET_LOG"], "a") as log:
        log.write(f"resolve {host}\\n")
    return resolve(host, *rest, **named)
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 0.1 M random weights with a byte-level tokenizer and two end tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model") / "tiny"
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator(["6 * 7 = 42\nAnswer: B"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=[2, 0], pad_token_id=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def job(folder: Path, model: Path, method: str, trainer: dict[str, Any], **fields: Any) -> Path:
    """A job's directory with data and config."""
    folder.mkdir()
    rng = random.Random(0)
    rows = []
    for _ in range(64):
        a, b = rng.randrange(2, 9), rng.randrange(2, 9)
        prompt = [{"role": "user", "content": f"{a} * {b}?\n(A) {a * b + 1}\n(B) {a * b}"}]
        answer: dict[str, Any] = {"answer": "B"}
        if method == "sft":
            answer = {"completion": [{"role": "assistant", "content": f"{a} * {b} = {a * b}\nAnswer: B"}]}
        rows.append({"prompt": prompt, **answer, "source": "made"})
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "method": method,
        "model": str(model),
        "data": str(data),
        "data_sha256": sha256_file(data),
        "trainer": {"per_device_train_batch_size": 8, **trainer},
        **({"reward": [{"name": "mcq_letter"}, {"name": "format", "weight": 0.1}]} if method == "grpo" else {}),
        **fields,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


STARTED: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


def start(folder: Path, method: str, **environment: str) -> subprocess.Popen[bytes]:
    module = f"posttrain_crew.tools.training.{method}"
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(folder / "config.yaml")],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
            stdout=log,
            stderr=log,
        )
    STARTED.append(process)
    return process


def ended(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    process.wait(timeout=PATIENCE_S)
    path = folder / "outcome.json"
    assert path.exists(), (folder / "log.txt").read_text()[-3000:]
    outcome: dict[str, Any] = json.loads(path.read_text())
    assert (process.returncode == 0) == outcome["ok"], outcome
    return outcome


def until_step(folder: Path, process: subprocess.Popen[bytes], step: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not any(record["step"] >= step for record in read_metrics(folder / "metrics.jsonl")):
        assert process.poll() is None, (folder / "log.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


SFT = {"learning_rate": 1e-2, "max_steps": 10, "max_length": 64}


@pytest.mark.slow
def test_sft_learns_saves_a_whole_model_and_talks_to_nobody(tiny: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(SITECUSTOMIZE)
    tracking = tmp_path / "trackio"
    folder = job(tmp_path / "a", tiny, "sft", SFT, trackio_project="run-1", trackio_dir=str(tracking), run_name="exp-1")
    sockets = tmp_path / "sockets"
    sockets.touch()
    outcome = ended(
        folder,
        start(folder, "sft", PYTHONPATH=str(hooks), SOCKET_LOG=str(sockets), TRACKIO_SPACE_ID="user/space"),
    )
    assert outcome["ok"], outcome
    assert (outcome["steps"], outcome["checkpoint"], outcome["error_class"]) == (10, "model", None)
    measured = outcome["metrics"]
    assert measured["train_loss_last"] < measured["train_loss_first"]
    assert 0 < measured["seconds_per_step"] < 5
    assert measured["startup_s"] > 0
    assert [step for step, _ in series(read_metrics(folder / "metrics.jsonl"), "loss")] == list(range(1, 11))
    assert (tracking / "run-1.db").stat().st_size > 0
    for line in sockets.read_text().splitlines():
        assert any(local in line for local in ("127.0.0.1", "::1", "localhost")), line
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert model.generation_config.eos_token_id == [2, 0]
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template == TEMPLATE
    assert not (folder / "model" / "training_args.bin").exists()
    assert not list(folder.glob(".model*"))


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_checkpoint_as_if_nothing_had_been(tiny: Path, tmp_path: Path) -> None:
    trainer = {**SFT, "max_steps": 400, "save_strategy": "steps", "save_steps": 20, "save_total_limit": 2}
    folder = job(tmp_path / "a", tiny, "sft", trainer, resume=True)
    first = start(folder, "sft")
    until_step(folder, first, 50)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (folder / "outcome.json").exists()
    assert not (folder / "model").exists()
    before = dict(series(read_metrics(folder / "metrics.jsonl"), "loss"))
    newest = last_checkpoint(folder / "checkpoints")
    assert newest is not None
    torn = folder / "checkpoints" / "checkpoint-399"  # as a kill in the midst of saving leaves it
    torn.mkdir()
    (torn / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-10])
    assert last_checkpoint(folder / "checkpoints") == newest
    resumed_at = int(newest.name.split("-")[1])
    outcome = ended(folder, start(folder, "sft"))
    assert outcome["ok"], outcome
    assert outcome["steps"] == 400
    after = series(read_metrics(folder / "metrics.jsonl"), "loss")
    assert [step for step, _ in after] == list(range(1, 401))
    again = [(step, loss) for step, loss in after if resumed_at < step <= max(before)]
    for step, loss in again:
        assert loss == pytest.approx(before[step], rel=1e-4)


@pytest.mark.slow
def test_grpo_trains_with_two_rewards(tiny: Path, tmp_path: Path) -> None:
    trainer = {"max_steps": 3, "num_generations": 4, "max_completion_length": 8, "learning_rate": 1e-3}
    folder = job(tmp_path / "a", tiny, "grpo", trainer)
    outcome = ended(folder, start(folder, "grpo"))
    assert outcome["ok"], outcome
    assert outcome["steps"] == 3
    record = read_metrics(folder / "metrics.jsonl")[-1]
    assert {"reward", "rewards/mcq_letter/mean", "rewards/format/mean", "frac_reward_zero_std"} <= record.keys()
    assert (folder / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_sigterm_ends_a_job_after_its_step_and_keeps_a_checkpoint_where_it_may(tiny: Path, tmp_path: Path) -> None:
    for name, seconds in (("a", 1000.0), ("none", None)):
        folder = job(tmp_path / name, tiny, "sft", {**SFT, "max_steps": 100_000}, save_seconds=seconds)
        process = start(folder, "sft")
        until_step(folder, process, 3)
        process.terminate()
        outcome = ended(folder, process)
        assert (outcome["ok"], outcome["error_class"], outcome["checkpoint"]) == (False, "cancelled", None)
        assert not (folder / "model").exists()
        newest = last_checkpoint(folder / "checkpoints")
        assert (newest is not None) == (seconds is not None)
        assert newest is None or newest.name == f"checkpoint-{outcome['steps']}"


@pytest.mark.slow
def test_the_time_limit_ends_a_job_well(tiny: Path, tmp_path: Path) -> None:
    folder = job(tmp_path / "a", tiny, "sft", {**SFT, "max_steps": 100_000}, max_seconds=1.0)
    outcome = ended(folder, start(folder, "sft"))
    assert outcome["ok"], outcome
    assert outcome["metrics"]["stopped_early"] == 1.0
    assert (folder / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_divergence_is_an_outcome_and_smoke_saves_nothing(tiny: Path, tmp_path: Path) -> None:
    wild = job(tmp_path / "a", tiny, "sft", {**SFT, "learning_rate": 1e30, "max_grad_norm": 0.0})
    smoke = job(tmp_path / "b", tiny, "sft", SFT, smoke=True)
    first, second = start(wild, "sft"), start(smoke, "sft")
    assert ended(wild, first)["error_class"] == "diverged"
    assert not (wild / "model").exists()
    outcome = ended(smoke, second)
    assert (outcome["ok"], outcome["steps"], outcome["checkpoint"]) == (True, 2, None)
    assert not (smoke / "model").exists()


def test_another_file_than_the_audited_one_is_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    folder = job(tmp_path / "a", tmp_path / "no-model", "sft", SFT)
    with (folder / "train.jsonl").open("a") as stream:
        stream.write("{}\n")
    outcome = ended(folder, start(folder, "sft"))
    assert (outcome["error_class"], outcome["ok"]) == ("data", False)
    assert "audited" in outcome["message"]


@pytest.mark.parametrize(
    ("change", "error_class"),
    [({"trainer": {"lr": 1}}, "config"), ({"data": "nowhere.jsonl", "data_sha256": None}, "data")],
)
def test_a_bad_job_is_told_by_its_class(tmp_path: Path, change: dict[str, Any], error_class: str) -> None:
    folder = job(tmp_path / "a", tmp_path / "no-model", "grpo", SFT)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "trainer": {}, **change}))
    assert ended(folder, start(folder, "grpo"))["error_class"] == error_class


@pytest.mark.slow
def test_a_parent_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "no-model").mkdir()
    folder = job(tmp_path / "a", tmp_path / "no-model", "sft", SFT)
    assert ended(folder, start(folder, "sft"))["error_class"] == "model"
