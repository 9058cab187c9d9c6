"""What is shipped: every package is listed, a wheel carries all files and works away from the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[1]
ROOMS = ("agents", "tasks", "tools", "crews", "targets")


def test_every_package_is_listed() -> None:
    listed = set(tomli.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {"posttrain_crew", "posttrain_crew.entries"}
    for room in ROOMS:
        for init in (ROOT / room).rglob("__init__.py"):
            found.add(".".join(["posttrain_crew", *init.parent.relative_to(ROOT).parts]))
    assert listed == found


def test_modules_stay_short() -> None:
    modules = [path for room in (*ROOMS, "src", "tests") for path in (ROOT / room).rglob("*.py")]
    assert not {str(path): n for path in modules if (n := len(path.read_text().splitlines())) > 500}


def test_imports_point_one_way() -> None:
    """ground <- tools <- tasks <- agents <- crews, and the tools know nothing of crewai."""
    rank = {"tools": 1, "tasks": 2, "agents": 3, "crews": 4}
    wrong = []
    for room, level in rank.items():
        for path in (ROOT / room).rglob("*.py"):
            for used in re.findall(r"(?m)^\s*from posttrain_crew\.(\w+)", path.read_text()):
                if rank.get(used, 0) > level:
                    wrong.append(f"{path.relative_to(ROOT)} imports {used}")
            if room in ("tools", "tasks", "crews") and re.search(r"(?m)^\s*(import|from) crewai", path.read_text()):
                wrong.append(f"{path.relative_to(ROOT)} imports crewai")
    assert not wrong


def test_readme_names_real_commands() -> None:
    from typer.main import get_command

    from posttrain_crew.crews.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"`crew ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named <= known
    assert known <= named


@pytest.mark.slow
def test_a_wheel_works_away_from_the_repository(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*pip, str(copy)], check=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for path in (
        "py.typed",
        "agents/coordinator.yaml",
        "tasks/plan.yaml",
        "targets/gpqa-mini.yaml",
        "tools/embedded/tasks/gpqa_mini/gpqa_mini_test.yaml",
        "tools/literature/recipe_rules.yaml",
    ):
        assert f"posttrain_crew/{path}" in names
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(tmp_path / "site")
    code = "import posttrain_crew as p; print(p.__file__); from posttrain_crew.crews.cli import main; main(['targets'])"
    environment = {"PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert str(tmp_path / "site") in done.stdout
    assert "gpqa-mini" in done.stdout, done.stderr
