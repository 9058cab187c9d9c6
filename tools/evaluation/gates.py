"""The two gates: what may become the best so far (on dev), and what may be called an improvement (on test).

Both rest on a paired comparison of strict scores: the lower bound of its interval decides, and the exact test must
agree.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain_crew.blackboard import Entry
from posttrain_crew.entries import Comparison, Decision, Evaluation
from posttrain_crew.errors import GateError
from posttrain_crew.state import RunState
from posttrain_crew.tools.evaluation.collect import compare
from posttrain_crew.tools.workspace import Workspace

__all__ = ["ALPHA", "Verdict", "final_gate", "judge", "promotion"]

ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """Whether a comparison shows an improvement, and why in numbers."""

    better: bool
    reason: str


def judge(comparison: Comparison) -> Verdict:
    """Better only if the 95 % interval of the difference lies above 0 and the exact McNemar test has p < 0.05."""
    c = comparison
    numbers = (
        f"{c.metric} {c.split} {c.delta:+.1%} (95 % CI {c.ci_low:+.1%} to {c.ci_high:+.1%}, p = {c.p_value:.2g}, "
        f"n = {c.n}, {c.gained} gained, {c.lost} lost) against {c.reference}"
    )
    if c.ci_low > 0 and c.p_value < ALPHA:
        return Verdict(True, f"better: {numbers}")
    if c.ci_high < 0 and c.p_value < ALPHA:
        return Verdict(False, f"worse: {numbers}")
    return Verdict(False, f"no difference shown: {numbers}")


def promotion(workspace: Workspace, candidate: str) -> Entry[Decision]:
    """Decide on an evaluated experiment: promote it over the best so far, discard it, or keep it as an ablation.

    Decided once: the same candidate again returns the first decision.

    Raises:
        GateError: the candidate is unknown, or it or the best so far has no dev evaluation yet.
    """
    board = workspace.board
    key = f"decision:{candidate}"
    if (posted := board.by_key(key)) is not None:
        return board.typed(posted.id, Decision)
    state = RunState.of(board)
    view = state.experiments.get(candidate)
    if view is None:
        raise GateError(f"there is no experiment `{candidate}` to decide on.")
    if view.evaluation is None or view.evaluation.body.few_shot:
        raise GateError(f"`{candidate}` has no zero-shot dev evaluation yet; evaluate it before deciding.")
    if (best := state.best_evaluation) is None:
        raise GateError(f"the best so far, `{state.best}`, has no dev evaluation; evaluate it before deciding.")
    notes: list[str] = []
    refs: list[str] = []
    body = view.entry.body
    if body.purpose == "ablation" and body.ablates and body.ablates != state.best:
        whole = _evaluation_of(state, body.ablates)
        if whole is not None:
            against = compare(workspace, view.evaluation, whole, "strict")
            refs.append(against.id)
            notes.append(f"against the whole {body.ablates}: {judge(against.body).reason}")
    comparison = compare(workspace, view.evaluation, best, "strict")
    verdict = judge(comparison.body)
    refs.insert(0, comparison.id)
    if verdict.better:
        if body.purpose == "ablation":
            notes.append(f"an ablation of {body.ablates}, but it beats the best so far and so is a candidate itself")
        return _decide(workspace, "promote", candidate, [verdict.reason, *notes], refs, key)
    action = "keep_as_ablation" if body.purpose == "ablation" else "discard"
    return _decide(workspace, action, candidate, [verdict.reason, *notes], refs, key)


def final_gate(workspace: Workspace, base_test: Entry[Evaluation], best_test: Entry[Evaluation]) -> Entry[Decision]:
    """Accept or reject the run's best model against the base on the test split; decided once.

    The strict comparison decides. The lenient one is posted and told beside it, since a strict gain without a lenient
    one is a gain of format alone.

    Raises:
        GateError: an evaluation is not of the test split, the second is the base's, or the items differ.
    """
    board = workspace.board
    key = "decision:final"
    if (posted := board.by_key(key)) is not None:
        return board.typed(posted.id, Decision)
    if base_test.body.split != "test" or best_test.body.split != "test":
        raise GateError("the final gate compares test evaluations; evaluate both subjects on the test split first.")
    if base_test.body.subject != "base" or best_test.body.subject == "base":
        raise GateError("the final gate compares the base with an experiment; there is nothing to gate for the base.")
    strict = compare(workspace, best_test, base_test, "strict")
    lenient = compare(workspace, best_test, base_test, "lenient")
    verdict, patient = judge(strict.body), judge(lenient.body)
    reasons = [verdict.reason, patient.reason]
    if verdict.better and not patient.better:
        reasons.append("the gain is one of answer format: with lenient extraction no gain is shown")
    action = "accept" if verdict.better else "reject"
    return _decide(workspace, action, best_test.body.subject, reasons, [strict.id, lenient.id], key)


def _evaluation_of(state: RunState, subject: str) -> Entry[Evaluation] | None:
    if subject == "base":
        return state.baseline
    view = state.experiments.get(subject)
    return None if view is None else view.evaluation


def _decide(
    workspace: Workspace, action: str, subject: str, reasons: list[str], refs: list[str], key: str
) -> Entry[Decision]:
    decision = Decision.model_validate({"action": action, "subject": subject, "reason": "; ".join(reasons) + "."})
    entry = workspace.board.post(decision, author="crew", refs=refs, status="decision", key=key)
    workspace.events.emit("decision", id=entry.id, action=action, subject=subject, reason=decision.reason)
    return entry
