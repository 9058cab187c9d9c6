"""The trainer's policy: look at the machine, plan until the config is valid and fits the time, launch."""

from __future__ import annotations

from typing import Any

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls
from posttrain_crew.tasks.contracts import TrainingResult

__all__ = ["policy"]

_PLANS = 5
_MIN_STEPS = 10


def policy(conversation: Conversation) -> ToolCalls | Final:
    """The next move."""
    wanted = conversation.parameters
    for name in ("method", "training_set"):
        if not wanted.get(name):
            return Final(_refused(f"the order lacks the parameter `{name}`"))
    if conversation.can("describe_compute") and not conversation.made("describe_compute"):
        return ToolCalls([ToolCall("describe_compute")])
    if conversation.made("launch_training") or not conversation.can("launch_training"):
        return _outcome(conversation)
    plans = conversation.made("plan_training")
    if not plans:
        return _plan(wanted, dict(wanted.get("changes") or {}), wanted.get("recipe"))
    last = plans[-1]
    changes: dict[str, Any] = dict(last.arguments.get("changes") or {})
    recipe = last.arguments.get("recipe")
    corrected = _corrected(last, changes, recipe, float(conversation.order.get("budget_seconds") or 0))
    if corrected is not None:
        if len(plans) < _PLANS and not any(
            (call.arguments.get("changes") or {}) == corrected[0] and call.arguments.get("recipe") == corrected[1]
            for call in plans
        ):
            return _plan(wanted, *corrected)
        if last.error is not None or _problems(last.result):
            return Final(_refused(_why(last)))
    arguments = {
        "method": wanted["method"],
        "training_set": wanted["training_set"],
        "parent": wanted.get("parent") or "base",
        "hypothesis": str(wanted.get("hypothesis") or conversation.order.get("objective") or "as ordered"),
        "changes": changes,
        "recipe": recipe,
        "purpose": wanted.get("purpose") or "candidate",
        "ablates": wanted.get("ablates"),
    }
    return ToolCalls([ToolCall("launch_training", arguments)])


def _plan(wanted: dict[str, Any], changes: dict[str, Any], recipe: str | None) -> ToolCalls:
    arguments = {
        "method": wanted["method"],
        "training_set": wanted["training_set"],
        "parent": wanted.get("parent") or "base",
        "changes": changes,
        "recipe": recipe,
    }
    return ToolCalls([ToolCall("plan_training", arguments)])


def _corrected(
    call: ToolCall, changes: dict[str, Any], recipe: str | None, seconds: float
) -> tuple[dict[str, Any], str | None] | None:
    """Other changes (and recipe) to plan with, or None where the plan stands as it is."""
    problems = [call.error] if call.error is not None else _problems(call.result)
    if problems:
        text = " ".join(problems)
        if named := [name for name in changes if name in text]:
            return {name: value for name, value in changes.items() if name not in named}, recipe
        # the recipe's own settings are at fault, or nothing that was asked for: plan with the target's defaults
        return (changes, None) if recipe is not None else ({}, None)
    if not isinstance(call.result, dict):
        return None
    steps, estimate = int(call.result.get("steps") or 0), float(call.result.get("estimate_seconds") or 0)
    if seconds and estimate > seconds and steps > _MIN_STEPS:
        fitting = max(_MIN_STEPS, int(steps * seconds / estimate * 0.9))
        if fitting < steps:
            return {**changes, "max_steps": fitting}, recipe
    return None


def _problems(plan: Any) -> list[str]:
    problems = plan.get("problems") if isinstance(plan, dict) else None
    return [str(problem) for problem in problems or []]


def _why(call: ToolCall) -> str:
    return call.error or "; ".join(_problems(call.result)) or "the plan cannot be used"


def _refused(reason: str) -> TrainingResult:
    return TrainingResult(experiment=None, job=None, launched=False, reason=f"Not launched: {reason}"[:900])


def _outcome(conversation: Conversation) -> Final:
    answer = conversation.last("launch_training")
    if not isinstance(answer, dict):
        errors = conversation.errors()
        return Final(_refused(errors[-1] if errors else "the tool `launch_training` is not among this role's tools"))
    launched = bool(answer.get("launched"))
    reason = str(answer.get("reason") or "as ordered")
    plans = conversation.made("plan_training")
    if len(plans) > 1:
        first, last = plans[0].arguments, plans[-1].arguments
        reason += f" (planned {len(plans)} times: changes {first.get('changes')} became {last.get('changes')}"
        reason += ", without the recipe's settings)" if first.get("recipe") and not last.get("recipe") else ")"
    return Final(
        TrainingResult(
            experiment=answer.get("experiment"),
            job=answer.get("job") if launched else None,
            launched=launched,
            reason=reason[:900],
        )
    )
