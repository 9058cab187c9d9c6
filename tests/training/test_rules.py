"""Configs, rewards, watch rules and diagnoses: everything that needs no training."""

from __future__ import annotations

import errno
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.entries import JobOutcome
from posttrain_crew.errors import ConfigError, DatasetError
from posttrain_crew.tools.training.config import check_trainer, load
from posttrain_crew.tools.training.diagnose import diagnose
from posttrain_crew.tools.training.metrics import append_metrics, drop_after, read_metrics
from posttrain_crew.tools.training.outcome import Cancelled, classify
from posttrain_crew.tools.training.rewards import BUILTIN_REWARDS, CALIBRATION, calibrate, check_rewards, columns_of
from posttrain_crew.tools.training.trainer_fields import trainer_fields
from posttrain_crew.tools.training.watch import findings

HISTORIES = Path(__file__).parent / "histories"


def history(name: str) -> tuple[list[dict[str, Any]], Any, dict[str, Any]]:
    raw = json.loads((HISTORIES / f"{name}.json").read_text())
    records = [{key: math.nan if value == "NaN" else value for key, value in r.items()} for r in raw["history"]]
    return records, raw["method"], raw["config"]


# --- config


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"learning_rat": 1.0}, "learning_rate"),
        ({"max_seq_length": 128}, "max_length"),
        ({"evaluation_strategy": "no"}, "eval_strategy"),
        ({"output_dir": "x"}, "job's directory"),
        ({"report_to": "wandb"}, "trackio"),
        ({"learning_rate": 0}, "positive"),
        ({"learning_rate": "fast"}, "must be float"),
        ({"max_steps": 0, "num_train_epochs": 0}, "nothing would be trained"),
        ({"bf16": True, "fp16": True}, "exclude"),
        ({"per_device_train_batch_size": 0}, "at least 1"),
    ],
)
def test_a_wrong_sft_field_is_told_with_what_was_meant(wrong: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        check_trainer("sft", wrong)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"per_device_train_batch_size": 12, "num_generations": 8}, "not divisible"),
        ({"num_generations": 1}, "at least 2"),
        ({"temperature": 0.0}, "above 0"),
        ({"group_size": 8}, "num_generations"),
    ],
)
def test_a_wrong_grpo_field_is_told(wrong: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        check_trainer("grpo", wrong)


def test_yaml_that_reads_a_rate_as_text_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("method: sft\nmodel: m\ndata: d.jsonl\ntrainer: {learning_rate: 2e-5, max_steps: 3.0}\n")
    assert load(path).trainer == {"learning_rate": 2e-5, "max_steps": 3}


@pytest.mark.parametrize("text", ["", "- a", "method: ppo\nmodel: m\ndata: d", "method: sft\nmodel: m\ndata: d\nlr: 3"])
def test_a_config_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load(path)


def test_fields_are_those_of_the_installed_trainer_and_torch_stays_out() -> None:
    program = (
        "import sys, posttrain_crew.tools.training.desk as d\n"
        "from posttrain_crew.tools.training.config import check_trainer\n"
        "check_trainer('grpo', {'num_generations': 8})\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'crewai', 'litellm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert {"completion_only_loss", "learning_rate", "save_total_limit"} <= trainer_fields("sft").keys()


# --- rewards


def test_every_builtin_reward_separates() -> None:
    for name, reward in BUILTIN_REWARDS.items():
        if "tests" in columns_of(name):
            continue  # those that run code: tests/sandbox
        low, high = calibrate(name, reward, CALIBRATION[name])
        assert (low, high) == (1.0, 0.0)


def test_other_answer_lines_are_rewarded_too() -> None:
    assert check_rewards(["mcq_letter", "format"], "The answer is ({answer}).", "ABCDE")
    assert check_rewards(["exact"], "#### {answer}")


@pytest.mark.parametrize(
    ("names", "why"), [([], "needs a reward"), (["format"], "only reward"), (["nope"], "no reward")]
)
def test_rewards_that_are_refused(names: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_rewards(names)


def test_a_weight_that_turns_a_reward_round_is_refused() -> None:
    for weight in (-1.0, float("nan")):
        with pytest.raises(ConfigError, match="do not separate"):
            check_rewards(["mcq_letter"], weights=[weight])
    assert check_rewards(["mcq_letter"], weights=[2.0])


def test_a_reward_for_mentions_and_one_for_length_do_not_separate() -> None:
    def mentions(completions: list[Any], answer: list[str], **_: Any) -> list[float]:
        return [float(f"Answer: {a}" in c[0]["content"]) for c, a in zip(completions, answer, strict=True)]

    def length(completions: list[Any], **_: Any) -> list[float]:
        return [float(len(c[0]["content"])) for c in completions]

    for reward in (mentions, length):
        with pytest.raises(ConfigError, match="does not separate"):
            calibrate("r", reward, CALIBRATION["mcq_letter"])


# --- metrics


def test_nan_survives_the_file_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    append_metrics(path, {"step": 1, "loss": 0.5})
    append_metrics(path, {"step": 2, "loss": math.nan, "grad_norm": math.inf})
    with path.open("a") as stream:
        stream.write('{"step": 3, "lo')
    records = read_metrics(path)
    assert len(records) == 2
    assert math.isnan(records[1]["loss"])
    assert records[1]["grad_norm"] == math.inf
    drop_after(path, 1)
    assert read_metrics(path) == [{"step": 1, "loss": 0.5}]


# --- watch


@pytest.mark.parametrize("name", ["healthy_grpo", "healthy_sft"])
def test_a_healthy_run_is_left_alone_at_every_step(name: str) -> None:
    records, method, config = history(name)
    for length in range(len(records) + 1):
        assert findings(records[:length], method, config) == []


@pytest.mark.parametrize(
    ("name", "cause", "by_log"),
    [
        ("a_reward_collapse_high_lr", "reward_collapse", 8),
        ("b_zero_variance_never", "zero_variance", 8),
        ("c2_reward_hacking_contains", "reward_hacking", 25),
        ("d_length_explosion", "length_explosion", 12),
        ("e2_sft_nan", "divergence", 2),
    ],
)
def test_a_failing_run_is_stopped_early_for_its_true_cause(name: str, cause: str, by_log: int) -> None:
    records, method, config = history(name)
    stopped = next(n for n in range(len(records) + 1) if any(f.stop for f in findings(records[:n], method, config)))
    assert stopped <= by_log
    first = findings(records[:stopped], method, config)[0]
    assert (first.cause, first.stop) == (cause, True)
    assert first.evidence
    assert all(math.isfinite(evidence.value) for evidence in first.evidence)


def test_a_small_noisy_batch_is_no_collapse() -> None:
    rewards = [0.5, 0.25, 0.5, 0.5, 0.25, 0.0, 0.25, 0.0, 0.25]
    records = [{"step": n, "reward": r, "reward_std": 0.5} for n, r in enumerate(rewards, 1)]
    assert findings(records, "grpo", {"per_device_train_batch_size": 4}) == []


def test_overfitting_is_seen_on_held_out_loss() -> None:
    held_out = [0.30, 0.111, 0.13, 0.17, 0.25]
    records = [{"step": 10 * n, "loss": 1 / n, "eval_loss": v} for n, v in enumerate(held_out, 1)]
    assert findings(records[:3], "sft", {}) == []
    found = findings(records, "sft", {})[0]
    assert (found.cause, found.stop) == ("overfitting", True)
    assert diagnose(records, None, "sft", {}).remedy == {"max_steps": 20}


def test_completions_that_never_ended() -> None:
    cut = {"completions/clipped_ratio": 1.0}
    config = {"max_completion_length": 16, "per_device_train_batch_size": 32}
    never = [{"step": n, "reward": 0.0} | cut for n in range(1, 6)]
    found = findings(never, "grpo", config)[0]
    assert (found.cause, found.stop) == ("never_ends", True)
    assert diagnose(never, None, "grpo", config).remedy == {"max_completion_length": 32}
    # rewarded all the same: only when none of 256 completions has ended there is nothing to learn the end from
    paid = [{"step": n, "reward": 0.1 * (n % 2)} | cut for n in range(1, 9)]
    assert [findings(paid[:n], "grpo", config)[0].stop for n in (5, 7, 8)] == [False, False, True]
    some = [record | {"completions/clipped_ratio": 0.97} for record in paid]
    assert findings(some, "grpo", config)[0].stop is False


# --- diagnose and outcomes


def outcome(**fields: Any) -> JobOutcome:
    return JobOutcome(**{"label": "exp-1", "ok": False, "wall_s": 1.0, **fields})


def test_remedies_lower_what_was_too_high() -> None:
    records, method, config = history("a_reward_collapse_high_lr")
    told = diagnose(records[:8], outcome(error_class="stopped_by_rule"), method, config)
    assert told.cause == "reward_collapse"
    assert told.remedy == {"learning_rate": pytest.approx(2e-3)}


def test_a_healthy_run_is_called_so() -> None:
    records, method, config = history("healthy_grpo")
    told = diagnose(records, outcome(ok=True, steps=60), method, config)
    assert told.cause == "healthy"
    assert told.remedy == {}


def test_a_long_run_that_never_rose_is_a_plateau() -> None:
    records = [{"step": n, "reward": 0.4 + 0.05 * (n % 3)} for n in range(1, 61)]
    assert diagnose(records, outcome(ok=True, steps=60), "grpo", {}).cause == "plateau"


@pytest.mark.parametrize(
    ("error_class", "cause", "remedy"),
    [
        ("out_of_memory", "infrastructure", {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 2}),
        ("killed", "infrastructure", {}),
        ("timeout", "infrastructure", {"max_steps": 30}),
        ("crashed", "unknown", {}),
    ],
)
def test_failures_of_the_machine(error_class: str, cause: str, remedy: dict[str, Any]) -> None:
    told = diagnose([], outcome(error_class=error_class, steps=40), "sft", {"per_device_train_batch_size": 32})
    assert (told.cause, told.remedy) == (cause, remedy)


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"), "diverged"),
        (DatasetError("x"), "data"),
        (ConfigError("x"), "config"),
        (Cancelled(), "cancelled"),
        (ZeroDivisionError("x"), "crashed"),
    ],
)
def test_exceptions_have_a_class(error: BaseException, error_class: str) -> None:
    assert classify(error)[0] == error_class
