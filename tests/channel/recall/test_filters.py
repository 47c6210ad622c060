"""Filters must prove what the search promises, so they are given what no search would find."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serendipity.channel.recall.candidates import NO_INTEREST, Candidates
from serendipity.channel.recall.filters import FILTERS, apply_filter, apply_filters
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.query import NoveltyPolicy, RecallQuery, Source
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.snapshot import Snapshot, SnapshotHolder
from serendipity.channel.state.state import EmptyUserState
from tests.fixtures.small_world import NOW, NUM_ITEMS, SmallWorld

USER = "user-01"


@pytest.fixture
def user(snapshot: Snapshot) -> Hydrated:
    query = RecallQuery(user_id=USER, count=10, now=NOW)
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, EmptyUserState(), ChannelSettings())


@pytest.fixture
def everything() -> Candidates:
    """Every item of the catalogue, found twice."""
    rows = np.tile(np.arange(NUM_ITEMS), 2)
    n = len(rows)
    return Candidates(
        rows,
        np.full(n, Source.COLLABORATIVE, np.int8),
        np.zeros(n, np.float32),
        np.full(n, NO_INTEREST, np.int16),
    )


def kept_by(name: str, candidates: Candidates, user: Hydrated, snapshot: Snapshot) -> set[int]:
    (rule,) = [rule for rule in FILTERS if rule.name == name]
    filtered = apply_filter(rule, candidates, user, snapshot)
    kept, removed = set(filtered.kept.rows.tolist()), set(filtered.removed.rows.tolist())
    assert not kept & removed
    assert kept | removed == set(candidates.rows.tolist())
    assert len(filtered.kept) + len(filtered.removed) == len(candidates)
    return kept


def test_novelty_removes_clicked_categories_under_strict_only(
    small_world: SmallWorld, snapshot: Snapshot, user: Hydrated, everything: Candidates
) -> None:
    clicked = set(small_world.contents.users[USER].click_categories)
    numbers = small_world.contents.catalogue.item_categories
    novel = {row for row in range(NUM_ITEMS) if numbers[row] and int(numbers[row]) not in clicked}
    assert kept_by("novelty", everything, user, snapshot) == novel
    for policy in (NoveltyPolicy.SOFT, NoveltyPolicy.OFF):
        lenient = replace(user, query=replace(user.query, novelty_policy=policy))
        assert kept_by("novelty", everything, lenient, snapshot) == set(range(NUM_ITEMS))


def test_items_without_a_category_never_pass(snapshot: Snapshot, user: Hydrated, everything: Candidates) -> None:
    assert kept_by("category", everything, user, snapshot) == set(range(snapshot.category_offsets[-1]))


def test_categories_that_are_not_listed_are_removed(snapshot: Snapshot, user: Hydrated, everything: Candidates) -> None:
    listed = np.zeros(snapshot.num_categories + 1, np.bool_)
    listed[3] = True
    rows = set(range(snapshot.category_offsets[2], snapshot.category_offsets[3]))
    assert kept_by("category", everything, replace(user, listed=listed), snapshot) == rows


def test_sold_excluded_and_served_items_are_removed(snapshot: Snapshot, user: Hydrated, everything: Candidates) -> None:
    available = set(np.flatnonzero(~snapshot.unavailable).tolist())
    assert kept_by("availability", everything, user, snapshot) == available
    some = np.array([5, 7, 399])
    rest = set(range(NUM_ITEMS)) - set(some.tolist())
    assert kept_by("excluded", everything, replace(user, excluded=some), snapshot) == rest
    assert kept_by("served", everything, replace(user, served=some), snapshot) == rest


def test_counts_are_of_items_and_add_up(snapshot: Snapshot, user: Hydrated, everything: Candidates) -> None:
    kept, outcomes = apply_filters(everything, replace(user, excluded=np.array([390, 391])), snapshot)
    assert [outcome.name for outcome in outcomes] == [rule.name for rule in FILTERS]
    left = NUM_ITEMS
    for outcome in outcomes:
        assert outcome.kept + outcome.removed == left
        left = outcome.kept
    assert kept.num_items == left
    assert outcomes[0].removed > 0


def test_scores_that_are_not_numbers_get_nowhere(snapshot: Snapshot, user: Hydrated, everything: Candidates) -> None:
    raw = everything.raw.copy()
    raw[::2] = np.nan
    raw[1::4] = np.inf
    kept, _ = apply_filters(replace(everything, raw=raw), user, snapshot)
    assert len(kept) > 0
    assert np.isfinite(kept.raw).all()


def test_nothing_in_is_nothing_out(snapshot: Snapshot, user: Hydrated) -> None:
    kept, outcomes = apply_filters(Candidates.empty(), user, snapshot)
    assert len(kept) == 0
    assert all((outcome.kept, outcome.removed) == (0, 0) for outcome in outcomes)
