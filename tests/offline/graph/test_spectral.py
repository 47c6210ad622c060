from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph
from serendipity.offline.graph.spectral import spectral_vectors


def graph(seed: int = 0) -> InterestGraph:
    """30 users of three kinds, 24 items of three kinds, an interest a kind; item 23 is clicked by nobody."""
    rng = np.random.default_rng(seed)
    clicks = [(user, 8 * (user % 3) + int(item)) for user in range(30) for item in rng.choice(7, 4, replace=False)]
    holds = [(user, user % 3) for user in range(0, 30, 2)]
    return InterestGraph(30, 24, 0, 3, np.array(clicks).T, np.array(holds).T, np.empty((3, 0), np.int64))


def with_knowledge() -> InterestGraph:
    """Every item is of its kind's entity, every third of another one; entities lead to each other."""
    triples = [(item, 0, 24 + item // 8) for item in range(24)] + [(item, 1, 27) for item in range(0, 24, 3)]
    return replace(graph(), num_entities=4, knowledge=np.array([*triples, (24, 2, 27)]).T)


@pytest.mark.parametrize("of", [graph(), with_knowledge()], ids=["plain", "knowledge"])
def test_a_user_folded_in_is_the_vector_of_that_user(of: InterestGraph) -> None:
    vectors = spectral_vectors(of, 8)
    for user in range(30):
        items = of.clicks[1][of.clicks[0] == user]
        held = of.holds[1][of.holds[0] == user]
        np.testing.assert_allclose(vectors.fold_in(items, held), vectors.user_vectors[user], atol=1e-5)


def test_with_all_singular_vectors_scores_are_the_whole_filter() -> None:
    of = graph()
    vectors = spectral_vectors(of, 30)
    edges = np.zeros((30, 27))
    edges[of.clicks[0], of.clicks[1]] = edges[of.holds[0], 24 + of.holds[1]] = 1
    users, columns = np.maximum(edges.sum(1), 1), np.maximum(edges.sum(0), 1)
    dense = edges / np.sqrt(users)[:, None] / np.sqrt(columns)
    # Ñ V Vᵀ D^(1/2) is Ñ D^(1/2) where V holds all that Ñ has.
    np.testing.assert_allclose(vectors.scores(np.arange(30)), (dense * np.sqrt(columns))[:, :24], atol=1e-4)


def test_items_of_the_user_s_kind_come_first_and_unknown_ones_are_zero() -> None:
    vectors = spectral_vectors(graph(), 3)
    for user in range(30):
        best = np.argsort(-vectors.scores(np.array([user]))[0])[:7]
        assert set((best // 8).tolist()) == {user % 3}
    assert not vectors.item_vectors[23].any()
    assert not vectors.item_parts[23].any()


def test_a_click_on_an_item_nobody_clicked_counts_by_what_is_known_of_it() -> None:
    vectors = spectral_vectors(with_knowledge(), 4)
    folded = vectors.fold_in(np.array([23]), np.empty(0, np.int64))
    best = np.argsort(-(vectors.item_vectors @ folded))[:7]
    assert set((best // 8).tolist()) == {2}


def test_a_graph_without_clicks_is_refused() -> None:
    with pytest.raises(GraphError, match="clicks: found none"):
        spectral_vectors(replace(graph(), clicks=np.empty((2, 0), np.int64)), 3)
