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

__all__ = ["Course", "Points", "evidence", "mean", "noise"]

Points = list[tuple[int, float]]
"""(step, value)."""


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

    def raw(self, name: str) -> Points:
        """A metric, NaN and infinities included."""
        return series(self.records, name)

    def of(self, name: str) -> Points:
        """A metric's finite values."""
        return [(step, value) for step, value in self.raw(name) if math.isfinite(value)]

    def number(self, name: str, default: float) -> float:
        """A trainer field as a number."""
        value = self.config.get(name, default)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default

    @cached_property
    def completions(self) -> int:
        """Completions behind one log, on one process."""
        batch = self.number("per_device_train_batch_size", 8) * self.number("gradient_accumulation_steps", 1)
        return max(1, int(batch * max(1.0, self.number("logging_steps", 1))))

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


def evidence(metric: str, point: tuple[int, float], threshold: float) -> MetricEvidence:
    """A number for the blackboard, which takes no NaN: six decimals, and 0 for a threshold that is infinite."""
    step, value = point
    shown = round(threshold, 6) if math.isfinite(threshold) else 0.0
    return MetricEvidence(metric=metric, step=step, value=round(value, 6), threshold=shown)
