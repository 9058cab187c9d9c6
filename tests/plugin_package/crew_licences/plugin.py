"""A third-party specialist: a role, a tool, a policy for runs without a language model, and synthetic rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls
from posttrain_crew.plugins import hookimpl
from posttrain_crew.tasks.contracts import AdviceResult
from posttrain_crew.tools.sources import candidate_folders
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.workspace import Workspace


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
            card = (folder / "README.md").read_text()
            licence = next((line for line in card.splitlines() if line.startswith("license:")), "license: none")
            lines.append(f"{folder.name}: {licence}")
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
def register_generators() -> dict[str, Callable[..., Any]]:
    """Its questions."""
    from crew_licences.synthesis import LicenceQuestions

    return {"licence_questions": LicenceQuestions}


@hookimpl
def register_verifiers() -> dict[str, Callable[..., Any]]:
    """Its check."""
    from crew_licences.synthesis import NoLicenceText

    return {"no_licence_text": NoLicenceText}
