from __future__ import annotations

import numpy as np
import pytest

from serendipity.offline.graph.held_interests import HeldConfig, HeldInterests, infer_held_interests
from serendipity.offline.graph.served_graph import MAX_HELD, NONE_HELD
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

THEMES = (
    "bread flour yeast", "guitar strings pick", "tent sleeping stove", "puzzle dice board",
    "garden spade seeds", "camera lens tripod", "pencil paper ink", "bicycle helmet saddle",
)  # fmt: skip
NUM_ITEMS, NUM_USERS = 80, 40
CONFIG = HeldConfig(num_clusters=(8, 16), min_items=2)


def catalogue(titles: list[str] | None = None) -> Catalogue:
    """Items of eight themes, each spread over two categories: an interest crosses categories."""
    words = [THEMES[row % 8].split() for row in range(NUM_ITEMS)]
    numbers = np.repeat([1, 2], NUM_ITEMS // 2).astype(np.int32)
    return Catalogue(
        item_ids=[f"i{row:02d}" for row in range(NUM_ITEMS)],
        titles=titles or [f"{a} {b} {row} {c}" for row, (a, b, c) in enumerate(words)],
        paths=[(f"shelf {number}",) for number in numbers],
        brands=[""] * NUM_ITEMS,
        tags=[("new",) if row % 3 else () for row in range(NUM_ITEMS)],
        available=np.ones(NUM_ITEMS, np.bool_),
        prices=np.full(NUM_ITEMS, np.nan, np.float32),
        categories=["shelf 1", "shelf 2"],
        item_categories=numbers,
        category_offsets=np.array([0, NUM_ITEMS // 2, NUM_ITEMS]),
        novelty_level=0,
    )


def histories(clicks: int = 12, seed: int = 0) -> Histories:
    """User u clicks items of theme u mod 8, and one in four of anything."""
    rng = np.random.default_rng(seed)
    rows = [
        [
            int(rng.integers(NUM_ITEMS // 8)) * 8 + user % 8 if i % 4 else int(rng.integers(NUM_ITEMS))
            for i in range(clicks)
        ]
        for user in range(NUM_USERS)
    ]
    items = np.array(rows, np.int64).ravel() + 1
    return Histories(
        user_ids=[f"u{user:02d}" for user in range(NUM_USERS)],
        profiles=[{}] * NUM_USERS,
        offsets=np.arange(NUM_USERS + 1) * clicks,
        items=items,
        categories=catalogue().item_categories[items - 1],
        times=np.tile(np.arange(clicks), NUM_USERS) * 100,
        search_offsets=np.zeros(NUM_USERS + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


@pytest.fixture(scope="module")
def inferred() -> HeldInterests:
    return infer_held_interests(histories(), catalogue(), CONFIG)


def test_clusters_are_the_themes_whatever_the_category(inferred: HeldInterests) -> None:
    of_theme = [set(inferred.items[theme::8].tolist()) for theme in range(8)]
    assert len(set.union(*of_theme)) == sum(map(len, of_theme))
    assert max(map(len, of_theme)) <= len(inferred.names) // 8


def test_names_are_the_terms_that_set_a_cluster_apart(inferred: HeldInterests) -> None:
    for row in range(8):
        words = set(THEMES[row].split())
        assert words & set(inferred.names[inferred.items[row]].replace(",", "").split())


def test_users_hold_what_they_click_strongest_first(inferred: HeldInterests) -> None:
    right = [inferred.held[user, 0] in inferred.items[user % 8 :: 8] for user in range(NUM_USERS)]
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
