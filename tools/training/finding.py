"""What a watch rule says: a cause of the fixed set, how sure, how bad, the numbers that show it, what to change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from posttrain_crew.entries import Cause, MetricEvidence

__all__ = ["Finding", "Remedy", "Severity"]

Remedy = dict[str, float | int | str | bool]
"""Changes to the config of the next attempt, by the trainer's own field names."""
Severity = Literal["warn", "stop"]
"""`stop`: the job cannot end well, end it. `warn`: worth reading."""


@dataclass(frozen=True)
class Finding:
    """One thing that a history shows."""

    cause: Cause
    message: str
    confidence: float
    """0-1, a judgement and no measured rate."""
    severity: Severity = "warn"
    evidence: list[MetricEvidence] = field(default_factory=list)
    remedy: Remedy = field(default_factory=dict)
    """Empty where no setting helps."""
    advice: str = ""

    @property
    def stop(self) -> bool:
        """Whether the job should be ended."""
        return self.severity == "stop"
