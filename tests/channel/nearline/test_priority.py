"""Who goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serendipity.channel.nearline.priority import PATIENCE_SECONDS, BackOff, due, refresh_priority
from serendipity.v1 import records_pb2

NOW = 1_700_000_000
DAY = 86_400
CAUSES = (
    records_pb2.REFRESH_CAUSE_STALE,
    records_pb2.REFRESH_CAUSE_FOREIGN,
    records_pb2.REFRESH_CAUSE_TOO_OLD,
    records_pb2.REFRESH_CAUSE_MISSING,
)


@given(st.integers(0, 200), st.integers(0, 400), st.integers(0, 200), st.integers(0, 400))
def test_the_cause_decides_before_activity_does(clicks: int, days: int, others: int, other_days: int) -> None:
    of_busiest = [refresh_priority(cause, clicks, NOW - days * DAY, NOW) for cause in CAUSES]
    of_calmest = [refresh_priority(cause, others, NOW - other_days * DAY, NOW) for cause in CAUSES]
    assert all(0 <= priority <= 1 for priority in of_busiest)
    assert all(lower < higher for lower, higher in zip(of_busiest, of_calmest[1:], strict=False))


def test_within_a_cause_the_active_go_first() -> None:
    cause = records_pb2.REFRESH_CAUSE_MISSING
    active = refresh_priority(cause, 100, NOW - DAY, NOW)
    assert active > refresh_priority(cause, 100, NOW - 60 * DAY, NOW)
    assert active > refresh_priority(cause, 2, NOW - DAY, NOW)
    assert refresh_priority(cause, 0, 0, NOW) < refresh_priority(cause, 1, NOW - 400 * DAY, NOW)


@given(st.floats(0, 1, width=32), st.integers(1, 10**6))
def test_whoever_waits_longer_than_the_patience_goes_before_all_who_come_later(priority: float, later: int) -> None:
    waiting = records_pb2.NearlineEntry(enqueued_at=NOW, priority=priority)
    urgent = records_pb2.NearlineEntry(enqueued_at=NOW + PATIENCE_SECONDS + later, priority=1.0)
    assert due(waiting) < due(urgent)


@given(st.text(min_size=1), st.integers(1, 10_000))
def test_delays_double_up_to_a_bound_give_or_take_the_jitter(user_id: str, attempts: int) -> None:
    back_off = BackOff(first=10, longest=1_000, jitter=0.2)
    plain = min(1_000, 10 * 2 ** min(attempts - 1, 20))
    assert 0.8 * plain <= back_off.delay(user_id, attempts) <= 1.2 * plain + 1e-9
