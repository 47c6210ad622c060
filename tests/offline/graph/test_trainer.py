import numpy as np
import pytest
import torch

from benchmarks.graph.ranking import rank
from serendipity.offline.finite import DivergedError
from serendipity.offline.graph import objective, trainer
from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.interest_graph import InterestGraph, View
from serendipity.offline.graph.vectors import GraphVectors
from tests.offline.graph.small_graph import two_tastes

EVERYTHING = GraphConfig.model_validate(
    {
        "dim": 8,
        "layers": 2,
        "contrast": {"weight": 0.01},
        "reconstruction": {"weight": 0.03},
        "transe": {"enabled": True},
        "trainer": {"learning_rate": 0.05, "batch_clicks": 64, "max_epochs": 12, "check_every": 2, "patience": 3},
    }
)
PLAIN = EVERYTHING.model_copy(
    update={
        "contrast": EVERYTHING.contrast.model_copy(update={"weight": 0.0}),
        "reconstruction": EVERYTHING.reconstruction.model_copy(update={"weight": 0.0}),
        "transe": EVERYTHING.transe.model_copy(update={"enabled": False}),
    }
)


def ndcg(vectors: GraphVectors, graph: InterestGraph, known: np.ndarray, wanted: np.ndarray) -> float:
    return float(rank(vectors.scores, graph.num_items, known, wanted, (10,)).ndcg[10].mean())


@pytest.mark.parametrize("config", [EVERYTHING, EVERYTHING.model_copy(update={"user_embeddings": True}), PLAIN])
def test_training_finds_the_taste_of_users(config: GraphConfig) -> None:
    graph = two_tastes()
    every = np.stack(np.divmod(np.arange(graph.num_users * graph.num_items), graph.num_items))
    own = every[:, (every[0] % 2) == (every[1] >= graph.num_items // 2)]
    clicked = set(map(tuple, graph.clicks.T.tolist()))
    wanted = np.array([pair for pair in own.T.tolist() if tuple(pair) not in clicked]).T
    # Ten items of the own half are left, so all ten best are right where taste is found.
    assert ndcg(trainer.fit(graph, config).vectors, graph, graph.clicks, wanted) > 0.95


def test_a_folded_in_user_has_the_trained_vector() -> None:
    graph = two_tastes()
    vectors = trainer.fit(graph, EVERYTHING, epochs=3).vectors
    for user in range(0, graph.num_users, 7):
        items, interests = (edges[1][edges[0] == user] for edges in (graph.clicks, graph.holds))
        np.testing.assert_allclose(vectors.fold_in(items, interests), vectors.user_vectors[user], atol=1e-5, rtol=1e-5)


def test_nothing_folded_in_is_a_vector_of_zeros() -> None:
    vectors = trainer.fit(two_tastes(), PLAIN, epochs=1).vectors
    none = np.empty(0, np.int64)
    assert not vectors.fold_in(none, none).any()


def test_training_ends_when_looks_get_no_better() -> None:
    graph = two_tastes()
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.1])
    found = trainer.fit(graph, PLAIN, validate=lambda _: next(scores))
    assert [look.epoch for look in found.looks] == [2, 4, 6, 8, 10]
    assert (found.best_epoch, found.best_score) == (4, 0.3)
    again = trainer.fit(graph, PLAIN, epochs=4)
    assert np.array_equal(found.vectors.item_vectors, again.vectors.item_vectors)


def test_losses_that_are_not_finite_end_training_with_their_names() -> None:
    config = PLAIN.model_copy(update={"click_weight": float("inf")})
    with pytest.raises(DivergedError, match=r"^graph, epoch 1, step 1: found click inf, l2 .*, expected finite"):
        trainer.fit(two_tastes(), config, epochs=1)


def test_a_part_of_weight_zero_is_left_out() -> None:
    graph = two_tastes()
    assert set(trainer.fit(graph, EVERYTHING, epochs=1).looks[0].losses) == {
        "click", "l2", "contrast", "reconstruction", "translation",
    }  # fmt: skip
    assert set(trainer.fit(graph, PLAIN, epochs=1).looks[0].losses) == {"click", "l2"}
    bare = graph.without_interests().without_knowledge()
    assert set(trainer.fit(bare, EVERYTHING, epochs=1).looks[0].losses) == {"click", "l2"}


def test_each_side_is_contrasted_between_its_own_views(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = two_tastes()
    seen: list[torch.Tensor] = []

    def keep(one: torch.Tensor, other: torch.Tensor, temperature: float) -> torch.Tensor:
        seen.extend([one, other])
        return one.sum() * 0.0

    monkeypatch.setattr(objective, "contrast_loss", keep)
    silent = EVERYTHING.contrast.model_copy(update={"noise": 0.0})
    config = EVERYTHING.model_copy(update={"contrast": silent, "trainer": EVERYTHING.trainer.model_copy(
        update={"batch_clicks": 1000})})  # fmt: skip
    run = trainer._Run(graph, config, torch.device("cpu"), None, 1)
    start = run._model.embeddings().detach().numpy()
    run.go_on()
    users, items = slice(0, graph.num_users), slice(graph.num_users, graph.num_users + graph.num_items)
    for found, view, rows in zip(
        seen, (View.COLLABORATIVE, View.INTEREST, View.COLLABORATIVE, View.KNOWLEDGE), (users, users, items, items),
        strict=True,
    ):  # fmt: skip
        dense = graph.adjacency(view, config.knowledge_weight).toarray()
        expected = (start + dense @ start + dense @ dense @ start) / 3
        clicked = np.unique(graph.clicks[1]) if rows == items else np.arange(graph.num_users)
        np.testing.assert_allclose(found.detach().numpy(), expected[rows][clicked], atol=1e-5)
