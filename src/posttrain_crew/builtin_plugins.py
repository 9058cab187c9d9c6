"""What crew ships, registered through the same hooks that plugins use. Imports are inside: hooks must stay light."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain_crew.plugins import hookimpl

if TYPE_CHECKING:
    from crewai import BaseLLM

    from posttrain_crew.tools.compute.base import Compute
    from posttrain_crew.tools.data.synthesis.base import Generator, Verifier
    from posttrain_crew.tools.literature.services.base import PaperSource
    from posttrain_crew.tools.services.services import Services
    from posttrain_crew.tools.workspace import Workspace

_HERE = Path(__file__).parent


def _yaml_files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


@hookimpl
def register_roles() -> dict[str, Path]:
    return _yaml_files(_HERE / "agents")


@hookimpl
def register_targets() -> dict[str, Path]:
    return _yaml_files(_HERE / "targets")


@hookimpl
def register_tools(workspace: Workspace) -> dict[str, object]:
    from posttrain_crew.tools.board_desk import BoardDesk
    from posttrain_crew.tools.data.desk import DataDesk
    from posttrain_crew.tools.data.synthesis.desk import SynthesisDesk
    from posttrain_crew.tools.evaluation.desk import EvaluationDesk
    from posttrain_crew.tools.literature.desk import LiteratureDesk
    from posttrain_crew.tools.training.desk import TrainingDesk

    return {
        "board": BoardDesk(workspace),
        "literature": LiteratureDesk(workspace),
        "data": DataDesk(workspace),
        "synthesis": SynthesisDesk(workspace),
        "training": TrainingDesk(workspace),
        "evaluation": EvaluationDesk(workspace),
    }


@hookimpl
def register_compute() -> dict[str, Callable[..., Compute]]:
    from posttrain_crew.tools.compute.hf_jobs import HfJobsCompute
    from posttrain_crew.tools.compute.local import LocalCompute
    from posttrain_crew.tools.compute.ray_jobs import RayCompute
    from posttrain_crew.tools.compute.slurm import SlurmCompute

    return {"local": LocalCompute, "slurm": SlurmCompute, "ray": RayCompute, "hf-jobs": HfJobsCompute}


@hookimpl
def register_sources() -> dict[str, Any]:
    from posttrain_crew.tools.embedded.source import GpqaMini

    return {"gpqa-mini": GpqaMini()}


@hookimpl
def register_paper_sources() -> dict[str, Callable[[Services], PaperSource]]:
    from posttrain_crew.tools.literature.services import BUILTIN_PAPER_SOURCES

    return dict(BUILTIN_PAPER_SOURCES)


@hookimpl
def register_generators() -> dict[str, Callable[..., Generator]]:
    from posttrain_crew.tools.data.synthesis import BUILTIN_GENERATORS

    return dict(BUILTIN_GENERATORS)


@hookimpl
def register_verifiers() -> dict[str, Callable[..., Verifier]]:
    from posttrain_crew.tools.data.synthesis import BUILTIN_VERIFIERS

    return dict(BUILTIN_VERIFIERS)


@hookimpl
def register_rewards() -> dict[str, Callable[..., list[float]]]:
    from posttrain_crew.tools.training.rewards import BUILTIN_REWARDS

    return dict(BUILTIN_REWARDS)


@hookimpl
def register_playbooks() -> dict[str, Callable[..., Any]]:
    from posttrain_crew.agents.playbooks import BUILTIN_PLAYBOOKS

    return dict(BUILTIN_PLAYBOOKS)


@hookimpl
def register_llms() -> dict[str, Callable[..., BaseLLM]]:
    from posttrain_crew.agents.llm.factory import BUILTIN_LLMS

    return dict(BUILTIN_LLMS)
