"""A user's stored clicks and history become the facts that a prompt tells."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serendipity.features import LongHistory
from serendipity.interests.facts import user_facts
from serendipity.interests.prompt import CategoryFact
from serendipity.novelty import Clicks

_DAY = 86_400
_NAMES = ("Beer", "Cheese", "Tea", "Toys")


def clicks_in(*categories_and_days: tuple[int, int], now: int = 100 * _DAY) -> Clicks:
    ordered = sorted(categories_and_days, key=lambda click: click[1])
    return Clicks(
        np.arange(1, len(ordered) + 1),
        np.array([category for category, _ in ordered], np.int32),
        np.array([now - days * _DAY for _, days in ordered], np.int64),
    )


def history_of(*rows: tuple[int, int, int], now: int = 100 * _DAY) -> LongHistory:
    return LongHistory(
        np.array([category for category, _, _ in rows], np.int32),
        np.array([count for _, count, _ in rows], np.int32),
        np.array([now - days * _DAY for _, _, days in rows], np.int64),
    )


def test_recent_categories_come_most_clicked_first_and_earlier_ones_latest_first() -> None:
    facts = user_facts(
        clicks_in((3, 1), (3, 2), (1, 5)),
        history_of((3, 9, 1), (1, 1, 5), (2, 4, 60), (4, 2, 40)),
        _NAMES,
        100 * _DAY,
    )
    assert facts.recent == (CategoryFact("Tea", 2, 1), CategoryFact("Beer", 1, 5))
    assert facts.earlier == (CategoryFact("Toys", 2, 40), CategoryFact("Cheese", 4, 60))


def test_items_without_a_category_tell_nothing() -> None:
    facts = user_facts(clicks_in((0, 1)), history_of((0, 7, 1), (2, 1, 9)), _NAMES, 100 * _DAY)
    assert facts.recent == ()
    assert facts.earlier == (CategoryFact("Cheese", 1, 9),)


def test_clicks_after_the_moment_are_no_days_old() -> None:
    assert user_facts(clicks_in((1, -3)), LongHistory.empty(), _NAMES, 100 * _DAY).recent == (
        CategoryFact("Beer", 1, 0),
    )


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 90)), max_size=30))
def test_the_order_in_which_a_history_is_stored_does_not_matter(rows: list[tuple[int, int]]) -> None:
    history = {category: (category, 1 + days % 5, days) for category, days in rows}
    stored = list(history.values())
    shuffled = stored[::-1]
    told = [user_facts(Clicks.empty(), history_of(*some), _NAMES, 100 * _DAY) for some in (stored, shuffled)]
    assert told[0] == told[1]
    assert {fact.name for fact in told[0].earlier} == {_NAMES[category - 1] for category in history if category}
