"""Who can still be answered in time is admitted; who cannot is told at once, and when to come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import DeadlinePassed, Overloaded
from serendipity.channel.recall.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def busy_pace(batch_seconds: float = 0.02, size: int = 8, batches: int = 30) -> tuple[Pace, Clock]:
    """Give the pace of a worker that has answered such batches one after the other, with others waiting throughout."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(batches):
        pace.note(batch_seconds, size, others_wait=True)
        clock.now += batch_seconds
    return pace, clock


def test_nobody_is_refused_before_anything_is_known() -> None:
    Pace().admit(10_000, Deadline.after(0.01))
    assert Pace().too_late(Deadline.after(0.01), 0.02) is None


def test_the_wait_is_the_number_ahead_times_the_time_between_answers() -> None:
    pace, _ = busy_pace()
    assert pace.seconds_between == pytest.approx(0.0025)
    pace.admit(180, Deadline.after(1.0))
    with pytest.raises(Overloaded, match="expected at least 1080 ms") as refused:
        pace.admit(200, Deadline.after(1.0))
    assert 0.0 < refused.value.retry_after <= 1.0


def test_one_that_has_waited_too_long_to_be_answered_is_refused_or_late() -> None:
    pace, _ = busy_pace()
    assert pace.too_late(Deadline.after(1.0), 1.0) is None
    assert isinstance(pace.too_late(Deadline.after(0.01), 1.0), Overloaded)
    assert isinstance(pace.too_late(Deadline.after(-0.01), 1.0), DeadlinePassed)


def test_who_has_less_time_goes_with_fewer() -> None:
    pace, _ = busy_pace(batch_seconds=0.08, size=8)
    assert [pace.batch_size(seconds) for seconds in (0.01, 0.05, 0.2, 1.0, 60.0)] == [1, 1, 5, 16, 16]
    assert Pace().batch_size(0.01) == 16
    # A hurried one need not fear the batches of the patient.
    pace.admit(0, Deadline.after(0.05))


def test_time_without_anybody_waiting_is_not_taken_for_work() -> None:
    pace, clock = busy_pace()
    pace.note(0.02, 8, others_wait=False)
    clock.now += 3_600.0
    pace.note(0.02, 8, others_wait=True)
    assert pace.seconds_between == pytest.approx(0.0025)


@given(st.floats(0.1, 5.0), st.integers(1, 8))
def test_a_slow_minute_is_not_held_against_those_who_come_after_it(slow: float, size: int) -> None:
    pace, _ = busy_pace(batch_seconds=slow, size=1)
    for _ in range(100):
        pace.note(0.01, size, others_wait=False)
    pace.admit(10, Deadline.after(0.5))


@given(st.integers(0, 100_000), st.floats(0.001, 10.0))
def test_whoever_has_more_time_is_never_refused_where_one_with_less_is_admitted(ahead: int, seconds: float) -> None:
    pace, _ = busy_pace()

    def admitted(time_left: float) -> bool:
        try:
            pace.admit(ahead, Deadline.after(time_left))
        except Overloaded:
            return False
        return True

    assert admitted(seconds) <= admitted(seconds + 0.5)
