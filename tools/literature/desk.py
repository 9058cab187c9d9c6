"""What the literature agent calls: search, read, follow citations, draft and post recipes.

Reading a paper puts it on the blackboard; a recipe can only cite papers that were read. The shipped library is the
source here, so the desk works without a network, and every answer names ids, never a number that no paper states.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import ValidationError

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Method, PaperRead, Recipe
from posttrain_crew.errors import GateError, InputError
from posttrain_crew.files import canonical_json, sha256_text
from posttrain_crew.tools.literature.library import Direction, Library
from posttrain_crew.tools.literature.paper import Paper, normalise_id
from posttrain_crew.tools.literature.recipes import NEEDS, DataStyle, recipe_drafts
from posttrain_crew.tools.literature.vocabulary import check_word
from posttrain_crew.tools.tool import agent_tool
from posttrain_crew.tools.workspace import Workspace

__all__ = ["LiteratureDesk"]

_MOST_HITS = 30


@cache
def _shipped() -> Library:
    return Library.load()


class LiteratureDesk:
    """The literature tools of one run.

    Args:
        library: where papers are looked up; the shipped one by default.
    """

    def __init__(self, workspace: Workspace, library: Library | None = None) -> None:
        self._board = workspace.board
        self._given = library

    @property
    def _library(self) -> Library:
        return self._given if self._given is not None else _shipped()

    @agent_tool
    def search_papers(
        self,
        query: Annotated[str, "a few words; empty lists the most cited papers that the filters leave"],
        technique: Annotated[str | None, "only papers with this technique tag, for example sft, grpo, rlvr"] = None,
        year_from: Annotated[int | None, "only papers of this year or later"] = None,
        limit: Annotated[int, "at most this many hits, 1 to 30"] = 8,
    ) -> list[dict[str, Any]]:
        """Search post-training papers. Returns arXiv id, title, year, technique tags and one finding of each, best
        first. Hits are not yet evidence: read a paper before you cite it."""
        hits = self._library.search(query, technique, year_from, min(limit, _MOST_HITS))
        return [hit.model_dump(mode="json") for hit in hits]

    @agent_tool
    def read_paper(self, arxiv_id: Annotated[str, "as a search returned it, for example 2402.03300"]) -> dict[str, Any]:
        """Read one paper and put it on the blackboard. Returns its blackboard `id` (pap-N), what was trained on what,
        findings, reported scores and stated hyper-parameters. A score holds for the paper's own model and data."""
        paper = self._library.get(arxiv_id)
        entry = self._board.post(
            PaperRead(
                arxiv_id=paper.arxiv_id,
                title=paper.title,
                year=paper.year,
                techniques=paper.techniques,
                findings=paper.findings,
                source="library",
            ),
            author="literature",
            key=f"paper:{paper.arxiv_id}",
        )
        facts = paper.model_dump(mode="json", exclude={"checked", "cites"})
        return {
            "id": entry.id,
            **facts,
            "cites_in_library": len(paper.cites),
            "cited_in_library": self._library.citation_count(paper.arxiv_id),
        }

    @agent_tool
    def paper_citations(
        self,
        arxiv_id: Annotated[str, "the paper to start from"],
        direction: Annotated[Direction, "references: what it cites; cited_by: what cites it"],
        limit: Annotated[int, "at most this many, 1 to 30"] = 10,
    ) -> list[dict[str, Any]]:
        """Papers that this one cites, or that cite it, most cited first. Later papers often correct earlier ones."""
        if limit < 1:
            raise InputError(f"limit is {limit}; it must be at least 1.")
        hits = self._library.citations(arxiv_id, direction)[: min(limit, _MOST_HITS)]
        return [hit.model_dump(mode="json") for hit in hits]

    @agent_tool
    def draft_recipes(
        self,
        needs: Annotated[list[str], "what the baseline lacks: format, reasoning, knowledge, noisy-data, ..."],
        papers: Annotated[list[str], "blackboard ids (pap-N) of papers that were read"],
        exclude: Annotated[list[str], "recipe ids (rec-N) that were tried; drafts equal to them are left out"] = [],  # noqa: B006 - never changed
    ) -> list[dict[str, Any]]:
        """Draft training recipes that the read papers support, ranked by `prior` for the needs. Each draft has exactly
        the fields that post_recipe takes, and `cautions`: papers that found limits of it."""
        read = {entry.body.arxiv_id: entry.id for entry in self._papers(papers)}
        tried = {(r.method, r.title) for r in (self._board.typed(name, Recipe).body for name in exclude)}
        known: list[Paper] = [self._library.get(arxiv_id) for arxiv_id in read]
        return [
            {
                "title": draft.title,
                "method": draft.method,
                "hypothesis": draft.hypothesis,
                "data_style": draft.data_style,
                "arxiv_ids": draft.arxiv_ids,
                "papers": [read[arxiv_id] for arxiv_id in draft.arxiv_ids],
                "addresses": draft.addresses,
                "hyperparameters": dict(draft.hyperparameters),
                "reported": [score.model_dump(mode="json") for score in draft.reported[:3]],
                "prior": draft.prior,
                "cautions": draft.cautions,
            }
            for draft in recipe_drafts(known, needs)
            if (draft.method, draft.title) not in tried
        ]

    @agent_tool
    def post_recipe(
        self,
        title: Annotated[str, "what is done, in one line"],
        method: Annotated[Method, "sft, dpo or grpo"],
        hypothesis: Annotated[str, "why it should help here"],
        data_style: Annotated[DataStyle, "what data it needs"],
        arxiv_ids: Annotated[list[str], "papers that support it; each must have been read"],
        papers: Annotated[list[str], "their blackboard ids (pap-N)"],
        addresses: Annotated[list[str], "needs that it answers"],
        hyperparameters: Annotated[dict[str, bool | int | float | str], "TRL fields as a paper states them"] = {},  # noqa: B006 - never changed
        reported: Annotated[list[dict[str, Any]], "scores as the papers report them"] = [],  # noqa: B006 - never changed
        prior: Annotated[float, "0 to 1: how promising against the other recipes"] = 0.5,
    ) -> dict[str, Any]:
        """Put a recipe on the blackboard as a hypothesis. Returns its `id` (rec-N). A paper that was not read with
        read_paper is refused as support."""
        if not arxiv_ids:
            raise GateError("a recipe needs at least one paper as evidence: pass the arXiv ids that support it.")
        for need in addresses:
            check_word(need, NEEDS, "need")
        read = {entry.body.arxiv_id: entry.id for entry in self._board.of(PaperRead)}
        cited = list(dict.fromkeys(normalise_id(arxiv_id) for arxiv_id in arxiv_ids))
        if unread := [arxiv_id for arxiv_id in cited if arxiv_id not in read]:
            raise GateError(
                f"these papers were not read in this run and cannot support a recipe: {', '.join(unread)}. "
                "Call read_paper for each first, or leave them out."
            )
        refs = [*(read[arxiv_id] for arxiv_id in cited), *(entry.id for entry in self._papers(papers))]
        try:
            recipe = Recipe(
                method=method,
                title=title,
                hypothesis=hypothesis,
                data_style=data_style,
                hyperparameters=hyperparameters,
                reported=reported[:6],
                arxiv_ids=cited,
                addresses=list(dict.fromkeys(addresses)),
                prior=prior,
            )
        except ValidationError as error:
            problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
            raise InputError(f"the recipe is not valid: {problems}.") from error
        entry = self._board.post(
            recipe,
            author="literature",
            refs=tuple(dict.fromkeys(refs)),
            status="hypothesis",
            key=f"recipe:{sha256_text(canonical_json(recipe.model_dump(mode='json')))[:24]}",
        )
        return {"id": entry.id, "title": title, "method": method, "data_style": data_style, "prior": prior}

    def _papers(self, ids: Sequence[str]) -> list[Entry[PaperRead]]:
        return [self._board.typed(name, PaperRead) for name in dict.fromkeys(ids)]
