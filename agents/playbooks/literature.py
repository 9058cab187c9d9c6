"""The literature policy: search by needs, read the best, follow citations, draft, post the top recipes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls, items
from posttrain_crew.tasks.contracts import LiteratureResult

__all__ = ["policy"]

_READ_FIRST, _WALK_FROM, _READ_FOLLOWED, _POST = 10, 3, 5, 5

_QUERIES: dict[str, list[tuple[str, str | None]]] = {
    "format": [("answer format multiple choice", "format"), ("fine-tuning curated examples", "data-selection")],
    "reasoning": [("worked solutions reasoning steps", "chain-of-thought"), ("verifiable answers reward", "rlvr")],
    "knowledge": [("domain knowledge science", "domain-data"), ("synthetic textbook data", "synthetic-data")],
    "noisy-data": [
        ("label noise filtering quality", "data-selection"),
        ("contamination duplicates", "decontamination"),
    ],
    "small-model": [("small student teacher", "distillation"), ("small language models reasoning", "small-models")],
    "plateau": [("group advantage length bias", "grpo"), ("difficulty curriculum", "curriculum")],
}
"""Two (query, technique filter) pairs per need of the vocabulary."""


def policy(conversation: Conversation) -> ToolCalls | Final:
    """The next move; one stage per tool, each entered when the one before has answered."""
    if not conversation.tools:
        return _final(conversation)
    if not conversation.made("search_papers"):
        return ToolCalls([ToolCall("search_papers", query) for query in _queries(conversation)])
    ranked = _ranked(conversation)
    read = [paper["arxiv_id"] for paper in conversation.results("read_paper")]
    asked = {call.arguments.get("arxiv_id") for call in conversation.made("read_paper")}
    if not asked and ranked:
        return _reading(ranked[:_READ_FIRST])
    strongest = sorted(conversation.results("read_paper"), key=_strength)
    if read and conversation.can("follow_citations"):
        if not conversation.made("follow_citations"):
            start = [paper["arxiv_id"] for paper in strongest[:_WALK_FROM]]
            return ToolCalls([ToolCall("follow_citations", {"papers": start, "limit": 12})])
    elif read and not conversation.made("paper_citations"):
        return ToolCalls(
            [
                ToolCall("paper_citations", {"arxiv_id": paper["arxiv_id"], "direction": direction, "limit": 6})
                for paper in strongest[:2]
                for direction in ("references", "cited_by")
            ]
        )
    if not conversation.made("draft_recipes") and read:
        if len(asked) <= _READ_FIRST:
            results = conversation.results("follow_citations") or conversation.results("paper_citations")
            followed = [hit["arxiv_id"] for result in results for hit in items(result)]
            if further := [key for key in dict.fromkeys(followed) if key not in asked][:_READ_FOLLOWED]:
                return _reading(further)
        papers = [paper["id"] for paper in conversation.results("read_paper")]
        return ToolCalls(
            [
                ToolCall(
                    "draft_recipes",
                    {"needs": _needs(conversation), "papers": papers, "exclude": _strings(conversation, "exclude")},
                )
            ]
        )
    drafts = items(conversation.last("draft_recipes"))
    if drafts and not conversation.made("post_recipe"):
        return ToolCalls([ToolCall("post_recipe", _posting(draft)) for draft in _varied(drafts)[:_POST]])
    return _final(conversation)


def _strings(conversation: Conversation, name: str) -> list[str]:
    value = conversation.parameters.get(name) or []
    return [str(word) for word in value] if isinstance(value, list) else [str(value)]


def _needs(conversation: Conversation) -> list[str]:
    return [need for need in _strings(conversation, "needs") if need in _QUERIES] or ["format", "reasoning"]


def _queries(conversation: Conversation) -> list[dict[str, Any]]:
    wide = bool(_strings(conversation, "exclude"))
    limit = 12 if wide else 8
    queries = [
        {"query": query, "technique": technique, "limit": limit}
        for need in _needs(conversation)
        for query, technique in _QUERIES[need]
    ]
    target = conversation.input.get("target") or {}
    kind = (target.get("answer") or {}).get("kind", "choice") if isinstance(target.get("answer"), dict) else "choice"
    subject = " ".join([*map(str, target.get("domains") or []), {"choice": "multiple choice"}.get(kind, str(kind))])
    queries.append({"query": f"{subject} reasoning", "limit": limit})
    if wide:
        queries += [{"query": "", "technique": technique, "limit": limit} for technique in ("dpo", "self-training")]
        queries.append({"query": "limits of post-training", "technique": "critique", "limit": 6})
    return queries


def _ranked(conversation: Conversation) -> list[str]:
    """arXiv ids by reciprocal rank over all searches, so that a paper that several needs find comes first."""
    score: dict[str, float] = defaultdict(float)
    for result in conversation.results("search_papers"):
        for rank, hit in enumerate(items(result)):
            score[hit["arxiv_id"]] += 1 / (rank + 3)
    return sorted(score, key=lambda key: (-score[key], key))


def _strength(paper: dict[str, Any]) -> tuple[int, int, str]:
    return (-int(paper.get("citations") or 0), -len(paper.get("reported") or []), str(paper["arxiv_id"]))


def _reading(ids: list[str]) -> ToolCalls:
    return ToolCalls([ToolCall("read_paper", {"arxiv_id": arxiv_id}) for arxiv_id in ids])


def _posting(draft: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in draft.items() if name != "cautions"}


def _varied(drafts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drafts with the best of each (method, data style) first, then the rest, both in their order."""
    seen: set[tuple[str, str]] = set()
    first: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for draft in drafts:
        kind = (draft["method"], draft["data_style"])
        (rest if kind in seen else first).append(draft)
        seen.add(kind)
    return first + rest


def _failed(conversation: Conversation) -> list[str]:
    """Sources that some answer lacked."""
    results = [call.result for call in conversation.calls if isinstance(call.result, dict)]
    return sorted({str(one["source"]) for result in results for one in result.get("failed_sources", [])})


def _final(conversation: Conversation) -> Final:
    posted = sorted(conversation.results("post_recipe"), key=lambda recipe: -float(recipe["prior"]))
    papers = conversation.results("read_paper")
    if posted:
        listed = "; ".join(f"{recipe['id']} {recipe['title']} (prior {recipe['prior']})" for recipe in posted)
        drafts = items(conversation.last("draft_recipes"))
        warned = sorted({paper for draft in drafts for paper in draft.get("cautions", [])})
        summary = f"For {', '.join(_needs(conversation))}, {len(papers)} papers were read. Ranked: {listed}."
        if warned:
            summary += f" Papers that found limits: {', '.join(warned[:5])}."
        summary += " Reported scores are of other models and data: reasons to try, no forecast."
    else:
        errors = conversation.errors()
        why = "the papers read support no recipe for these needs that was not tried already"
        if not papers:
            why = "the searches found no paper"
        summary = f"{len(papers)} papers were read, no recipe was posted: {errors[-1] if errors else why}"[:900]
    if failed := _failed(conversation):
        summary += f" Could not be asked in full: {', '.join(failed)}; what they know is missing."
    return Final(
        LiteratureResult(
            recipes=list(dict.fromkeys(recipe["id"] for recipe in posted)),
            papers=list(dict.fromkeys(paper["id"] for paper in papers)),
            summary=summary,
        )
    )
