"""Checks of what agents return against the blackboard: an id that was made up is never taken over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.entries import BODY_TYPES, JobStarted
from posttrain_crew.errors import BlackboardError
from posttrain_crew.state import RunState
from posttrain_crew.tasks.contracts import Plan

__all__ = ["mentioned_ids", "plan_problems", "result_problems"]

MOST_REMEDIES = 2
"""A remedy that failed twice is not tried a third time, whoever plans: the playbook keeps to it by itself."""
RECENT = 24
"""Experiments that a planner sees in its brief: none is blamed for what it cannot know."""
_CITABLE = ("pap", "rec", "prof", "ts", "exp", "pre", "dia", "eval", "cmp", "dec", "wo", "wr")
"""Prefixes that are no word by themselves, so that they can be looked for inside a sentence."""
_IN_TEXT = re.compile(rf"\b(?:{'|'.join(_CITABLE)})-[1-9]\d*\b")
_BY_FIELD = {
    "recipes": "rec",
    "papers": "pap",
    "profiles": "prof",
    "training_sets": "ts",
    "training_set": "ts",
    "experiment": "exp",
    "recipe": "rec",
}
"""Fields that hold ids, with the prefix that these must have."""


def mentioned_ids(value: Any) -> list[str]:
    """All entry ids in a result or in an order's parameters, each once, in order."""
    return list(dict.fromkeys(_IN_TEXT.findall("\n".join(_texts(_plain(value))))))


def result_problems(board: Blackboard, result: BaseModel) -> list[str]:
    """What is wrong with the ids of a result, as sentences for the agent; empty if nothing is."""
    values = _plain(result)
    problems = _unknown(board, mentioned_ids(values))
    for name, prefix in _BY_FIELD.items():
        held = values.get(name)
        for item in held if isinstance(held, list) else [held] if held is not None else []:
            if not re.fullmatch(rf"{prefix}-[1-9]\d*", str(item)):
                problems.append(f"`{name}` holds {str(item)[:80]!r}, which is no id of the form {prefix}-N.")
    subject = values.get("subject")
    if subject is not None and subject != "base":
        problems += _unknown(board, [str(subject)])
    if (job := values.get("job")) is not None and not any(
        job in (entry.body.label, entry.id) for entry in board.of(JobStarted)
    ):
        problems.append(f"there is no job {str(job)[:80]!r}: return the label that the tool gave, or null.")
    return list(dict.fromkeys(problems))


def plan_problems(board: Blackboard, plan: Plan, specialists: set[str]) -> list[str]:
    """What is wrong with a plan; empty if nothing is."""
    problems = [
        f"there is no specialist `{order.specialist}`; the roster has {', '.join(sorted(specialists))}."
        for order in plan.orders
        if order.specialist not in specialists
    ]
    for order in plan.orders:
        problems += _unknown(board, [*order.inputs, *mentioned_ids(order.parameters)])
        if order.parameters.get("purpose") == "remedy":
            problems += _failed_twice(board, order.parameters.get("changes"))
    if plan.finish and not plan.finish_reason.strip():
        problems.append("`finish` needs a `finish_reason`.")
    return list(dict.fromkeys(problems))


def _failed_twice(board: Blackboard, changes: Any) -> list[str]:
    """Whether these changes are a remedy for something that two remedies have not cured: each of them ended with the
    same cause again. Running out of memory is left out, where each rung of the ladder is another remedy."""
    if not isinstance(changes, dict):
        return []
    recent = list(RunState.of(board).experiments.values())[-RECENT:]
    told = [(view, view.diagnosis.body) for view in recent if view.diagnosis is not None]
    failed = Counter(body.cause for view, body in told if view.entry.body.purpose == "remedy")
    for view, body in reversed(told):
        if body.cause == "infrastructure" or not body.remedy or failed[body.cause] < MOST_REMEDIES:
            continue
        if body.remedy.items() <= changes.items():
            return [
                f"{body.cause} has come back after {failed[body.cause]} remedies: a third is not tried ({view.id} "
                "needs another idea: other data, another method or another parent)."
            ]
    return []


def _unknown(board: Blackboard, ids: list[str]) -> list[str]:
    problems = []
    for name in dict.fromkeys(ids):
        try:
            board.get(name)
        except BlackboardError:
            problems.append(
                f"the id `{name[:80]}` is not on the blackboard: use only ids that a tool or the task gave."
            )
    return problems


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


assert {body.prefix for body in BODY_TYPES.values()} >= set(_CITABLE), "a prefix of entries.py was renamed"
