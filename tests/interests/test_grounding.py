"""Nothing that does not ground in the vocabulary leaves `ground_answer`, whatever a model wrote or a user typed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity.interests.answer import Proposal
from serendipity.interests.grounding import DEMAND_SHARE, KEPT, SURPLUS, Grounder, GroundingNode, Method, ground_answer
from serendipity.interests.prompt import CategoryFact, UserFacts, bounded
from serendipity.interests.text import MAX_CHARS, clean_text, comparable, is_name
from serendipity.v1 import records_pb2
from tests.fixtures.hostile_texts import HOSTILE_TEXTS, INSTRUCTIONS, any_text

CATEGORIES = ("Coffee", "Kitchen", "Tea", "-")
NODES = (
    GroundingNode(0, ("Drinks", "Coffee"), 1, ("java", "-"), 40),
    GroundingNode(1, ("Drinks", "Coffee", "Espresso beans"), 1, (), 12),
    GroundingNode(2, ("Home", "Kitchen"), 2, ("cookware",), 30),
    GroundingNode(3, ("Home", "Kitchen", "Mugs"), 2, (), 9),
    GroundingNode(4, ("Drinks", "Tea"), 3, (), 25),
    GroundingNode(5, ("Drinks", "Tea", "Green tea"), 3, (), 5),
    GroundingNode(6, ("Drinks", "Tea", "Mugs"), 3, (), 2),
    GroundingNode(7, ("Odds", "-"), 4, (), 1),
)


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """Encode by hashed character trigrams: texts are alike when they share letters."""
    vectors = np.zeros((len(texts), 512), np.float32)
    for row, text in enumerate(texts):
        padded = f"  {text.casefold()} "
        for start in range(len(padded) - 2):
            vectors[row, zlib.crc32(padded[start : start + 3].encode()) % 512] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


VECTORS = encode([" > ".join(node.path) for node in NODES])


def make_grounder(threshold: float = 0.5) -> Grounder:
    return Grounder(NODES, CATEGORIES, VECTORS, encode, threshold)


def says(interest: str = "", category: str = "", seed: str = "", demand: str = "") -> Proposal:
    return Proposal(seed, demand, interest, category)


def test_names_ground_exactly_then_by_alias_then_by_likeness() -> None:
    found = make_grounder().ground([says("espresso BEANS"), says("Cookware"), says("green teas"), says("surfboards")])
    assert [(g.node.node_id, g.method) if g else None for g in found] == [
        (1, Method.EXACT), (2, Method.ALIAS), (5, Method.ENCODER), None,
    ]  # fmt: skip


def test_a_category_binds_the_interest_to_its_own_nodes() -> None:
    mugs = make_grounder().ground([says("mugs"), says("mugs", "Tea"), says("mugs", "kitchen")])
    assert [g.node.node_id for g in mugs if g] == [3, 6, 3]


def test_an_interest_like_nothing_in_its_category_grounds_in_the_category_and_is_not_shown() -> None:
    answer = ground_answer([says("surfboards", "Tea")], UserFacts(), make_grounder(), (), 5)
    assert [(i.node.node_id, i.path.latent_interest) for i in answer.interests] == [(4, "Tea")]


def test_an_unknown_category_leaves_the_text_to_decide() -> None:
    found = make_grounder().ground([says("green tea", "Casino"), says("roulette", "Casino"), says("", "Casino")])
    assert [g.node.node_id if g else None for g in found] == [5, None, None]


def test_names_of_signs_alone_catch_nothing() -> None:
    found = make_grounder().ground([says("roulette", "-"), says("-", ""), says("/", "&"), says("", "Tea")])
    assert [g.node.node_id if g else None for g in found] == [None, None, None, 4]


def test_what_is_known_repeated_or_ungrounded_is_dropped_and_counted() -> None:
    said = [says("java"), says("mugs"), says("mugs"), says("roulette"), says("green tea")]
    answer = ground_answer(said, UserFacts(), make_grounder(), known={1}, num_interests=5)
    assert [i.node.node_id for i in answer.interests] == [3, 5]
    assert answer.dropped == {"known": 1, "repeated": 1, "ungrounded": 1}
    assert answer.outcomes == ("known", KEPT, "repeated", "ungrounded", KEPT)
    assert ground_answer(said, UserFacts(), make_grounder(), {1}, 1).outcomes[-1] == SURPLUS


def test_a_seed_is_named_only_if_the_model_was_told_it() -> None:
    facts = UserFacts({"age": "25-34"}, ["green tea", "--"], ["blue mug"], [CategoryFact("Tea", 3, 1)])
    seeds = ["Green Tea", "tea", "blue mug", "age 25-34", "25-34", "the user's diary", "", "-"]
    said = [says("mugs", seed=seed) for seed in seeds]
    paths = [ground_answer([one], facts, make_grounder(), (), 1).interests[0].path for one in said]
    assert [(path.seed_kind, path.seed) for path in paths] == [
        (records_pb2.SEED_KIND_SEARCH, "green tea"),
        (records_pb2.SEED_KIND_CATEGORY, "Tea"),
        (records_pb2.SEED_KIND_CATEGORY, "blue mug"),
        (records_pb2.SEED_KIND_PROFILE, "age 25-34"),
        (records_pb2.SEED_KIND_PROFILE, "age 25-34"),
        (records_pb2.SEED_KIND_POPULATION, ""),
        (records_pb2.SEED_KIND_POPULATION, ""),
        (records_pb2.SEED_KIND_POPULATION, ""),
    ]


def test_a_made_up_seed_gives_way_to_a_search_beside_the_interest_then_to_a_recent_category_or_to_none() -> None:
    def path(facts: UserFacts, interest: str) -> records_pb2.InterestPath:
        proposal = says(interest, seed="sailing", demand="adventure")
        return ground_answer([proposal], facts, make_grounder(), known=(), num_interests=1).interests[0].path

    recent = [CategoryFact("Tea", 3, 1)]
    by_search = path(UserFacts(searches=["tea"], recent=recent), "Coffee")
    assert (by_search.seed_kind, by_search.seed) == (records_pb2.SEED_KIND_SEARCH, "tea")
    assert (by_search.core_demand, by_search.relation) == ("Drinks", records_pb2.RELATION_CO_HYPONYM)
    by_category = path(UserFacts(searches=["sailing boats"], recent=recent), "Coffee")
    assert (by_category.seed_kind, by_category.seed) == (records_pb2.SEED_KIND_CATEGORY, "Tea")
    by_nothing = path(UserFacts(searches=["tea"], recent=recent), "Kitchen")
    assert (by_nothing.seed_kind, by_nothing.seed) == (records_pb2.SEED_KIND_POPULATION, "")


def test_an_interest_beside_its_seed_is_a_co_hyponym() -> None:
    facts = UserFacts(recent=[CategoryFact("Tea", 3, 1)])
    said = [says("Coffee", seed="Tea"), says("Mugs", "Kitchen", seed="Tea")]
    relations = [i.path.relation for i in ground_answer(said, facts, make_grounder(), {3}, 5).interests]
    assert relations == [records_pb2.RELATION_CO_HYPONYM, records_pb2.RELATION_HYPONYM]


def test_a_demand_that_speaks_of_nothing_in_the_vocabulary_gives_way_to_the_node_above() -> None:
    demands = ["Drinks Coffee at home", "cookware", *INSTRUCTIONS]
    said = [says("espresso beans", demand=clean_text(demand)) for demand in demands]
    shown = [ground_answer([one], UserFacts(), make_grounder(), (), 1).interests[0].path.core_demand for one in said]
    assert shown == ["Drinks Coffee at home", "cookware", *["Coffee"] * len(INSTRUCTIONS)]


def test_a_department_is_a_demand_without_asking_the_encoder() -> None:
    def unable(texts: Sequence[str]) -> NDArray[np.float32]:
        raise AssertionError(f"asked for {texts}")

    assert Grounder(NODES, CATEGORIES, VECTORS, unable, 0.5).speaks_of_goods(["HOME", "drinks", "java"]) == [True] * 3


def test_an_address_is_never_shown_even_in_words_like_a_node() -> None:
    said = [says("Drinks Tea Green tea tea.example", demand="Drinks Tea www.tea")]
    path = ground_answer(said, UserFacts(), make_grounder(), (), 1).interests[0].path
    assert (path.core_demand, path.latent_interest) == ("Tea", "Green tea")


def test_texts_to_encode_ahead_are_all_that_is_encoded() -> None:
    asked: list[str] = []

    def watched(texts: Sequence[str]) -> NDArray[np.float32]:
        asked.extend(texts)
        return encode(texts)

    grounder = Grounder(NODES, CATEGORIES, VECTORS, watched, 0.5)
    said = [says("green teas", demand="hot drinks"), says("mugs", demand="Tea"), says("", "Casino"), says("x", "Tea")]
    ground_answer(said, UserFacts(), grounder, (), 5)
    assert set(asked) <= set(grounder.texts(said))


def test_a_grounder_without_nodes_grounds_nothing() -> None:
    empty = Grounder((), (), np.empty((0, 512), np.float32), encode, 0.5)
    answer = ground_answer([says("tea", "Tea", demand="drinks")], UserFacts(), empty, (), 5)
    assert (answer.interests, answer.dropped) == ((), {"ungrounded": 1})


_field = st.one_of(any_text.map(clean_text), st.sampled_from(["Tea", "mugs", "java", "Coffee", "green tea", "-"]))
_proposal = st.builds(Proposal, _field, _field, _field, _field).filter(lambda p: bool(p.interest or p.category))


@given(
    said=st.lists(_proposal, max_size=12),
    searches=st.lists(any_text, max_size=5),
    known=st.sets(st.integers(1, 4)),
    most=st.integers(1, 6),
    threshold=st.floats(0.3, 0.95),
)
def test_nothing_ungrounded_ever_leaves(
    said: list[Proposal], searches: list[str], known: set[int], most: int, threshold: float
) -> None:
    facts = UserFacts(searches=searches, recent=[CategoryFact("Tea", 2, 1)])
    told = {"", "Tea", *bounded(facts).searches}
    grounder = make_grounder(threshold)
    answer = ground_answer(said, facts, grounder, known, most)
    ids = [interest.node.node_id for interest in answer.interests]
    assert len(ids) == len(set(ids)) <= most
    for interest in answer.interests:
        node, path = interest.node, interest.path
        assert node in NODES
        assert node.category not in known
        assert 0 <= path.score <= 1
        assert path.seed in told
        # The interest is the node's own name, an alias of it, or a text that grounds in it.
        own = {comparable(name) for name in (node.name, *node.aliases)}
        if comparable(path.latent_interest) not in own:
            assert interest.method is Method.ENCODER
            assert is_name(path.latent_interest)
            assert float(encode([path.latent_interest])[0] @ VECTORS[node.node_id]) >= threshold - 1e-5
        # The demand is a name of the vocabulary or like one of its nodes.
        names = {comparable(name) for other in NODES for name in (*other.path, *other.aliases)}
        if comparable(path.core_demand) not in names:
            assert is_name(path.core_demand)
            assert float((encode([path.core_demand]) @ VECTORS.T).max()) >= DEMAND_SHARE * threshold - 1e-5
        assert max(len(path.seed), len(path.core_demand), len(path.latent_interest)) <= MAX_CHARS
    assert sum(answer.dropped.values()) + len(ids) <= len(said)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_no_hostile_text_is_shown_as_demand_or_interest(text: str) -> None:
    said = clean_text(text)
    answer = ground_answer([Proposal(said, said, said, "Tea")], UserFacts(searches=[text]), make_grounder(), (), 5)
    for interest in answer.interests:
        assert interest.path.latent_interest == "Tea"
        assert interest.path.core_demand == "Drinks"


def test_no_path_leads_back_to_where_it_began() -> None:
    told = UserFacts(searches=["tea"], recent=[CategoryFact("Kitchen", 3, 1)], earlier=[CategoryFact("Tea", 9, 400)])
    proposals = [says("Green tea", "Tea", seed="Tea", demand="drinks"), says("Tea", "Tea", seed="tea", demand="drinks")]
    of_the_past = ground_answer(proposals[:1], UserFacts(earlier=told.earlier), make_grounder(), set(), 5)
    (path,) = (interest.path for interest in of_the_past.interests)
    assert (path.seed_kind, path.seed, path.latent_interest) == (records_pb2.SEED_KIND_PAST, "", "Green tea")
    searched = ground_answer(proposals[1:], told, make_grounder(), set(), 5)
    (path,) = (interest.path for interest in searched.interests)
    assert (path.seed_kind, path.seed, path.core_demand) == (records_pb2.SEED_KIND_SEARCH, "tea", "Tea")
