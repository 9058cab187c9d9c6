"""Budgets hold: nothing is spent twice, nothing unknown is spent at all, and the end of the run is kept free."""

from __future__ import annotations

import pytest

from posttrain_crew.blackboard import Blackboard
from posttrain_crew.budget import Budget, Limits
from posttrain_crew.entries import Incident, SessionStarted
from posttrain_crew.errors import BudgetError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_last_tenth_is_for_the_end_alone(board: Blackboard, clock: Clock) -> None:
    budget = Budget(board, Limits(hours=1), clock)
    assert budget.for_experiments == 3240
    budget.reserve("a", wall_s=3240)
    with pytest.raises(BudgetError, match="kept for the final evaluation"):
        budget.reserve("b", wall_s=3241)
    budget.reserve("final", wall_s=3600, final=True)
    clock.now += 3300
    assert (budget.for_experiments, budget.remaining) == (0, 300)
    with pytest.raises(BudgetError, match="300 s of the 1 h"):
        budget.reserve("late", wall_s=301, final=True)


def test_the_same_label_pays_once(board: Blackboard, clock: Clock) -> None:
    budget = Budget(board, Limits(hours=1, device_hours=1), clock)
    first = budget.reserve("a", wall_s=1, device_s=3000)
    assert budget.reserve("a", wall_s=1, device_s=3000).id == first.id
    assert budget.usage().device_s == 3000
    with pytest.raises(BudgetError, match="600 are left"):
        budget.reserve("b", wall_s=1, device_s=601)


def test_settling_replaces_the_reservation(board: Blackboard, clock: Clock) -> None:
    budget = Budget(board, Limits(hours=1, tokens=100), clock)
    budget.reserve("a", wall_s=1, tokens=90)
    budget.settle("a", tokens=10)
    budget.settle("a", tokens=10)
    assert budget.usage().tokens == 10
    budget.reserve("b", wall_s=1, tokens=90)
    with pytest.raises(BudgetError, match="nothing was reserved"):
        budget.settle("never")


def test_an_unknown_price_is_refused_where_dollars_are_limited(board: Blackboard, clock: Clock) -> None:
    Budget(board, Limits(hours=1), clock).reserve("free", wall_s=1, usd=None)
    limited = Budget(board, Limits(hours=1, usd=5), clock)
    with pytest.raises(BudgetError, match="unknown"):
        limited.reserve("a", wall_s=1, usd=None)
    limited.reserve("b", wall_s=1, usd=4)
    with pytest.raises(BudgetError, match="USD"):
        limited.reserve("c", wall_s=1, usd=2)


def test_a_resumed_run_goes_on_with_what_is_left(board: Blackboard, clock: Clock) -> None:
    board.post(SessionStarted(pid=1, host="h", resumed=False), author="crew")
    budget = Budget(board, Limits(hours=1, tokens=10), clock)
    budget.reserve("a", wall_s=1, tokens=8)
    board.post(Incident(where="t", what="w", instead="i"), author="crew")
    again = Budget(board, Limits(hours=1, tokens=10), clock)
    assert 0 <= again.elapsed < 5
    assert again.usage().tokens == 8
    with pytest.raises(BudgetError, match="tokens"):
        again.reserve("b", wall_s=1, tokens=3)
