"""The papers that a run reads: each from every source that it may ask, in the form that recipe rules understand.

Offline, a reading is what the shipped library knows. Online, it is the services' record, the full text and the recipes
that are stated in it; the text is kept in the run's `papers` folder, so that a quotation can be looked up later.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from posttrain_crew.errors import InputError, NotFoundError, ServiceError
from posttrain_crew.files import atomic_write_text, sha256_text
from posttrain_crew.tools.literature.extraction.library_paper import as_library_paper, year_of
from posttrain_crew.tools.literature.extraction.named_datasets import named_datasets
from posttrain_crew.tools.literature.extraction.read import read_recipes
from posttrain_crew.tools.literature.extraction.recipe import ExtractedRecipe
from posttrain_crew.tools.literature.library import Library
from posttrain_crew.tools.literature.paper import Paper
from posttrain_crew.tools.literature.reading.document import Document
from posttrain_crew.tools.literature.reading.reader import PaperReader
from posttrain_crew.tools.literature.services.base import PaperRecord, SourceFailure
from posttrain_crew.tools.literature.services.finder import PaperFinder
from posttrain_crew.tools.literature.services.ids import parse_ids
from posttrain_crew.tools.services.services import Services

__all__ = ["FULL_TEXT", "PaperShelf", "Reading", "bare", "text_failures"]

FULL_TEXT = "full text"
"""Source of the failures of places that full texts are read from."""


@cache
def _shipped() -> Library:
    return Library.load()


def bare(key: str) -> str:
    """A paper's name as agents see it: `2402.03300`, or `doi:...` for one that is not on arXiv."""
    return key.removeprefix("arxiv:")


def text_failures(document: Document) -> list[SourceFailure]:
    """Places that may have the full text and could not be asked, before another one gave it."""
    return [
        SourceFailure(
            source=f"{FULL_TEXT} of {attempt.source}",
            error=attempt.error or "ServiceUnavailableError",
            message=attempt.outcome[:600],
            stale=attempt.stale,
        )
        for attempt in document.tried
        if attempt.failed
    ]


@dataclass(frozen=True)
class Reading:
    """One paper as it was read."""

    name: str
    """arXiv id, or `doi:...`."""
    title: str
    year: int | None
    source: str
    """`library`, `arxiv`, `ar5iv`, `huggingface`, `pdf`, or `abstract` where no full text could be read."""
    record: PaperRecord | None
    paper: Paper | None
    """What recipe rules read; None where no technique is named, or the paper is not on arXiv."""
    document: Document | None = None
    recipes: tuple[ExtractedRecipe, ...] = ()
    datasets: tuple[str, ...] = ()
    """Hub ids that the text or a service names."""
    failures: tuple[SourceFailure, ...] = ()
    """Sources that could not be asked about it."""
    shipped: bool = False
    """Whether `paper` is an entry of the shipped library, whose facts have no quotations."""


_SOURCES = {"arxiv-html": "arxiv", "ar5iv": "ar5iv", "hf-markdown": "huggingface", "pdf": "pdf"}


class PaperShelf:
    """Reads papers once. Several orders may read at the same time.

    Args:
        services: which sources are asked.
        folder: where full texts are kept; None keeps none.
        library: the shipped one by default.
    """

    def __init__(self, services: Services, folder: Path | None = None, library: Library | None = None) -> None:
        self._services = services
        self._folder = folder
        self._given = library
        self._read: dict[str, Reading] = {}
        self._finder: PaperFinder | None = None
        self._lock = threading.Lock()

    @property
    def library(self) -> Library:
        """The shipped library."""
        return self._given if self._given is not None else _shipped()

    @property
    def finder(self) -> PaperFinder:
        """All sources of the run."""
        with self._lock:
            if self._finder is None:
                self._finder = PaperFinder(self._services)
            return self._finder

    def read(self, name: str, *, again_if_degraded: bool = False) -> Reading:
        """One paper, in any usual spelling of its name.

        Args:
            again_if_degraded: ask the sources once more for what was read while one of them was down.

        Raises:
            InputError: no such paper in the library, or no name. NotFoundError: no source has it.
            ServiceError: no source could be asked.
        """
        if not self._services.online:
            return self._of_library(self.library.get(name))
        ids = parse_ids(name)
        kept = self._read.get(ids.key)
        if kept is not None and not (again_if_degraded and kept.failures):
            return kept
        known = self.finder.paper(ids)
        reading = self._of_services(known.paper, known.failures)
        if kept is not None and kept.document is not None and reading.document is None:
            return kept
        # by all its names: a DOI finds what was read by arXiv id
        self._read.update(dict.fromkeys([ids.key, *known.paper.ids.names], reading))
        return reading

    def name_of(self, name: str) -> str:
        """The name under which a paper was read, else the normal form of the name given. Raises InputError."""
        key = parse_ids(name).key
        kept = self._read.get(key)
        return bare(key) if kept is None else kept.name

    def _of_library(self, paper: Paper) -> Reading:
        return Reading(paper.arxiv_id, paper.title, paper.year, "library", None, paper, shipped=True)

    def _of_services(self, record: PaperRecord, failures: list[SourceFailure]) -> Reading:
        name = bare(record.ids.key)
        if not name:
            raise InputError(f"the paper {record.title[:100]!r} has no id by which it could be cited.")
        document, failed = None, list(failures)
        if record.ids.arxiv:
            try:
                document = PaperReader(self._services).read(record.ids.arxiv)
            except ServiceError as error:
                if not isinstance(error, NotFoundError):  # that every place says it has no text is an answer
                    failed.append(SourceFailure.of(FULL_TEXT, error))
        failed += text_failures(document) if document is not None else []
        recipes = read_recipes(document).recipes if document is not None else ()
        datasets = dict.fromkeys(record.datasets)
        if document is not None:
            self._keep(name, document)
            datasets.update(dict.fromkeys(named.hub_id for named in named_datasets(document) if named.hub_id))
        paper, shipped = None, False
        if record.ids.arxiv:
            shipped = self._services.shipped and record.ids.arxiv in self.library
            paper = self.library.get(record.ids.arxiv) if shipped else _as_paper(record, document, recipes)
        return Reading(
            name=name,
            title=record.title,
            year=record.year or (year_of(record.ids.arxiv) if record.ids.arxiv else None),
            source="abstract" if document is None else _SOURCES[document.source],
            record=record,
            paper=paper,
            document=document,
            recipes=recipes,
            datasets=tuple(datasets),
            failures=tuple(failed),
            shipped=shipped,
        )

    def _keep(self, name: str, document: Document) -> None:
        if self._folder is not None:
            text = f"# {document.title}\n\n{document.text()}\n"
            stem = name.replace("/", "_").replace(":", "_")
            path = self._folder / f"{stem}.md"
            if path.exists() and path.read_text(encoding="utf-8") != text:
                # read from another place, or a newer version: quotations of both have to be found
                path = self._folder / f"{stem}.{sha256_text(text)[:8]}.md"
            if not path.exists():
                atomic_write_text(path, text)


def _as_paper(record: PaperRecord, document: Document | None, recipes: Sequence[ExtractedRecipe]) -> Paper | None:
    try:
        return as_library_paper(document or record, recipes, record)
    except InputError:  # it names no technique: there is nothing that a rule could use
        return None
