"""`crew setup gpu`: an environment of its own for jobs that sample with vLLM.

vLLM pins its own torch and transformers, which are not the crew's. So the crew stays as it is and never imports vLLM,
and a job on a GPU names the Python that it runs in (`CREW_GPU_PYTHON`, or the backend's own setting).
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from posttrain_crew.crews.cli_common import JsonFlag, echo_json
from posttrain_crew.errors import InputError

__all__ = ["gpu_environment_lines", "register"]

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints-gpu.txt"
PACKAGES = (
    "trl[peft,quantization,vllm]",
    "deepspeed",
    "trackio",
    # what the training scripts of the crew itself import
    "pluggy",
    "psutil",
    "pydantic",
    "pydantic-settings",
    "pyyaml",
)

setup_app = typer.Typer(help="Prepare this machine for what a plain install leaves out.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(setup_app, name="setup")


@setup_app.callback()
def setup() -> None:
    """Prepare this machine for what a plain install leaves out."""


@setup_app.command("gpu")
def gpu(
    directory: Annotated[Path, typer.Option("--to", help="Folder of the new environment.")] = Path(".venv-gpu"),
    constraints: Annotated[Path, typer.Option(help="Versions to install.")] = CONSTRAINTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the lines that would be run.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also where no CUDA driver is found.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Make the separate environment for training with vLLM, DeepSpeed and bitsandbytes on CUDA.

    It does not touch the environment that crew runs in. Several gigabytes are downloaded.
    """
    if not constraints.is_file():
        raise InputError(
            f"there is no constraints file {constraints}. It lies in the root of crew's source tree; name it with "
            "`--constraints`."
        )
    lines = gpu_environment_lines(directory, constraints)
    if dry_run:
        if json_output:
            echo_json({"lines": [shlex.join(line) for line in lines], "cuda": _cuda()})
            return
        for line in lines:
            typer.echo(shlex.join(line))
        return
    if not force and _cuda() is None:
        raise InputError(
            "no CUDA driver was found here (`nvidia-smi` is missing or lists no GPU), so vLLM could not run. Run this "
            "on the machine with the GPU, or with `--force` to make the environment nevertheless."
        )
    if directory.exists():
        raise InputError(f"{directory} is there already: remove it, or choose another folder with `--to`.")
    for line in lines:
        typer.echo(f"+ {shlex.join(line)}", err=True)
        done = subprocess.run(line, check=False, stdout=sys.stderr)
        if done.returncode != 0:
            raise InputError(
                f"`{shlex.join(line)}` ended with {done.returncode}; what it said is above. {directory} is incomplete: "
                "remove it before the next try."
            )
    python = directory.absolute() / "bin" / "python"
    if json_output:
        echo_json({"python": str(python)})
    else:
        typer.echo(f"{python}\nJobs that sample with vLLM run with it: set CREW_GPU_PYTHON={python}.")


def gpu_environment_lines(directory: Path, constraints: Path) -> list[list[str]]:
    """The commands: a new environment, the packages, and crew's own code without its dependencies."""
    python = str(directory / "bin" / "python")
    pip = [python, "-m", "pip", "install"]
    return [
        [sys.executable, "-m", "venv", str(directory)],
        [*pip, "-c", str(constraints), *PACKAGES],
        [*pip, "--no-deps", _own_code()],
    ]


def _own_code() -> str:
    """The source tree that crew was installed from where there is one, else its name on the index."""
    root = CONSTRAINTS.parent
    return str(root) if (root / "pyproject.toml").is_file() else "posttrain-crew"


def _cuda() -> str | None:
    """What `nvidia-smi -L` lists, or None."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return listed or None
