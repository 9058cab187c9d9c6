"""A walk over the citation graph within a budget: the most telling edges first, each paper with the way that led to it.

    result = walk(finder, [parse_ids("2402.03300")], budget=WalkBudget(max_papers=20, max_requests=10))
    result.reached[0].paper, result.reached[0].path[-1].context

Best first: of all papers that were reached, the one with the strongest way from a seed is asked next. The strength of a
way is the product of its edges' weights; a weight is our own mix (no paper behind the numbers) of what Semantic Scholar
tells of an edge and of the paper at its end:

    0.4 influential + 0.3 intent (methodology 1, result 0.6, background 0.2, none 0.1)
    + 0.15 recency (halves every 3 years) + 0.15 citations (log scale, 10,000 is full)

Given the same answers and the same year, the result is the same.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from posttrain_crew.errors import InputError, ServiceError
from posttrain_crew.tools.literature.services.base import (
    CitationLink,
    Direction,
    PaperIds,
    PaperRecord,
    SourceFailure,
)
from posttrain_crew.tools.literature.services.finder import Cited
from posttrain_crew.tools.literature.services.merging import MergedPapers

__all__ = ["CitationGraph", "Reached", "Step", "Walk", "WalkBudget", "WalkFailure", "edge_weight", "walk"]

DIRECTIONS: tuple[Direction, ...] = ("references", "cited_by")
HALF_LIFE_YEARS = 3.0
FULL_CITATIONS = 10_000
MAX_NAMED = 50
_INTENTS = {"methodology": 1.0, "result": 0.6, "background": 0.2}


class CitationGraph(Protocol):
    """What a walk asks: a PaperFinder, or anything with this method."""

    def citations(self, ids: PaperIds, direction: Direction, *, limit: int = 50) -> Cited:
        """As PaperFinder.citations."""
        ...


@dataclass(frozen=True)
class WalkBudget:
    """What a walk may cost."""

    max_papers: int = 30
    """Papers in the result."""
    max_requests: int = 20
    """Calls of `citations`: each asks every source that has some once."""
    max_depth: int = 2
    """Edges from a seed at most."""
    per_request: int = 500
    """Edges that are looked at of one paper in one direction: they come in the source's order, not the best first."""

    def __post_init__(self) -> None:
        for name in ("max_papers", "max_requests", "max_depth", "per_request"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True)
class Step:
    """One edge of a way."""

    start: str
    """Key of the paper that was asked about (`arxiv:...`), or its title where it has no name."""
    end: str
    direction: Direction
    """references: `start` cites `end`; cited_by: `end` cites `start`."""
    context: str
    """The sentence around the citation, that with the strongest intent; empty where the source has none."""
    intents: tuple[str, ...]
    influential: bool


@dataclass(frozen=True)
class Reached:
    """A paper that the walk came to."""

    paper: PaperRecord
    path: tuple[Step, ...]
    """From a seed to the paper: the strongest way that was seen."""
    score: float
    """Strength of the way, 0 to 1."""

    @property
    def depth(self) -> int:
        """Edges from the seed."""
        return len(self.path)


@dataclass(frozen=True)
class WalkFailure:
    """Citations that could not be asked for."""

    paper: str
    direction: Direction
    failure: SourceFailure


@dataclass(frozen=True)
class Walk:
    """What a walk found, and what it could not look at."""

    reached: list[Reached]
    """Strongest first, without the seeds."""
    seen: int
    """Papers that were reached in all; more than in `reached` where `max_papers` cut the list."""
    failures: list[WalkFailure]
    not_asked: list[str]
    """Keys of reached papers whose own citations would have come next had the budget allowed it, at most 50."""
    requests: int
    cut: list[str]
    """Keys of papers of which only the first `per_request` edges in a direction were looked at, at most 50."""


def edge_weight(link: CitationLink, this_year: int) -> float:
    """How much an edge promises, 0 to 1 (the formula is that of the module)."""
    intent = max((_INTENTS.get(name, 0.1) for name in link.intents), default=0.1)
    age = None if link.paper.year is None else max(0, this_year - link.paper.year)
    recency = 0.25 if age is None else 0.5 ** (age / HALF_LIFE_YEARS)
    count = max(0, link.paper.citation_count or 0)
    cited = min(1.0, math.log1p(count) / math.log1p(FULL_CITATIONS))
    return 0.4 * link.influential + 0.3 * intent + 0.15 * recency + 0.15 * cited


def walk(
    graph: CitationGraph,
    seeds: Sequence[PaperIds | PaperRecord],
    *,
    directions: Sequence[Direction] = DIRECTIONS,
    budget: WalkBudget | None = None,
    this_year: int | None = None,
) -> Walk:
    """Walk from the seeds, best edges first.

    Args:
        this_year: from which the age of papers is counted; the current one by default.

    Raises:
        InputError: no seed, or one without a name; an unknown direction.
        ServiceError: every request failed. A part of them failing is in `failures`.
    """
    if not seeds or not directions or set(directions) - set(DIRECTIONS):
        raise InputError(f"a walk needs a seed and one or both directions of {', '.join(DIRECTIONS)}.")
    walker = _Walker(graph, budget or WalkBudget(), this_year or date.today().year)
    for seed in seeds:
        walker.start(seed)
    walker.run(tuple(dict.fromkeys(directions)))
    return walker.result()


@dataclass(frozen=True)
class _Way:
    score: float
    path: tuple[Step, ...]


class _Walker:
    def __init__(self, graph: CitationGraph, budget: WalkBudget, this_year: int) -> None:
        self._graph, self._budget, self._year = graph, budget, this_year
        self._papers = MergedPapers()
        self._ways: dict[int, _Way] = {}
        self._heap: list[tuple[float, str, int]] = []
        self._asked: set[tuple[int, Direction]] = set()
        self._failures: list[WalkFailure] = []
        self._errors: list[ServiceError] = []
        self._left: list[str] = []
        self._cut: list[str] = []

    def start(self, seed: PaperIds | PaperRecord) -> None:
        record = seed if isinstance(seed, PaperRecord) else PaperRecord(ids=seed, title="", sources=())
        if not record.ids.key:
            raise InputError(f"the seed {record.title[:80]!r} has no id: look it up with `paper` first.")
        self._reach(self._papers.add(record), _Way(1.0, ()))

    def run(self, directions: Sequence[Direction]) -> None:
        while self._heap:
            strength, key, number = heapq.heappop(self._heap)
            here = self._papers.which(number)
            way = self._ways.get(here)
            if way is None or -strength < way.score or not self._papers[here].ids.key:
                continue  # reached by a better way meanwhile, or without a name to ask by
            for direction in directions:
                if (here, direction) in {(self._papers.which(other), done) for other, done in self._asked}:
                    continue
                if len(self._asked) >= self._budget.max_requests:
                    self._left.append(key)
                    break
                self._asked.add((here, direction))
                self._follow(here, way, direction)

    def _follow(self, here: int, way: _Way, direction: Direction) -> None:
        key = _name(self._papers[here])
        try:
            cited = self._graph.citations(self._papers[here].ids, direction, limit=self._budget.per_request)
        except ServiceError as error:
            self._errors.append(error)
            told = SourceFailure.of(error.service or "all", error)
            self._failures.append(WalkFailure(key, direction, told))
            return
        self._failures += [WalkFailure(key, direction, failure) for failure in cited.failures]
        if len(cited.links) >= self._budget.per_request:
            self._cut.append(key)
        for link in cited.links:
            number = self._papers.add(link.paper)
            step = Step(
                start=key,
                end=_name(link.paper),
                direction=direction,
                context=link.contexts[0] if link.contexts else "",
                intents=link.intents,
                influential=link.influential,
            )
            self._reach(number, _Way(way.score * edge_weight(link, self._year), (*way.path, step)))

    def _reach(self, number: int, way: _Way) -> None:
        """Keep the strongest way to a paper, then the shortest. A circle never is: no weight is above 1."""
        known = self._ways.get(number)
        if known is not None and (known.score, -len(known.path)) >= (way.score, -len(way.path)):
            return
        self._ways[number] = way
        if len(way.path) < self._budget.max_depth:
            heapq.heappush(self._heap, (-way.score, _name(self._papers[number]), number))

    def result(self) -> Walk:
        if self._errors and len(self._errors) == len(self._asked):
            raise self._errors[0]
        best: dict[int, _Way] = {}
        for number, way in self._ways.items():  # two that turned out to be one paper are one here
            here = self._papers.which(number)
            if here not in best or way.score > best[here].score:
                best[here] = way
        reached = [Reached(self._papers[number], way.path, way.score) for number, way in best.items() if way.path]
        reached.sort(key=lambda one: (-one.score, one.depth, _name(one.paper)))
        return Walk(
            reached=reached[: self._budget.max_papers],
            seen=len(reached),
            failures=self._failures,
            not_asked=list(dict.fromkeys(self._left))[:MAX_NAMED],
            requests=len(self._asked),
            cut=list(dict.fromkeys(self._cut))[:MAX_NAMED],
        )


def _name(paper: PaperRecord) -> str:
    return paper.ids.key or paper.title
