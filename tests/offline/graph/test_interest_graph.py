import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph, View
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
    assert {(int(low), int(high)) for low, high in graph.edges(view).T} == expected
    found = graph.adjacency(view).toarray()
    both_ways = expected | {(high, low) for low, high in expected}
    assert {(int(row), int(column)) for row, column in zip(*found.nonzero(), strict=True)} == both_ways
    degrees = graph.degrees(view)
    for row, column in both_ways:
        assert found[row, column] == pytest.approx(1 / np.sqrt(degrees[row] * degrees[column]))


def test_knowledge_may_weigh_less_than_clicks() -> None:
    found = tiny().adjacency(View.WHOLE, 0.25).toarray()
    # Item 0 has a click and a triple, item 1 two clicks and a triple; entity 0 has three triples.
    assert tiny().degrees(View.WHOLE, 0.25)[[0, 3, 4, 6]].tolist() == [3, 1.25, 2.25, 0.75]
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
    assert graph.edges(View.WHOLE).T.tolist() == [[0, 2], [0, 3], [1, 2]]


@given(st.data())
def test_adjacencies_are_symmetric_and_shrink_no_degree(data: st.DataObject) -> None:
    def edges(*bounds: int) -> np.ndarray:
        rows = data.draw(st.lists(st.tuples(*(st.integers(0, bound - 1) for bound in bounds)), max_size=12))
        return np.array(rows, np.int64).reshape(-1, len(bounds)).T

    graph = InterestGraph(4, 3, 2, 3, edges(4, 3), edges(4, 3), edges(5, 2, 5))
    for view in View:
        dense = graph.adjacency(view).toarray()
        assert np.array_equal(dense, dense.T)
        assert not dense.diagonal().any()
        # The largest eigenvalue of a normalised adjacency is 1, so propagation never blows vectors up.
        assert np.abs(np.linalg.eigvalsh(dense.astype(np.float64))).max(initial=0) <= 1 + 1e-6
    assert (graph.degrees(View.WHOLE) >= graph.degrees(View.COLLABORATIVE)).all()


def test_columns_may_be_given_as_a_tuple() -> None:
    users, items = np.array([0, 1]), np.array([2, 0])
    none = np.empty(0, np.int64)
    graph = InterestGraph(2, 3, 0, 0, (users, items), (none, none), (none, none, none))  # type: ignore[arg-type]
    assert graph.clicks.tolist() == [[0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clicks", [[3], [0]], "graph, clicks: found user 3, expected one below 3"),
        ("clicks", [[0], [3]], "graph, clicks: found item 3, expected one below 3"),
        ("holds", [[0], [-1]], "graph, holds: found interest -1, expected one below 3"),
        ("knowledge", [[5], [0], [0]], "graph, knowledge: found head 5, expected one below 5"),
        ("knowledge", [[0], [-2], [0]], "graph, knowledge: found relation -2, expected one of 0 or more"),
    ],
)
def test_an_index_out_of_range_is_named(field: str, value: list[list[int]], message: str) -> None:
    fields = {name: getattr(tiny(), name) for name in tiny().__dataclass_fields__}
    with pytest.raises(GraphError) as caught:
        InterestGraph(**(fields | {field: np.array(value)}))
    assert str(caught.value) == message


def test_parts_of_the_graph_can_be_left_out() -> None:
    assert tiny().without_interests().edges(View.WHOLE).T.tolist() == tiny().edges(View.KNOWLEDGE).T.tolist()
    assert tiny().without_knowledge().edges(View.WHOLE).T.tolist() == tiny().edges(View.INTEREST).T.tolist()
