from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.channel.recall.query import SOURCES, SourceBounds
from serendipity.channel.recall.scorer import Scored
from serendipity.channel.recall.selector import category_cap, diversify, select
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2 as pb

I2I, U2I, GROUP, GRAPH = SOURCES


def items(*columns: tuple[pb.Source, int]) -> Scored:
    """Items of a source and a category each, best first."""
    n = len(columns)
    return Scored(
        rows=np.arange(n),
        values=np.linspace(1, 0, n, dtype=np.float32),
        scores=np.linspace(1, 0, n, dtype=np.float32),
        sources=np.array([source for source, _ in columns], np.int8),
        raw=np.zeros(n, np.float32),
        interests=np.zeros(n, np.int16),
        categories=np.array([category for _, category in columns], np.int32),
        grounded=np.zeros((n, 0), np.bool_),
        source_ranks=np.zeros((n, len(SOURCES)), np.int32),
        features=np.zeros((n, len(FEATURE_NAMES)), np.float32),
    )


def test_without_bounds_the_best_are_chosen() -> None:
    assert select(items(*[(I2I, i) for i in range(9)]), 4, {}, 4).tolist() == [0, 1, 2, 3]


def test_a_minimum_is_met_from_further_down() -> None:
    scored = items(*[(I2I, i) for i in range(6)], *[(U2I, i) for i in range(6)])
    assert select(scored, 5, {U2I: SourceBounds(2, 5)}, 5).tolist() == [0, 1, 2, 6, 7]


def test_a_maximum_holds_even_if_the_answer_goes_short() -> None:
    scored = items(*[(I2I, i) for i in range(6)], (U2I, 9))
    assert select(scored, 5, {I2I: SourceBounds(0, 2)}, 5).tolist() == [0, 1, 6]


def test_a_source_may_be_shut_out() -> None:
    assert select(items((I2I, 1), (U2I, 2)), 5, {I2I: SourceBounds(0, 0)}, 5).tolist() == [1]


def test_one_category_does_not_take_the_whole_answer() -> None:
    scored = items(*[(I2I, 1)] * 6, (I2I, 2), (I2I, 3), (I2I, 4))
    assert select(scored, 4, {}, 2).tolist() == [0, 1, 6, 7]


def test_the_cap_gives_way_before_the_answer_goes_short() -> None:
    assert select(items(*[(I2I, 1)] * 6, (I2I, 2)), 5, {}, 2).tolist() == [0, 1, 2, 3, 6]


def test_the_cap_gives_way_to_a_minimum() -> None:
    scored = items(*[(U2I, 1)] * 6, *[(I2I, 1)] * 6, (U2I, 2))
    assert select(scored, 6, {I2I: SourceBounds(4, 6)}, 2).tolist() == [0, 6, 7, 8, 9, 12]


def test_fewer_than_wanted_is_all() -> None:
    assert select(items((I2I, 1), (U2I, 2)), 1_000, {}, 300).tolist() == [0, 1]
    assert select(items(), 10, {}, 3).tolist() == []


@pytest.mark.parametrize(("count", "share", "cap"), [(1, 0.3, 1), (10, 0.3, 3), (10, 1.0, 10), (5, 0.25, 2)])
def test_the_cap_is_a_share_of_the_count(count: int, share: float, cap: int) -> None:
    assert category_cap(count, share) == cap


def test_minima_of_several_sources_are_met_beside_each_other() -> None:
    scored = items(*[(U2I, i) for i in range(6)], (GROUP, 7), (I2I, 8), (GROUP, 9), (GRAPH, 10))
    bounds = {GROUP: SourceBounds(2, 2), GRAPH: SourceBounds(1, 5)}
    assert select(scored, 5, bounds, 5).tolist() == [0, 1, 6, 8, 9]
    # A source that found nothing leaves its places to others.
    assert select(items(*[(U2I, i) for i in range(6)]), 5, bounds, 5).tolist() == [0, 1, 2, 3, 4]


def test_the_order_given_decides_not_the_scores() -> None:
    scored = items(*[(U2I, i) for i in range(6)])
    scored.scores[:] = np.arange(6)
    assert select(scored, 3, {}, 3).tolist() == [0, 1, 2]


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
    chosen = select(items(*columns), count, bounds, cap).tolist()
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


def test_without_weight_diversity_leaves_the_order_as_it_is() -> None:
    values = np.array([0.5, 0.25, 0.25, 0.125], np.float32)
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    assert diversify(values, vectors, 3, 0.0).tolist() == [0, 1, 2, 3]


def test_what_is_like_an_item_before_it_waits() -> None:
    # Two of a kind, however long their vectors, and one of another kind that is worth less.
    values = np.array([1.0, 0.9, 0.6, 0.1], np.float32)
    vectors = np.array([[1, 0], [5, 0], [0, 1], [0, 2]], np.float32)
    assert diversify(values, vectors, 4, 0.2).tolist() == [0, 1, 2, 3]
    assert diversify(values, vectors, 4, 0.5).tolist() == [0, 2, 1, 3]
    # Only the first places are shared out; the others follow in their order.
    assert diversify(values, vectors, 1, 0.5).tolist() == [0, 1, 2, 3]
    assert diversify(values, vectors, 2, 0.9).tolist() == [0, 2, 1, 3]


@given(st.integers(0, 12), st.integers(1, 15), st.floats(0, 0.99), st.integers(0, 5))
def test_diversity_loses_and_repeats_nothing(items: int, count: int, weight: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.sort(rng.random(items).astype(np.float32))[::-1]
    vectors = rng.normal(size=(items, 3)).astype(np.float32)
    # Whatever has no vector is like nothing.
    vectors[::4] = 0
    order = diversify(values, vectors, count, weight).tolist()
    assert sorted(order) == list(range(items))
    assert order[:1] == list(range(items))[:1]
    assert order[count:] == sorted(order[count:])
