"""Watch rules: read a training history, and say what is going wrong, with the numbers that show it.

`findings` is a pure function over the records of metrics.jsonl, so it serves a running job (should it be stopped?) and
a finished one (why did it go so?) alike. `Watch` follows one running job: each look reads what has come, raises a
trackio alert for what is new, and tells what should end the job.

A stop throws the job's model away, so a rule stops only what cannot end well; the rest is a finding to read. The rules
are in rules_*.py, their numbers in thresholds.py, what to change in remedies.py. How often they are right is measured
on real trainings of every kind: `python -m tests.training.histories.matrix`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain_crew.entries import Cause, Method
from posttrain_crew.tools.training.alerts import raise_alert
from posttrain_crew.tools.training.course import Course
from posttrain_crew.tools.training.finding import Finding, Severity
from posttrain_crew.tools.training.metrics import read_metrics
from posttrain_crew.tools.training.remedies import with_remedy
from posttrain_crew.tools.training.rules_completion import length_explosion, never_ends
from posttrain_crew.tools.training.rules_loss import loss_rises, not_a_number, overfitting, plateau
from posttrain_crew.tools.training.rules_pace import stalled_data
from posttrain_crew.tools.training.rules_policy import entropy_collapse, kl_explosion
from posttrain_crew.tools.training.rules_reward import reward_collapse, reward_hacking, zero_variance
from posttrain_crew.tools.training.thresholds import THRESHOLDS, Thresholds
from posttrain_crew.tools.training.tracked_history import tracked_history

__all__ = ["Finding", "Watch", "findings"]

BLIND_S = 60.0
"""Seconds between two looks after which the watcher was away: stopped, suspended, or the job was in a queue."""

_RULES = (
    not_a_number,
    loss_rises,
    overfitting,
    reward_collapse,
    reward_hacking,
    never_ends,
    length_explosion,
    zero_variance,
    kl_explosion,
    entropy_collapse,
    plateau,
    stalled_data,
)
"""A rule that needs a metric which the method does not log finds nothing."""


def findings(
    history: Sequence[Mapping[str, Any]],
    method: Method,
    config: Mapping[str, Any],
    *,
    now: float | None = None,
    waits_since: float | None = None,
    limits: Thresholds = THRESHOLDS,
) -> list[Finding]:
    """What the history shows so far, the most serious and surest first, each with its remedy; [] when nothing is wrong.

    Args:
        history: records of metrics.jsonl in order, NaN as a float.
        config: trainer fields of the job; batch size, group size, length limit and rates are read from it.
        now: Unix time, for a job that runs: only then can it be seen that no step comes any more.
        waits_since: Unix time from which on the job is waited for; None for the time of its newest record.
    """
    course = Course(history, method, config, now, limits, waits_since)
    found = [finding for rule in _RULES if (finding := rule(course)) is not None]
    found.sort(key=lambda finding: (not finding.stop, -finding.confidence))
    return [with_remedy(finding, method, course.fields) for finding in found]


class Watch:
    """Follows one running job.

    Args:
        metrics: the job's metrics.jsonl, which may not be there yet; while it is not, the trackio run is read.
        config: trainer fields of the job.
        tracked: (database file, run name) of its trackio run, for alerts; None for none.
    """

    def __init__(
        self, metrics: Path, method: Method, config: Mapping[str, Any], tracked: tuple[Path, str] | None = None
    ) -> None:
        self._metrics = metrics
        self._method = method
        self._config = config
        self._tracked = tracked
        self._told: set[tuple[Cause, Severity]] = set()
        self._seen = -1
        self._looked = self._since = 0.0
        self.history: list[dict[str, Any]] = []
        """What the last look read."""

    def look(self, now: float | None = None) -> list[Finding]:
        """What is wrong at this moment, the most serious first; what is new is raised as an alert.

        Args:
            now: Unix time, where the job is known to run.
        """
        self.history = read_metrics(self._metrics)
        if not self.history and self._tracked is not None:
            self.history = tracked_history(*self._tracked)
        since = None if now is None else self._waits_since(now)
        found = findings(self.history, self._method, self._config, now=now, waits_since=since)
        for finding in found:
            key = (finding.cause, finding.severity)
            if self._tracked is not None and key not in self._told and raise_alert(*self._tracked, finding):
                self._told.add(key)
        return found

    def _waits_since(self, now: float) -> float:
        """Since when nothing new has come, by this clock: the job's may be another machine's, and a job that goes on
        after a kill has records of before it. Nothing counts while nobody looked."""
        if len(self.history) != self._seen or now - self._looked > BLIND_S:
            self._seen, self._since = len(self.history), now
        self._looked = now
        return self._since
