"""The loop: collect what jobs have done, ask the coordinator when something is new, send its orders out, stop by rule.

The blackboard is the only state. The loop can be killed anywhere; the next session reads the board, repairs what was
half done and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from posttrain_crew.agents.team import Team
from posttrain_crew.blackboard import Entry
from posttrain_crew.crews.background import Background
from posttrain_crew.crews.brief import brief
from posttrain_crew.crews.collector import Collector
from posttrain_crew.crews.finish import final_step
from posttrain_crew.crews.status import write_status
from posttrain_crew.entries import (
    Decision,
    Diagnosis,
    Evaluation,
    Incident,
    JobOutcome,
    Recipe,
    RunStarted,
    TrainingSet,
    WorkOrder,
    WorkResult,
)
from posttrain_crew.errors import AgentError, BudgetError, CrewError, JobError
from posttrain_crew.state import RunState
from posttrain_crew.tasks.contracts import Plan
from posttrain_crew.tools.workspace import Workspace

__all__ = ["Loop", "StopRequestedError"]

TICK_S = 0.25
"""How often running jobs are looked at."""
MAX_REFUSED_PLANS = 3
"""Plans in a row that bring nothing before the loop ends the search itself."""
MAX_FAILED_PLANS = 5
"""Failures of the coordinator's LLM in a row that end the session, once no job is running any more."""
LONGEST_PAUSE_S = 240.0
PATIENCE_WITH_ORDERS_S = 60.0
"""How long the end waits for agents that are still at work when the search is stopped."""
ROOM_EVERY_S = 10.0
"""How often a backend is asked again that does not answer, or has nothing to run on."""
_NEWS = frozenset(
    body.kind for body in (Decision, Diagnosis, Evaluation, JobOutcome, Recipe, TrainingSet, WorkResult, RunStarted)
)
"""Kinds of entry after which the coordinator is asked again."""


class StopRequestedError(CrewError):
    """`crew stop` ended the process; the run can be resumed."""

    exit_code = 130


class Loop:
    """One session of work on a run.

    Args:
        workspace: the run.
        team: the agents.
        clock: seconds that only grow.
        first_pause_s: seconds before the coordinator is asked again after its LLM failed; doubled each time.
    """

    def __init__(
        self,
        workspace: Workspace,
        team: Team,
        clock: Callable[[], float] = time.monotonic,
        first_pause_s: float = 15.0,
    ) -> None:
        self._first_pause_s = first_pause_s
        self._workspace = workspace
        self._board = workspace.board
        self._team = team
        self._clock = clock
        self._collector = Collector(workspace)
        self._thinking: Background[Plan] | None = None
        self._working: dict[str, Background[Entry[WorkResult]]] = {}
        self._asked_at = 0
        self._refusals: list[str] = []
        self._status_at = 0.0
        self._failures = 0
        self._ask_after = 0.0
        self._over_since: float | None = None
        self._room_after = 0.0
        self._no_room = ""

    def run(self) -> None:
        """Work until the final gate has decided.

        Raises:
            StopRequestedError: `crew stop`. KeyboardInterrupt: passed on after running jobs were ended.
            CrewError: something that no further round could repair.
        """
        try:
            self._collector.tick(orders_at_work=True)
            for order in self._open_orders():
                self._dispatch(order)
            while not self._round():
                self._pause()
        except (KeyboardInterrupt, StopRequestedError):
            self._collector.cancel_all()
            self._status("interrupted")
            raise
        self._status("finished")

    def _round(self) -> bool:
        """One look at everything. Returns whether the run is over."""
        if self._workspace.run.stop_request.exists():
            self._workspace.run.stop_request.unlink()
            raise StopRequestedError(
                f"the run {self._workspace.run.id} was stopped on request. Go on with "
                f"`crew resume {self._workspace.run.id}`."
            )
        self._collector.tick(orders_at_work=bool(self._working))
        self._collect_orders()
        state = RunState.of(self._board)
        self._status("running")
        if state.stop is not None:
            return self._orders_are_over() and final_step(self._workspace, state)
        if (reason := self._stop_rule(state)) is not None:
            self._abandon(reason, state)
        elif self._thinking is not None:
            if self._thinking.ended:
                thought, self._thinking = self._thinking, None
                try:
                    self._carry_out(thought.result(), state)
                    self._failures = 0
                except AgentError as error:
                    self._plan_failed(error, state)
                except BudgetError as error:
                    self._abandon(f"the coordinator cannot go on: {error}", state)
        elif not self._working and self._something_new() and self._has_room(state):
            self._ask()
        return False

    def _abandon(self, reason: str, state: RunState) -> None:
        """End the search and what runs for it. While the backend does not hear it, the next round tries again.

        Raises:
            JobError: it did not hear it until the run's time was over; the run can be resumed.
        """
        if self._clock() < self._room_after:
            return
        try:
            self._collector.abandon_all(reason)
        except JobError as error:
            if self._workspace.budget.remaining <= 0:
                raise
            self._cannot_run(str(error))
            return
        self._stop(reason, state)

    def _has_room(self, state: RunState) -> bool:
        """Whether the backend says what there is to run on. Without that, and with nothing to run on and no job, there
        is nothing that the coordinator could decide, and its plans would be refused one after the other."""
        if self._clock() < self._room_after:
            return False
        compute = self._workspace.compute
        if state.running and compute.trouble:
            return False  # the jobs are asked for all the time, and that is told: no need to wait for one more answer
        try:
            capacity = compute.capacity()
        except JobError as error:
            self._cannot_run(str(error))
            return False
        if capacity.slots == 0 and not state.running:
            self._cannot_run(f"there is nothing to run on: {capacity.description}")
            return False
        self._no_room = ""
        return True

    def _cannot_run(self, why: str) -> None:
        """Say so once, and ask again after a while."""
        self._room_after = self._clock() + ROOM_EVERY_S
        if why != self._no_room:
            self._no_room = why
            where = f"backend {self._workspace.compute.name}"
            self._incident(where, why, f"it is asked again every {ROOM_EVERY_S:.0f} s")

    def _ask(self) -> None:
        self._asked_at = self._board.last_seq()
        view = brief(self._workspace, self._team.roster(), refusals=self._refusals)
        self._workspace.events.emit("order_started", specialist="coordinator", objective="plan", order="")
        self._thinking = Background(lambda: self._team.plan(view))

    def _carry_out(self, plan: Plan, state: RunState) -> None:
        self._workspace.events.emit(
            "order_ended", specialist="coordinator", ok=True, assessment=plan.assessment, orders=len(plan.orders)
        )
        if plan.finish and state.running:
            return  # what they bring may change the coordinator's mind; it is asked again when one has ended
        if plan.finish:
            refusal = self._may_not_finish(state)
            if refusal is None:
                self._stop(plan.finish_reason or plan.assessment, state)
            else:
                self._refuse(refusal)
            return
        known = {str(role["name"]) for role in self._team.roster()}
        accepted = [draft for draft in plan.orders if draft.specialist in known]
        for draft in plan.orders:
            if draft.specialist not in known:
                self._refusals.append(f"there is no specialist `{draft.specialist}`; the roster is {sorted(known)}.")
        if not accepted:
            if not state.running:
                self._refuse("the plan held no order, nothing is running, and `finish` was not set.")
            return
        self._refusals.clear()
        run_entry = state.run
        assert run_entry is not None  # a loop is only made for a started run
        for draft in accepted:
            inputs = [ref for ref in draft.inputs if self._exists(ref)]
            order = self._board.post(
                WorkOrder(
                    specialist=draft.specialist,
                    objective=draft.objective,
                    inputs=inputs,
                    parameters=draft.parameters,
                    budget_seconds=min(draft.budget_seconds, max(1.0, self._workspace.budget.remaining)),
                    result_type=self._team.roles[draft.specialist].result_type,
                ),
                author="coordinator",
                refs=inputs or [run_entry.id],
                status="decision",
            )
            self._dispatch(order)

    def _dispatch(self, order: Entry[WorkOrder]) -> None:
        """Orders of one specialist are worked off one after the other, those of different ones side by side."""
        specialist = order.body.specialist
        before = self._working.get(specialist)

        def work() -> Entry[WorkResult]:
            if before is not None:
                before.wait()
            return self._team.run(order)

        self._working[order.id] = self._working[specialist] = Background(work)

    def _collect_orders(self) -> None:
        for name, work in list(self._working.items()):
            if not work.ended:
                continue
            del self._working[name]
            if not name.startswith(f"{WorkOrder.prefix}-"):
                continue
            result = work.result().body
            if not result.ok:
                what, instead = result.error or "no reason given", "the coordinator plans without its result"
                self._incident(f"order {name} to {result.specialist}", what, instead)

    def _plan_failed(self, error: AgentError, state: RunState) -> None:
        """The coordinator's LLM is down or answers nonsense: jobs go on, and it is asked again, later and later.

        Raises:
            AgentError: it failed too often and nothing is running; the run can be resumed when the LLM is back.
        """
        self._failures += 1
        if self._failures >= MAX_FAILED_PLANS and not state.running:
            raise error
        pause = min(LONGEST_PAUSE_S, self._first_pause_s * 2 ** (self._failures - 1))
        self._ask_after = self._clock() + pause
        self._incident("the coordinator's plan", str(error), f"it is asked again in {pause:.0f} s")

    def _orders_are_over(self) -> bool:
        """After the stop, whether the end can begin: an agent that hangs may not eat the time kept for it."""
        if self._over_since is None:
            self._over_since = self._clock()
        return not self._working or self._clock() - self._over_since > PATIENCE_WITH_ORDERS_S

    def _something_new(self) -> bool:
        if self._failures:
            return self._clock() >= self._ask_after
        return any(entry.kind in _NEWS for entry in self._board.since(self._asked_at)) or bool(self._refusals)

    def _stop_rule(self, state: RunState) -> str | None:
        """Rules that end the search whatever the coordinator thinks."""
        if self._workspace.budget.for_experiments <= 0:
            return f"the time for experiments ({self._workspace.budget.limits.hours:g} h less the final share) is used."
        if len(self._refusals) >= MAX_REFUSED_PLANS and not state.running:
            return f"{MAX_REFUSED_PLANS} plans in a row brought nothing; the last: {self._refusals[-1]}"
        return None

    def _may_not_finish(self, state: RunState) -> str | None:
        """Why a plan to finish is refused, or None: a winner needs an ablation as long as there is time for one."""
        if state.best == "base":
            return None
        ancestry, subject = set(), state.best
        while subject in state.experiments:
            ancestry.add(subject)
            subject = state.experiments[subject].entry.body.parent
        if any(view.entry.body.ablates in ancestry for view in state.experiments.values()):
            return None
        cost = max(view.outcome.body.wall_s if view.outcome else 0.0 for view in state.experiments.values())
        if 1.5 * cost + self._workspace.target.training.evaluation_seconds > self._workspace.budget.for_experiments:
            return None
        return f"no ablation of {state.best} has been run, and there is time for one."

    def _refuse(self, reason: str) -> None:
        self._refusals.append(reason)
        self._incident("plan", reason, "the coordinator is asked again")

    def _stop(self, reason: str, state: RunState) -> None:
        refs = [state.best] if state.best != "base" else [state.baseline.id] if state.baseline else []
        run_entry = state.run
        assert run_entry is not None
        self._board.post(
            Decision(action="stop", subject=state.best, reason=reason),
            author="coordinator" if self._workspace.budget.for_experiments > 0 else "crew",
            refs=refs or [run_entry.id],
            status="decision",
            key="decision:stop",
        )
        self._workspace.events.emit("decision", action="stop", subject=state.best, reason=reason)

    def _open_orders(self) -> list[Entry[WorkOrder]]:
        """Orders of an earlier session that have no result yet."""
        if RunState.of(self._board).stop is not None:
            return []
        answered = {result.refs[0] for result in self._board.of(WorkResult)}  # further refs are what it cites
        return [order for order in self._board.of(WorkOrder) if order.id not in answered]

    def _exists(self, entry_id: str) -> bool:
        try:
            self._board.get(entry_id)
        except CrewError:
            return False
        return True

    def _incident(self, where: str, what: str, instead: str) -> None:
        self._board.post(Incident(where=where, what=what[:1000], instead=instead), author="crew")
        self._workspace.events.emit("incident", where=where, what=what, instead=instead)

    def _pause(self) -> None:
        """Until the next tick, or until an agent answers."""
        waiting: list[Background[Plan] | Background[Entry[WorkResult]]] = [*self._working.values()]
        if self._thinking is not None:
            waiting.append(self._thinking)
        if waiting:
            waiting[0].wait(TICK_S)
        else:
            time.sleep(TICK_S)  # the interval of looking at job files, not a synchronisation

    def _status(self, state: str) -> None:
        now = self._clock()
        if state != "running" or now - self._status_at >= 1.0:
            self._status_at = now
            working = [name for name in self._working if not name.startswith(f"{WorkOrder.prefix}-")]
            if self._thinking is not None:
                working.append("coordinator")
            write_status(self._workspace, state, working, self._collector.progress())
