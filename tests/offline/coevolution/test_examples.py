"""Examples tell what was known before a moment, and nothing later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.offline.coevolution.config import ExamplesConfig
from serendipity.offline.coevolution.examples import (
    Renderer,
    novelty_examples,
    relevance_examples,
    split_of,
)
from serendipity.offline.coevolution.exposures import Exposures
from serendipity.offline.logs.histories import Histories

CATEGORIES = 6
PLAIN = ExamplesConfig(min_clicks=1, group_dropout=0, recent_dropout=0, unclicked_clicks=2)


def histories_of(users: dict[str, list[tuple[int, int]]]) -> Histories:
    """users: id → (time, category), ascending."""
    ids = sorted(users)
    rows = [users[user_id] for user_id in ids]
    categories = np.array([category for row in rows for _, category in row], np.int32)
    return Histories(
        user_ids=ids,
        profiles=[{} for _ in ids],
        offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64),
        items=categories.astype(np.int64) * 10 + 1,
        categories=categories,
        times=np.array([time for row in rows for time, _ in row], np.int64),
        search_offsets=np.zeros(len(ids) + 1, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )


def positions(histories: Histories) -> NDArray[np.int32]:
    """Stands for groups: the group before a click is the number of clicks before it."""
    starts = np.repeat(histories.offsets[:-1], np.diff(histories.offsets))
    return (np.arange(len(histories.items)) - starts).astype(np.int32)


ONE = histories_of({"u1": [(1, 1), (2, 1), (3, 2), (4, 3), (4, 4), (5, 1), (6, 5)]})


def test_every_first_occurrence_is_an_example_with_what_was_known_before_it() -> None:
    found = {row.target: (row.recent, row.group) for row in novelty_examples(ONE, positions(ONE), PLAIN)}
    # The clicks of second 4 do not know of each other.
    assert found == {2: ((1,), 2), 3: ((2, 1), 3), 4: ((2, 1), 3), 5: ((1, 4, 3), 6)}


def test_a_drawn_category_is_neither_recent_nor_clicked_next() -> None:
    pairs = relevance_examples(ONE, positions(ONE), CATEGORIES, PLAIN)
    assert {pair.clicked for pair in pairs} == {1, 2, 3, 4, 5}
    for pair in pairs:
        assert pair.unclicked
        assert not {pair.clicked, *pair.recent} & set(pair.unclicked)
        assert len(set(pair.unclicked)) == len(pair.unclicked)
        assert not pair.exposed
        if pair.time == 4:
            assert set(pair.unclicked) == {5, 6}
    few = relevance_examples(ONE, positions(ONE), CATEGORIES, PLAIN.model_copy(update={"unclicked": 1}))
    assert {len(pair.unclicked) for pair in few} == {1}


def test_an_exposed_and_unclicked_category_is_preferred() -> None:
    exposures = Exposures(np.array([0, 4]), np.array([1, 3, 6, 0], np.int32), np.array([6, 6, 7, 7], np.int64))
    pairs = relevance_examples(ONE, positions(ONE), CATEGORIES, PLAIN, exposures=exposures)
    assert {(pair.unclicked, pair.exposed) for pair in pairs if pair.time == 6} == {((6,), True)}
    far = replace(exposures, times=exposures.times + 10**6)
    assert not any(pair.exposed for pair in relevance_examples(ONE, positions(ONE), CATEGORIES, PLAIN, exposures=far))


def test_clicks_beside_which_something_else_was_shown_come_first() -> None:
    day = 86_400
    users = {f"u{i}": [(t * 10 * day, 1 + t % 5) for t in range(1, 20)] for i in range(6)}
    histories = histories_of(users)
    groups = positions(histories)
    # A category that nobody clicks, shown an hour after the tenth click of user 2, and its own one beside every click.
    shown = [(user, int(time), int(category)) for user, time, category in
             zip(histories.users, histories.times, histories.categories, strict=True)]  # fmt: skip
    shown = sorted([*shown, (2, 100 * day + 3_600, CATEGORIES)])
    owners, times, categories = (np.array(column) for column in zip(*shown, strict=True))
    exposures = Exposures(np.searchsorted(owners, np.arange(7)), categories.astype(np.int32), times)
    few = PLAIN.model_copy(update={"max_relevance": 3, "validation_share": 0.01})
    pairs = relevance_examples(histories, groups, CATEGORIES, few, exposures=exposures)
    assert [(pair.user, pair.time, pair.unclicked) for pair in pairs if pair.exposed] == [(2, 100 * day, (CATEGORIES,))]
    assert len(pairs) == 3


def test_moments_beside_an_exposure_are_told_as_single_ones_are() -> None:
    exposures = Exposures(np.array([0, 2, 2, 3]), np.array([1, 2, 3], np.int32), np.array([50, 90, 10], np.int64))
    users = np.repeat(np.arange(3, dtype=np.int32), 100)
    times = np.tile(np.arange(100, dtype=np.int64), 3)
    one_by_one = [bool(exposures.shown(u, t, 7)) for u, t in zip(users.tolist(), times.tolist(), strict=True)]
    assert exposures.beside(users, times, 7).tolist() == one_by_one
    assert sum(one_by_one) > 30


def test_limits_are_filled_evenly_over_users() -> None:
    users = {f"u{i}": [(t, 1 + t % CATEGORIES) for t in range(1, 30 if i else 300)] for i in range(8)}
    histories = histories_of(users)
    pairs = relevance_examples(
        histories, positions(histories), CATEGORIES, PLAIN.model_copy(update={"max_relevance": 16})
    )
    counts = np.bincount([pair.user for pair in pairs])
    assert len(pairs) == 16
    assert counts.max() - counts[counts > 0].min() <= 1


def test_splits_share_no_user_and_do_not_change() -> None:
    users = {f"user {i}": [(t, 1 + t % CATEGORIES) for t in range(1, 20)] for i in range(60)}
    histories = histories_of(users)
    groups = positions(histories)
    train = {row.user for row in novelty_examples(histories, groups, PLAIN)}
    pairs = relevance_examples(histories, groups, CATEGORIES, PLAIN, split="validation")
    validation = {pair.user for pair in pairs}
    assert train.isdisjoint(validation)
    assert validation == {u for u, user_id in enumerate(histories.user_ids) if split_of(user_id, PLAIN) == "validation"}


def test_some_examples_are_told_the_default_group_and_fewer_categories() -> None:
    users = {f"u{i}": [(t, 1 + t % CATEGORIES) for t in range(1, 20)] for i in range(60)}
    histories = histories_of(users)
    always = PLAIN.model_copy(update={"group_dropout": 1.0, "recent_dropout": 1.0})
    rows = novelty_examples(histories, positions(histories), always)
    assert {row.group for row in rows} == {DEFAULT_GROUP}
    assert {len(row.recent) for row in rows} == {0, 1, 2}


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.tuples(st.integers(1, 8), st.integers(0, CATEGORIES)), min_size=1, max_size=12).map(sorted),
        min_size=1,
    ),
    st.integers(1, 9),
)
def test_the_future_changes_no_example_before_it(users: dict[str, list[tuple[int, int]]], until: int) -> None:
    full = histories_of(users)
    past = histories_of({user: [row for row in rows if row[0] < until] for user, rows in users.items()})
    # Enough for every draw, so that limits drop none.
    config = PLAIN.model_copy(update={"validation_share": 0.01})
    known = {(r.user, r.time, r.group, r.recent, r.target) for r in novelty_examples(past, positions(past), config)}
    told = {
        (r.user, r.time, r.group, r.recent, r.target)
        for r in novelty_examples(full, positions(full), config)
        if r.time < until
    }
    assert told == known
    for row in (
        *novelty_examples(full, positions(full), config),
        *relevance_examples(full, positions(full), 6, config),
    ):
        before = [category for time, category in users[full.user_ids[row.user]] if time < row.time]
        assert set(row.recent) <= set(before)
        assert row.group <= len(before)


@pytest.mark.parametrize("style", ["compact", "chat"])
def test_ablations_change_the_rendering_alone(style: str) -> None:
    names = ["Tea", "Mugs", "Rice"]
    whole = Renderer(["all", "likes Tea"], names, style)  # type: ignore[arg-type]
    assert "likes Tea" in whole.novelty(1, [2, 3])
    assert "Mugs; Rice" in whole.relevance(1, [2, 3], 1)
    assert "likes" not in replace(whole, with_profile=False).novelty(1, [2, 3])
    assert "Mugs; Rice" in replace(whole, with_profile=False).relevance(1, [2, 3], 1)
    assert whole.answer(1).strip() == "Tea"
