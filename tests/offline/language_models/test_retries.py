"""Waiting: how long until the next attempt, the next request, the next thing the budget can pay."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.offline.language_models.budget import Budget, BudgetExhausted
from serendipity.offline.language_models.retries import Backoff, RequestRate, retry_after

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@given(failures=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True), longest=st.floats(0.001, 1e6))
def test_waits_grow_and_stay_bounded(failures: int, jitter: float, longest: float) -> None:
    backoff = Backoff(longest, lambda: jitter)
    assert 0 < backoff.seconds(failures) <= backoff.seconds(failures + 1) <= longest


def test_half_of_a_wait_is_left_to_chance() -> None:
    assert [Backoff(60, lambda: 0.0).seconds(n) for n in (1, 2, 3, 8, 99)] == [0.5, 1, 2, 60, 60]
    assert Backoff(60, lambda: 0.999).seconds(3) == pytest.approx(1.001)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("nan", 0),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_how_long_a_server_asks_to_wait(value: str, seconds: float) -> None:
    assert retry_after({"retry-after": value}, NOW) == seconds
    assert retry_after({}, NOW) == 0


@given(st.lists(st.floats(0, 5), max_size=40), st.floats(1, 600))
def test_requests_never_begin_faster_than_allowed(gaps: list[float], per_minute: float) -> None:
    now = 100.0
    rate = RequestRate(per_minute, lambda: now)
    begun = []
    for gap in gaps:
        now += gap
        begun.append(now + rate.turn())
    assert all(later - earlier >= 60 / per_minute - 1e-9 for earlier, later in pairwise(begun))


def test_a_pause_holds_for_all_requests() -> None:
    now = 0.0
    rate = RequestRate(None, lambda: now)
    assert (rate.turn(), rate.turn()) == (0, 0)
    rate.pause(5)
    rate.pause(3)
    assert (rate.turn(), rate.turn()) == (5, 5)
    now = 6.0
    assert rate.turn() == 0


@given(
    limit=st.integers(1, 100),
    requests=st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), max_size=20),
)
def test_whatever_requests_cost_the_budget_is_never_exceeded(limit: int, requests: list[tuple[int, float]]) -> None:
    async def scenario() -> None:
        budget = Budget(limit, spent=1)
        most = 1.0

        async def request(dearest: int, share: float) -> None:
            nonlocal most
            try:
                await budget.reserve(dearest)
            except BudgetExhausted:
                return
            await asyncio.sleep(0)
            await budget.settle(dearest, dearest * share)
            most = max(most, budget.spent)

        await asyncio.gather(*(request(*one) for one in requests))
        assert most <= limit + 1e-9
        # What is left is really too little.
        with pytest.raises(BudgetExhausted, match="expected a higher budget"):
            await budget.reserve(limit - budget.spent + 0.01)

    asyncio.run(scenario())


async def test_without_a_limit_everything_can_be_paid() -> None:
    budget = Budget(None)
    await budget.reserve(1e12)
    await budget.settle(1e12, 1e11)
    assert budget.spent == 1e11
