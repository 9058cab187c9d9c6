"""Profiles of datasets on the Hub: from the dataset viewer's service, or from the files themselves.

The viewer answers in seconds for a dataset of any size: rows and statistics of all columns, and pages of rows spread
over the split, on which the rest is measured. What needs every row (repeats, near duplicates) it cannot tell, and the
profile says so. Where the viewer has nothing, the files are brought to a local folder (bounded, see hub/fetch.py) and
profiled as a stream; `warnings` then says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posttrain_crew.errors import AccessDeniedError, NotFoundError, ServiceError
from posttrain_crew.settings import cache_dir
from posttrain_crew.tools.data.hub.client import DatasetInfo, HubDatasets
from posttrain_crew.tools.data.hub.datasets_server import MAX_ROWS, DatasetsServer, Split, Statistics
from posttrain_crew.tools.data.hub.fetch import Fetcher, place_of
from posttrain_crew.tools.data.profile.model import ColumnProfile, Lengths, Profile
from posttrain_crew.tools.data.profile.profiler import Options, Profiler, Subject, blocks_of_rows, profile_path
from posttrain_crew.tools.data.reader import RawRow
from posttrain_crew.tools.services.services import Services

__all__ = ["Remote"]

MAX_PAGES = 20
"""Requests for rows: 2,000 rows at most."""
DATASETS = "datasets"
"""Folder of the cache for files that were brought."""
_SPLITS = ("train", "training", "default")


@dataclass(frozen=True)
class Remote:
    """Profiles datasets on the Hub."""

    hub: HubDatasets
    viewer: DatasetsServer
    fetcher: Fetcher

    @classmethod
    def of(cls, services: Services, root: Path | None = None) -> Remote:
        """With the clients of some services; files are brought to `root`, or to the user's cache."""
        hub = HubDatasets(services.hub)
        viewer = DatasetsServer(services.datasets_server, services.hub.base_url)
        limit = int(services.settings.dataset_max_gib * 2**30)
        return cls(hub, viewer, Fetcher(hub, viewer, root or cache_dir() / DATASETS, max_bytes=limit))

    def profile(
        self,
        dataset: str,
        options: Options | None = None,
        base_model: Path | None = None,
        *,
        full: bool = False,
        fall_back: bool = True,
    ) -> Profile:
        """Profile a dataset by its Hub id.

        Args:
            full: read all files, so that repeats are counted, too.
            fall_back: bring the files where the viewer fails; otherwise its error is raised.

        Raises:
            NotFoundError: the Hub does not have it. AccessDeniedError: gated; the message names the page.
            DatasetError: it has no files that are read, or a hostile one. ServiceError: a service did not deliver and
            nothing else could stand in for it. ModelError: the base model cannot be read.
        """
        options = options or Options()
        info = self.hub.info(dataset)
        why = None
        if not full:
            try:
                return self._viewed(info, options, base_model)
            except AccessDeniedError:
                raise  # the files are behind the same gate
            except ServiceError as error:
                if not fall_back:
                    raise
                why = f"the dataset viewer could not be used, so the files were read instead: {str(error)[:300]}"
        return self._read(info, options, base_model, why)

    def _read(self, info: DatasetInfo, options: Options, base_model: Path | None, why: str | None) -> Profile:
        fetched = self.fetcher.fetch(info.id, revision=info.revision)
        found = profile_path(place_of(self.fetcher.root, info.id), options, base_model)
        notes = [why] if why else []
        if fetched.partial:
            notes.append(f"only a part was read: {len(fetched.left_out)} files were left out because of their size")
        return found.model_copy(
            update={
                "name": info.id,
                "place": f"{info.id}@{fetched.revision}",
                "licence": found.licence or info.licence,
                "warnings": [*notes, *fetched.notes, *_other_than(found.warnings, info.licence)],
            }
        )

    def _viewed(self, info: DatasetInfo, options: Options, base_model: Path | None) -> Profile:
        splits = self.viewer.splits(info.id)
        chosen = _training_split(splits.splits)
        if chosen is None:
            raise NotFoundError(f"the viewer lists no split of {info.id}.", service="datasets_server")
        size = self.viewer.size(info.id)
        statistics = self.viewer.statistics(info.id, chosen.config, chosen.split)
        total = statistics.rows
        notes = [
            f"rows and statistics are those of the split {chosen.split} of {chosen.config}; "
            f"further splits: {', '.join(f'{s.config}/{s.split}' for s in splits.splits[:10] if s != chosen) or 'none'}"
        ]
        if size.partial or statistics.partial:
            notes.append("the viewer has read only a first part of the dataset")
        if info.revision and statistics.revision and statistics.revision != info.revision:
            notes.append(f"the viewer speaks of commit {statistics.revision[:12]}, the newest is {info.revision[:12]}")
        profiler = Profiler(options, base_model)
        truncated: list[bool] = []
        for block in blocks_of_rows(self._rows(info.id, chosen, total, options, truncated), profiler.pick):
            profiler.add(block)
        if any(truncated):
            notes.append("the viewer cut long cells: lengths in tokens are too small")
            if options.may_show is not None:
                profiler.hide_samples()  # of a cut row nobody can say what it is
        found = profiler.result(
            Subject(
                name=info.id,
                place=f"{info.id}@{info.revision or 'main'}",
                files=len(info.files),
                bytes=size.bytes,
                licence=info.licence,
            )
        )
        update: dict[str, Any] = {
            "source": "datasets_server",
            "rows": size.by_split.get(chosen, total),
            "columns": [_with_statistics(column, statistics) for column in found.columns],
        }
        if profiler.rows < total:
            update |= {"repeated_rows": None, "repeated_prompts": None, "near_duplicates": None}
            notes.append(
                f"{profiler.rows} of {total} rows were looked at: repeats and near duplicates need all of them (--full)"
            )
        return found.model_copy(update={**update, "warnings": [*notes, *_of_sample(found, profiler.rows < total)]})

    def _rows(
        self, dataset: str, chosen: Split, total: int, options: Options, truncated: list[bool]
    ) -> Iterator[RawRow | None]:
        """Pages of rows at seeded places; all rows where there are few."""
        pages = max(1, -(-total // MAX_ROWS))
        wanted = min(pages, MAX_PAGES, -(-options.sample // MAX_ROWS))
        places = np.sort(np.random.default_rng(options.seed).choice(pages, size=wanted, replace=False))
        for place in places.tolist():
            try:
                page = self.viewer.rows(dataset, chosen.config, chosen.split, place * MAX_ROWS)
            except NotFoundError:
                page = self.viewer.first_rows(dataset, chosen.config, chosen.split)  # some offer nothing else
                truncated.append(page.truncated)
                yield from map(_plain, page.rows)
                return
            truncated.append(page.truncated)
            yield from map(_plain, page.rows)


def _plain(row: Mapping[str, Any]) -> RawRow:
    return dict(row)


def _training_split(splits: tuple[Split, ...]) -> Split | None:
    """The training split of the configuration `default`, or of the first; else its first split."""
    configs = list(dict.fromkeys(split.config for split in splits))
    config = "default" if "default" in configs else next(iter(configs), None)
    mine = [split for split in splits if split.config == config]
    return next((s for name in _SPLITS for s in mine if s.split == name), mine[0] if mine else None)


def _with_statistics(column: ColumnProfile, statistics: Statistics) -> ColumnProfile:
    """Null rate, lengths and range over all rows, where the viewer has them; quantiles stay those of the rows read."""
    found = next((each for each in statistics.columns if each.name == column.path), None)
    if found is None or not statistics.rows:
        return column
    numbers = {k: v for k, v in found.values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    update: dict[str, Any] = {}
    if "nan_count" in numbers:
        nulls = int(numbers["nan_count"])
        update |= {"null": nulls, "missing": 0, "null_rate": nulls / statistics.rows}
    if found.kind == "string_text" and column.chars and {"min", "max", "mean", "median"} <= numbers.keys():
        update["chars"] = Lengths(
            n=statistics.rows - int(numbers.get("nan_count", 0)),
            minimum=int(numbers["min"]),
            mean=float(numbers["mean"]),
            median=round(numbers["median"]),
            p95=column.chars.p95,
            p99=column.chars.p99,
            maximum=int(numbers["max"]),
        )
    elif found.kind in ("int", "float") and {"min", "max"} <= numbers.keys():
        update |= {"minimum": float(numbers["min"]), "maximum": float(numbers["max"])}
    return column.model_copy(update=update)


def _of_sample(found: Profile, partly: bool) -> list[str]:
    """Warnings that hold for a part of the rows, too."""
    return [text for text in found.warnings if not (partly and "repeat" in text)]


def _other_than(warnings: list[str], licence: str | None) -> list[str]:
    return [text for text in warnings if not (licence and text == "no licence is stated")]
