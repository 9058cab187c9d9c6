"""`crew run posttrain`: set a run up, work on it, hand back its result. For the command line and for Python."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.budget import FINAL_SHARE, Budget, Limits
from posttrain_crew.crews.doctor import check_home
from posttrain_crew.crews.runs import find_target, last_elapsed
from posttrain_crew.entries import RunStarted, SessionStarted
from posttrain_crew.errors import BudgetTooSmallError, RunError, TargetError
from posttrain_crew.events import Events
from posttrain_crew.rundir import RunDirectory, free_gib
from posttrain_crew.settings import Settings, cache_dir
from posttrain_crew.target import Target
from posttrain_crew.tools.compute.base import Compute
from posttrain_crew.tools.compute.choose import choose_backend, make_backend
from posttrain_crew.tools.compute.orphans import sweep
from posttrain_crew.tools.evaluation.requirements import missing
from posttrain_crew.tools.services.services import Services, unreachable
from posttrain_crew.tools.sources import resolve_model
from posttrain_crew.tools.workspace import Workspace

__all__ = ["RunOptions", "RunResult", "minimum_seconds", "resume", "start"]

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class RunOptions:
    """What the user asks for. None means: the target's or the settings' own value."""

    target: str
    model: str | None = None
    llm: str | None = None
    hours: float | None = None
    usd: float | None = None
    tokens: int | None = None
    seed: int = 0
    out: Path | None = None
    runs_dir: Path = Path("runs")
    prompts: Path | None = None
    sources: str | None = None
    compute: str | None = None
    """Backend of the jobs. None: this machine, or Hugging Face Jobs where it is too small and `usd` pays for them."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run."""

    run: str
    directory: Path
    summary: dict[str, Any]
    exit_code: int
    """0 improved, 3 finished without a significant gain."""


def start(options: RunOptions, listener: Listener | None = None) -> RunResult:
    """Start a new run and work on it to its end.

    Everything that can be refused is refused before the run directory is made.

    Raises:
        TargetError, ModelError, RoleError, RunError: bad input or an unfit machine. BudgetTooSmallError: no experiment
        fits. CrewError: see posttrain_crew.errors. KeyboardInterrupt: after the state is safe; `resume` goes on.
    """
    settings = Settings()
    target = find_target(options.target)
    hours = options.hours or target.budget.hours
    compute, why = _compute(settings, options, target, hours)
    services = Services.parse(options.sources or target.sources, settings)
    if problem := unreachable(services):
        raise problem
    _check_home()
    _check_budget(target, hours)
    root = options.out or options.runs_dir / _new_id(target.name)
    _check_place(root, target)
    from posttrain_crew.agents.roles import load_roles

    load_roles(options.prompts)  # a broken role file must be found before anything is made
    report = _progress_to(listener)
    if why:
        report(why)
    base_path = resolve_model(options.model or target.base_model, cache_dir(), report)
    run = RunDirectory.create(root)
    with run.locked():
        board = Blackboard(run.blackboard, create=True)
        started = RunStarted(
            run=run.id,
            target=str(target.origin) if target.origin and options.target != target.name else target.name,
            base_model=options.model or target.base_model,
            base_model_path=str(base_path),
            llm=options.llm or settings.llm,
            seed=options.seed,
            hours=hours,
            usd=options.usd,
            tokens=options.tokens,
            prompts=str(options.prompts.resolve()) if options.prompts else None,
            sources=",".join(services.names),
            compute=compute.name,
        )
        board.post(started, author="crew", key="run")
        return _work(run, board, target, compute, settings, listener, resumed=False)


def resume(run_id: str, runs_dir: Path = Path("runs"), listener: Listener | None = None) -> RunResult:
    """Go on with a run that was interrupted, killed or stopped; a finished one hands back its result again.

    Raises:
        RunError: no such run. BlackboardError: its log is damaged. RunBusyError: another process works on it.
    """
    from posttrain_crew.crews.runs import find_run

    _check_home()
    run = find_run(run_id, runs_dir)
    settings = Settings()
    with run.locked():
        board = Blackboard(run.blackboard)
        board.verify()
        started = board.latest(RunStarted)
        if started is None:
            raise RunError(f"the run {run.id} was killed before its first entry. Start it anew with `crew run`.")
        run.stop_request.unlink(missing_ok=True)
        target = find_target(started.body.target)
        compute = make_backend(started.body.compute, settings.slots if started.body.compute == "local" else 0)
        return _work(run, board, target, compute, settings, listener, resumed=True)


def minimum_seconds(target: Target) -> float:
    """The least wall time, seconds, of a run that can end with a result: baseline, one experiment, final test."""
    training = target.training
    steps = [
        training.startup_seconds + per_step * float(getattr(target.training, method).get("max_steps", 30))
        for method, per_step in training.seconds_per_step.items()
    ]
    experiment = min(steps, default=training.startup_seconds) + training.evaluation_seconds
    before = training.evaluation_seconds + experiment + training.startup_seconds  # baseline, experiment, smoke run
    return max(before / (1 - FINAL_SHARE), before + training.evaluation_seconds)


def _work(
    run: RunDirectory,
    board: Blackboard,
    target: Target,
    compute: Compute,
    settings: Settings,
    listener: Listener | None,
    *,
    resumed: bool,
) -> RunResult:
    from posttrain_crew.agents.roles import load_roles
    from posttrain_crew.agents.team import Team
    from posttrain_crew.crews.finish import EXIT_IMPROVED, EXIT_NO_GAIN, summary
    from posttrain_crew.crews.loop import Loop
    from posttrain_crew.crews.manifest import write_manifest

    started = board.of(RunStarted)[0].body
    events = Events(run.events)
    if listener is not None:
        events.subscribe(listener)
    limits = Limits(hours=started.hours, usd=started.usd, tokens=started.tokens)
    budget = Budget(board, limits, at_least=last_elapsed(run))
    workspace = Workspace(
        board, run, target, budget, compute, events, services=Services.parse(started.sources, settings)
    )
    roles = load_roles(Path(started.prompts) if started.prompts else None)
    board.post(SessionStarted(pid=os.getpid(), host=socket.gethostname(), resumed=resumed), author="crew")
    events.emit(
        "run_started",
        run=run.id,
        target=target.name,
        directory=str(run.root),
        seed=started.seed,
        hours=started.hours,
        llm=started.llm,
        resumed=resumed,
    )
    write_manifest(workspace)
    team = Team(workspace, roles, started.llm, settings)
    sweep(workspace)
    Loop(workspace, team).run()
    sweep(workspace, at_the_end=True)
    result = summary(workspace)
    return RunResult(run.id, run.root, result, EXIT_IMPROVED if result["verdict"] == "improved" else EXIT_NO_GAIN)


def _compute(settings: Settings, options: RunOptions, target: Target, hours: float) -> tuple[Compute, str]:
    local = options.compute in (None, "local")
    try:
        return choose_backend(
            options.compute,
            lambda capacity: missing(target, capacity),
            hours=hours,
            usd=options.usd,
            slots=settings.slots if local else 0,
        )
    except TargetError as error:
        raise TargetError(f"the target {target.name} cannot be run here: {error}") from error


def _new_id(target: str) -> str:
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", target)
    return f"{name}-{datetime.now(timezone.utc).strftime('%Y%m%d-%H%M%S')}-{os.getpid() % 10000:04d}"


def _check_home() -> None:
    if (check := check_home()).level == "fail":
        raise RunError(f"{check.detail} {check.remedy}")


def _check_budget(target: Target, hours: float) -> None:
    least = minimum_seconds(target)
    if hours * 3600 < least:
        raise BudgetTooSmallError(
            f"{hours:g} h ({hours * 3600:.0f} s) is too little for {target.name}: baseline, one experiment and the "
            f"final test need about {least:.0f} s. Give at least `--hours {least / 3600 + 0.005:.2f}`."
        )


def _check_place(root: Path, target: Target) -> None:
    existing = root.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise RunError(
            f"the run directory {root} cannot be made: {existing} is not a directory that you can write to. "
            "Choose another place with `--runs-dir` or `--out`."
        )
    free, needed = free_gib(existing), target.requires.disk_gib
    if free < needed:
        raise RunError(
            f"only {free:.2f} GiB are free at {existing}, and a run on {target.name} needs {needed:g} GiB for "
            "checkpoints and logs. Free some space, or choose another place with `--runs-dir`."
        )


def _progress_to(listener: Listener | None) -> Callable[[str], None]:
    def report(message: str) -> None:
        if listener is not None:
            listener({"event": "setup", "message": message})

    return report
