import numpy as np

from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.towers.interests import NO_NODE, InterestNodes, ReasonedInterests
from tests.offline.towers.conftest import World

VECTORS = np.eye(4, dtype=np.float32)


def test_items_list_their_nodes_from_general_to_specific() -> None:
    ranges = [[(0, 6)], [(0, 2), (4, 5)], [(1, 2)], [(2, 4)]]
    nodes = InterestNodes.from_ranges(VECTORS, ranges, 7, "drawn")
    listed = [[node for node in row if node != NO_NODE] for row in nodes.item_nodes.tolist()]
    assert listed == [[0, 1], [0, 1, 2], [0, 3], [0, 3], [0, 1], [0], []]


def test_slots_are_the_first_interest_that_holds_the_item() -> None:
    nodes = InterestNodes.from_ranges(VECTORS, [[(0, 6)], [(0, 2)], [(1, 2)], [(2, 4)]], 7, "drawn")
    interests = np.array([[3, 1, 2], [3, 1, 2], [2, 1, 0], [3, NO_NODE, NO_NODE], [3, 1, 2]], np.int32)
    items = np.array([1, 3, 1, 6, 5])
    assert nodes.slots(interests, items).tolist() == [2, 1, 1, 0, 0]


def test_interests_as_of_a_moment_see_nothing_later(world: World) -> None:
    taxonomy = Taxonomy.from_catalogue(world.catalogue)
    time = world.prepared.fit[0].moment.time
    users = list(range(0, len(world.histories), 5))
    found = ReasonedInterests(world.histories, taxonomy)(time, users, 6)
    later = ReasonedInterests(world.histories, taxonomy)
    later(time + 20 * 86_400, users, 6)
    assert found.shape == (len(users), 6)
    # Asked about an earlier moment than it was fitted at, it is fitted again.
    np.testing.assert_array_equal(later(time, users, 6), found)
    held = found[found != NO_NODE]
    assert len(held)
    assert held.max() < len(taxonomy)
