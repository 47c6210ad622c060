"""Refusals are told together, soon, and not more often than a worker can bear."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from serendipity.channel.service.refusals import Refusals


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_refusal_now_and_then_is_told_within_50_ms() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for _ in range(100):
        assert 0.0 <= refusals.hold_seconds(1.0) <= 0.05
        clock.now += 0.0137


def test_those_that_come_together_are_told_together() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    told = set()
    for _ in range(14):
        told.add(round(clock.now + refusals.hold_seconds(1.0), 6))
        clock.now += 0.003
    assert told == {1_000.0, 1_000.05}


def test_a_storm_is_slowed_down_until_callers_have_waited_a_part_of_their_time() -> None:
    refusals = Refusals(Clock())
    holds = [refusals.hold_seconds(1.0) for _ in range(1_000)]
    assert holds == sorted(holds)
    # In seven sixteenths of a second some 130 of them are told, the others at its end.
    assert holds[100] <= 0.4
    assert holds[-1] <= 0.5
    assert sum(hold < 0.1 for hold in holds) <= 31


@given(st.lists(st.tuples(st.floats(0.0, 0.1), st.floats(0.0, 100.0) | st.just(math.inf)), max_size=50))
def test_nobody_is_held_for_more_than_half_of_his_time(comers: list[tuple[float, float]]) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for pause, left in comers:
        clock.now += pause
        assert 0.0 <= refusals.hold_seconds(left) <= min(0.55, left / 2) + 1e-6
