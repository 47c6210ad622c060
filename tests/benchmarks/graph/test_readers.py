from dataclasses import replace

import numpy as np
import pytest

from benchmarks.graph.later import Later
from benchmarks.graph.readers import category_scores, category_section, edge_confidence, noise_section
from benchmarks.graph.tower_reader import node_vectors, tower_section
from serendipity.offline.graph.choice import Choice
from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.trainer import fit
from serendipity.offline.interests.taxonomy import Taxonomy
from serendipity.offline.logs.builder import build_logs
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, split_times
from serendipity.offline.logs.schema import LogsConfig
from serendipity.offline.towers.interests import NO_NODE, InterestNodes, ReasonedInterests
from tests.fixtures.small_host import write_small_host
from tests.offline.graph.small_graph import two_tastes
from tests.offline.towers.conftest import UNTIL, nodes_of, small_config


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Later:
    folder = tmp_path_factory.mktemp("small")
    write_small_host(folder / "host")
    build_logs(folder / "host", folder / "logs", LogsConfig(novelty_level=1))
    histories, catalogue = Histories.read(folder / "logs"), Catalogue.read(folder / "logs")
    cut = split_times(histories, [0.9])[0]
    return Later.of(histories, catalogue, cut, UNTIL, Choice(12, 3, 0.25, 0, 0.5))


def test_the_graph_holds_what_came_before_the_cut_alone(later: Later) -> None:
    histories = later.histories
    past = histories.times < later.held_out.cut
    pairs = set(zip(histories.users[past].tolist(), (histories.items[past] - 1).tolist(), strict=True))
    assert set(zip(*later.graph.clicks.tolist(), strict=True)) == pairs


def test_categories_are_ranked_in_six_ways(later: Later) -> None:
    scores = category_scores(later)
    assert all(each.shape == (len(later.histories), 12) for each in scores.values())
    page = category_section(later)
    assert sum(line.startswith("| graph ×") for line in page) == 4
    assert any("never clicked" in line for line in page)


def test_a_wrong_interest_is_trusted_less() -> None:
    graph = two_tastes()
    wrong = np.array([[0, 1, 2, 3], [1, 0, 1, 0]])
    noisy = replace(graph, holds=np.concatenate([graph.holds, wrong], axis=1))
    config = GraphConfig.model_validate({"dim": 8, "reconstruction": {"weight": 0.001}})
    found = edge_confidence(fit(noisy.without_knowledge(), config, epochs=20).vectors, noisy)
    assert found.shape == (64,)
    assert found[-4:].max() < np.median(found[:-4])


def test_dropped_edges_are_told_against_random_ones(later: Later) -> None:
    users, first = np.unique(later.graph.clicks[0], return_index=True)
    families = (later.catalogue.item_categories[later.graph.clicks[1][first]] - 1) // 3
    held = replace(later.graph, holds=np.stack([users, families]), num_interests=4)
    page = "\n".join(noise_section(replace(later, graph=held)))
    assert "30% of" in page
    assert page.count("| least confident dropped |") == 2
    assert "| no interest edges |" in page


def test_a_node_has_the_mean_direction_of_its_items() -> None:
    nodes = InterestNodes(
        np.zeros((3, 2), np.float32), np.array([[0, NO_NODE], [0, 1], [1, NO_NODE]], np.int32), "drawn"
    )
    found = node_vectors(nodes, np.array([[1, 0], [1, 0], [0, 1]], np.float32))
    assert np.allclose(found, [[1, 0], [0.5**0.5, 0.5**0.5], [0, 0]])


def test_towers_are_trained_on_every_kind_of_vectors(later: Later) -> None:
    taxonomy = Taxonomy.from_catalogue(later.catalogue)
    nodes = nodes_of(taxonomy, len(later.catalogue))
    told: list[str] = []
    interests_at = ReasonedInterests(later.histories, taxonomy)
    page = tower_section(later, nodes, interests_at, small_config(), told.append)
    assert len(told) == 4
    for line in ("novel recall@20, the user's own row", "novel recall@100, the interests' rows in turn"):
        assert sum(line in each for each in page) == 1
    assert sum(each.startswith("| graph |") for each in page) == 6
