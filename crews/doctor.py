"""Is this machine fit for a run? Each check says what it found and, where it matters, what to do."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Check", "check_home", "check_sandbox", "examine"]

Level = Literal["ok", "note", "warn", "fail"]

KNOWN_BAD = {"litellm": re.compile(r"1\.106\.|1\.108\.[0-3]$")}
"""These releases of litellm import a name of mcp 2 on every call with tools; crewai pins mcp below 2."""
MINIMUM_DISK_GIB = 2.0


@dataclass(frozen=True)
class Check:
    """One line of `crew doctor`."""

    name: str
    level: Level
    detail: str
    remedy: str = ""


def examine(runs_dir: Path) -> list[Check]:
    """All checks, in the order in which they are shown."""
    return [
        _python(),
        *_packages(),
        _torch(),
        check_home(),
        _writable("cache", _cache()),
        _writable("runs directory", runs_dir),
        _disk(runs_dir),
        *_plugins(),
        _llm(),
        check_sandbox(),
        Check("network", "note", "not needed for gpqa-mini with the playbook."),
    ]


def check_home() -> Check:
    """crewai makes files under HOME when it is imported, and fails to import where it cannot."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where HOME is odd; this never does
    if (problem := _cannot_write(home)) is None:
        return Check("home", "ok", f"{home} is writable.")
    return Check(
        "home",
        "fail",
        f"the home directory {home} is not writable ({problem}), and crewai cannot be imported then.",
        "Set HOME to a directory that you can write to, for example `HOME=/tmp/home crew ...`.",
    )


def _cannot_write(folder: Path) -> str | None:
    """Why no file can be made in a folder (or in its nearest parent that exists), or None."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _writable(name: str, folder: Path) -> Check:
    if (problem := _cannot_write(folder)) is None:
        return Check(name, "ok", f"{folder.absolute()} is writable.")
    return Check(name, "fail", f"{folder.absolute()} cannot be written ({problem}).", "Choose another place.")


def _cache() -> Path:
    from posttrain_crew.settings import cache_dir

    return cache_dir()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    place = f"virtual environment {sys.prefix}" if sys.prefix != sys.base_prefix else "no virtual environment"
    if not (3, 10) <= sys.version_info[:2] < (3, 14):
        return Check("python", "fail", f"{version}, {place}.", "Use Python 3.10 to 3.13.")
    return Check("python", "ok", f"{version}, {place}.")


def _packages() -> list[Check]:
    names = _required()
    missing, versions, bad = [], [], []
    for name in names:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        versions.append(f"{name} {version}")
        if name in KNOWN_BAD and KNOWN_BAD[name].match(version):
            bad.append(f"{name} {version}")
    checks = []
    if missing:
        detail = f"not installed: {', '.join(missing)}."
        checks.append(Check("packages", "fail", detail, "Run `make setup`, or `pip install -c constraints.txt -e .`."))
    else:
        shown = [
            v for v in versions if v.split()[0] in ("torch", "trl", "transformers", "crewai", "litellm", "lm-eval")
        ]
        checks.append(Check("packages", "ok", f"all {len(names)} required packages are here: {', '.join(shown)}."))
    if bad:
        checks.append(
            Check(
                "known faults", "fail", f"{', '.join(bad)} fails on every LLM call with tools.", "Install litellm 1.93."
            )
        )
    return checks


def _required() -> list[str]:
    try:
        wanted = importlib.metadata.requires("posttrain-crew") or []
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    return sorted({re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0] for line in wanted if "extra ==" not in line})


def _torch() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("torch", "fail", "torch is not installed.", "Run `make setup`.")
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch", "fail", f"torch does not import: {error}", "Install it anew: `make setup`.")
    cores = os.cpu_count() or 1
    threads = torch.get_num_threads()
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        what = ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus)
        return Check("accelerator", "ok", f"{what}; {cores} CPU cores.")
    return Check(
        "accelerator",
        "note",
        f"no GPU; {cores} CPU cores, torch uses {threads} thread(s), load {os.getloadavg()[0]:.1f}. "
        "Enough for gpqa-mini; larger targets need a GPU.",
    )


def _disk(runs_dir: Path) -> Check:
    from posttrain_crew.rundir import free_gib

    free = free_gib(runs_dir.absolute())
    if free < MINIMUM_DISK_GIB:
        detail = f"{free:.1f} GiB free where the runs lie; a run needs about {MINIMUM_DISK_GIB:g}."
        return Check("disk", "fail", detail, "Free some space, or use `--runs-dir` on another disk.")
    return Check("disk", "ok", f"{free:.0f} GiB free where the runs lie.")


def _plugins() -> list[Check]:
    from posttrain_crew.plugins import GROUP, manager

    loaded = {name for name, _plugin in manager().list_name_plugin()}
    offered = {point.name: point.value for point in importlib.metadata.entry_points(group=GROUP)}
    checks = [Check("plugins", "ok", f"loaded: {', '.join(sorted(loaded))}.")]
    for name in sorted(set(offered) - loaded):
        detail = f"the plugin {name} ({offered[name]}) could not be loaded."
        checks.append(Check("plugins", "warn", detail, "Install it anew, or uninstall it."))
    return checks


def _llm() -> Check:
    from pydantic import ValidationError

    from posttrain_crew.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(f"CREW_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        return Check("llm", "fail", f"the settings are not valid: {problems}.", "Correct these variables.")
    if settings.llm == "playbook":
        return Check("llm", "ok", "playbook: the embedded policies; no key is needed.")
    key = "a key is set (CREW_LLM_API_KEY)" if settings.llm_api_key else "no CREW_LLM_API_KEY is set"
    provider = settings.llm.split("/")[0].upper()
    if not settings.llm_api_key and os.environ.get(f"{provider}_API_KEY"):
        key = f"a key is set ({provider}_API_KEY)"
    where = f" at {settings.llm_base_url}" if settings.llm_base_url else ""
    level: Level = "warn" if key.startswith("no ") and not settings.llm_base_url else "ok"
    return Check("llm", level, f"{settings.llm}{where}; {key}.", "Set the provider's key." if level == "warn" else "")


def check_sandbox() -> Check:
    """Whether code that a model wrote can be run; nothing else needs it."""
    from posttrain_crew.errors import GateError
    from posttrain_crew.tools.sandbox.bwrap import require_sandbox

    try:
        version = require_sandbox()
    except GateError as error:
        return Check("sandbox", "note", str(error), "gpqa-mini needs none.")
    return Check("sandbox", "ok", f"{version} works: code that a model wrote can be run (`code_tests`).")


def as_dicts(checks: list[Check]) -> list[dict[str, Any]]:
    """JSON-ready form."""
    return [asdict(check) for check in checks]
