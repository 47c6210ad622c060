import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.graph.adjacency import View, adjacency, degrees, edges, without_interests, without_knowledge
from serendipity.offline.graph.interest_graph import InterestGraph
from tests.offline.graph.small_graph import tiny

CLICKS = {(0, 3), (0, 4), (1, 4), (2, 5)}
HOLDS = {(0, 8), (1, 8), (2, 9)}
KNOWLEDGE = {(3, 6), (4, 6), (6, 7), (5, 7)}


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View.COLLABORATIVE, CLICKS),
        (View.INTEREST, CLICKS | HOLDS),
        (View.KNOWLEDGE, CLICKS | KNOWLEDGE),
        (View.WHOLE, CLICKS | HOLDS | KNOWLEDGE),
    ],
)
def test_each_view_holds_exactly_the_edges_it_should(view: View, expected: set[tuple[int, int]]) -> None:
    graph = tiny()
    assert {(int(low), int(high)) for low, high in edges(graph, view).T} == expected
    found = adjacency(graph, view).toarray()
    both_ways = expected | {(high, low) for low, high in expected}
    assert {(int(row), int(column)) for row, column in zip(*found.nonzero(), strict=True)} == both_ways
    sums = degrees(graph, view)
    for row, column in both_ways:
        assert found[row, column] == pytest.approx(1 / np.sqrt(sums[row] * sums[column]))


def test_knowledge_may_weigh_less_than_clicks() -> None:
    found = adjacency(tiny(), View.WHOLE, 0.25).toarray()
    # Item 0 has a click and a triple, item 1 two clicks and a triple; entity 0 has three triples.
    assert degrees(tiny(), View.WHOLE, 0.25)[[0, 3, 4, 6]].tolist() == [3, 1.25, 2.25, 0.75]
    assert found[0, 3] == pytest.approx(1 / np.sqrt(3 * 1.25))
    assert found[3, 6] == pytest.approx(0.25 / np.sqrt(1.25 * 0.75))


def test_an_edge_named_twice_counts_once_and_none_leads_to_itself() -> None:
    graph = InterestGraph(
        num_users=1,
        num_items=2,
        num_entities=0,
        num_interests=1,
        clicks=np.array([[0, 0], [1, 1]]),
        holds=np.array([[0, 0], [0, 0]]),
        # The same pair in two relations and in both directions, and a head that is its own tail.
        knowledge=np.array([[0, 0, 1, 1], [0, 1, 0, 0], [1, 1, 0, 1]]),
    )
    assert edges(graph, View.WHOLE).T.tolist() == [[0, 2], [0, 3], [1, 2]]


@given(st.data())
def test_adjacencies_are_symmetric_and_shrink_no_degree(data: st.DataObject) -> None:
    def drawn(*bounds: int) -> np.ndarray:
        rows = data.draw(st.lists(st.tuples(*(st.integers(0, bound - 1) for bound in bounds)), max_size=12))
        return np.array(rows, np.int64).reshape(-1, len(bounds)).T

    graph = InterestGraph(4, 3, 2, 3, drawn(4, 3), drawn(4, 3), drawn(5, 2, 5))
    for view in View:
        dense = adjacency(graph, view).toarray()
        assert np.array_equal(dense, dense.T)
        assert not dense.diagonal().any()
        # The largest eigenvalue of a normalised adjacency is 1, so propagation never blows vectors up.
        assert np.abs(np.linalg.eigvalsh(dense.astype(np.float64))).max(initial=0) <= 1 + 1e-6
    assert (degrees(graph, View.WHOLE) >= degrees(graph, View.COLLABORATIVE)).all()


def test_parts_of_the_graph_can_be_left_out() -> None:
    assert edges(without_interests(tiny()), View.WHOLE).T.tolist() == edges(tiny(), View.KNOWLEDGE).T.tolist()
    assert edges(without_knowledge(tiny()), View.WHOLE).T.tolist() == edges(tiny(), View.INTEREST).T.tolist()
