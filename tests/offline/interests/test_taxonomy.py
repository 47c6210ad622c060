from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serendipity.offline.interests.taxonomy import NO_NODE, Taxonomy, TaxonomyNode
from serendipity.offline.logs.catalogue import Catalogue

level = st.sampled_from(["a", "b", "c", "é"])
paths = st.dictionaries(
    st.text("0123456789", min_size=1, max_size=3), st.lists(level, min_size=1, max_size=4).map(tuple)
)


def node_at(taxonomy: Taxonomy, *path: str) -> TaxonomyNode:
    return next(node for node in taxonomy.nodes if node.path == path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths, st.integers(0, 3))
def test_ranges_hold_exactly_the_items_below_a_node_that_have_a_category(
    catalogue_of: Callable[..., Catalogue], items: dict[str, tuple[str, ...]], novelty_level: int
) -> None:
    catalogue = catalogue_of(items, novelty_level)
    for number, node in enumerate(Taxonomy.from_catalogue(catalogue).nodes):
        assert node.node_id == number
        rows = [row for start, end in node.ranges for row in range(start, end)]
        below = [r for r, path in enumerate(catalogue.paths) if path[: len(node.path)] == node.path]
        assert rows == [row for row in below if catalogue.item_categories[row]]
        assert all(end < start for (_, end), (start, _) in zip(node.ranges, node.ranges[1:], strict=False))
        assert set(node.categories) == {int(catalogue.item_categories[row]) for row in rows}


def test_every_prefix_is_a_node_in_the_order_of_paths(shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop)
    paths = [node.path for node in taxonomy.nodes]
    assert paths == sorted(paths)
    assert set(paths) == {path[:depth] for path in shop.paths for depth in range(1, len(path) + 1)}
    assert node_at(taxonomy, "food", "coffee", "espresso").text == "food > coffee > espresso"
    for node in taxonomy.nodes:
        assert [taxonomy.nodes[child].parent for child in node.children] == [node.node_id] * len(node.children)


def test_one_category_name_below_two_parents_is_two_nodes_of_one_category(shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop)
    first, second = node_at(taxonomy, "tools", "saws"), node_at(taxonomy, "garden", "saws")
    assert first.categories == second.categories == (shop.categories.index("saws") + 1,)


def test_rows_know_their_node_at_the_novelty_level(shop: Catalogue) -> None:
    taxonomy = Taxonomy.from_catalogue(shop)
    for row, path in enumerate(shop.paths):
        node = int(taxonomy.row_nodes[row])
        assert node == NO_NODE if len(path) < 2 else taxonomy.nodes[node].path == path[:2]


def test_ids_outlive_builds(shop: Catalogue, catalogue_of: Callable[..., Catalogue]) -> None:
    before = Taxonomy.from_catalogue(shop)
    items = {item: path for item, path in zip(shop.item_ids, shop.paths, strict=True) if path[0] != "tools"}
    after = Taxonomy.from_catalogue(catalogue_of(items | {"new": ("attic", "lamps")}), before.known)
    assert [node.path for node in after.nodes[: len(before)]] == [node.path for node in before.nodes]
    assert [node.path for node in after.nodes[len(before) :]] == [("attic",), ("attic", "lamps")]
    gone = node_at(after, "tools", "drills")
    assert (gone.ranges, gone.categories) == ((), ())
    assert after.hash != before.hash
    assert Taxonomy.from_catalogue(shop).hash == before.hash


def test_an_empty_catalogue_is_an_empty_taxonomy(catalogue_of: Callable[..., Catalogue]) -> None:
    taxonomy = Taxonomy.from_catalogue(catalogue_of({}))
    assert (len(taxonomy), taxonomy.texts) == (0, [])
    assert taxonomy.row_nodes.dtype == np.int32
