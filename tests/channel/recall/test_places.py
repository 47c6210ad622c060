"""Which sources a request searches: those that have earned their places, those it names, and those it explores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from serendipity.channel.recall.places import Places, share_places
from serendipity.channel.recall.query import SOURCES, RecallQuery, SourceBounds
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.merge import Merge
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.small_world import DAY, NOW

I2I, U2I, GROUP, GRAPH = SOURCES
MANY = 4_000
TODAY = NOW - NOW % DAY
"""When the day begins, by which users are drawn."""


@pytest.fixture(scope="module")
def merge(snapshot: Snapshot) -> Merge:
    """A merge in which group and graph have not earned their places."""
    return replace(snapshot.merge, unearned=frozenset([GROUP, GRAPH]))


def query(user_id: str, count: int = 100, now: int = TODAY, **fields: object) -> RecallQuery:
    return RecallQuery(user_id=user_id, count=count, now=now, **fields)  # type: ignore[arg-type]


@cache
def settings(users: float = 0.25, share: float = 0.08) -> ChannelSettings:
    return ChannelSettings(explored_users=users, explored_share=share)


def shared(
    merge: Merge, user_id: str, count: int = 100, now: int = TODAY, certain: tuple[int, ...] = (), **of: float
) -> Places:
    return share_places(query(user_id, count, now), merge, settings(**of), certain=certain)


def counts(merge: Merge, count: int, source: pb.Source = GRAPH, **of: float) -> list[int]:
    """Places of a source for each of many users, 0 where it is not searched."""
    found = []
    for number in range(MANY):
        places = shared(merge, f"u{number}", count, **of)
        assert (source in places.searched) == (source in places.bounds)
        found.append(places.bounds[source].min_count if source in places.bounds else 0)
    return found


ALWAYS: Mapping[int, float] = dict.fromkeys(SOURCES, 1.0)


def test_what_has_earned_its_places_is_searched_for_everybody_and_bounded_for_nobody(snapshot: Snapshot) -> None:
    assert snapshot.merge.unearned == frozenset()
    for number in range(200):
        places = shared(snapshot.merge, f"u{number}")
        assert (dict(places.bounds), dict(places.propensities), places.searched) == ({}, ALWAYS, frozenset(SOURCES))


def test_what_has_not_is_explored_with_the_share_of_the_users(merge: Merge) -> None:
    for source in (GROUP, GRAPH):
        held = np.array(counts(merge, 100, source))
        # Half a percent is the standard error.
        assert (held > 0).mean() == pytest.approx(0.25, abs=0.02)
        assert set(held.tolist()) == {0, 8}
        # Two percent of all places.
        assert held.mean() / 100 == pytest.approx(0.02, abs=0.002)
    for number in range(200):
        places = shared(merge, f"u{number}")
        assert {I2I, U2I} <= places.searched
        assert {I2I, U2I}.isdisjoint(places.bounds)


def test_places_are_at_least_the_share_and_more_where_its_items_are_worth_more(merge: Merge) -> None:
    everybody = shared(merge, "u", users=1.0, share=0.2)
    assert dict(everybody.bounds) == {GROUP: SourceBounds(20, 100), GRAPH: SourceBounds(20, 100)}
    assert everybody.searched == frozenset(SOURCES)
    assert dict(everybody.propensities) == ALWAYS


def test_sources_are_drawn_apart_from_each_other(merge: Merge) -> None:
    both = np.array([counts(merge, 100, source) for source in (GROUP, GRAPH)]) > 0
    assert both.all(axis=0).mean() == pytest.approx(0.0625, abs=0.015)


def test_a_users_requests_of_a_day_are_alike_and_other_users_explore_on_another(merge: Merge) -> None:
    def explorers(now: int) -> set[str]:
        users = [f"u{number}" for number in range(400)]
        return {user_id for user_id in users if GRAPH in shared(merge, user_id, now=now).searched}

    today = explorers(TODAY)
    assert explorers(TODAY) == explorers(TODAY + 3_600) == explorers(TODAY + DAY - 1) == today
    tomorrow = explorers(TODAY + DAY)
    assert tomorrow != today
    # Drawn anew: a quarter of today's explore again.
    assert len(today & tomorrow) / len(today) == pytest.approx(0.25, abs=0.12)


@pytest.mark.parametrize("count", [1, 3, 7, 12, 13, 50])
def test_places_of_small_answers_are_right_on_the_average_of_users(merge: Merge, count: int) -> None:
    held = np.array(counts(merge, count))
    share = 0.08 * count
    assert set(held.tolist()) <= {0, int(share), int(share) + 1}
    assert held.mean() == pytest.approx(0.25 * share, abs=4 * held.std() / np.sqrt(len(held)))
    if held.any():
        # Of those who explore, as many have one place more as the share asks for.
        of_explorers = np.array(counts(merge, count, users=1.0))
        assert of_explorers.mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("count", "share", "propensity"),
    [(100, 0.08, 0.25), (12, 0.08, 0.24), (3, 0.2, 0.15), (1, 0.08, 0.02), (13, 0.08, 0.25), (5, 0.2, 0.25)],
)
def test_the_propensity_is_the_share_of_users_with_whom_it_is_searched(
    merge: Merge, count: int, share: float, propensity: float
) -> None:
    every = [shared(merge, f"u{number}", count, share=share) for number in range(MANY)]
    # Whether it is searched or not: off-policy evaluation needs both.
    assert {places.propensities[GRAPH] for places in every} == {every[0].propensities[GRAPH]}
    assert every[0].propensities[GRAPH] == pytest.approx(propensity)
    searched = np.mean([GRAPH in places.searched for places in every])
    assert searched == pytest.approx(propensity, abs=0.02)
    assert every[0].propensities[U2I] == 1.0


def test_a_share_of_nothing_is_never_searched(merge: Merge) -> None:
    for number in range(200):
        places = shared(merge, f"u{number}", users=1.0, share=0.0)
        assert places.searched == {I2I, U2I}
        assert not places.bounds
        assert (places.propensities[GROUP], places.propensities[GRAPH]) == (0.0, 0.0)


def test_a_source_that_is_certain_proposes_whatever_it_has_earned(merge: Merge) -> None:
    for number in range(200):
        user_id = f"u{number}"
        places = shared(merge, user_id, certain=(GRAPH,))
        assert GRAPH in places.searched
        assert GRAPH not in places.bounds
        assert places.propensities[GRAPH] == 1.0
        # The group is explored as ever.
        without = shared(merge, user_id)
        assert (GROUP in places.searched) == (GROUP in without.searched)
        assert places.propensities[GROUP] == without.propensities[GROUP]


@pytest.mark.parametrize("certain", [(), (GRAPH,)])
def test_bounds_of_the_request_stand_and_nothing_is_explored(merge: Merge, certain: tuple[int, ...]) -> None:
    bounds = {U2I: SourceBounds(3, 7), GROUP: SourceBounds(0, 0)}
    for number in range(50):
        asked = query(f"u{number}", source_bounds=bounds)
        places = share_places(asked, merge, settings(share=0.0), certain=certain)
        assert places == Places.of_request(asked)
        assert dict(places.bounds) == bounds
        assert places.searched == {I2I, U2I, GRAPH}
        assert dict(places.propensities) == {I2I: 1.0, U2I: 1.0, GROUP: 0.0, GRAPH: 1.0}
