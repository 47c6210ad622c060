from dataclasses import replace

import numpy as np

from benchmarks.graph.support import lifted_shares, support_section
from serendipity.offline.graph.interest_graph import InterestGraph
from tests.offline.graph.small_graph import two_tastes


def test_an_item_is_lifted_by_the_other_holders_alone() -> None:
    graph = InterestGraph(
        num_users=4,
        num_items=3,
        num_entities=0,
        num_interests=2,
        clicks=np.array([[0, 0, 1, 2, 3], [0, 2, 0, 1, 2]]),
        holds=np.array([[0, 1, 2], [0, 0, 1]]),
        knowledge=np.empty((3, 0), np.int64),
    )
    # User 0: the other holder clicked item 0, a third of all others did; nobody who holds it clicked item 2.
    # User 2 holds an interest alone. User 3's item was clicked by one of the two holders, and by a third of the others.
    found = lifted_shares(graph, np.array([[0, 2, 3], [0, 1, 0]]))
    assert found.tolist() == [0.5, 0.0, 1.0]


def test_true_interests_are_supported_more_than_random_ones() -> None:
    graph = two_tastes()
    rng = np.random.default_rng(0)
    shares = lifted_shares(graph, graph.holds)
    wrong = np.stack([graph.holds[0], 1 - graph.holds[1]])
    assert shares.mean() > 0.5 > lifted_shares(graph, wrong).mean()
    page = "\n".join(support_section(graph, rng))
    assert "| inferred | 60 |" in page
    assert "| random |" in page
    assert "| inferred |" not in "\n".join(support_section(replace(graph, holds=np.empty((2, 0), np.int64)), rng))
