"""What leads from category to category, and what users are told by it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.interests.category_links import (
    WEIGHTS,
    CategoryLinks,
    beside_popularity,
    click_similarities,
    context_of,
    follow,
    most_clicked,
    nearest_links,
    said_links,
    text_similarities,
)
from benchmarks.interests.judging import Evaluation
from serendipity.offline.interests.debate import DebateConfig
from serendipity.offline.interests.hops import TwoHop
from serendipity.offline.interests.llm_reasoner import LlmReasoner
from serendipity.offline.interests.taxonomy import Taxonomy
from tests.benchmarks.interests.test_judging import CUT, START, UNTIL, make_histories
from tests.fixtures.shopkeeper import Shopkeeper
from tests.fixtures.small_shop import make_grounder
from tests.offline.interests.conftest import SHOP, make_catalogue


@pytest.fixture
def evaluation() -> Evaluation:
    taxonomy = Taxonomy.from_catalogue(make_catalogue(SHOP))
    return Evaluation.of(make_histories(taxonomy), taxonomy, CUT, UNTIL)


def number(evaluation: Evaluation, name: str) -> int:
    return evaluation.taxonomy.categories.index(name) + 1


def links(evaluation: Evaluation, start: str, to: str, weight: float = 1.0) -> CategoryLinks:
    size = len(evaluation.taxonomy.categories) + 1
    weights = np.zeros((size, size))
    weights[number(evaluation, start), number(evaluation, to)] = weight
    return CategoryLinks("links", weights)


def test_the_categories_with_most_clicks_are_asked_about(evaluation: Evaluation) -> None:
    names = [evaluation.taxonomy.categories[category - 1] for category in most_clicked(evaluation, 60)]
    # 31 coffee, 15 bread, 10 tea; nobody has clicked anything else.
    assert names == ["coffee", "bread", "tea"]
    assert most_clicked(evaluation, 1) == [number(evaluation, "coffee")]


def test_a_model_is_told_one_category_and_what_it_says_becomes_links_to_others(evaluation: Evaluation) -> None:
    taxonomy = evaluation.taxonomy
    asked = most_clicked(evaluation, 3)
    reasoner = LlmReasoner(
        Shopkeeper(), make_grounder(taxonomy), taxonomy.categories, (), TwoHop(), debate=DebateConfig()
    )
    answers = reasoner.reason([context_of(category, CUT) for category in asked], 10)
    found = said_links("said", evaluation, asked, answers).weights
    assert any(answers)
    for category, interests in zip(asked, answers, strict=True):
        named = {taxonomy.nodes[interest.node_id].categories[0] for interest in interests}
        assert set(np.flatnonzero(found[category]).tolist()) == named
        # No path leads back to where it began.
        assert category not in named
    assert not found[[c for c in range(len(found)) if c not in asked]].any()


def test_nearest_links_lead_to_others_by_similarity(evaluation: Evaluation) -> None:
    size = len(evaluation.taxonomy.categories)
    vectors = np.eye(size, dtype=np.float32)
    coffee, tea = number(evaluation, "coffee") - 1, number(evaluation, "tea") - 1
    vectors[tea] = 0.6 * vectors[coffee] + 0.8 * vectors[tea]
    found = nearest_links("near", evaluation, [coffee + 1], text_similarities(vectors)).weights
    assert np.argwhere(found > 0).tolist() == [[coffee + 1, tea + 1]]
    assert found[coffee + 1, tea + 1] == pytest.approx(0.6)


def test_categories_are_alike_that_the_same_users_click_before_the_cut(evaluation: Evaluation) -> None:
    found = click_similarities(evaluation)
    coffee, tea, saws = (number(evaluation, name) for name in ("coffee", "tea", "saws"))
    # Ten of the 31 coffee drinkers clicked tea; saws came later.
    assert found[coffee, tea] == pytest.approx(10 / np.sqrt(31 * 10))
    assert found[coffee, saws] == 0


def test_users_are_told_what_links_lead_to_from_what_they_clicked(evaluation: Evaluation) -> None:
    said = follow(evaluation, links(evaluation, "coffee", "saws"))
    names = [[evaluation.taxonomy.nodes[one.node_id].name for one in user] for user in said.interests]
    assert names == [["saws"]] * 30
    # Those who clicked tea lately are not told of it.
    told = [bool(user) for user in follow(evaluation, links(evaluation, "coffee", "tea")).interests]
    assert told == [False] * 10 + [True] * 20


@pytest.mark.parametrize(("to", "helps"), [("tea", True), ("saws", False)])
def test_links_count_beside_popularity_as_far_as_validation_says(evaluation: Evaluation, to: str, helps: bool) -> None:
    # Between the start and the cut ten turn to tea, and nobody to saws.
    said, weight = beside_popularity(evaluation, links(evaluation, "coffee", to), START)
    assert weight in WEIGHTS
    assert (weight > 0) == helps
    assert (len(said.users), said.method) == (30, "popular unseen + links")
