"""The live view of a run: who works on what, the jobs' numbers, the score so far, the budget, the last decisions."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from posttrain_crew.crews.status_view import bar, duration, one_line, percent, plain_line, summary_lines

__all__ = ["LiveView", "plain_line", "summary_lines"]

SHOWN_LINES = 8
_KEPT = {"setup", "run_started", "phase", "job_ended", "evaluation", "decision", "incident", "run_ended"}


class LiveView:
    """A Rich view fed with events. A context manager; `handle` may be called from any thread.

    Args:
        console: where it is drawn.
        clock: seconds that only grow; replaced in tests.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.time) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.Lock()
        self._started: float = clock()
        self._title: dict[str, Any] = {}
        self._phase = "starting"
        self._orders: dict[str, tuple[str, str, float]] = {}
        self._tool = ""
        self._jobs: dict[str, dict[str, Any]] = {}
        self._scores: dict[str, Mapping[str, Any]] = {}
        self._best = "base"
        self._recent: deque[str] = deque(maxlen=SHOWN_LINES)
        # last, because Live draws at once
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=4, transient=True)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, value, trace)

    def handle(self, event: Mapping[str, Any]) -> None:
        """Take note of one event."""
        with self._lock:
            self._note(event)
        if event.get("event") in _KEPT and (line := plain_line(event)):
            # above the live part, so that the history stays on the terminal after the end
            self._live.console.print(Text(line))

    def _note(self, event: Mapping[str, Any]) -> None:
        name = event.get("event")
        label = str(event.get("label", ""))
        if name == "setup":
            self._phase = str(event.get("message"))
        elif name == "run_started":
            self._title = dict(event)
            self._phase = "at work"
            self._started = self._clock() - self._status("elapsed_s", 0.0)
        elif name == "phase":
            self._phase = str(event.get("phase"))
        elif name == "order_started":
            who = str(event.get("specialist"))
            self._orders[str(event.get("order") or who)] = (who, str(event.get("objective", "")), self._clock())
        elif name == "order_ended":
            who, order = str(event.get("specialist")), event.get("order")
            if order:
                self._orders.pop(str(order), None)
            else:
                self._orders = {key: value for key, value in self._orders.items() if value[0] != who}
            self._tool = ""
        elif name == "tool_call":
            self._tool = f"{event.get('role') or 'an agent'} uses {event.get('tool')}"
        elif name == "job_started":
            self._jobs[label] = {**event, "since": self._clock()}
        elif name == "job_progress":
            self._jobs.setdefault(label, {"since": self._clock()}).update(event)
        elif name == "job_ended":
            self._jobs.pop(label, None)
        elif name == "evaluation" and event.get("split") == "dev":
            self._scores.setdefault(str(event.get("subject")), event)
        elif name == "decision":
            if event.get("action") == "promote":
                self._best = str(event.get("subject"))
            self._recent.append(
                one_line(f"{event.get('action')} {event.get('subject')}: {event.get('reason', '')}", 110)
            )

    def render(self) -> RenderableType:
        """The picture of this moment."""
        with self._lock:
            run = self._title
            head = Text(f"{run.get('run', 'run')} on {run.get('target', '?')}", style="bold")
            head.append(f"   {self._phase}", style="cyan")
            return Panel(
                Group(head, Text(), self._work(), Text(), self._standing()),
                title="crew",
                title_align="left",
                border_style="dim",
            )

    def _work(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, style="bold")
        grid.add_column(overflow="fold")
        for who, objective, since in self._orders.values():
            grid.add_row(Text(who), Text(f"{one_line(objective, 110)}  ({duration(self._clock() - since)})"))
        if self._tool and self._orders:
            grid.add_row("", Text(one_line(self._tool, 110), style="dim"))
        for label, job in self._jobs.items():
            grid.add_row(Text(label, style="green"), self._job(job))
        if not self._orders and not self._jobs:
            grid.add_row(Text("…", style="dim"), Text("choosing what to do next", style="dim"))
        return grid

    def _job(self, job: Mapping[str, Any]) -> Text:
        role = {"train": "training", "evaluate": "evaluating", "smoke": "smoke run", "probe": "probe"}
        text = Text(role.get(str(job.get("role")), "job"))
        step, total = job.get("step"), job.get("total_steps")
        if step is not None and total:
            text.append(f"  {bar(step / total, 16)} {step}/{total}", style="green")
        for metric in ("loss", "reward"):
            if isinstance(job.get(metric), int | float):
                text.append(f"  {metric} {job[metric]:.4g}", style="bold")
        if job.get("eta_s") is not None:
            text.append(f"  {duration(job['eta_s'])} left")
        else:
            text.append(f"  since {duration(self._clock() - float(job.get('since', self._clock())))}", style="dim")
        return text

    def _standing(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column()
        for label, subject in (("baseline", "base"), ("best so far", self._best)):
            if (score := self._scores.get(subject)) is not None and not (label != "baseline" and subject == "base"):
                low, high = score.get("ci_low"), score.get("ci_high")
                interval = f"  95 % CI {percent(low)} to {percent(high)}" if low is not None else ""
                value = score.get("score")
                share = float(value) if isinstance(value, int | float) else 0.0
                grid.add_row(label, Text(f"{bar(share)} {percent(value)}{interval}  ({subject}, dev)"))
        hours = self._budget_hours()
        elapsed = self._clock() - self._started
        if hours:
            left = max(0.0, hours * 3600 - elapsed)
            grid.add_row(
                "time", Text(f"{bar(elapsed / (hours * 3600))} {duration(left)} left of {duration(hours * 3600)}")
            )
        else:
            grid.add_row("time", Text(duration(elapsed)))
        for line in list(self._recent)[-3:]:
            grid.add_row("decision", Text(line))
        return grid

    def _budget_hours(self) -> float | None:
        hours = self._title.get("hours")
        return float(hours) if isinstance(hours, int | float) else self._status("hours", 0.0) or None

    def _status(self, name: str, default: float) -> float:
        """A number from the status file that the loop writes: what earlier sessions of the run left."""
        path = Path(str(self._title.get("directory", ""))) / "status.json"
        try:
            return float(json.loads(path.read_text(encoding="utf-8"))[name])
        except (OSError, ValueError, KeyError, TypeError):
            return default
