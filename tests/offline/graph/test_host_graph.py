from __future__ import annotations

from dataclasses import replace

import numpy as np

from serendipity.offline.graph.host_graph import RELATIONS, Entity, Knowledge, host_graph
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

PATHS = [("food", "bread"), ("food", "bread"), ("food",), ("toys", "games", "dice"), (), ("toys",)]
BRANDS = ["Acme", "Acme", "Rare", "", "Own", "Own"]
TAGS = [("new", "sale"), ("new",), (), ("new",), ("new",), ()]


def catalogue() -> Catalogue:
    n = 60
    return Catalogue(
        item_ids=[f"i{row}" for row in range(n)],
        titles=[""] * n,
        paths=[*PATHS, *[()] * (n - 6)],
        brands=[*BRANDS, *[""] * (n - 6)],
        # A tag of more than a fifth of the items.
        tags=[*TAGS, *[("here",)] * (n - 6)],
        available=np.ones(n, np.bool_),
        prices=np.full(n, np.nan, np.float32),
        categories=["food", "toys"],
        item_categories=np.zeros(n, np.int32),
        category_offsets=np.zeros(3, np.int64),
        novelty_level=0,
    )


def said(knowledge: Knowledge, num_items: int) -> set[tuple[object, str, object]]:
    def node(number: int) -> object:
        return number if number < num_items else knowledge.entities[number - num_items]

    return {(node(head), RELATIONS[relation], node(tail)) for head, relation, tail in knowledge.triples.T.tolist()}


def category(*path: str) -> Entity:
    return Entity("category", path)


def test_items_lead_to_their_path_brand_and_tags_and_paths_to_what_lies_above() -> None:
    acme, own, new = Entity("brand", ("Acme",)), Entity("brand", ("Own",)), Entity("tag", ("new",))
    assert said(Knowledge.of(catalogue()), 60) == {
        (0, "in category", category("food", "bread")),
        (1, "in category", category("food", "bread")),
        (2, "in category", category("food")),
        (3, "in category", category("toys", "games", "dice")),
        (5, "in category", category("toys")),
        (category("food", "bread"), "below", category("food")),
        (category("toys", "games", "dice"), "below", category("toys", "games")),
        (category("toys", "games"), "below", category("toys")),
        (0, "of brand", acme),
        (1, "of brand", acme),
        (4, "of brand", own),
        (5, "of brand", own),
        *((row, "tagged", new) for row in (0, 1, 3, 4)),
    }


def test_a_catalogue_of_which_nothing_is_known_has_no_triples() -> None:
    bare = replace(catalogue(), paths=[()] * 60, brands=[""] * 60, tags=[()] * 60)
    assert Knowledge.of(bare).triples.shape == (3, 0)


def test_the_graph_holds_each_click_once_and_none_of_unknown_items() -> None:
    histories = Histories(
        user_ids=["a", "b"],
        profiles=[{}, {}],
        offsets=np.array([0, 3, 5]),
        items=np.array([1, 1, 3, 0, 60]),
        categories=np.zeros(5, np.int32),
        times=np.arange(5),
        search_offsets=np.zeros(3, np.int64),
        searches=[],
        search_times=np.empty(0, np.int64),
    )
    knowledge = Knowledge.of(catalogue())
    graph = host_graph(histories, catalogue(), knowledge, np.array([[0], [2]]), 3)
    assert graph.clicks.T.tolist() == [[0, 0], [0, 2], [1, 59]]
    assert (graph.num_users, graph.num_items, graph.num_interests) == (2, 60, 3)
    assert graph.num_entities == len(knowledge.entities)
