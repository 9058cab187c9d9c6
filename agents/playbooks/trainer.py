"""The trainer's policy: look at the machine, plan until the config is valid and fits the time, launch."""

from __future__ import annotations

import re
from typing import Any

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls
from posttrain_crew.tasks.contracts import TrainingResult

__all__ = ["policy"]

_PLANS = 5
_MIN_STEPS = 10
_LAUNCHES = 10
"""Of one order: the first, and one for each rung of the ladder of a smoke run that is out of memory."""


def policy(conversation: Conversation) -> ToolCalls | Final:
    """The next move."""
    wanted = conversation.parameters
    for name in ("method", "training_set"):
        if not wanted.get(name):
            return Final(_refused(f"the order lacks the parameter `{name}`"))
    if conversation.can("describe_compute") and not conversation.made("describe_compute"):
        return ToolCalls([ToolCall("describe_compute")])
    launches = conversation.made("launch_training")
    if launches or not conversation.can("launch_training"):
        again = _with_less_memory(launches)
        return _outcome(conversation) if again is None else again
    plans = conversation.made("plan_training")
    if not plans:
        return _plan(wanted, dict(wanted.get("changes") or {}))
    last = plans[-1]
    changes: dict[str, Any] = dict(last.arguments.get("changes") or {})
    corrected = _corrected(last, changes, _seconds(conversation))
    tried = [call.arguments.get("changes") or {} for call in plans]
    if corrected is not None and corrected not in tried and len(plans) < _PLANS:
        return _plan(wanted, corrected)
    if last.error is not None or _problems(last.result):
        return Final(_refused(last.error or "; ".join(_problems(last.result))))
    arguments = {
        **_common(wanted, changes),
        "hypothesis": str(wanted.get("hypothesis") or conversation.order.get("objective") or "as ordered"),
        "purpose": wanted.get("purpose") or "candidate",
        "ablates": wanted.get("ablates"),
        **({"seeds": wanted["seeds"]} if wanted.get("seeds") else {}),
    }
    return ToolCalls([ToolCall("launch_training", arguments)])


def _with_less_memory(launches: list[ToolCall]) -> ToolCalls | None:
    """The same launch with what its smoke run asks for, or None where there is nothing of the kind."""
    answer = launches[-1].result if launches and launches[-1].error is None else None
    remedy = answer.get("remedy") if isinstance(answer, dict) else None
    if not remedy or len(launches) >= _LAUNCHES:
        return None
    arguments = launches[-1].arguments
    changes = {**(arguments.get("changes") or {}), **remedy}
    return ToolCalls([ToolCall("launch_training", {**arguments, "changes": changes})])


def _plan(wanted: dict[str, Any], changes: dict[str, Any]) -> ToolCalls:
    return ToolCalls([ToolCall("plan_training", _common(wanted, changes))])


def _common(wanted: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "method": wanted["method"],
        "training_set": wanted["training_set"],
        "parent": wanted.get("parent") or "base",
        "changes": changes,
        "recipe": wanted.get("recipe"),
    }


def _seconds(conversation: Conversation) -> float:
    """What the experiment may take: the order's own limit, and what the run has left."""
    compute = conversation.last("describe_compute")
    left = compute.get("seconds_left_for_experiments") if isinstance(compute, dict) else None
    limits = [float(value) for value in (conversation.order.get("budget_seconds"), left) if value is not None]
    return min(limits, default=float("inf"))


def _corrected(call: ToolCall, changes: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """Other changes to plan with, or None where no correction is known."""
    plan = call.result if isinstance(call.result, dict) and call.error is None else {}
    text = call.error or " ".join(_problems(plan))
    if text and (named := [name for name in changes if re.search(rf"\b{re.escape(name)}\b", text)]):
        return {name: value for name, value in changes.items() if name not in named}
    steps, estimate = int(plan.get("steps") or 0), float(plan.get("estimate_seconds") or 0)
    if estimate > seconds and steps > _MIN_STEPS:
        return {**changes, "max_steps": max(_MIN_STEPS, min(steps - 1, int(steps * seconds / estimate * 0.9)))}
    if (adapter := plan.get("adapter")) and not changes.get("use_peft"):
        return {**changes, **adapter}  # no batch of all weights would fit
    config = plan.get("config") or {}
    batch = int(config.get("per_device_train_batch_size") or 1)
    if "GiB" in text and batch > 1 and batch % 2 == 0:
        kept = int(config.get("gradient_accumulation_steps") or 1) * 2  # the effective batch stays as it was
        return {**changes, "per_device_train_batch_size": batch // 2, "gradient_accumulation_steps": kept}
    return None


def _problems(plan: Any) -> list[str]:
    problems = plan.get("problems") if isinstance(plan, dict) else None
    return [str(problem) for problem in problems or []]


def _refused(reason: str) -> TrainingResult:
    return TrainingResult(experiment=None, job=None, launched=False, reason=f"Not launched: {reason}"[:900])


def _outcome(conversation: Conversation) -> Final:
    answer = conversation.last("launch_training")
    if not isinstance(answer, dict):
        errors = conversation.errors()
        return Final(_refused(errors[-1] if errors else "the tool `launch_training` is not among this role's tools"))
    launched = bool(answer.get("launched"))
    reason = str(answer.get("reason") or "as ordered")
    if others := [str(one.get("experiment")) for one in answer.get("experiments") or []]:
        reason += f" (one experiment for each seed: {', '.join(others)})"
    for done, tool in (("planned", "plan_training"), ("tried", "launch_training")):
        calls = conversation.made(tool)
        if len(calls) > 1:
            first, last = calls[0].arguments, calls[-1].arguments
            reason += f" ({done} {len(calls)} times: changes {first.get('changes')} became {last.get('changes')})"
    return Final(
        TrainingResult(
            experiment=answer.get("experiment"),
            job=answer.get("job") if launched else None,
            launched=launched,
            reason=reason[:900],
        )
    )
