"""A prompt describes a user within bounds, whatever the user typed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.prompt import (
    MAX_CATEGORIES,
    MAX_PROFILE,
    MAX_SEARCHES,
    MAX_TITLES,
    STYLES,
    CategoryFact,
    UserFacts,
    bounded,
    render,
)
from serendipity.interests.text import MAX_CHARS
from tests.fixtures.hostile_texts import HOSTILE_TEXTS, any_text

_MOST_TEXTS = MAX_SEARCHES + MAX_TITLES + 2 * MAX_CATEGORIES + 2 * MAX_PROFILE
_BOUND = _MOST_TEXTS * (MAX_CHARS + 40) + 200

_fact = st.builds(CategoryFact, any_text, st.integers(0, 10**6), st.integers(0, 10**5))
user_facts = st.builds(
    UserFacts,
    profile=st.dictionaries(any_text, any_text, max_size=12),
    searches=st.lists(any_text, max_size=30),
    titles=st.lists(any_text, max_size=30),
    recent=st.lists(_fact, max_size=80),
    earlier=st.lists(_fact, max_size=80),
)


@given(user_facts)
def test_a_prompt_stays_within_its_bound(facts: UserFacts) -> None:
    for style in STYLES:
        prompt = render(facts, style)
        assert len(prompt) <= _BOUND
        prompt.encode("utf-8")


@given(user_facts)
def test_a_chat_prompt_is_json_of_the_five_fields(facts: UserFacts) -> None:
    found = json.loads(render(facts, "chat"))
    assert list(found) == ["profile", "searches", "recent_titles", "recent_categories", "earlier_categories"]
    told = bounded(facts)
    assert found["searches"] == told.searches
    assert len(found["searches"]) <= MAX_SEARCHES
    assert len(found["profile"]) <= MAX_PROFILE
    assert len(found["recent_categories"]) <= MAX_CATEGORIES


@given(user_facts)
def test_a_compact_prompt_has_its_five_lines_and_no_other(facts: UserFacts) -> None:
    lines = render(facts, "compact").split("\n")
    assert [line.split(":")[0] for line in lines] == ["profile", "searches", "recent", "earlier", "interests"]
    assert lines[-1] == "interests:"


@given(user_facts)
def test_what_is_bounded_is_bounded_already(facts: UserFacts) -> None:
    assert bounded(bounded(facts)) == bounded(facts)


def test_a_prompt_of_every_hostile_text_keeps_its_shape() -> None:
    facts = UserFacts(
        profile=dict.fromkeys(HOSTILE_TEXTS, HOSTILE_TEXTS[0]),
        searches=HOSTILE_TEXTS * 20,
        titles=HOSTILE_TEXTS * 20,
        recent=[CategoryFact(text, 5, 1) for text in HOSTILE_TEXTS * 20],
        earlier=[CategoryFact(text, 5, 40) for text in HOSTILE_TEXTS * 20],
    )
    assert len(json.loads(render(facts, "chat"))["searches"]) == MAX_SEARCHES
    assert "<|im_start|>" not in render(facts, "chat") + render(facts, "compact")


def test_counts_read_as_powers_of_two_and_ages_as_weeks() -> None:
    facts = UserFacts(recent=[CategoryFact("Tea", 13, 2)], earlier=[CategoryFact("Beer", 1, 40)])
    assert render(facts, "compact") == "profile: \nsearches: \nrecent: Tea x8\nearlier: Beer x1 4w\ninterests:"


def test_titles_stand_in_where_there_are_no_searches() -> None:
    assert "searches: green tea\n" in render(UserFacts(titles=["green tea"]), "compact")
    assert "searches: mugs\n" in render(UserFacts(searches=["mugs"], titles=["green tea"]), "compact")


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="found 'prose', expected one of compact, chat"):
        render(UserFacts(), "prose")  # type: ignore[arg-type]


def test_a_user_of_whom_nothing_is_known_is_empty() -> None:
    assert UserFacts().is_empty
    assert not UserFacts(searches=["tea"]).is_empty
