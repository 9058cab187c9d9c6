"""The data policy: find and fetch datasets where services may be asked, probe and audit every candidate, then build
what the recipes need from what the audits allow."""

from __future__ import annotations

import re
from typing import Any

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls, items
from posttrain_crew.tasks.contracts import DataResult, RejectedDataset

__all__ = ["policy"]

_BUILDABLE = frozenset({"sft", "dpo", "grpo"})
"""Methods that build_training_set serves."""
_UNASKED = frozenset({"sft", "grpo"})
"""What is built where neither the order nor a recipe names a method; pairs are made only when something asks."""
_MOST_FETCHED = 8
"""Datasets of one search; each costs an audit, and what comes behind these has little that speaks for it."""
_MOST_FOUND = 15
_WORD = re.compile(r"[a-z]{4,}")
_MOST_AUDIT_TURNS = 40
"""One audit a message; only with more candidates than this do some share one."""


def policy(conversation: Conversation) -> ToolCalls | Final:
    """The next move."""
    if not conversation.tools:
        return _final(conversation)
    if _given(conversation):
        return _build(conversation)  # an order that brings profiles wants another set of what was audited before
    if conversation.can("search_datasets") and not conversation.made("search_datasets"):
        return ToolCalls([ToolCall("search_datasets", _search(conversation))])
    if conversation.can("fetch_dataset") and not conversation.made("list_candidates"):
        asked = {call.arguments.get("dataset") for call in conversation.made("fetch_dataset")}
        if wanted := [name for name in _promising(conversation) if name not in asked]:
            return ToolCalls([ToolCall("fetch_dataset", {"dataset": name}) for name in wanted])
    if not conversation.made("list_candidates"):
        return ToolCalls([ToolCall("list_candidates")])
    names = _candidates(conversation)
    if not names:
        return _final(conversation)
    if conversation.can("probe_labels") and not conversation.made("probe_labels"):
        return ToolCalls([ToolCall("probe_labels", {"datasets": names})])
    audited = {call.arguments.get("dataset") for call in conversation.made("audit_dataset")}
    if waiting := [name for name in names if name not in audited]:
        together = -(-len(names) // _MOST_AUDIT_TURNS)
        return ToolCalls([ToolCall("audit_dataset", {"dataset": name}) for name in waiting[:together]])
    return _build(conversation)


def _build(conversation: Conversation) -> ToolCalls | Final:
    """The next build, or the end."""
    built = [call.arguments for call in conversation.made("build_training_set")]
    for build in _builds(conversation):
        if build not in built:
            return ToolCalls([ToolCall("build_training_set", build)])
    return _final(conversation)


def _search(conversation: Conversation) -> dict[str, Any]:
    """Arguments of the search: the order's recipes, with their papers and datasets, and words of the target."""
    target = conversation.input.get("target") or {}
    own_name = set(_WORD.findall(str(target.get("name") or "").lower()))
    texts = [*map(str, target.get("domains") or []), str(target.get("title") or "").lower()]
    words = [word for text in texts for word in _WORD.findall(text.lower()) if word not in own_name]
    styles = {str(body.get("data_style")) for body in _recipes(conversation).values()}
    words += sorted(styles & {"worked", "preference"})
    return {"query": " ".join(dict.fromkeys(words)), "recipes": list(_recipes(conversation)), "limit": _MOST_FOUND}


def _recipes(conversation: Conversation) -> dict[str, dict[str, Any]]:
    """The order's recipes that its entries hold."""
    entries = conversation.input.get("entries") or {}
    wanted = conversation.parameters.get("recipes") or []
    return {str(name): entries[name] for name in wanted if isinstance(entries.get(name), dict)}


def _promising(conversation: Conversation) -> list[str]:
    """What is fetched of the newest search, best first."""
    found = conversation.last("search_datasets")
    candidates = found.get("candidates") if isinstance(found, dict) else None
    names = [str(each["dataset"]) for each in candidates or [] if isinstance(each, dict) and each.get("dataset")]
    return list(dict.fromkeys(names))[:_MOST_FETCHED]


def _not_had(conversation: Conversation) -> list[RejectedDataset]:
    """What was found or named and could not be had: gated, missing, refused."""
    found = conversation.last("search_datasets")
    listed = found.get("problems") if isinstance(found, dict) else None
    problems = [each for each in listed or [] if isinstance(each, dict) and not each.get("usable")]
    rejected = [
        RejectedDataset(dataset=str(each.get("dataset")), reason=f"{each.get('problem')}: {each.get('what')}"[:300])
        for each in problems[:20]
    ]
    return rejected + [
        RejectedDataset(dataset=str(call.arguments.get("dataset")), reason=call.error[:300])
        for call in conversation.made("fetch_dataset")
        if call.error is not None
    ]


def _candidates(conversation: Conversation) -> list[str]:
    """Names of the candidates that can be read."""
    listed = [item for item in items(conversation.last("list_candidates")) if isinstance(item, dict)]
    return list(dict.fromkeys(_name(item) for item in listed if not item.get("problem")))


def _unreadable(conversation: Conversation) -> list[RejectedDataset]:
    listed = [item for item in items(conversation.last("list_candidates")) if isinstance(item, dict)]
    return [
        RejectedDataset(dataset=_name(item), reason=str(item["problem"])[:300])
        for item in listed
        if item.get("problem")
    ]


def _name(item: dict[str, Any]) -> str:
    return str(item.get("dataset") or item.get("name"))


def _given(conversation: Conversation) -> list[dict[str, Any]]:
    """The dataset profiles among the order's entries."""
    entries = conversation.input.get("entries") or {}
    return [
        {"id": name, **body}
        for name, body in entries.items()
        if isinstance(body, dict) and "verdict" in body and "dataset" in body
    ]


def _profiles(conversation: Conversation) -> list[dict[str, Any]]:
    if given := _given(conversation):
        return given
    return [profile for profile in conversation.results("audit_dataset") if isinstance(profile, dict)]


def _usable(conversation: Conversation) -> list[dict[str, Any]]:
    """Profiles that may be trained on, best first."""
    kept = [p for p in _profiles(conversation) if p.get("verdict") in ("usable", "usable_after_cleaning")]
    return sorted(kept, key=_rank)


def _rank(profile: dict[str, Any]) -> tuple[bool, float, int, int, str]:
    """Clean before to-be-cleaned, then by wrong labels, then by the number of defects, then by size."""
    defects = [d for d in profile.get("defects") or [] if d.get("severity") != "note"]
    noise = max((float(d.get("value") or 0) for d in defects if d.get("name") == "label_noise"), default=0.0)
    rows = int(profile.get("rows") or 0)
    return (profile.get("verdict") != "usable", noise, len(defects), -rows, str(profile.get("dataset")))


def _methods(conversation: Conversation) -> set[str]:
    """Methods that the order names, or else its recipes; without any that is known, supervised and reinforcement."""
    named = {str(method) for method in conversation.parameters.get("methods") or []} & _BUILDABLE
    known = {str(body["method"]) for body in _recipes(conversation).values() if "method" in body}
    return named or known & _BUILDABLE or set(_UNASKED)


def _builds(conversation: Conversation) -> list[dict[str, Any]]:
    """Arguments of the builds, best first; the same in every turn."""
    methods = _methods(conversation)
    paired = [p["dataset"] for p in _usable(conversation) if p.get("format") == "preference"]
    plain = [p for p in _usable(conversation) if p.get("format") != "preference"]
    worked = [p["dataset"] for p in plain if p.get("answer_style") in ("worked", "mixed")]
    terse = [p["dataset"] for p in plain if p.get("answer_style") == "terse"]
    checkable = [p["dataset"] for p in plain if p.get("answer_style") != "none"]
    builds: list[dict[str, Any]] = []
    if "sft" in methods:
        if worked:
            builds.append({"datasets": worked[:1], "method": "sft", "style": "worked"})
        if len(worked) > 1:
            builds.append({"datasets": worked, "method": "sft", "style": "worked"})
        if terse:
            builds.append({"datasets": terse, "method": "sft", "style": "terse"})
    if "grpo" in methods and checkable:
        builds.append({"datasets": checkable, "method": "grpo", "style": "any"})
    if "dpo" in methods and (paired or worked):
        # people's pairs say more than pairs made of a right answer and a wrong letter
        builds.append({"datasets": paired or worked, "method": "dpo", "style": "any"})
    return builds


def _final(conversation: Conversation) -> Final:
    profiles = _profiles(conversation)
    sets = [built for built in conversation.results("build_training_set") if isinstance(built, dict) and "id" in built]
    rejected = (
        _not_had(conversation)
        + _unreadable(conversation)
        + [
            RejectedDataset(dataset=str(p["dataset"]), reason=_reason(p))
            for p in profiles
            if p.get("verdict") == "rejected"
        ]
    )
    for call in conversation.made("audit_dataset"):
        if call.error is not None:
            rejected.append(RejectedDataset(dataset=str(call.arguments.get("dataset")), reason=call.error[:300]))
    failed = [call.error for call in conversation.made("build_training_set") if call.error is not None]
    if sets:
        made = "; ".join(f"{s['id']} ({s.get('method')}, {s.get('style')}, {s.get('rows')} rows)" for s in sets)
        summary = f"{len(profiles)} datasets audited, {len(rejected)} rejected. Built: {made}."
    elif not _profiles(conversation) and not _candidates(conversation):
        errors = conversation.errors()
        summary = f"No training set: there are no candidates{f' ({errors[-1]})' if errors else ''}."
    elif not _usable(conversation):
        summary = f"No training set: all {len(rejected)} candidates were rejected, each with its number in `rejected`."
    else:
        summary = "No training set: usable datasets exist, but no build came through."
    summary += _outages(conversation)
    if failed:
        summary += f" Builds refused: {' | '.join(failed)}"
    return Final(
        DataResult(
            profiles=[p["id"] for p in profiles if "id" in p],
            training_sets=list(dict.fromkeys(s["id"] for s in sets)),
            rejected=rejected,
            summary=summary[:1200],
        )
    )


def _outages(conversation: Conversation) -> str:
    """What services did not answer, told in the result."""
    failed = [call.error for call in conversation.made("search_datasets") if call.error is not None]
    found = conversation.last("search_datasets")
    failures = (found.get("failures") or []) if isinstance(found, dict) else []
    said = [error[:200] for error in failed if error]
    said += [f"{each.get('service')} ({each.get('error')}) on {each.get('asked')}" for each in failures[:3]]
    return f" The search for datasets is incomplete: {' | '.join(said)}." if said else ""


def _reason(profile: dict[str, Any]) -> str:
    """The profile's own reason, with the numbers of the defects that rejected it."""
    numbers = "; ".join(
        f"{d.get('name')} {float(d.get('value') or 0):.3g} against a limit of {float(d.get('threshold') or 0):.3g}"
        for d in profile.get("defects") or []
        if d.get("severity") == "reject"
    )
    reason = str(profile.get("reason") or "rejected by its audit")
    return f"{reason} ({numbers})"[:500] if numbers else reason[:500]
