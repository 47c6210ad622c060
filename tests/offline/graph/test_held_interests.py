from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.graph.held_interests import HeldConfig, HeldInterests, infer_held_interests
from serendipity.offline.graph.served_graph import MAX_HELD, NONE_HELD
from tests.offline.graph.small_themes import NUM_ITEMS, NUM_USERS, THEMES, catalogue, histories

CONFIG = HeldConfig(num_clusters=(8, 16), min_items=2)


@pytest.fixture(scope="module")
def inferred() -> HeldInterests:
    return infer_held_interests(histories(), catalogue(), CONFIG)


def test_clusters_are_the_themes_whatever_the_category(inferred: HeldInterests) -> None:
    of_theme = [set(inferred.items[theme::8, 0].tolist()) for theme in range(8)]
    assert len(set.union(*of_theme)) == sum(map(len, of_theme))
    assert max(map(len, of_theme)) <= len(inferred.names) // 8


def test_names_are_the_terms_that_set_a_cluster_apart(inferred: HeldInterests) -> None:
    for row in range(8):
        words = set(THEMES[row].split())
        assert words & set(inferred.names[inferred.items[row, 0]].replace(",", "").split())


def test_users_hold_what_they_click_strongest_first(inferred: HeldInterests) -> None:
    right = [inferred.held[user, 0] in inferred.items[user % 8 :: 8, 0] for user in range(NUM_USERS)]
    holds = inferred.held[:, 0] != NONE_HELD
    assert holds.mean() > 0.7
    assert np.array(right)[holds].mean() > 0.95
    assert inferred.held.shape == (NUM_USERS, MAX_HELD)
    users, interests = inferred.edges
    assert len(set(zip(users.tolist(), interests.tolist(), strict=True))) == len(users)


def test_an_interest_of_one_user_or_of_too_many_is_noise() -> None:
    for config in (CONFIG, HeldConfig(num_clusters=(8,), most_held=(5,), min_items=1)):
        edges = np.bincount(infer_held_interests(histories(), catalogue(), config).edges[1])
        assert set(edges[edges > 0].tolist()) <= set(range(2, NUM_USERS // 5 + 1))


def test_the_numbers_are_those_under_which_later_clicks_are_likeliest(inferred: HeldInterests) -> None:
    assert set(inferred.gains) == {(k, most) for k in (8, 16) for most in (3, MAX_HELD)}
    best = max(inferred.gains.values())
    assert inferred.gains[len(inferred.names), inferred.most_held] == best


def test_the_same_logs_give_the_same_interests(inferred: HeldInterests) -> None:
    again = infer_held_interests(histories(), catalogue(), CONFIG)
    assert again.names == inferred.names
    np.testing.assert_array_equal(again.held, inferred.held)


def test_clicks_of_the_future_change_nothing_that_is_held_before(inferred: HeldInterests) -> None:
    """Held interests are of the logs they are made of: a step's logs end at its moment."""
    only_first = histories(clicks=6)
    early = infer_held_interests(only_first, catalogue(), CONFIG)
    assert not np.array_equal(early.held, inferred.held)


@pytest.mark.parametrize("titles", [[""] * NUM_ITEMS, ["12 34 5"] * NUM_ITEMS, ["same words"] * NUM_ITEMS])
def test_a_catalogue_that_says_nothing_gives_no_edges_and_no_error(titles: list[str]) -> None:
    bare = catalogue(titles)
    nothing = infer_held_interests(histories(), bare, CONFIG)
    assert nothing.held.shape == (NUM_USERS, MAX_HELD)
    assert all(nothing.names)


def test_logs_without_clicks_give_no_edges() -> None:
    empty = histories(clicks=0)
    assert infer_held_interests(empty, catalogue(), CONFIG).edges.shape == (2, 0)
