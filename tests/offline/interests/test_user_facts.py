"""Configuration decides which of a user's signals a model is told."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from serendipity.features import LongHistory
from serendipity.interests.facts import facts_of
from serendipity.interests.prompt import CategoryFact, render
from serendipity.interests.reasoner import UserContext
from serendipity.novelty import Clicks
from serendipity.offline.interests.user_facts import FactsConfig

_DAY = 86_400
NOW = 100 * _DAY
TITLES = ("Dark roast", "Assam", "Rye bread", "Hand saw")
CATEGORIES = ("Coffee", "Tea", "Bread", "Saws")


def make_context(**changes: object) -> UserContext:
    fields: dict[str, object] = {
        "user_id": "u",
        "clicks": Clicks(
            np.array([2, 1, 0, 2]),
            np.array([2, 1, 0, 2], np.int32),
            NOW - np.array([1, 2, 3, 4]) * _DAY,
        ),
        "long_history": LongHistory.empty(),
        "now": NOW,
        "searches": [("tea pot", NOW - _DAY), ("cup", NOW - 20 * _DAY), ("tea pot", NOW - 25 * _DAY)],
        "profile": {"age": "25-34"},
        "signals": [(4, NOW - _DAY), (3, NOW - 2 * _DAY - 1)],
    }
    return UserContext(**(fields | changes))  # type: ignore[arg-type]


def test_everything_known_is_told_newest_first_and_once() -> None:
    facts = facts_of(make_context(), CATEGORIES, TITLES.__getitem__, FactsConfig())
    assert facts.searches == ("tea pot", "cup")
    assert facts.titles == ("Assam", "Hand saw", "Dark roast", "Rye bread")
    assert facts.recent == (CategoryFact("Tea", 2, 1), CategoryFact("Coffee", 1, 2))
    assert facts.profile == {"age": "25-34"}


@pytest.mark.parametrize(
    ("config", "searches", "titles"),
    [
        (FactsConfig(signal_titles=False), ("tea pot", "cup"), ("Assam", "Dark roast")),
        (FactsConfig(clicked_titles="never"), ("tea pot", "cup"), ("Hand saw", "Rye bread")),
        (FactsConfig(clicked_titles="without searches", signal_titles=False), ("tea pot", "cup"), ()),
        (FactsConfig(search_days=7, clicked_titles="never", signal_titles=False), ("tea pot",), ()),
        (FactsConfig(search_days=0, signal_titles=False), (), ("Assam", "Dark roast")),
    ],
)
def test_only_the_chosen_signals_feed_the_prompt(
    config: FactsConfig, searches: tuple[str, ...], titles: tuple[str, ...]
) -> None:
    facts = facts_of(make_context(), CATEGORIES, TITLES.__getitem__, config)
    assert (facts.searches, facts.titles) == (searches, titles)


def test_a_user_without_anything_is_empty() -> None:
    assert facts_of(
        UserContext("u", Clicks.empty(), LongHistory.empty(), NOW), CATEGORIES, TITLES.__getitem__, FactsConfig()
    ).is_empty


def test_clicked_titles_stand_in_where_a_host_has_no_searches() -> None:
    facts = facts_of(make_context(searches=(), signals=()), CATEGORIES, TITLES.__getitem__, FactsConfig())
    assert "searches: Assam; Dark roast\n" in render(facts, "compact")


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValidationError, match="clicked_titles"):
        FactsConfig(clicked_titles="sometimes")  # type: ignore[arg-type]
