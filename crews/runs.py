"""Finding things by name: targets and runs.

Light on purpose: `crew status` and `crew runs` go through here, so nothing heavier than the standard library is
imported at the top.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain_crew.errors import RunError, TargetError
from posttrain_crew.rundir import RunDirectory

if TYPE_CHECKING:
    from posttrain_crew.target import Target

__all__ = [
    "RunLine",
    "find_run",
    "find_target",
    "last_elapsed",
    "list_runs",
    "newest_run",
    "read_status",
    "target_files",
]


def target_files() -> dict[str, Path]:
    """All targets that can be named, in look-up order: ./targets, the user's config directory, plugins and crew.

    Raises:
        PluginError: two plugins claim the same name.
    """
    from posttrain_crew.plugins import hooks, merged
    from posttrain_crew.settings import config_dir

    found: dict[str, Path] = merged(hooks().register_targets())
    for folder in (config_dir() / "targets", Path("targets")):
        if folder.is_dir():
            found.update({path.stem: path for path in folder.glob("*.yaml")})
    return dict(sorted(found.items()))


def find_target(name: str) -> Target:
    """The target of this name, or in this YAML file.

    Raises:
        TargetError: unknown (naming the nearest), or its file is not valid.
    """
    from posttrain_crew.target import load_target

    if name.endswith((".yaml", ".yml")) or "/" in name:
        return load_target(Path(name).expanduser())
    known = target_files()
    if name in known:
        return load_target(known[name])
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(f'`{n}`' for n in near)}? " if near else ""
    raise TargetError(
        f"there is no target `{name}`. {hint}Known targets: {', '.join(known) or '(none)'}. `crew targets` describes "
        "them; a path to a target YAML file works as well."
    )


@dataclass(frozen=True)
class RunLine:
    """One run as `crew runs` lists it."""

    run: str
    directory: Path
    target: str
    state: str
    """`running`, `finished`, `stopped` or `interrupted`: what status.json says, corrected by who holds the lock."""
    started_at: str
    experiments: int
    best_score: float | None
    verdict: str | None


def read_status(run: RunDirectory) -> dict[str, Any]:
    """status.json of a run, with `state` corrected: a run that nobody holds is not running.

    Raises:
        RunError: the file is damaged.
    """
    try:
        status = json.loads(run.status.read_text(encoding="utf-8"))
    except FileNotFoundError:
        status = {"run": run.id, "state": "interrupted", "phase": "not begun"}
    except (OSError, ValueError) as error:
        raise RunError(
            f"the status file {run.status} cannot be read ({error}). `crew log {run.id}` reads the blackboard instead."
        ) from error
    if not isinstance(status, dict):
        raise RunError(f"the status file {run.status} does not hold a JSON object. `crew log {run.id}` still works.")
    status.setdefault("run", run.id)
    status.setdefault("state", "interrupted")
    holder = run.holder()
    if holder is not None and status["state"] in ("interrupted", "stopped"):
        status["state"] = "running"
    elif holder is None and status["state"] == "running":
        status["state"] = "interrupted"
    status["pid"] = holder
    status["directory"] = str(run.root)
    return status


def last_elapsed(run: RunDirectory) -> float:
    """Seconds of work that the last session had counted when it wrote status.json; 0 where there is none."""
    try:
        status = json.loads(run.status.read_text(encoding="utf-8"))
        return float(status["elapsed_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def list_runs(runs_dir: Path) -> list[RunLine]:
    """The runs in a directory, newest first. A directory that does not exist holds no runs."""
    lines = []
    for run in _runs_in(runs_dir):
        try:
            status = read_status(run)
        except RunError:
            status = {"state": "damaged"}
        score = status.get("best_score")
        lines.append(
            RunLine(
                run=run.id,
                directory=run.root,
                target=str(status.get("target") or "?"),
                state=str(status["state"]),
                started_at=str(status.get("started_at") or _made_at(run)),
                experiments=int(status.get("experiments") or 0),
                best_score=float(score) if isinstance(score, int | float) else None,
                verdict=status.get("verdict"),
            )
        )
    return lines


def find_run(name: str, runs_dir: Path) -> RunDirectory:
    """A run by id or by path.

    Raises:
        RunError: there is none, naming the nearest ids.
    """
    by_id = runs_dir / name
    path = Path(name).expanduser()
    for candidate in (by_id, path):
        if (candidate / "blackboard.db").is_file():
            return RunDirectory.open(candidate)
    if path.is_file() and path.name == "blackboard.db":
        return RunDirectory.open(path.parent)
    ids = [run.id for run in _runs_in(runs_dir)]
    near = difflib.get_close_matches(name, ids, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {len(ids)} runs there (`crew runs`)."
    raise RunError(
        f"there is no run `{name}` in {runs_dir.resolve()}. {hint} `--runs-dir` (or CREW_RUNS_DIR) says where to "
        "look; a path to a run directory works as well."
    )


def newest_run(runs_dir: Path) -> RunDirectory:
    """The run begun last. Raises RunError when there is none."""
    runs = _runs_in(runs_dir)
    if not runs:
        raise RunError(
            f"there are no runs in {runs_dir.resolve()}. Start one with `crew run posttrain --target gpqa-mini`, or "
            "say where to look with `--runs-dir` (or CREW_RUNS_DIR)."
        )
    return runs[0]


def _runs_in(runs_dir: Path) -> list[RunDirectory]:
    if not runs_dir.is_dir():
        return []
    try:
        folders = [path.parent for path in runs_dir.glob("*/blackboard.db")]
    except OSError as error:
        raise RunError(f"the runs directory {runs_dir} cannot be read ({error.strerror or error}).") from error
    return sorted((RunDirectory(folder) for folder in folders), key=_age, reverse=True)


def _age(run: RunDirectory) -> tuple[str, str]:
    try:
        started = str(json.loads(run.status.read_text(encoding="utf-8"))["started_at"])
    except (OSError, ValueError, KeyError, TypeError):
        started = _made_at(run)
    return _iso(started), run.id


def _iso(value: str) -> str:
    """Comparable form of a time given as ISO 8601 or as seconds since 1970."""
    try:
        return datetime.fromtimestamp(float(value), timezone.utc).isoformat()
    except ValueError:
        return value


def _made_at(run: RunDirectory) -> str:
    return datetime.fromtimestamp(run.root.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
