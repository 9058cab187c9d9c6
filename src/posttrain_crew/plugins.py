"""Extension points: pluggy hooks in the entry-point group `posttrain_crew`. The built-ins register through them too.

A plugin is a module (or object) with functions marked `@hookimpl`; a package offers it with

    [project.entry-points.posttrain_crew]
    my_plugin = "my_package.crew_plugin"
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from posttrain_crew.errors import PluginError

if TYPE_CHECKING:
    import typer
    from crewai import BaseLLM

    from posttrain_crew.tools.compute.base import Compute
    from posttrain_crew.tools.data.synthesis.base import Generator, Verifier
    from posttrain_crew.tools.literature.services.base import PaperSource
    from posttrain_crew.tools.services.services import Services
    from posttrain_crew.tools.workspace import Workspace

__all__ = ["GROUP", "hookimpl", "hooks", "merged"]

GROUP = "posttrain_crew"
_log = logging.getLogger(__name__)
_hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class HookSpecs:
    """The hooks. Each returns a mapping from a name to what it adds; the same name twice is an error."""

    @_hookspec
    def register_roles(self) -> dict[str, Path]:  # type: ignore[empty-body]
        """Role YAML files by role name. A role with `specialist: true` is offered to the coordinator."""

    @_hookspec
    def register_tools(self, workspace: Workspace) -> dict[str, object]:  # type: ignore[empty-body]
        """Desks by name: objects whose `@agent_tool` methods roles can list under `tools`."""

    @_hookspec
    def register_targets(self) -> dict[str, Path]:  # type: ignore[empty-body]
        """Target YAML files by target name."""

    @_hookspec
    def register_compute(self) -> dict[str, Callable[..., Compute]]:  # type: ignore[empty-body]
        """Compute backends by name: callables that make one."""

    @_hookspec
    def register_sources(self) -> dict[str, Any]:  # type: ignore[empty-body]
        """Builtin sources by scheme name: base models, benchmark items, dataset catalogues (tools/sources.py)."""

    @_hookspec
    def register_paper_sources(self) -> dict[str, Callable[[Services], PaperSource]]:  # type: ignore[empty-body]
        """Sources of papers by name: callables that take the run's Services and make one (literature/services/base)."""

    @_hookspec
    def register_generators(self) -> dict[str, Callable[..., Generator]]:  # type: ignore[empty-body]
        """Generators of synthetic rows by name (data/synthesis/base)."""

    @_hookspec
    def register_verifiers(self) -> dict[str, Callable[..., Verifier]]:  # type: ignore[empty-body]
        """Verifiers of synthetic rows by name (data/synthesis/base)."""

    @_hookspec
    def register_rewards(self) -> dict[str, Callable[..., list[float]]]:  # type: ignore[empty-body]
        """Reward functions for GRPO by name, with TRL's signature."""

    @_hookspec
    def register_playbooks(self) -> dict[str, Callable[..., Any]]:  # type: ignore[empty-body]
        """Deterministic policies by role name, used when the run's LLM is `playbook`."""

    @_hookspec
    def register_llms(self) -> dict[str, Callable[..., BaseLLM]]:  # type: ignore[empty-body]
        """Makers of LLMs by prefix: `mine` serves `--llm mine` and `--llm mine/model` (agents/llm/factory)."""

    @_hookspec
    def register_commands(self) -> dict[str, typer.Typer]:  # type: ignore[empty-body]
        """Commands of `crew` by name: Typer apps. One with a single function is a command, one with several a group."""


@cache
def manager() -> pluggy.PluginManager:
    """The plugin manager: built-ins first, then installed plugins. One that fails to import is a warning."""
    plugins = pluggy.PluginManager(GROUP)
    plugins.add_hookspecs(HookSpecs)
    from posttrain_crew import builtin_plugins

    plugins.register(builtin_plugins, name="builtin")
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            plugins.register(point.load(), name=point.name)
        except Exception as error:  # noqa: BLE001 - third-party import code can raise anything; it must not end crew
            _log.warning("the plugin %r (%s) could not be loaded and is left out: %r", point.name, point.value, error)
    return plugins


def hooks() -> Any:
    """Callable hooks, as pluggy gives them."""
    return manager().hook


def merged(results: Iterable[dict[str, Any] | None]) -> dict[str, Any]:
    """One mapping of all plugins' answers. Raises PluginError when two plugins claim a name."""
    everything: dict[str, Any] = {}
    for result in reversed([r for r in results if r]):
        for name, value in result.items():
            if name in everything:
                raise PluginError(
                    f"two plugins register the name `{name}`. Rename one, or uninstall the plugin that is not wanted."
                )
            everything[name] = value
    return everything
