"""The evaluator's policy: start the ordered evaluation once, and return what the desk answered."""

from __future__ import annotations

from posttrain_crew.agents.playbooks.conversation import Conversation, Final, ToolCall, ToolCalls
from posttrain_crew.tasks.contracts import EvaluationResult

__all__ = ["policy"]


def policy(conversation: Conversation) -> ToolCalls | Final:
    """One call, then the answer."""
    subject = str(conversation.parameters.get("subject") or "base")
    if conversation.can("evaluate") and not conversation.made("evaluate"):
        few_shot = int(conversation.parameters.get("few_shot") or 0)
        return ToolCalls([ToolCall("evaluate", {"subject": subject, "few_shot": few_shot})])
    answer = conversation.last("evaluate")
    if not isinstance(answer, dict):
        errors = conversation.errors()
        why = errors[-1] if errors else "the tool `evaluate` is not among this role's tools"
        return Final(EvaluationResult(job=None, subject=subject, reason=f"Not evaluated: {why}"[:900]))
    job = answer.get("label") or answer.get("job")
    if answer.get("status") == "done":
        job = None
    reason = answer.get("reason") or (
        f"The job {job} was started." if job else f"Done: {answer.get('id') or 'scored'}."
    )
    return Final(EvaluationResult(job=job, subject=subject, reason=str(reason)[:900]))
