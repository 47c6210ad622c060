from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.channel.recall.query import SOURCES, RecallQuery, SourceBounds
from serendipity.channel.recall.scorer import Scored
from serendipity.channel.recall.selector import Quota, category_cap, select, source_bounds, source_quotas
from serendipity.channel.recall.sources import Finds
from serendipity.channel.settings import ChannelSettings
from serendipity.v1 import channel_pb2 as pb

I2I, U2I, GROUP, GRAPH = SOURCES


def items(*columns: tuple[pb.Source, int]) -> Scored:
    """Items of a source and a category each, best first."""
    n = len(columns)
    return Scored(
        rows=np.arange(n),
        scores=np.linspace(1, 0, n, dtype=np.float32),
        sources=np.array([source for source, _ in columns], np.int8),
        raw=np.zeros(n, np.float32),
        interests=np.zeros(n, np.int16),
        categories=np.array([category for _, category in columns], np.int32),
        novel=np.ones(n, np.bool_),
        grounded=np.zeros((n, 0), np.bool_),
        source_scores=np.zeros((n, len(SOURCES)), np.float32),
        source_ranks=np.zeros((n, len(SOURCES)), np.int32),
    )


def quota(least: int, most: int, *sources: pb.Source) -> Quota:
    return Quota(frozenset(sources), least, most)


def test_without_bounds_the_best_are_chosen() -> None:
    assert select(items(*[(I2I, i) for i in range(9)]), 4, (), 4).tolist() == [0, 1, 2, 3]


def test_a_minimum_is_met_from_further_down() -> None:
    scored = items(*[(I2I, i) for i in range(6)], *[(U2I, i) for i in range(6)])
    assert select(scored, 5, (quota(2, 5, U2I),), 5).tolist() == [0, 1, 2, 6, 7]


def test_a_maximum_holds_even_if_the_answer_goes_short() -> None:
    scored = items(*[(I2I, i) for i in range(6)], (U2I, 9))
    assert select(scored, 5, (quota(0, 2, I2I),), 5).tolist() == [0, 1, 6]


def test_a_source_may_be_shut_out() -> None:
    assert select(items((I2I, 1), (U2I, 2)), 5, (quota(0, 0, I2I),), 5).tolist() == [1]


def test_one_category_does_not_take_the_whole_answer() -> None:
    scored = items(*[(I2I, 1)] * 6, (I2I, 2), (I2I, 3), (I2I, 4))
    assert select(scored, 4, (), 2).tolist() == [0, 1, 6, 7]


def test_the_cap_gives_way_before_the_answer_goes_short() -> None:
    assert select(items(*[(I2I, 1)] * 6, (I2I, 2)), 5, (), 2).tolist() == [0, 1, 2, 3, 6]


def test_the_cap_gives_way_to_a_minimum() -> None:
    scored = items(*[(U2I, 1)] * 6, *[(I2I, 1)] * 6, (U2I, 2))
    assert select(scored, 6, (quota(4, 6, I2I),), 2).tolist() == [0, 6, 7, 8, 9, 12]


def test_fewer_than_wanted_is_all() -> None:
    assert select(items((I2I, 1), (U2I, 2)), 1_000, (), 300).tolist() == [0, 1]
    assert select(items(), 10, (), 3).tolist() == []


@pytest.mark.parametrize(("count", "share", "cap"), [(1, 0.3, 1), (10, 0.3, 3), (10, 1.0, 10), (5, 0.25, 2)])
def test_the_cap_is_a_share_of_the_count(count: int, share: float, cap: int) -> None:
    assert category_cap(count, share) == cap


def test_conversion_and_serendipity_are_balanced_unless_the_request_sets_quotas() -> None:
    settings = ChannelSettings(conversion_share=0.5, serendipity_share=0.2)
    query = RecallQuery(user_id="u", count=10, now=0)
    assert source_quotas(query, {}, settings) == (quota(5, 10, U2I), quota(2, 10, I2I, GROUP))
    asked = RecallQuery(user_id="u", count=10, now=0, source_bounds={I2I: SourceBounds(1, 2)})
    assert source_quotas(asked, asked.source_bounds, settings) == (quota(1, 2, I2I),)


def finds(number: int) -> Finds:
    found, nothing = np.arange(20) < number, np.zeros(20, np.float32)
    return Finds.without_interests(found, nothing, nothing)


@pytest.mark.parametrize(("by_others", "most"), [(12, 2), (9, 2), (7, 3), (0, 10)])
def test_the_graph_gets_its_share_and_what_the_others_leave_empty(by_others: int, most: int) -> None:
    settings, query = ChannelSettings(graph_share=0.2), RecallQuery(user_id="u", count=10, now=0)
    found = {U2I: finds(by_others), GROUP: finds(by_others // 2), GRAPH: finds(20)}
    bounds = source_bounds(query, found, settings)
    assert bounds == {GRAPH: SourceBounds(2, most)}
    assert source_quotas(query, bounds, settings)[-1] == quota(2, most, GRAPH)
    assert source_bounds(query, {GRAPH: finds(20)}, settings) == {GRAPH: SourceBounds(2, 10)}
    # Nothing is bounded where there is no graph, and a request's own bounds stand.
    assert source_bounds(query, {U2I: finds(3)}, settings) == {}
    asked = RecallQuery(user_id="u", count=10, now=0, source_bounds={I2I: SourceBounds(1, 2)})
    assert source_bounds(asked, found, settings) == asked.source_bounds


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_share_of_few_places_is_right_on_the_average_of_users_and_the_same_all_day(count: int) -> None:
    settings, found = ChannelSettings(graph_share=0.2), {GRAPH: finds(20), U2I: finds(20)}

    def share(user: int, now: int) -> int:
        query = RecallQuery(user_id=f"u{user}", count=count, now=now)
        return source_bounds(query, found, settings)[GRAPH].min_count

    shares = [share(user, 0) for user in range(2_000)]
    assert set(shares) == {int(count * 0.2), int(count * 0.2) + 1}
    assert np.mean(shares) == pytest.approx(count * 0.2, abs=0.03)
    assert [share(user, 3_600) for user in range(200)] == shares[:200]
    assert [share(user, 86_400) for user in range(200)] != shares[:200]


def test_sources_of_one_quota_are_counted_together() -> None:
    scored = items(*[(U2I, i) for i in range(6)], (GROUP, 7), (I2I, 8), (GROUP, 9))
    assert select(scored, 5, (quota(2, 5, I2I, GROUP),), 5).tolist() == [0, 1, 2, 6, 7]
    assert select(scored, 8, (quota(0, 1, I2I, GROUP),), 8).tolist() == [0, 1, 2, 3, 4, 5, 6]


@given(
    st.lists(st.tuples(st.sampled_from(list(SOURCES)), st.integers(1, 4)), max_size=40),
    st.integers(1, 20),
    st.dictionaries(
        st.sampled_from(list(SOURCES)),
        st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda p: SourceBounds(min(p), max(p))),
    ),
    st.integers(1, 20),
)
def test_bounds_hold_whatever_is_found(
    columns: list[tuple[pb.Source, int]], count: int, bounds: dict[pb.Source, SourceBounds], cap: int
) -> None:
    quotas = [quota(bound.min_count, bound.max_count, source) for source, bound in bounds.items()]
    chosen = select(items(*columns), count, quotas, cap).tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= count
    free = dict.fromkeys(SOURCES, 0)
    for source in SOURCES:
        taken = [i for i in chosen if columns[i][0] == source]
        has = [i for i, (other, _) in enumerate(columns) if other == source]
        bound = bounds.get(source, SourceBounds(0, count))
        assert len(taken) <= bound.max_count
        if sum(b.min_count for b in bounds.values()) <= count:
            assert len(taken) >= min(bound.min_count, len(has))
        free[source] = min(len(has), bound.max_count) - len(taken)
    # Nothing that fits is left out of a short answer.
    assert len(chosen) == count or not any(free.values())
