"""Filters must prove what the search promises, so they are given what no search would find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity.channel.recall.filters import FILTERS, apply_filters
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.pool import Pool, UserVectors, gather
from serendipity.channel.recall.query import SOURCES, RecallQuery
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import UserState
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import DIM, NOW, NUM_ITEMS, SmallWorld

I2I, U2I, *_ = SOURCES

USER = "user-01"


@pytest.fixture
def user(snapshot: Snapshot) -> Hydrated:
    query = RecallQuery(user_id=USER, count=10, now=NOW)
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, UserState(), ChannelSettings())


def everything_for(user: Hydrated, snapshot: Snapshot) -> Pool:
    """Every item of the catalogue, as if every source had proposed it."""
    rows = np.arange(NUM_ITEMS)
    vectors = UserVectors(np.ones((1 + len(user.interests), DIM), np.float32), fallback=False)
    return gather({U2I: rows, I2I: rows}, vectors, user, snapshot)


def kept_by(name: str, user: Hydrated, snapshot: Snapshot) -> set[int]:
    pool = everything_for(user, snapshot)
    passes = FILTERS[name](pool, user)
    assert passes.shape == (NUM_ITEMS,)
    assert passes.dtype == np.bool_
    return set(pool.rows[passes].tolist())


def test_novelty_removes_clicked_categories_under_strict_only(
    small_world: SmallWorld, snapshot: Snapshot, user: Hydrated
) -> None:
    clicked = set(small_world.contents.users[USER].click_categories)
    numbers = small_world.contents.catalogue.item_categories
    novel = {row for row in range(NUM_ITEMS) if numbers[row] and int(numbers[row]) not in clicked}
    assert kept_by("novelty", user, snapshot) == novel
    for policy in (pb.NOVELTY_POLICY_SOFT, pb.NOVELTY_POLICY_OFF):
        lenient = replace(user, query=replace(user.query, novelty_policy=policy))
        assert kept_by("novelty", lenient, snapshot) == set(range(NUM_ITEMS))


def test_items_without_a_category_never_pass(snapshot: Snapshot, user: Hydrated) -> None:
    assert kept_by("category", user, snapshot) == set(range(snapshot.category_offsets[-1]))


def test_categories_that_are_not_listed_are_removed(snapshot: Snapshot, user: Hydrated) -> None:
    listed = np.zeros(snapshot.num_categories + 1, np.bool_)
    listed[3] = True
    rows = set(range(snapshot.category_offsets[2], snapshot.category_offsets[3]))
    assert kept_by("category", replace(user, listed=listed), snapshot) == rows


def test_sold_excluded_served_and_repeated_items_are_removed(snapshot: Snapshot, user: Hydrated) -> None:
    available = set(np.flatnonzero(~snapshot.unavailable).tolist())
    assert kept_by("availability", user, snapshot) == available
    some = np.array([5, 7, 399])
    rest = set(range(NUM_ITEMS)) - set(some.tolist())
    assert kept_by("excluded", replace(user, excluded=some), snapshot) == rest
    assert kept_by("served", replace(user, served=some), snapshot) == rest
    assert kept_by("repeated", replace(user, repeated=some), snapshot) == rest


def test_dismissed_items_and_categories_are_removed(snapshot: Snapshot, user: Hydrated) -> None:
    categories = np.zeros(snapshot.num_categories + 1, np.bool_)
    categories[1] = True
    told = replace(user, dismissed=np.array([5, 399]), dismissed_categories=categories)
    assert kept_by("dismissed", told, snapshot) == set(range(snapshot.category_offsets[1], NUM_ITEMS)) - {399}


def test_each_filter_has_its_name_and_its_place() -> None:
    assert list(FILTERS) == ["novelty", "category", "availability", "excluded", "served", "dismissed", "repeated"]


def test_counts_are_of_items_and_add_up(snapshot: Snapshot, user: Hydrated) -> None:
    kept, counts = apply_filters(everything_for(user, snapshot), replace(user, excluded=np.array([390, 391])))
    assert [count.filter for count in counts] == list(FILTERS)
    left = NUM_ITEMS
    for count in counts:
        assert count.kept + count.removed == left
        left = count.kept
    assert len(kept) == left
    assert counts[0].removed > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=120),
    excluded=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=80),
    served=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=80),
    repeated=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=80),
    dismissed=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=80),
    sold=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=80),
    clicked=st.sets(st.integers(1, 12), max_size=12),
    listed=st.sets(st.integers(1, 12), max_size=12),
    policy=st.sampled_from([pb.NOVELTY_POLICY_STRICT, pb.NOVELTY_POLICY_SOFT, pb.NOVELTY_POLICY_OFF]),
)
def test_what_is_left_and_what_each_filter_removed_is_what_a_plain_reading_says(
    small_world: SmallWorld,
    snapshot: Snapshot,
    user: Hydrated,
    rows: set[int],
    excluded: set[int],
    served: set[int],
    repeated: set[int],
    dismissed: set[int],
    sold: set[int],
    clicked: set[int],
    listed: set[int],
    policy: pb.NoveltyPolicy,
) -> None:
    def marked(numbers: set[int], size: int) -> NDArray[np.bool_]:
        mask = np.zeros(size, np.bool_)
        mask[list(numbers)] = True
        return mask

    # Number 0, of items without a category, is always marked as known: see novelty.clicked_categories.
    told = replace(
        user,
        query=replace(user.query, novelty_policy=policy),
        clicked=marked(clicked | {0}, snapshot.num_categories + 1),
        listed=marked(listed, snapshot.num_categories + 1),
        unavailable=marked(sold, NUM_ITEMS),
        excluded=np.array(sorted(excluded), np.int64),
        served=np.array(sorted(served), np.int64),
        repeated=np.array(sorted(repeated), np.int64),
        dismissed=np.array(sorted(dismissed), np.int64),
    )
    vectors = UserVectors(np.ones((1 + len(user.interests), DIM), np.float32), fallback=False)
    kept, counts = apply_filters(gather({U2I: np.array(sorted(rows), np.int64)}, vectors, told, snapshot), told)
    numbers = small_world.contents.catalogue.item_categories.tolist()
    strict = policy == pb.NOVELTY_POLICY_STRICT
    rules: dict[str, Callable[[int], bool]] = {
        "novelty": lambda row: not strict or (numbers[row] != 0 and numbers[row] not in clicked),
        "category": lambda row: numbers[row] in listed,
        "availability": lambda row: row not in sold,
        "excluded": lambda row: row not in excluded,
        "served": lambda row: row not in served,
        "dismissed": lambda row: row not in dismissed,
        "repeated": lambda row: row not in repeated,
    }
    left, expected = sorted(rows), []
    for name, passes in rules.items():
        passing = [row for row in left if passes(row)]
        expected.append((name, len(passing), len(left) - len(passing)))
        left = passing
    assert kept.rows.tolist() == left
    assert [(count.filter, count.kept, count.removed) for count in counts] == expected


def test_nothing_in_is_nothing_out(user: Hydrated) -> None:
    kept, counts = apply_filters(Pool.empty(), user)
    assert len(kept) == 0
    assert len(counts) == len(FILTERS)
    assert all((count.kept, count.removed) == (0, 0) for count in counts)
