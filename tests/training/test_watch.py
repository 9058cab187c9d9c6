"""One running job, followed: what is raised, what ends it, what a stalled one looks like. And single rules at their
edges, with numbers small enough to check by hand."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from posttrain_crew.entries import JobOutcome, MetricEvidence
from posttrain_crew.tools.training.alerts import raise_alert, raised
from posttrain_crew.tools.training.diagnose import diagnose
from posttrain_crew.tools.training.metrics import append_metrics
from posttrain_crew.tools.training.tracked_history import tracked_history
from posttrain_crew.tools.training.watch import Finding, Watch, findings

GRPO = {"per_device_train_batch_size": 64, "num_generations": 8, "max_completion_length": 64, "learning_rate": 1e-5}


def run_of(count: int, **metrics: Any) -> list[dict[str, Any]]:
    """Records 2 s apart; a metric is a constant or a function of the step."""
    return [
        {"step": n, "time": 2.0 * n} | {k.replace("__", "/"): v(n) if callable(v) else v for k, v in metrics.items()}
        for n in range(1, count + 1)
    ]


def causes(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.cause, finding.severity) for finding in found]


def test_a_stalled_loader_is_told_by_the_clock_and_ends_the_job_only_late() -> None:
    records = run_of(10, loss=1.0)
    last = records[-1]["time"]
    assert findings(records, "sft", {}) == []
    assert findings(records, "sft", {}, now=last + 50) == []
    found = findings(records, "sft", {}, now=last + 100)
    assert causes(found) == [("stalled_data", "warn")]
    assert (found[0].evidence[0].step, found[0].evidence[0].value) == (10, 100.0)
    assert found[0].remedy == {"dataloader_num_workers": 2}
    assert findings(records, "sft", {"dataloader_num_workers": 4}, now=last + 100)[0].remedy == {
        "dataloader_num_workers": 0
    }
    assert causes(findings(records, "sft", {}, now=last + 1000)) == [("stalled_data", "warn")]  # a slow checkpoint
    assert causes(findings(records, "sft", {}, now=last + 4000)) == [("stalled_data", "stop")]
    assert findings(records, "sft", {"max_steps": 10}, now=last + 4000) == []  # done: it merges, saves or uploads


def test_a_wait_counts_only_while_somebody_watches(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    for record in run_of(10, loss=1.0):
        append_metrics(metrics, record)
    watch, began = Watch(metrics, "sft", {}), 100_000.0
    assert watch.look(now=began) == []  # a resumed job, with records of before the kill, or another machine's clock
    for seconds in range(30, 3600, 30):
        assert all(not finding.stop for finding in watch.look(now=began + seconds))
    assert causes(watch.look(now=began + 3601)) == [("stalled_data", "stop")]
    away = began + 3601 + 7200  # the watcher was suspended, or the job was in a queue
    assert watch.look(now=away) == []
    append_metrics(metrics, {"step": 11, "time": 22.0, "loss": 1.0})
    assert watch.look(now=away + 50) == []
    assert causes(watch.look(now=away + 111)) == []


def test_a_job_that_is_slow_by_nature_or_evaluates_does_not_stall() -> None:
    slow = [{"step": n, "time": 600.0 * n, "loss": 1.0} for n in range(1, 6)]
    assert findings(slow, "sft", {}, now=slow[-1]["time"] + 3000) == []
    waits = [*run_of(5, loss=1.0), {"step": 6, "time": 130.0, "loss": 1.0}, {"step": 7, "time": 132.0, "loss": 1.0}]
    assert findings(waits, "sft", {}, now=132.0 + 200) == []  # it waited 120 s before, and came back
    first_evaluation = run_of(10, loss=1.0)
    assert findings(first_evaluation, "sft", {"eval_strategy": "steps"}, now=20.0 + 200) == []


def test_kl_and_entropy_warn_first_and_end_the_job_when_they_last() -> None:
    far = run_of(30, reward=0.5, reward_std=0.4, kl=lambda n: 0.01 if n < 4 else 5.0, entropy=0.4)
    assert causes(findings(far[:7], "grpo", GRPO)) == [("kl_explosion", "warn")]
    stopped = findings(far[:16], "grpo", GRPO)[0]
    assert (stopped.cause, stopped.stop) == ("kl_explosion", True)
    assert stopped.remedy == {"learning_rate": pytest.approx(3.33e-6), "beta": 0.04}
    narrow = run_of(30, reward=0.5, reward_std=0.4, entropy=lambda n: 0.5**n)
    first = next(n for n in range(31) if findings(narrow[:n], "grpo", GRPO))
    ended = next(n for n in range(31) if any(f.stop for f in findings(narrow[:n], "grpo", GRPO)))
    assert first < ended
    assert findings(narrow[:ended], "grpo", GRPO)[0].remedy["entropy_coef"] == 0.01
    learning = run_of(30, reward=lambda n: 0.3 + 0.02 * n, reward_std=0.4, entropy=lambda n: 1.0 / n)
    assert findings(learning, "grpo", GRPO) == []  # the entropy was spent on a better reward


def test_hacking_needs_a_reward_that_knows_the_answer_and_a_real_fall() -> None:
    rising: dict[str, Any] = {"reward": lambda n: min(1.0, 0.3 + 0.05 * n), "reward_std": 0.3}
    cheat = run_of(20, rewards__mcq_letter__mean=lambda n: max(0.25, 0.6 - 0.04 * n), **rising)
    found = findings(cheat, "grpo", GRPO)[0]
    assert (found.cause, found.stop) == ("reward_hacking", True)
    assert found.evidence[0].metric == "rewards/mcq_letter/mean"
    trade = run_of(20, rewards__length__mean=lambda n: max(0.25, 0.6 - 0.04 * n), **rising)
    assert findings(trade, "grpo", GRPO) == []  # answers may get longer as they get better
    noise = run_of(20, rewards__mcq_letter__mean=lambda n: 0.6 - 0.02 * (n % 3), **rising)
    assert findings(noise, "grpo", GRPO) == []


def test_zero_variance_tells_what_can_be_changed() -> None:
    flat: dict[str, Any] = {"frac_reward_zero_std": 1.0, "reward_std": 0.0}
    never = [findings(run_of(n, reward=0.0, **flat), "grpo", GRPO)[0] for n in (15, 16)]
    assert [(f.cause, f.stop) for f in never] == [("zero_variance", False), ("zero_variance", True)]  # 8 prompts a log
    assert [f.remedy for f in never] == [{}, {}]
    assert "none of 128 prompts" in never[1].message
    cold = findings(run_of(9, reward=0.5, **flat), "grpo", {**GRPO, "temperature": 0.1})[0]
    assert (cold.cause, cold.remedy) == ("zero_variance", {"temperature": 1.0})
    poor = run_of(9, reward=0.05, reward_std=0.2, frac_reward_zero_std=0.9)
    assert causes(findings(poor, "grpo", GRPO)) == [("zero_variance", "warn")]
    assert findings(poor, "grpo", GRPO)[0].remedy == {"num_generations": 16, "per_device_train_batch_size": 64}


def test_a_loss_that_went_away_and_fell_again_is_still_told() -> None:
    losses = [2.0, 2.0, 7.8, 8.5, 9.3, 7.0, 4.0, 2.9]
    records = [{"step": n, "loss": value} for n, value in enumerate(losses, 1)]
    assert causes(findings(records, "sft", {})) == [("divergence", "stop")]
    jumped = [2.0, 1.0, 0.5, 0.4, 0.4, 0.3, 0.35, 0.3, 1.4, 1.5, 1.4, 1.5]
    assert causes(findings([{"step": n, "loss": v} for n, v in enumerate(jumped)], "sft", {})) == [
        ("divergence", "warn")
    ]


def test_noise_of_single_rows_is_no_divergence() -> None:
    losses = [1.0 + 0.7 * math.sin(7 * n * n) for n in range(200)]
    records = [{"step": n, "loss": value} for n, value in enumerate(losses)]
    for count in range(0, 201, 10):
        assert all(f.cause != "divergence" for f in findings(records[:count], "sft", {}))


def test_a_plateau_of_a_policy_that_did_not_move_asks_for_larger_steps() -> None:
    still = run_of(40, reward=lambda n: 0.4 + 0.05 * (n % 3), reward_std=0.4, entropy=0.5)
    found = findings(still, "grpo", GRPO)[0]
    assert (found.cause, found.severity, found.remedy) == ("plateau", "warn", {"learning_rate": 1e-4})
    moved = run_of(40, reward=lambda n: 0.4 + 0.05 * (n % 3), reward_std=0.4, entropy=lambda n: 0.5 + 0.05 * n)
    assert findings(moved, "grpo", GRPO)[0].remedy == {}
    held_out = [*moved, *({"step": n, "eval_reward": 0.3 + 0.01 * n} for n in (0, 20, 40))]
    assert findings(held_out, "grpo", GRPO) == []


def test_a_watch_raises_each_alert_once_in_the_trackio_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tracked(tmp_path)
    metrics = tmp_path / "metrics.jsonl"
    watch = Watch(metrics, "grpo", GRPO, (database, "exp-1"))
    assert [f.cause for f in watch.look()] == ["divergence"]  # from trackio, while there is no metrics.jsonl
    assert [(r["step"], r["eval_loss"]) for r in watch.history] == [(n, 1.0) for n in range(1, 7)]
    assert math.isnan(watch.history[-1]["loss"])
    for record in run_of(16, reward=0.0, reward_std=0.0, frac_reward_zero_std=1.0):
        append_metrics(metrics, record)
    for _ in range(3):
        assert watch.look()[0].stop
    assert raised(database, "exp-1") == [("error", "divergence"), ("error", "zero variance")]
    again = Watch(metrics, "grpo", GRPO, (database, "exp-1"))  # after a restart of the watcher
    again.look()
    assert len(raised(database, "exp-1")) == 2
    assert raised(database, "exp-2") == []


def test_watching_goes_on_where_no_alert_can_be_raised(tmp_path: Path) -> None:
    finding = Finding("divergence", "loss is NaN", 1.0, "stop")
    assert not raise_alert(tmp_path / "none.db", "exp-1", finding)
    assert tracked_history(tmp_path / "none.db", "exp-1") == []
    other = tmp_path / "other.db"
    sqlite3.connect(other).close()
    other.write_text("this is no database at all, though it is long enough to be looked at" * 20)
    assert not raise_alert(other, "exp-1", finding)
    assert raised(other, "exp-1") == []
    assert tracked_history(other, "exp-1") == []


def tracked(folder: Path) -> Path:
    """A database as trackio itself makes it, with one row of a run."""
    import subprocess
    import sys

    program = (
        "import trackio; trackio.init(project='p', name='exp-1', embed=False)\n"
        "for n, loss in enumerate([2.0, 2.0, 7.0, 8.0, 9.0, float('nan')], 1):\n"
        "    trackio.log({'train/loss': loss, 'eval/loss': 1.0, 'profiling/x': 3, 'train/global_step': n})\n"
        "trackio.finish()"
    )
    environment = {"TRACKIO_DIR": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True, timeout=120)
    return folder / "p.db"


def test_a_reward_that_died_is_a_collapse_also_where_the_batch_is_not_known() -> None:
    alive = [0.5, 0.4, 0.6]
    records = [
        {"step": n, "reward": alive[n - 1] if n <= 3 else 0.0, "frac_reward_zero_std": 0.25 if n <= 3 else 1.0}
        for n in range(1, 31)
    ]
    for config in (GRPO, {}):
        told = diagnose(records, None, "grpo", config)
        assert told.cause == "reward_collapse", config
        shown = told.evidence[0]
        assert shown == MetricEvidence(metric="reward", step=shown.step, value=0.0, threshold=0.25)
        assert shown.step < 30  # where a watcher would have ended it
        assert told.remedy["learning_rate"] == pytest.approx(1e-7 if not config else 1e-6)
    never = [record | {"reward": 0.0, "frac_reward_zero_std": 1.0} for record in records]
    assert diagnose(never, None, "grpo", {}).cause == "zero_variance"
    # hard questions that a first batch happened to answer: the groups were as flat from the start
    flat = [record | {"frac_reward_zero_std": 0.75 if n < 3 else 1.0} for n, record in enumerate(records[:6])]
    assert all(finding.cause != "reward_collapse" for finding in findings(flat, "grpo", {}))


def test_a_policy_that_settled_on_one_letter_has_collapsed_although_chance_is_half_of_its_start() -> None:
    # measured: GRPO of the embedded model at 5e-3, 16 groups of 8
    reward = [0.58, 0.50, 0.38, 0.30, 0.23, 0.24, 0.13, 0.12, 0.40, 0.19, 0.31, 0.12, 0.25, 0.31, 0.25]
    same = [0.06, 0.19, 0.12, 0.31, 0.56, 0.50, 0.75, 1.00, 0.81, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00]
    config = {"learning_rate": 5e-3, "per_device_train_batch_size": 128, "num_generations": 8}
    records = [
        {"step": n, "reward": r, "frac_reward_zero_std": z}
        for n, (r, z) in enumerate(zip(reward, same, strict=True), 1)
    ]
    told = findings(records, "grpo", config)[0]
    assert (told.cause, told.stop, told.remedy) == ("reward_collapse", True, {"learning_rate": 5e-4})
    learnt = [record | {"reward": 0.5} if record["step"] > 3 else record for record in records]
    assert all(f.cause != "reward_collapse" for f in findings(learnt, "grpo", config))


def test_a_policy_that_nearly_all_settled_is_stopped_and_one_that_found_little_from_the_start_is_not() -> None:
    # measured: GRPO of the embedded model at 4e-3, 32 groups of 4; single groups differ to the end
    reward = [0.38, 0.42, 0.29, 0.45, 0.37, 0.27, 0.29, 0.16, 0.30, 0.29, 0.15, 0.24, 0.23, 0.27, 0.27]
    same = [0.34, 0.34, 0.44, 0.28, 0.34, 0.84, 0.81, 1.00, 0.97, 0.91, 0.91, 0.91, 0.97, 0.94, 0.97]
    config = {"learning_rate": 4e-3, "per_device_train_batch_size": 128, "num_generations": 4, "temperature": 0.8}
    records = [
        {"step": n, "reward": r, "frac_reward_zero_std": z}
        for n, (r, z) in enumerate(zip(reward, same, strict=True), 1)
    ]
    told = findings(records, "grpo", config)[0]
    assert (told.cause, told.stop, told.remedy) == ("reward_collapse", True, {"learning_rate": 4e-4})
    sparse = [record | {"frac_reward_zero_std": max(record["frac_reward_zero_std"], 0.9)} for record in records]
    assert not [f for f in findings(sparse, "grpo", config) if f.cause == "reward_collapse"]


def test_a_reward_that_ebbs_away_is_no_plateau_for_which_the_rate_is_raised() -> None:
    config = {"learning_rate": 1e-3, "per_device_train_batch_size": 128, "num_generations": 4, "max_steps": 30}
    entropy = {"entropy": lambda n: 0.3}
    slow = run_of(30, reward=lambda n: 0.5 - 0.006 * n + 0.01 * (-1) ** n, **entropy)
    told = findings(slow, "grpo", config)[0]
    assert (told.cause, told.stop, told.remedy) == ("reward_collapse", False, {"learning_rate": 1e-4})
    harder = findings(slow, "grpo", config | {"shuffle_dataset": False})[0]
    assert (harder.cause, harder.stop, harder.remedy) == ("plateau", False, {})
    flat = findings(run_of(30, reward=lambda n: 0.5 + 0.01 * (-1) ** n, **entropy), "grpo", config)[0]
    assert (flat.cause, flat.stop, flat.remedy) == ("plateau", True, {"learning_rate": 1e-2})


@pytest.mark.parametrize("right", [[0.61, 0.42, 0.40, 0.38], [0.56, 0.58, 0.38, 0.39, 0.36, 0.42, 0.39, 0.38]])
@pytest.mark.parametrize("training_answers_fall", [True, False])
def test_held_out_answers_that_fell_count_for_more_where_those_of_the_training_fell_too(
    right: list[float], training_answers_fall: bool
) -> None:
    # as measured: GRPO paid for short answers, 8 groups of 4; on 64 held-out questions alone it might be chance
    sizes = {"per_device_train_batch_size": 32, "num_generations": 4, "per_device_eval_batch_size": 64}
    records = run_of(
        32,
        reward=lambda n: 0.4 + 0.008 * n,
        rewards__mcq_letter__mean=lambda n: 0.45 - training_answers_fall * min(0.2, n / 60) + 0.1 * (-1) ** n,
        rewards__short__mean=lambda n: 0.4 + 0.008 * n,
    )
    for place, share in enumerate(right):
        records[31 * place // (len(right) - 1)]["eval_rewards/mcq_letter/mean"] = share
    told = [f.cause for f in findings(records, "grpo", sizes) if f.stop]
    assert told == (["reward_hacking"] if training_answers_fall else [])


def test_a_warm_up_spike_and_one_batch_without_tokens_end_nothing() -> None:
    spike = run_of(60, loss=lambda n: 3.0 if 6 <= n < 12 else 1.3)
    assert not [f for n in range(61) for f in findings(spike[:n], "sft", {}) if f.stop]
    lasts = run_of(60, loss=lambda n: 3.0 if n >= 6 else 1.3)
    stopped = next(n for n in range(61) if any(f.stop for f in findings(lasts[:n], "sft", {})))
    assert stopped == 15  # ten steps above 2.45
    empty = run_of(20, loss=lambda n: math.nan if n == 5 else 1.0)
    assert findings(empty, "sft", {}) == []
    assert findings(empty[:5], "sft", {})[0].evidence[0].metric == "loss is nan"


def test_a_held_out_loss_that_rises_while_answers_get_better_is_told_and_left() -> None:
    rises = [{"step": 10 * n, "loss": 1 / n, "eval_loss": v} for n, v in enumerate([0.9, 0.8, 0.95, 1.1, 1.2, 1.3], 1)]
    better = [record | {"eval_mean_token_accuracy": 0.7 + 0.01 * n} for n, record in enumerate(rises)]
    worse = [record | {"eval_mean_token_accuracy": 0.7 - 0.01 * n} for n, record in enumerate(rises)]
    assert causes(findings(better, "sft", {})) == [("overfitting", "warn")]
    assert "held-out answers have not got worse" in findings(better, "sft", {})[0].message
    assert causes(findings(worse, "sft", {})) == [("overfitting", "stop")]


def test_completions_that_grow_with_a_true_reward_want_a_longer_limit() -> None:
    grows: dict[str, Any] = {
        "completions__mean_length": lambda n: 300 + 10 * n + 40 * (n % 2),
        "completions__clipped_ratio": lambda n: 0.01 * n,
        "reward_std": 0.45,
    }
    config = {**GRPO, "max_completion_length": 1024}
    earned = findings(run_of(60, reward=lambda n: 0.1 + 0.004 * n + 0.02 * (n % 3), **grows), "grpo", config)
    assert causes(earned)[0] == ("length_explosion", "warn")
    assert earned[0].remedy == {"max_completion_length": 2048}
    unearned = findings(run_of(60, reward=lambda n: 0.1 + 0.014 * n + 0.02 * (n % 3), **grows), "grpo", config)
    assert causes(unearned)[0] == ("reward_hacking", "stop")
    paid = findings(run_of(60, reward=lambda n: 0.3 + 0.002 * n + 0.008 * (n % 2), **grows), "grpo", config)
    assert causes(paid)[0] == ("length_explosion", "stop")


@pytest.mark.parametrize("cause", ["stalled_data", "reward_collapse"])
def test_a_stop_is_diagnosed_by_the_rule_that_made_it(cause: str) -> None:
    message = f"{cause}: no step for 3700 s after step 10"
    outcome = JobOutcome(label="exp-1", ok=False, error_class="stopped_by_rule", message=message, wall_s=9.0, steps=10)
    told = diagnose(run_of(10, loss=1.0, reward=0.5), outcome, "grpo", GRPO)
    assert told.cause == cause
    assert told.advice.startswith("No step for 3700 s after step 10. ")
    assert told.remedy
