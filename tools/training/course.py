"""A training history as the rules read it: one metric at a time, with what the config says of its noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from posttrain_crew.entries import Method, MetricEvidence
from posttrain_crew.tools.training.metrics import series
from posttrain_crew.tools.training.thresholds import THRESHOLDS, Thresholds

__all__ = ["Course", "Points", "deviation", "evidence", "looks", "mean", "noise"]

Points = list[tuple[int, float]]
"""(step, value)."""


MOST_GROUPS = 64
STEP_TO_DEVIATION = 1.048
"""For normal noise: 1 / (0.6745 sqrt 2)."""


@dataclass(frozen=True)
class Course:
    """The records of metrics.jsonl so far, in order, of a job with this method and these trainer fields."""

    records: Sequence[Mapping[str, Any]]
    method: Method
    config: Mapping[str, Any]
    now: float | None = None
    """Unix time at which a running job is looked at; None for one that has ended."""
    limits: Thresholds = THRESHOLDS
    waits_since: float | None = None
    """When the watcher saw the newest record, or began to watch, by its own clock; None for the record's own time."""

    def raw(self, name: str) -> Points:
        """A metric, NaN and infinities included."""
        if name not in self._read:
            self._read[name] = series(self.records, name)
        return self._read[name]

    def of(self, name: str) -> Points:
        """A metric's finite values."""
        if name not in self._finite:
            self._finite[name] = [(step, value) for step, value in self.raw(name) if math.isfinite(value)]
        return self._finite[name]

    @cached_property
    def _read(self) -> dict[str, Points]:
        return {}

    @cached_property
    def _finite(self) -> dict[str, Points]:
        return {}

    def number(self, name: str, default: float) -> float:
        """A trainer field as a number."""
        value = self.config.get(name, default)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default

    def span(self, points: Points) -> int:
        """Logs to take a mean of: a window, and a tenth of what there is where that is more. The longer a run has
        gone, the oftener it has been looked at, and the more a single look must hold."""
        return max(self.limits.window, len(points) // 10)

    @cached_property
    def rows(self) -> int:
        """Rows behind one log, on one process; completions for GRPO."""
        batch = self.number("per_device_train_batch_size", 8) * self.number("gradient_accumulation_steps", 1)
        return max(1, int(batch * max(1.0, self.number("logging_steps", 1))))

    @cached_property
    def groups(self) -> int:
        """Prompts of GRPO behind one log, on one process. Completions of one prompt are much alike, so that these and
        not the completions are what counts as independent.

        Without a config, a lower bound: the smallest number of which all shares of equal groups are multiples.
        """
        if self.config:
            return max(1, self.rows // max(1, int(self.number("num_generations", 8))))
        shares = [value for _, value in self.of("frac_reward_zero_std")]
        whole = (n for n in range(1, MOST_GROUPS + 1) if all(abs(s * n - round(s * n)) < 1e-3 for s in shares))
        return next(whole, 1)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The trainer fields, those included that only the metrics tell of: the rate, and the length of what is cut."""
        told: dict[str, Any] = {}
        if rates := [value for _, value in self.of("learning_rate")]:
            told["learning_rate"] = max(rates)
        all_cut = {step for step, share in self.of("completions/clipped_ratio") if share == 1}
        if lengths := [value for step, value in self.of("completions/mean_length") if step in all_cut]:
            told["max_completion_length"] = int(max(lengths))
        return told | dict(self.config)

    @cached_property
    def limit_told(self) -> str:
        """The limit of completions, in words."""
        limit = self.fields.get("max_completion_length")
        return f"limit of {limit:.0f} tokens" if isinstance(limit, int | float) else "limit"

    @cached_property
    def step_of_log(self) -> float:
        """Steps between two logs, the usual number."""
        name = "reward" if self.method == "grpo" else "loss"
        gaps = [after - before for (before, _), (after, _) in pairwise(self.raw(name)) if after > before]
        return median(gaps) if gaps else 1.0

    @cached_property
    def share_done(self) -> float:
        """Share of the job's steps that are behind it, 0-1; 0 where the records do not tell."""
        last = self.records[-1] if self.records else {}
        step, epoch = last.get("step"), last.get("epoch")
        steps, epochs = self.number("max_steps", -1), self.number("num_train_epochs", 3)  # transformers' default
        if steps > 0:
            return float(step) / steps if isinstance(step, int | float) else 0.0
        return float(epoch) / epochs if isinstance(epoch, int | float) and epochs > 0 else 0.0

    def newest(self, *names: str) -> list[MetricEvidence]:
        """The last value of each metric that is there, against its first."""
        found = [(name, self.of(name)) for name in names]
        return [evidence(name, points[-1], points[0][1]) for name, points in found if points]


def mean(points: Points) -> float:
    """Mean value of some points; there must be one."""
    return fmean(value for _, value in points)


def noise(points: Points) -> float:
    """Standard deviation of one log about its neighbours, from the median step between them, which a trend or a fall
    hardly touches; 0 for fewer than three logs."""
    steps = [abs(after - before) for (_, before), (_, after) in pairwise(points)]
    return STEP_TO_DEVIATION * median(steps) if len(steps) >= 2 else 0.0


def deviation(points: Points) -> float:
    """Standard deviation of one log about its neighbours, from the mean square of the steps between them: von Neumann's
    estimate. Unlike `noise` it counts rare large steps, which rewards of few prompts consist of."""
    steps = [(after - before) ** 2 for (_, before), (_, after) in pairwise(points)]
    return math.sqrt(fmean(steps) / 2) if steps else 0.0


def looks(errors: float, count: float) -> float:
    """Standard errors to ask for when the largest of `count` differences is looked at, so that chance passes as seldom
    as it passes `errors` in one: exp(-z^2 / 2) bounds the normal's tail, and sums over the looks."""
    return math.sqrt(errors**2 + 2 * math.log(max(1.0, count)))


def evidence(metric: str, point: tuple[int, float], threshold: float) -> MetricEvidence:
    """A number for the blackboard, which takes no NaN: six decimals, and 0 for a threshold that is infinite."""
    step, value = point
    shown = round(threshold, 6) if math.isfinite(threshold) else 0.0
    return MetricEvidence(metric=metric, step=step, value=round(value, 6), threshold=shown)
