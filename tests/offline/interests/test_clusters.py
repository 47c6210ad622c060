from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serendipity.interests.text import comparable
from serendipity.offline.interests.clusters import (
    MAX_ALIASES,
    MIN_USERS_OF_NAME,
    ClustersConfig,
    Growth,
    NamedInterest,
    grow,
)
from serendipity.offline.interests.taxonomy import KnownNode, Taxonomy, TaxonomyNode
from serendipity.offline.logs.catalogue import Catalogue

MEANINGS = {
    "grinder": (1, 0, 0, 0), "grinders": (0.9, 0.44, 0, 0), "coffee mills": (0.9, 0.3, 0.3, 0),
    "pods": (0, 0, 1, 0), "capsules": (0, 0.3, 0.95, 0), "espresso": (0, 0, 0, 1), "ristretto": (0, 0, 0.3, 0.95),
}  # fmt: skip


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """Words with planted meanings; all others are apart from these and from one another."""
    vectors = np.zeros((len(texts), 64), np.float32)
    for row, text in enumerate(texts):
        meaning = MEANINGS.get(comparable(text))
        if meaning:
            vectors[row, :4] = meaning
        else:
            vectors[row, 4:] = np.random.default_rng(list(comparable(text).encode())).normal(size=60)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@pytest.fixture
def taxonomy(shop: Catalogue) -> Taxonomy:
    return Taxonomy.from_catalogue(shop)


def node_at(taxonomy: Taxonomy, *path: str) -> TaxonomyNode:
    return next(node for node in taxonomy.nodes if node.path == path)


def of_users(name: str, node: TaxonomyNode, users: range) -> list[NamedInterest]:
    return [NamedInterest(user, node.node_id, name) for user in users]


def grown(taxonomy: Taxonomy, named: list[NamedInterest], **config: object) -> Growth:
    return grow(taxonomy.nodes, named, encode, ClustersConfig.model_validate(config))


def test_names_that_mean_the_same_become_one_node_called_by_the_most_frequent(taxonomy: Taxonomy) -> None:
    coffee = node_at(taxonomy, "food", "coffee")
    named = [
        *of_users("grinders", coffee, range(3)),
        *of_users("grinder", coffee, range(4)),
        *of_users("Coffee Mills", coffee, range(4, 6)),
    ]
    growth = grown(taxonomy, named)
    node_id = len(taxonomy)
    assert len(growth.known) == len(taxonomy) + 1
    node = growth.known[node_id]
    assert (node.path, node.aliases) == (("food", "coffee", "grinder"), ("grinders", "Coffee Mills"))
    assert {growth.node_of(coffee.categories[0], name) for name in ("Grinder", "GRINDERS", "coffee mills")} == {node_id}
    assert growth.node_of(coffee.categories[0] + 1, "grinder") is None


def test_a_name_that_means_a_node_becomes_its_alias(shop: Catalogue, taxonomy: Taxonomy) -> None:
    filter_coffee, espresso = (
        node_at(taxonomy, "food", "coffee", "filter coffee"),
        node_at(taxonomy, "food", "coffee", "espresso"),
    )
    growth = grown(taxonomy, of_users("ristretto", filter_coffee, range(2)))
    assert len(growth.known) == len(taxonomy)
    assert growth.known[espresso.node_id].aliases == ("ristretto",)
    assert growth.node_of(espresso.categories[0], "ristretto") == espresso.node_id
    # The next build knows it: nothing is left to do.
    again = Taxonomy.from_catalogue(shop, growth.known)
    assert grow(again.nodes, of_users("Ristretto", espresso, range(9)), encode, ClustersConfig()).known == growth.known


def test_a_node_needs_its_users_and_a_name_more_than_one(taxonomy: Taxonomy) -> None:
    coffee = node_at(taxonomy, "food", "coffee")
    few = grown(taxonomy, of_users("pods", coffee, range(4)))
    assert (len(few.known), few.node_of(coffee.categories[0], "pods")) == (len(taxonomy), None)
    # Six users together, but one of the names is one user's own.
    named = [*of_users("pods", coffee, range(5)), *of_users("capsules", coffee, range(5, 6))]
    growth = grown(taxonomy, named)
    assert growth.known[-1].aliases == ()
    assert growth.node_of(coffee.categories[0], "capsules") == len(taxonomy)


def test_a_node_hangs_below_the_catalogues_node_that_most_of_its_interests_grounded_in(
    shop: Catalogue, taxonomy: Taxonomy
) -> None:
    coffee, espresso = node_at(taxonomy, "food", "coffee"), node_at(taxonomy, "food", "coffee", "espresso")
    growth = grown(taxonomy, [*of_users("pods", coffee, range(3)), *of_users("pods", espresso, range(3, 7))])
    assert growth.known[-1].path == ("food", "coffee", "espresso", "pods")
    # What grounded in a reasoner's node hangs beside it, not below.
    later = Taxonomy.from_catalogue(shop, growth.known)
    named = of_users("grinder", later.nodes[-1], range(6))
    assert grow(later.nodes, named, encode, ClustersConfig()).known[-1].path == (
        "food",
        "coffee",
        "espresso",
        "grinder",
    )


def test_rare_names_and_aliases_past_their_bounds_are_left(shop: Catalogue, taxonomy: Taxonomy) -> None:
    coffee, espresso = node_at(taxonomy, "food", "coffee"), node_at(taxonomy, "food", "coffee", "espresso")
    named = [*of_users("pods", coffee, range(7)), *of_users("grinder", coffee, range(6))]
    growth = grown(taxonomy, named, max_names=1)
    assert [node.path[-1] for node in growth.known[len(taxonomy) :]] == ["pods"]
    known = list(taxonomy.known)
    known[espresso.node_id] = KnownNode(espresso.path, aliases=tuple(f"a{n}" for n in range(MAX_ALIASES)))
    full = Taxonomy.from_catalogue(shop, known)
    growth = grow(full.nodes, of_users("ristretto", coffee, range(3)), encode, ClustersConfig())
    assert len(growth.known[espresso.node_id].aliases) == MAX_ALIASES
    assert growth.node_of(espresso.categories[0], "ristretto") == espresso.node_id


names = st.sampled_from([*MEANINGS, "Pods!", "dark roast", "<b>hack</b>", "\u202egnp", "Coffee", "espresso"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 20), names), max_size=60), st.randoms(use_true_random=False)
)
def test_ids_are_only_added_and_what_one_user_said_is_shown_to_nobody(
    shop: Catalogue, taxonomy: Taxonomy, chosen: list[tuple[int, int, str]], random: Random
) -> None:
    grounding = [node for node in taxonomy.nodes if len(node.categories) == 1]
    named = [NamedInterest(user, grounding[place % len(grounding)].node_id, name) for user, place, name in chosen]
    growth = grown(taxonomy, named, min_users=2)
    assert [node.path for node in growth.known[: len(taxonomy)]] == [node.path for node in taxonomy.nodes]
    after = Taxonomy.from_catalogue(shop, growth.known)
    assert after.hash == taxonomy.hash
    assert len(after) == len(growth.known)
    users: dict[str, set[int]] = {}
    for interest in named:
        users.setdefault(comparable(interest.name), set()).add(interest.user)
        category = taxonomy.nodes[interest.node_id].categories[0]
        place = growth.node_of(category, interest.name)
        assert place is None or after.nodes[place].categories == (category,)
    added = [node.path[-1] for node in growth.known[len(taxonomy) :]]
    added += [alias for node in growth.known for alias in node.aliases]
    assert all(len(users[comparable(text)]) >= MIN_USERS_OF_NAME for text in added)
    random.shuffle(named)
    assert grown(taxonomy, named, min_users=2) == growth
