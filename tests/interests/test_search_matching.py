import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.interests.search_matching import MIN_MATCH, SearchMatcher, words
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.catalogue import Catalogue


def names(catalogue: Catalogue, query: str) -> dict[str, float]:
    found = SearchMatcher(Taxonomy.from_catalogue(catalogue).searched_names).match(query)
    return {catalogue.categories[number - 1]: strength for number, strength in found.items()}


@pytest.mark.parametrize("query", ["coffee", "COFFEES", "coffee!"])
def test_a_category_is_found_by_its_name_in_any_form(shop: Catalogue, query: str) -> None:
    assert names(shop, query) == {"coffee": pytest.approx(1.0)}


def test_a_category_is_found_by_the_names_below_it(shop: Catalogue) -> None:
    assert set(names(shop, "chain saw")) == {"saws"}
    assert set(names(shop, "green tea")) == {"tea"}


def test_an_exact_name_beats_a_shared_word(shop: Catalogue) -> None:
    assert names(shop, "cordless drill")["drills"] == pytest.approx(1.0)
    assert names(shop, "drill bits")["drills"] < 0.8


@pytest.mark.parametrize("query", ["", "?!", "food", "tools", "zebra", "☕"])
def test_departments_and_unknown_words_match_nothing(shop: Catalogue, query: str) -> None:
    assert names(shop, query) == {}


@given(st.text())
def test_words_are_the_same_in_any_case(text: str) -> None:
    assert words(text.casefold()) == words(text)


def test_strengths_lie_between_the_threshold_and_one(shop: Catalogue) -> None:
    matcher = SearchMatcher(Taxonomy.from_catalogue(shop).searched_names)
    for query in ("saws saws drills", "hand chain pruning saw", "tea coffee bread"):
        assert all(MIN_MATCH <= strength <= 1 for strength in matcher.match(query).values())
