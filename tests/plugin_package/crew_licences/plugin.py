"""A third-party specialist: role, tool, policy for runs without a language model, LLM, command and synthetic rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls
from posttrain_crew.errors import InputError
from posttrain_crew.plugins import hookimpl
from posttrain_crew.tasks.contracts import AdviceResult
from posttrain_crew.tools.sources import candidate_folders
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.workspace import Workspace


def _licence(card: Path) -> str:
    return next((line for line in card.read_text().splitlines() if line.startswith("license:")), "license: none")


class LicenceDesk:
    """One tool."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @agent_tool
    def review_licences(self) -> list[str]:
        """The `license:` line of every candidate dataset's card."""
        from posttrain_crew.settings import cache_dir

        lines = []
        for folder in candidate_folders(self._workspace.target, cache_dir(), self._workspace.started.seed):
            lines.append(f"{folder.name}: {_licence(folder / 'README.md')}")
        return lines


def policy(conversation: Conversation) -> ToolCalls | Final:
    """Call the tool, then say what it said."""
    if conversation.last("review_licences") is None:
        return ToolCalls([ToolCall("review_licences", {})])
    lines = conversation.last("review_licences") or []
    return Final(AdviceResult(findings=lines, summary=f"{len(lines)} licences read."))


@hookimpl
def register_roles() -> dict[str, Path]:
    """The role."""
    return {"licences": Path(__file__).parent / "licences.yaml"}


@hookimpl
def register_tools(workspace: Workspace) -> dict[str, object]:
    """Its desk."""
    return {"licences": LicenceDesk(workspace)}


@hookimpl
def register_playbooks() -> dict[str, Callable[..., Any]]:
    """Its policy."""
    return {"licences": policy}


@hookimpl
def register_llms() -> dict[str, Callable[..., Any]]:
    """A model of its own, behind the prefix `licence-bot`."""
    from posttrain_crew.agents.llm.playbook import Playbook

    def make(spec: str, _settings: Any, on_usage: Any) -> Any:
        llm = Playbook.make(on_usage)
        llm.model = spec
        return llm

    return {"licence-bot": make}


@hookimpl
def register_commands() -> dict[str, typer.Typer]:
    """`crew licences FOLDER`."""
    app = typer.Typer()

    @app.command()
    def licences(folder: Path) -> None:
        """Print the licence line of each dataset card below FOLDER."""
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder.")
        for card in sorted(folder.glob("*/README.md")):
            typer.echo(f"{card.parent.name}: {_licence(card)}")

    return {"licences": app}


@hookimpl
def register_generators() -> dict[str, Callable[..., Any]]:
    """Its questions."""
    from crew_licences.synthesis import LicenceQuestions

    return {"licence_questions": LicenceQuestions}


@hookimpl
def register_verifiers() -> dict[str, Callable[..., Any]]:
    """Its check."""
    from crew_licences.synthesis import NoLicenceText

    return {"no_licence_text": NoLicenceText}
