"""Healthy runs of large models, drawn from their statistics: what no rule may stop.

    python -m tests.training.histories.large [--seeds 0-9] [--warnings]

No such run could be trained here, so these are simulations and are not counted in the confusion matrix: group rewards
are binomial draws on prompts of mixed difficulty, losses have the scatter of the rows in a batch, heavy tails where
those are few. Trends and levels are those which TRL users and reproductions of R1-Zero report for models of 1 to 7
billion parameters: reward 0.1 to 0.3 over 500 steps, entropy that falls from 0.6 to 0.1 nats in the first hundred,
completions of hundreds of tokens that grow as the reward does, KL with the single huge values of its estimator.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from posttrain_crew.tools.training.watch import Finding, findings

__all__ = ["KINDS", "Simulated", "noticed", "simulate"]

Trend = Callable[[float], float]
"""Share of the run that is done, 0-1, to the level of a metric."""


@dataclass(frozen=True)
class Simulated:
    """A run that went well."""

    name: str
    method: Any
    config: dict[str, Any]
    records: list[dict[str, Any]]


def line(start: float, end: float) -> Trend:
    """A straight way."""
    return lambda done: start + (end - start) * done


def decay(start: float, end: float, rate: float = 5.0) -> Trend:
    """Fast at first, then slower."""
    return lambda done: end + (start - end) * math.exp(-rate * done)


def late(start: float, end: float, at: float = 0.5, width: float = 0.05) -> Trend:
    """Nothing for long, then at once."""
    return lambda done: start + (end - start) / (1 + math.exp(-(done - at) / width))


_ENTROPY, _LENGTH, _CUT, _ACCURACY = line(0.5, 0.3), line(400, 450), line(0.02, 0.03), line(0.7, 0.72)


def grpo(
    rng: random.Random,
    name: str,
    right: Trend,
    *,
    steps: int = 500,
    prompts: int = 8,
    group: int = 8,
    logging_steps: int = 1,
    entropy: Trend = _ENTROPY,
    length: Trend = _LENGTH,
    cut: Trend = _CUT,
    limit: int = 1024,
    kl: Trend | None = None,
    formatted: Trend | None = None,
    format_weight: float = 0.2,
    signed: bool = False,
    alike: float = 1.5,
    reward_name: str = "mcq_letter",
) -> Simulated:
    """Rewards of groups: `alike` is how little the prompts differ in difficulty (the beta distribution's weight)."""
    steps_seen: list[dict[str, float]] = []
    records: list[dict[str, Any]] = []
    clock = 0.0
    for step in range(1, steps + 1):
        done = step / steps
        level = min(0.995, max(0.002, right(done)))
        scores, means, flat = [], [], 0
        for _ in range(prompts):
            chance = rng.betavariate(alike * level, alike * (1 - level))
            wins = [float(rng.random() < chance) for _ in range(group)]
            if formatted is not None:
                form = [float(rng.random() < formatted(done)) for _ in range(group)]
                means.append(sum(form) / group)
            else:
                form = [0.0] * group
            total = [(2 * w - 1 if signed else w) + format_weight * f for w, f in zip(wins, form, strict=True)]
            flat += len(set(total)) == 1
            scores += [(t, w) for t, w in zip(total, wins, strict=True)]
        reward = sum(t for t, _ in scores) / len(scores)
        seen = {
            "loss": rng.gauss(0, 0.02),
            "grad_norm": rng.lognormvariate(-1, 0.4),
            "reward": reward,
            "reward_std": math.sqrt(sum((t - reward) ** 2 for t, _ in scores) / max(1, len(scores) - 1)),
            "frac_reward_zero_std": flat / prompts,
            f"rewards/{reward_name}/mean": sum(w for _, w in scores) / len(scores),
            "entropy": max(0.0, entropy(done) * rng.lognormvariate(0, 0.06)),
            "completions/mean_length": min(
                float(limit), length(done) * rng.lognormvariate(0, 0.5 / math.sqrt(prompts))
            ),
            "completions/clipped_ratio": sum(rng.random() < cut(done) for _ in range(prompts * group))
            / (prompts * group),
        }
        if formatted is not None:
            seen["rewards/format/mean"] = sum(means) / len(means)
        if kl is not None:
            spike = rng.lognormvariate(3, 1.5) if rng.random() < 0.02 else 0.0
            seen["kl"] = kl(done) * rng.lognormvariate(0, 0.2) + spike
        clock += rng.lognormvariate(4, 0.2) + (900.0 if step % 100 == 0 else 0.0)  # a checkpoint on a slow disk
        steps_seen.append(seen)
        if step % logging_steps == 0:
            names = steps_seen[0]
            mean = {n: sum(s[n] for s in steps_seen) / len(steps_seen) for n in names}
            records.append({"step": step, "epoch": done, "time": clock, **mean})
            steps_seen = []
    config = {
        "per_device_train_batch_size": group,
        "gradient_accumulation_steps": prompts,
        "num_generations": group,
        "max_completion_length": limit,
        "max_steps": steps,
        "logging_steps": logging_steps,
        "learning_rate": 1e-6,
        "beta": 0.0 if kl is None else 0.001,
    }
    return Simulated(name, "grpo", config, records)


def supervised(
    rng: random.Random,
    name: str,
    loss: Trend,
    *,
    method: str = "sft",
    steps: int = 400,
    rows: int = 16,
    row_noise: float = 0.35,
    logging_steps: int = 1,
    held_out: Trend | None = None,
    accuracy: Trend = _ACCURACY,
    every: int = 50,
    evaluation_s: float = 600.0,
    spike: Callable[[int], float] = lambda step: 0.0,
) -> Simulated:
    """Losses of SFT or DPO: the mean of `rows` rows, each log-normal about the trend."""
    records: list[dict[str, Any]] = []
    seen: list[float] = []
    clock = 0.0
    for step in range(1, steps + 1):
        done = step / steps
        draws = [loss(done) * rng.lognormvariate(-(row_noise**2) / 2, row_noise) for _ in range(rows)]
        seen.append(sum(draws) / rows + spike(step))
        clock += rng.lognormvariate(1, 0.2)
        if step % logging_steps == 0:
            records.append(
                {
                    "step": step,
                    "epoch": done,
                    "time": clock,
                    "loss": sum(seen) / len(seen),
                    "grad_norm": rng.lognormvariate(-0.5, 0.4),
                    "entropy": 1.0 * rng.lognormvariate(0, 0.05),
                    "mean_token_accuracy": accuracy(done) + rng.gauss(0, 0.01),
                }
            )
            seen = []
        if held_out is not None and step % every == 0:
            clock += evaluation_s
            told = "eval_rewards/accuracies" if method == "dpo" else "eval_mean_token_accuracy"
            held = {"eval_loss": held_out(done) * rng.lognormvariate(0, 0.01), told: accuracy(done)}
            records.append({"step": step, "epoch": done, "time": clock, **held})
    config: dict[str, Any] = {
        "per_device_train_batch_size": rows,
        "max_steps": steps,
        "logging_steps": logging_steps,
        "learning_rate": 1e-5 if method == "sft" else 5e-7,
        "eval_strategy": "no" if held_out is None else "steps",
    }
    return Simulated(name, method, config, records)


def _epochs(*levels: float) -> Trend:
    """A loss that steps down where an epoch begins, because its rows were seen before."""
    return lambda done: levels[min(len(levels) - 1, int(done * len(levels)))]


def _bump(at: int, until: int, height: float) -> Callable[[int], float]:
    return lambda step: height if at <= step < until else 0.0


KINDS: dict[str, Callable[[random.Random, str], Simulated]] = {
    "slow rise": lambda r, n: grpo(r, n, line(0.1, 0.3)),
    "slow rise, logged every 10": lambda r, n: grpo(r, n, line(0.1, 0.3), logging_steps=10),
    "slow rise, logged every 50": lambda r, n: grpo(r, n, line(0.1, 0.3), steps=2000, logging_steps=50),
    "two prompts a step": lambda r, n: grpo(r, n, line(0.1, 0.3), prompts=2),
    "one prompt a step": lambda r, n: grpo(r, n, line(0.2, 0.35), prompts=1, alike=1.0),
    "many prompts a step": lambda r, n: grpo(r, n, line(0.25, 0.4), prompts=32, steps=200),
    "r1-zero": lambda r, n: grpo(
        r,
        n,
        decay(0.05, 0.45, 3),
        entropy=decay(1.0, 0.08, 12),
        length=line(300, 800),
        cut=line(0.02, 0.3),
    ),
    "length up to the limit": lambda r, n: grpo(
        r,
        n,
        line(0.1, 0.4),
        entropy=decay(0.6, 0.2, 5),
        length=line(330, 860),
        cut=line(0.02, 0.55),
        reward_name="mine",
    ),
    "length falls, then grows": lambda r, n: grpo(
        r, n, line(0.2, 0.4), length=lambda d: 600 - 900 * d + 1300 * d * d, cut=line(0.1, 0.2)
    ),
    "late start": lambda r, n: grpo(r, n, late(0.01, 0.4), entropy=decay(0.8, 0.4, 2), alike=0.7),
    "hard questions": lambda r, n: grpo(r, n, line(0.03, 0.08), alike=0.4),
    "easy questions": lambda r, n: grpo(r, n, line(0.93, 0.96), alike=0.5, entropy=decay(0.15, 0.05)),
    "base that does not stop yet": lambda r, n: grpo(
        r, n, late(0.05, 0.4, 0.2), cut=late(0.98, 0.1, 0.15), length=late(1000, 500, 0.15)
    ),
    "far from its reference": lambda r, n: grpo(r, n, line(0.2, 0.5), kl=line(0.0, 2.5)),
    "usual KL, logged every 20": lambda r, n: grpo(
        r, n, line(0.2, 0.5), kl=line(0.0, 0.15), logging_steps=20, steps=2000
    ),
    "rewards of -1 and 1": lambda r, n: grpo(r, n, line(0.35, 0.6), signed=True),
    "entropy falls, reward rises a little": lambda r, n: grpo(r, n, line(0.1, 0.2), entropy=decay(0.6, 0.06, 10)),
    "instruct model, near its best": lambda r, n: grpo(r, n, line(0.7, 0.76), entropy=decay(0.25, 0.03, 8)),
    "format first": lambda r, n: grpo(r, n, late(0.28, 0.45, 0.7), prompts=2, formatted=decay(0.1, 0.98, 15)),
    "format first, two heads": lambda r, n: grpo(
        r, n, line(0.3, 0.36), prompts=4, formatted=decay(0.1, 0.98, 15), format_weight=1.0
    ),
    "lora, one epoch": lambda r, n: supervised(r, n, decay(0.95, 0.75, 20)),
    "lora, little to learn": lambda r, n: supervised(r, n, decay(0.72, 0.68, 30)),
    "lora, little to learn, held out": lambda r, n: supervised(
        r, n, decay(0.72, 0.68, 30), held_out=decay(0.72, 0.69, 30)
    ),
    "one row a step": lambda r, n: supervised(r, n, decay(1.1, 0.9, 5), rows=1, row_noise=0.6, steps=1500),
    "two rows a step, short answers": lambda r, n: supervised(
        r, n, decay(1.6, 1.2, 5), rows=2, row_noise=0.9, steps=800
    ),
    "three epochs": lambda r, n: supervised(
        r, n, _epochs(1.15, 0.85, 0.6), held_out=_epochs(1.1, 1.08, 1.16), logging_steps=10, steps=1200, every=200
    ),
    "fifteen epochs of a small set": lambda r, n: supervised(
        r,
        n,
        decay(1.0, 0.05, 4),
        held_out=lambda d: 0.9 + 0.6 * d,
        accuracy=line(0.74, 0.76),
        logging_steps=5,
        steps=900,
        every=60,
    ),
    "warm-up spike": lambda r, n: supervised(r, n, decay(1.3, 1.0), rows=32, spike=_bump(6, 12, 1.8)),
    "a bad stretch of data": lambda r, n: supervised(r, n, decay(1.0, 0.8), spike=_bump(200, 216, 0.35)),
    "dpo": lambda r, n: supervised(r, n, decay(0.693, 0.5, 3), method="dpo", rows=8, row_noise=0.5),
    "dpo, one pair a step": lambda r, n: supervised(
        r, n, decay(0.693, 0.45, 4), method="dpo", rows=1, row_noise=1.3, steps=1500
    ),
    "dpo, three epochs": lambda r, n: supervised(
        r,
        n,
        _epochs(0.6, 0.35, 0.15),
        method="dpo",
        rows=16,
        held_out=_epochs(0.58, 0.62, 0.78),
        accuracy=line(0.7, 0.74),
        logging_steps=10,
        steps=1200,
        every=100,
    ),
}
"""By what is special about each. What a rule might take for a failure is there; a failure is not."""


def simulate(kind: str, seed: int) -> Simulated:
    """One run of a kind."""
    return KINDS[kind](random.Random(f"large {kind} {seed}"), kind)


def noticed(run: Simulated, *, every: int = 1) -> Iterator[tuple[int, Finding]]:
    """(logs, finding) of all that the rules say, at each moment at which a watcher may look, or one of `every`."""
    for count in range(1, len(run.records) + 1, every):
        seen = run.records[:count]
        latest = float(seen[-1]["time"])
        if count < len(run.records):
            latest = float(run.records[count]["time"])  # the last moment before the next log comes
        for finding in findings(seen, run.method, run.config, now=latest):
            yield count, finding


def main() -> int:
    parser = argparse.ArgumentParser(description="Healthy runs of large models: what the rules say of them.")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--warnings", action="store_true")
    chosen = parser.parse_args()
    low, _, high = chosen.seeds.partition("-")
    stopped = runs = 0
    for kind in KINDS:
        if kind not in chosen.kinds:
            continue
        for seed in range(int(low), int(high or low) + 1):
            run = simulate(kind, seed)
            runs += 1
            told: dict[tuple[str, str], tuple[int, str]] = {}
            for count, finding in noticed(run):
                told.setdefault((finding.severity, finding.cause), (count, finding.message))
            stopped += any(severity == "stop" for severity, _ in told)
            for (severity, cause), (count, message) in told.items():
                if severity == "stop" or chosen.warnings:
                    sys.stdout.write(f"{kind} {seed}: {severity} {cause} at {count} of {len(run.records)}: {message}\n")
    sys.stdout.write(f"{stopped} of {runs} healthy runs would be stopped\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
