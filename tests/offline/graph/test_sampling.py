import numpy as np
import pytest

from serendipity.offline.graph.interest_graph import GraphError, InterestGraph
from serendipity.offline.graph.sampling import ClickSampler
from tests.offline.graph.small_graph import two_tastes


def test_an_epoch_shows_every_click_once_beside_an_item_the_user_did_not_click() -> None:
    graph = two_tastes()
    clicked = set(map(tuple, graph.clicks.T.tolist()))
    batches = list(ClickSampler(graph).epoch(64, np.random.default_rng(0)))
    assert {batch.shape[1] for batch in batches[:-1]} == {64}
    users, items, others = np.concatenate(batches, axis=1)
    assert sorted(zip(users.tolist(), items.tolist(), strict=True)) == sorted(clicked)
    assert not clicked & set(zip(users.tolist(), others.tolist(), strict=True))


def test_items_not_clicked_are_drawn_evenly() -> None:
    none = np.empty((0, 0), np.int64)
    graph = InterestGraph(1, 5, 0, 0, np.array([[0, 0], [1, 3]]), none, none)
    sampler, rng = ClickSampler(graph), np.random.default_rng(0)
    drawn = np.concatenate([batch[2] for _ in range(3000) for batch in sampler.epoch(2, rng)])
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 0, 1 / 3], atol=0.03)


@pytest.mark.parametrize(
    ("clicks", "message"),
    [
        ([[], []], "graph, clicks: found none, expected at least one to learn from"),
        ([[1, 1], [0, 1]], "graph, clicks: found user 1 with all items, expected one to tell from"),
    ],
)
def test_clicks_that_nothing_can_be_learned_from_are_refused(clicks: list[list[int]], message: str) -> None:
    none = np.empty((0, 0), np.int64)
    with pytest.raises(GraphError) as caught:
        ClickSampler(InterestGraph(2, 2, 0, 0, np.array(clicks, np.int64), none, none))
    assert str(caught.value) == message
