import numpy as np
import pytest

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph
from tests.offline.graph.small_graph import tiny


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
