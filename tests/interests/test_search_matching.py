import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.search_matching import MIN_MATCH, SearchMatcher, words

CATEGORIES = ("bread", "coffee", "drills", "hoses", "saws", "tea")
BELOW = {
    "rye": "bread", "espresso": "coffee", "filter coffee": "coffee", "cordless drills": "drills", "hand saws": "saws",
    "chain saws": "saws", "pruning saws": "saws", "green tea": "tea",
}  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(CATEGORIES, 1)}
MATCHER = SearchMatcher([*NUMBERS.items(), *((name, NUMBERS[category]) for name, category in BELOW.items())])


def names(query: str) -> dict[str, float]:
    return {CATEGORIES[number - 1]: strength for number, strength in MATCHER.match(query).items()}


@pytest.mark.parametrize("query", ["coffee", "COFFEES", "coffee!"])
def test_a_category_is_found_by_its_name_in_any_form(query: str) -> None:
    assert names(query) == {"coffee": pytest.approx(1.0)}


def test_a_category_is_found_by_the_names_below_it() -> None:
    assert set(names("chain saw")) == {"saws"}
    assert set(names("green tea")) == {"tea"}


def test_an_exact_name_beats_a_shared_word() -> None:
    assert names("cordless drill")["drills"] == pytest.approx(1.0)
    assert names("drill bits")["drills"] < 0.8


@pytest.mark.parametrize("query", ["", "?!", "food", "tools", "zebra", "☕"])
def test_departments_and_unknown_words_match_nothing(query: str) -> None:
    assert names(query) == {}


@given(st.text())
def test_words_are_the_same_in_any_case(text: str) -> None:
    assert words(text.casefold()) == words(text)


def test_strengths_lie_between_the_threshold_and_one() -> None:
    for query in ("saws saws drills", "hand chain pruning saw", "tea coffee bread"):
        assert all(MIN_MATCH <= strength <= 1 for strength in MATCHER.match(query).values())
