"""The Hub as a run uses it: what was found and fetched, in the run's folder and on its blackboard.

What was fetched is known from the folder (RUN/data/hub), so a run that was killed finds it again. Each dataset that
cannot be had, and each service that did not answer, is an incident on the blackboard, once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain_crew.entries import Incident, PaperRead, Recipe
from posttrain_crew.errors import (
    AccessDeniedError,
    DatasetError,
    GateError,
    InputError,
    NotFoundError,
    ServiceError,
)
from posttrain_crew.tools.data.hub.client import HubDatasets, checked_id
from posttrain_crew.tools.data.hub.datasets_server import DatasetsServer
from posttrain_crew.tools.data.hub.discovery import Discovery, Needs, discover
from posttrain_crew.tools.data.hub.fetch import Fetched, Fetcher, fetched_datasets
from posttrain_crew.tools.data.reader import Dataset, denied_name, open_dataset
from posttrain_crew.tools.workspace import Workspace

if TYPE_CHECKING:
    from posttrain_crew.tools.data.profile.model import Profile
    from posttrain_crew.tools.data.profile.profiler import Options

__all__ = ["HubShelf", "described"]

MAX_CHARS = 10_000
"""Of a search as an agent sees it: a tool's result is cut at 12,000."""


class HubShelf:
    """Datasets of the Hub for one run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._root = workspace.run.data / "hub"

    def check_online(self) -> None:
        """Raises InputError where the run may ask no service."""
        services = self._workspace.services
        if not services.online:
            raise InputError(
                f"this run looks for datasets in {','.join(services.names)} only, so the Hub is not asked: work with "
                "what list_candidates shows. (`--sources live` allows the Hub when a run is started.)"
            )

    def search(
        self, query: str, task: str | None, papers: Sequence[str], recipes: Sequence[str], limit: int
    ) -> Discovery:
        """Discover, and put what cannot be had on the blackboard.

        Raises:
            InputError: services are off, or an argument is none. BlackboardError: no such recipe.
            ServiceError: the Hub answered nothing; it is an incident, too.
        """
        self.check_online()
        linked, named = self._of_recipes(recipes)
        needs = Needs(
            query=query,
            task=task,
            papers=tuple(dict.fromkeys([*papers, *linked])),
            named=tuple(named),
            limit=limit,
            deny=tuple(self._workspace.target.deny_datasets),
            max_bytes=self._max_bytes,
        )
        try:
            found = discover(self._hub, needs)
        except ServiceError as error:
            self._incident(f"search for datasets: {type(error).__name__}", str(error), "no dataset of the Hub is known")
            raise
        for problem in found.problems:
            if problem.blocking:
                self.missed(problem.dataset, f"{problem.kind}: {problem.what}")
        for failure in found.failures:
            where = f"{failure.service}: {failure.asked}"
            self._incident(where, f"{failure.error}: {failure.message}", "the search goes on with what else was found")
        return found

    def fetch(self, dataset: str) -> Fetched:
        """Bring `owner/name` or `owner/name:config`, or find it in the run's folder.

        Raises:
            InputError: services are off, or no dataset name. GateError: it is on the deny list.
            DatasetError, AccessDeniedError, NotFoundError, ServiceError: as `Fetcher.fetch`; an incident, too.
        """
        self.check_online()
        name, _, config = dataset.partition(":")
        checked_id(name)
        if pattern := denied_name([name], self._workspace.target.deny_datasets):
            raise GateError(f"`{name}` must not be trained on: it meets `{pattern}` of the target's deny list.")
        try:
            made = self._fetcher.fetch(name, config=config or None)
        except (ServiceError, DatasetError) as error:
            self.missed(dataset, f"{type(error).__name__}: {error}")
            raise
        self._workspace.events.emit(
            "dataset_fetched", dataset=made.dataset, revision=made.revision, bytes=made.bytes, files=len(made.files)
        )
        if made.via != "files":
            where = f"dataset {made.dataset}: its own files are not read"
            self._incident(where, "; ".join(made.notes), f"the viewer's parquet copy was brought ({made.via})")
        if made.held_out:
            what = f"it has no training split, only {', '.join(made.held_out)}"
            self._incident(f"dataset {made.dataset}: no training split", what, "it is a candidate all the same")
        for note in (note for file in made.files for note in file.notes):
            self._incident(f"dataset {made.dataset}: {note[:80]}", note, "the file was converted so")
        if made.partial:
            what = f"only {len(made.files)} of its data files were brought: {made.left_out[-1]['reason']}"
            self._incident(f"dataset {made.dataset}: only a part", what, "the run works with that part")
        return made

    def profile(self, dataset: str, options: Options, base_model: Path) -> Profile:
        """Ask the dataset viewer about a dataset that was not fetched; nothing is brought here.

        Raises:
            InputError: services are off, or no dataset name. GateError: it is on the deny list.
            AccessDeniedError, NotFoundError, ServiceError: as `Remote.profile`; an incident, too.
        """
        from posttrain_crew.tools.data.profile.remote import Remote  # slow to import: scipy

        self.check_online()
        if pattern := denied_name([checked_id(dataset)], self._workspace.target.deny_datasets):
            raise GateError(f"`{dataset}` is not shown: it meets `{pattern}` of the target's deny list.")
        try:
            return Remote.of(self._workspace.services).profile(dataset, options, base_model, fall_back=False)
        except (NotFoundError, AccessDeniedError) as error:
            self.missed(dataset, f"{type(error).__name__}: {error}")
            raise
        except ServiceError as error:
            where = f"profile of {dataset}: {type(error).__name__}"
            self._incident(where, str(error), "nothing is known of it before it is fetched")
            raise

    def datasets(self) -> list[tuple[Fetched, Dataset]]:
        """What was fetched, as candidates. A folder that is damaged is left out, and an incident."""
        found = []
        for made, folder in fetched_datasets(self._root):
            try:
                dataset = open_dataset(folder, made.dataset)
            except DatasetError as error:
                self.missed(made.dataset, str(error))
                continue
            found.append((made, dataset))
        return found

    def missed(self, dataset: str, what: str) -> None:
        """A dataset that cannot be had is told once, on the blackboard."""
        self._incident(f"dataset {dataset}", what, "the run goes on without this dataset; nothing takes its place")

    def _of_recipes(self, recipes: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
        """arXiv ids of recipes and of the papers behind them, and the datasets that either names."""
        board = self._workspace.board
        papers: list[str] = []
        named: list[tuple[str, str]] = []
        for name in dict.fromkeys(recipes):
            recipe = board.typed(name, Recipe)
            papers += recipe.body.arxiv_ids
            named += [(dataset, f"recipe {name}") for dataset in recipe.body.datasets]
            for ref in recipe.refs:
                paper = board.get(ref).body
                if isinstance(paper, PaperRead):
                    papers.append(paper.arxiv_id)
                    named += [(dataset, f"paper {ref} of recipe {name}") for dataset in paper.datasets]
        return papers, named

    def _incident(self, where: str, what: str, instead: str) -> None:
        self._workspace.board.post(
            Incident(where=where[:200], what=what[:1000], instead=instead),
            author="crew",
            key=f"incident:{where}"[:256],
        )

    @property
    def _max_bytes(self) -> int:
        return int(self._workspace.services.settings.dataset_max_gib * 2**30)

    @cached_property
    def _hub(self) -> HubDatasets:
        return HubDatasets(self._workspace.services.hub)

    @cached_property
    def _fetcher(self) -> Fetcher:
        services = self._workspace.services
        viewer = DatasetsServer(services.datasets_server, services.hub.base_url)
        return Fetcher(self._hub, viewer, self._root, self._max_bytes, services.settings.dataset_max_files)


def described(found: Discovery) -> dict[str, Any]:
    """A discovery as an agent reads it, within MAX_CHARS of JSON; `left_out` says how much of it is not shown."""
    lists: dict[str, list[dict[str, Any]]] = {
        "candidates": [
            {
                "dataset": each.dataset,
                "reasons": [reason[:120] for reason in each.reasons[:8]],
                "licence": each.licence,
                "size": each.size,
                "bytes": each.bytes,
                "description": each.description[:120],
            }
            for each in found.candidates
        ],
        "problems": [
            {"dataset": each.dataset, "problem": each.kind, "what": each.what[:250], "usable": not each.blocking}
            for each in sorted(found.problems, key=lambda problem: not problem.blocking)
        ],
        "failures": [
            {"service": each.service, "asked": each.asked[:100], "error": each.error, "message": each.message[:150]}
            for each in found.failures
        ],
    }
    left_out = dict.fromkeys(lists, 0)
    while len(json.dumps(lists)) > MAX_CHARS:
        longest = max(lists, key=lambda name: len(json.dumps(lists[name])))
        lists[longest].pop()
        left_out[longest] += 1
    return {**lists, "left_out": {name: count for name, count in left_out.items() if count}}
