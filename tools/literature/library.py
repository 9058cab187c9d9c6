"""The shipped literature library: facts on real post-training papers, searched and walked by plain Python.

It is what the literature agent has when no paper service can be reached, and the ground on which `recipes.py` builds
typed recipes. The facts live in `papers/*.yaml` beside this file; `Library.load([SHIPPED, my_file])` adds to them.

    library = Library.load()
    library.search("group relative policy optimization", limit=3)
    library.citations("2501.12948", "references")
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from posttrain_crew.errors import InputError
from posttrain_crew.tools.literature.bm25 import Bm25Index
from posttrain_crew.tools.literature.paper import Paper, PaperHit, ReportedScore, normalise_id
from posttrain_crew.tools.literature.vocabulary import TECHNIQUES, check_word

__all__ = ["SHIPPED", "Direction", "Library", "Paper", "PaperHit", "ReportedScore", "normalise_id"]

SHIPPED = Path(__file__).parent / "papers"
"""Folder of the YAML files that come with crew."""

Direction = Literal["references", "cited_by"]

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the pure Python loader takes a second for the library


class Library:
    """An immutable set of papers with a search index and the citation graph among them."""

    def __init__(self, papers: Iterable[Paper], source: str = "the library") -> None:
        self._papers: dict[str, Paper] = {}
        for paper in papers:
            if paper.arxiv_id in self._papers:
                raise InputError(f"{source}: {paper.arxiv_id} ({paper.title!r}) is there twice; keep one entry.")
            self._papers[paper.arxiv_id] = paper
        self._references: dict[str, list[str]] = {}
        self._cited_by: dict[str, list[str]] = {key: [] for key in self._papers}
        for paper in self._papers.values():
            for cited in paper.cites:
                if cited not in self._papers:
                    raise InputError(
                        f"{source}: {paper.arxiv_id} ({paper.title!r}) cites {cited}, which is not in the library; "
                        "add that paper or drop it from cites, which only lists papers of the library."
                    )
                self._cited_by[cited].append(paper.arxiv_id)
            self._references[paper.arxiv_id] = list(paper.cites)
        self._index = Bm25Index({key: _fields(paper) for key, paper in self._papers.items()})

    @classmethod
    def load(cls, paths: Sequence[Path] = (SHIPPED,)) -> Library:
        """Read YAML files, or all `*.yaml` of folders; InputError names file and entry of what is wrong."""
        files = list(_files(paths))
        papers = [paper for file in files for paper in _read(file)]
        return cls(papers, source=", ".join(str(path) for path in paths))

    def __len__(self) -> int:
        return len(self._papers)

    def __iter__(self) -> Iterator[Paper]:
        return iter(self._papers.values())

    def __contains__(self, arxiv_id: object) -> bool:
        return arxiv_id in self._papers

    def get(self, arxiv_id: str) -> Paper:
        """The paper with this id, in any usual spelling (`arXiv:2402.03300v3`, a URL)."""
        key = normalise_id(arxiv_id)
        if key in self._papers:
            return self._papers[key]
        near = difflib.get_close_matches(key, self._papers, n=3, cutoff=0.0)
        listed = ", ".join(f"{other} ({self._papers[other].title})" for other in near)
        raise InputError(f"arXiv {key} is not in the library; nearest ids: {listed or 'none, the library is empty'}.")

    def search(
        self, query: str, technique: str | None = None, year_from: int | None = None, limit: int = 8
    ) -> list[PaperHit]:
        """Papers by BM25 over title, techniques, findings and what was trained; ties go to the newer, then the id.

        An empty query lists what the filters leave, most cited inside the library first.
        """
        _positive(limit, "limit")
        if technique is not None:
            check_word(technique, TECHNIQUES, "technique")
        kept = [
            paper
            for paper in self._papers.values()
            if (technique is None or technique in paper.techniques) and (year_from is None or paper.year >= year_from)
        ]
        if query.strip():
            scores = self._index.scores(query)
        else:
            scores = {paper.arxiv_id: float(self.citation_count(paper.arxiv_id)) for paper in kept}
        hits = [PaperHit.of(paper, round(scores[paper.arxiv_id], 6)) for paper in kept if paper.arxiv_id in scores]
        return sorted(hits, key=_rank)[:limit]

    def citations(self, arxiv_id: str, direction: Direction) -> list[PaperHit]:
        """Papers of the library that this one cites (`references`) or that cite it (`cited_by`)."""
        found = self._neighbours(self.get(arxiv_id).arxiv_id, direction)
        return sorted((PaperHit.of(self._papers[key], self.citation_count(key)) for key in found), key=_rank)

    def citation_count(self, arxiv_id: str) -> int:
        """How many papers of the library cite this one."""
        return len(self._cited_by[self.get(arxiv_id).arxiv_id])

    def _neighbours(self, key: str, direction: Direction) -> list[str]:
        if direction not in ("references", "cited_by"):
            raise InputError(f"direction {direction!r} is unknown; use references or cited_by.")
        return self._references[key] if direction == "references" else self._cited_by[key]


def _rank(hit: PaperHit) -> tuple[float, int, str]:
    return (-hit.score, -hit.year, hit.arxiv_id)


def _positive(number: int, name: str) -> None:
    if number < 1:
        raise InputError(f"{name} is {number}; it must be at least 1.")


def _fields(paper: Paper) -> list[tuple[str, int]]:
    return [
        (paper.arxiv_id, 1),
        (paper.title, 3),
        (" ".join(paper.techniques), 2),
        (" ".join(TECHNIQUES[tag] for tag in paper.techniques), 1),
        (" ".join(paper.findings), 2),
        (" ".join(paper.trained_on), 1),
        (" ".join(score.benchmark for score in paper.reported), 1),
    ]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.yaml"))
            if not inside:
                raise InputError(f"{path} holds no *.yaml file; a literature folder needs at least one.")
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path} does not exist; give a YAML file of papers or a folder of them.")


def _read(file: Path) -> Iterator[Paper]:
    try:
        entries = _Loader(file.read_text(encoding="utf-8")).get_single_data()
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not readable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(entries, list):
        raise InputError(f"{file} must hold a list of papers, each starting with '- arxiv_id: \"...\"'.")
    for number, entry in enumerate(entries, start=1):
        name = entry.get("arxiv_id", "no arxiv_id") if isinstance(entry, dict) else "not a mapping"
        where = f"{file}, entry {number} ({name})"
        try:
            yield Paper.model_validate(entry)
        except (ValidationError, InputError) as error:
            raise InputError(f"{where}: {_one_line(error)}") from error


def _one_line(error: ValidationError | InputError) -> str:
    if isinstance(error, InputError):
        return str(error)
    parts = [f"{'.'.join(str(step) for step in item['loc']) or 'entry'}: {item['msg']}" for item in error.errors()]
    more = f" (and {len(parts) - 3} more)" if len(parts) > 3 else ""
    unquoted = any(item["type"] == "string_type" and isinstance(item["input"], float) for item in error.errors())
    hint = " YAML reads an unquoted arXiv id as a number: put it in quotes." if unquoted else ""
    return "; ".join(parts[:3]) + more + "." + hint
