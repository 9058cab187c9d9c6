"""The papers of the loopback world and the citation graph among them.

Metadata come from papers/<id>/meta.yaml where there is such a folder, and from papers.yaml. All is fiction.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from posttrain_crew.tools.literature.bm25 import Bm25Index, tokens

__all__ = ["FOLDER", "TEXTS", "Content", "Link", "Paper"]

FOLDER = Path(__file__).parent / "papers"
TEXTS = ("html", "ar5iv", "md", "pdf")
FITTING = 0.6
"""Share of the words of a query that a paper must have; live search indexes are about as strict."""


@dataclass(frozen=True, eq=False)
class Paper:
    """One paper."""

    number: int
    """In the order of ids, from 1: other ids and dates are made from it."""
    arxiv: str | None
    doi: str
    title: str
    authors: tuple[str, ...]
    year: int
    abstract: str
    venue: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    texts: frozenset[str]
    """Of TEXTS."""
    sections: Mapping[str, str]
    """Heading and text; papers with a folder have their HTML instead."""
    hostile: str | None
    """What is wrong with its HTML: see fulltext.py."""

    @property
    def key(self) -> str:
        """How papers.yaml names it."""
        return self.arxiv or f"doi:{self.doi}"

    @property
    def s2(self) -> str:
        """Semantic Scholar's paper id."""
        return hashlib.sha1(self.key.encode(), usedforsecurity=False).hexdigest()

    @property
    def corpus(self) -> int:
        """Semantic Scholar's CorpusId."""
        return 290_000_000 + 17 * self.number

    @property
    def published(self) -> str:
        """ISO date."""
        return f"{self.year}-09-{self.number % 28 + 1:02d}"

    @property
    def folder(self) -> Path | None:
        """Where its rendered text is, if it has one."""
        folder = FOLDER / (self.arxiv or "-")
        return folder if (folder / "paper.html").is_file() else None


@dataclass(frozen=True)
class Link:
    """One edge of the citation graph."""

    citing: Paper
    cited: Paper
    contexts: tuple[str, ...]
    intents: tuple[str, ...]
    influential: bool


class Content:
    """All papers, by any of their ids, with search and citations."""

    def __init__(self, papers: Iterable[Paper], links: Iterable[Link]) -> None:
        self.papers = {paper.key: paper for paper in papers}
        self._references: dict[str, list[Link]] = defaultdict(list)
        self._citations: dict[str, list[Link]] = defaultdict(list)
        for link in links:
            self._references[link.citing.key].append(link)
            self._citations[link.cited.key].append(link)
        self._words = {key: set(tokens(f"{paper.title} {paper.abstract}")) for key, paper in self.papers.items()}

    @classmethod
    def load(cls) -> Content:
        """What is in the folder and in papers.yaml now."""
        own = yaml.safe_load((Path(__file__).parent / "papers.yaml").read_text(encoding="utf-8"))
        metas = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*/meta.yaml"))]
        for meta in metas:
            meta["texts"] = own["only"].get(meta["arxiv_id"], TEXTS)
        entries = sorted([*metas, *own["papers"]], key=_key)
        papers = {_key(entry): _paper(number, entry) for number, entry in enumerate(entries, start=1)}
        told = {(link["citing"], link["cited"]): link for link in own["links"]}
        edges = [(_key(entry), cited) for entry in entries for cited in entry.get("cites", ()) if cited in papers]
        return cls(papers.values(), [_link(papers, edge, told.get(edge, {})) for edge in edges])

    @cached_property
    def _index(self) -> Bm25Index:
        return Bm25Index({paper.key: [(paper.title, 3), (paper.abstract, 1)] for paper in self.papers.values()})

    def search(self, query: str) -> list[Paper]:
        """Papers that have most words of the query in title or abstract, best first."""
        wanted = set(tokens(query))
        scores = self._index.scores(query)
        fitting = [key for key in scores if len(wanted & self._words[key]) >= FITTING * len(wanted)]
        return [self.papers[key] for key in sorted(fitting, key=lambda key: (-scores[key], key))]

    def score(self, query: str, paper: Paper) -> float:
        """How well a paper fits a query."""
        return self._index.scores(query).get(paper.key, 0.0)

    def find(self, name: str) -> Paper | None:
        """By any id that Semantic Scholar takes: `ARXIV:...`, `DOI:...`, `CorpusId:...`, `URL:...`, 40 digits."""
        kind, _, value = name.partition(":")
        kind, value = (kind.lower(), value) if value else ("s2", name)
        if kind == "url":
            kind, value = (
                ("arxiv", value.rstrip("/").rpartition("/")[2]) if "arxiv.org" in value else ("s2", value[-40:])
            )
        value = value.lower()
        if kind == "arxiv":
            value = value.partition("v")[0]
        for paper in self.papers.values():
            ids = {"s2": paper.s2, "arxiv": paper.arxiv, "doi": paper.doi.lower(), "corpusid": str(paper.corpus)}
            if ids.get(kind) == value:
                return paper
        return None

    def arxiv(self, arxiv_id: str) -> Paper | None:
        """By arXiv id, with or without a version."""
        paper = self.papers.get(arxiv_id.partition("v")[0])
        return paper if paper is not None and paper.arxiv else None

    def references(self, paper: Paper) -> list[Link]:
        """What it cites."""
        return self._references[paper.key]

    def citations(self, paper: Paper) -> list[Link]:
        """What cites it, newest first as the service has them."""
        return sorted(self._citations[paper.key], key=lambda link: link.citing.published, reverse=True)


def _key(entry: Mapping[str, Any]) -> str:
    return entry.get("arxiv_id") or f"doi:{entry['doi']}"


def _paper(number: int, entry: Mapping[str, Any]) -> Paper:
    arxiv = entry.get("arxiv_id")
    return Paper(
        number=number,
        arxiv=arxiv,
        doi=entry.get("doi") or f"10.48550/arXiv.{arxiv}",
        title=entry["title"],
        authors=tuple(entry["authors"]),
        year=entry.get("year", 2026),
        abstract=entry["abstract"].strip(),
        venue=entry.get("venue", "arXiv.org"),
        datasets=tuple(entry.get("datasets", ())),
        models=tuple(entry.get("models", ())),
        texts=frozenset(entry.get("texts", ("md", "pdf"))),
        sections=entry.get("sections", {}),
        hostile=entry.get("hostile"),
    )


def _link(papers: Mapping[str, Paper], edge: tuple[str, str], told: Mapping[str, Any]) -> Link:
    citing, cited = (papers[key] for key in edge)
    usual = f"This was studied before by {cited.authors[0].split()[-1]} et al. [{cited.number}]."
    return Link(
        citing,
        cited,
        contexts=tuple(told.get("contexts", (usual,))),
        intents=tuple(told.get("intents", ("background",))),
        influential=bool(told.get("influential", False)),
    )
