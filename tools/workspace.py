"""What the desks of one run share: its board, files, target, budget and compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.budget import Budget
from posttrain_crew.entries import RunStarted
from posttrain_crew.errors import BlackboardError
from posttrain_crew.events import Events
from posttrain_crew.rundir import RunDirectory
from posttrain_crew.target import Target
from posttrain_crew.tools.compute.base import Compute
from posttrain_crew.tools.services.services import Services

__all__ = ["Workspace"]


@dataclass(frozen=True)
class Workspace:
    """One run as a tool sees it."""

    board: Blackboard
    run: RunDirectory
    target: Target
    budget: Budget
    compute: Compute
    events: Events
    services: Services = field(default_factory=Services)
    """Where papers and datasets are looked up; by default only what ships with crew."""

    @property
    def started(self) -> RunStarted:
        """What the user asked for. Raises BlackboardError on a board without its first entry."""
        entry = self.board.latest(RunStarted)
        if entry is None:
            raise BlackboardError(f"{self.board.location} has no `run` entry: the run was never started.")
        return entry.body

    @property
    def base_model(self) -> Path:
        """Local directory of the base model."""
        return Path(self.started.base_model_path)

    def checkpoint(self, subject: str) -> Path:
        """Model directory of `base` or of a finished experiment. Raises BlackboardError when it has none."""
        from posttrain_crew.state import checkpoint_of

        if subject == "base":
            return self.base_model
        return self.run.absolute(checkpoint_of(self.board, subject))
