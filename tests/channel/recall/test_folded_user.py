from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity.channel.recall.folded_user import FoldedUser
from serendipity.channel.snapshot.graph import Graph
from serendipity.channel.snapshot.vectors import ItemVectors
from serendipity.novelty import Clicks

NUM_ITEMS, NUM_INTERESTS, DIM = 12, 4, 6


def graph(seed: int = 0) -> Graph:
    """Item 11 and interest 3 are not known."""
    rng = np.random.default_rng(seed)
    vectors, parts = (rng.normal(size=(NUM_ITEMS, DIM)).astype(np.float32) for _ in range(2))
    interests = rng.normal(size=(NUM_INTERESTS, DIM)).astype(np.float32)
    parts[11] = interests[3] = 0
    return Graph(ItemVectors(vectors), parts, interests, tuple(f"interest {i}" for i in range(NUM_INTERESTS)))


def clicks(*rows: int) -> Clicks:
    items = np.array(rows, np.int64) + 1
    return Clicks(items, np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int64))


def held(*ids: int) -> NDArray[np.int64]:
    return np.array(ids, np.int64)


def test_a_user_is_the_sum_of_the_parts_over_the_root_of_their_number() -> None:
    of = graph()
    folded = FoldedUser(of, clicks(2, 7), held(1))
    expected = (of.item_parts[2] + of.item_parts[7] + of.interest_parts[1]) / np.sqrt(3)
    np.testing.assert_allclose(folded.vector, expected, rtol=1e-6)
    np.testing.assert_allclose(folded.scores(np.array([0, 5])), of.items.vectors[[0, 5]] @ expected, rtol=1e-5)


def test_items_clicked_again_outside_the_catalogue_or_unknown_to_the_graph_add_nothing() -> None:
    of = graph()
    plain = FoldedUser(of, clicks(2, 7), held(1))
    same = FoldedUser(of, clicks(7, 2, -1, 11, 2), held(1, 3))
    np.testing.assert_array_equal(same.vector, plain.vector)
    assert (same.rows.tolist(), same.interests.tolist(), len(same)) == ([2, 7], [1], 3)


def test_a_user_of_whom_the_graph_knows_nothing_is_empty() -> None:
    nobody = FoldedUser(graph(), clicks(11, -1), held())
    assert not nobody
    assert not nobody.vector.any()


@given(st.integers(0, 50), st.sets(st.integers(0, 10), min_size=1), st.sets(st.integers(0, 2)))
def test_the_lead_is_the_neighbour_without_which_a_score_falls_most(seed: int, rows: set[int], ids: set[int]) -> None:
    """Say it again by leaving each neighbour out in turn."""
    of = graph(seed)
    folded = FoldedUser(of, clicks(*sorted(rows)), held(*sorted(ids)))
    everything = np.arange(NUM_ITEMS)
    lead, share = folded.lead(everything)
    whole = folded.scores(everything)
    without = np.stack([of.items.vectors @ (folded.vector - part) for part in folded.parts], axis=1)
    falls = whole[:, None] - without
    assert falls[everything, lead] == pytest.approx(falls.max(axis=1), abs=1e-5)
    raised = np.where(falls > 0, falls, 0).sum(axis=1)
    expected = np.maximum(falls.max(axis=1), 0)
    assert share * raised == pytest.approx(expected, abs=1e-4)
    assert ((share >= 0) & (share <= 1 + 1e-6)).all()
