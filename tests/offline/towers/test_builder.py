import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serendipity.offline.interests.builder import build_interests
from serendipity.offline.interests.node_table import read_nodes, write_nodes
from serendipity.offline.interests.summary import INTEREST_VECTORS, InterestsSummary
from serendipity.offline.interests.taxonomy import KnownNode, Taxonomy
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.histories import split_times
from serendipity.offline.towers.builder import before, build_towers, prepare, read_interests
from serendipity.offline.towers.dual_tower import item_content
from serendipity.offline.towers.export import ITEM_VECTORS, PROGRAM, read_spec
from serendipity.v1 import records_pb2
from tests.offline.towers.conftest import INTEREST_DIM, World


class DrawnEncoder:
    """Vectors drawn from the text's bytes: the towers do not mind what a text means."""

    name = "drawn"
    dim = INTEREST_DIM

    def encode(self, texts: list[str], cache: Path | None = None) -> np.ndarray:
        drawn = [np.random.default_rng(list(text.encode())).normal(size=self.dim) for text in texts]
        vectors = np.array(drawn, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def interests(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("interests")
    build_interests(world.logs, out, DrawnEncoder(), k=4)  # type: ignore[arg-type]
    return out


def test_a_build_leaves_towers_as_of_its_moment(world: World, interests: Path, tmp_path: Path) -> None:
    until = split_times(world.histories, (0.9,))[0]
    report = build_towers(world.logs, interests, tmp_path, world.config, until)
    spec = read_spec(tmp_path)
    assert report.fingerprint == spec.fingerprint
    assert spec.text_encoder == InterestsSummary.read(interests).encoder
    assert spec.interest_dim == INTEREST_DIM
    assert len(np.load(tmp_path / ITEM_VECTORS)) == len(world.catalogue)
    assert 1 <= report.epochs <= world.config.trainer.max_epochs
    assert set(report.validation) == {"all@20", "all@100", "novel@20", "novel@100"}
    again = build_towers(world.logs, interests, tmp_path / "again", world.config, until)
    assert again == report
    assert (tmp_path / "again" / PROGRAM).is_file()


def test_items_are_grounded_in_nodes_of_the_catalogue_whatever_reasoners_named(
    world: World, interests: Path, tmp_path: Path
) -> None:
    table = read_nodes(interests)
    assert table is not None
    grown = [*table.known, KnownNode((*table.nodes[-1].path, "a new name"), records_pb2.NODE_ORIGIN_REASONER)]
    taxonomy = Taxonomy.from_catalogue(world.catalogue, grown)
    shutil.copytree(interests, tmp_path / "grown")
    write_nodes(tmp_path / "grown", taxonomy, table.vocabulary_id)
    np.save(tmp_path / "grown" / INTEREST_VECTORS, DrawnEncoder().encode(taxonomy.texts))
    before_growth, _ = read_interests(interests, world.histories, world.catalogue)
    nodes, _ = read_interests(tmp_path / "grown", world.histories, world.catalogue)
    assert len(nodes.vectors) == len(before_growth.vectors) + 1
    np.testing.assert_array_equal(nodes.item_nodes, before_growth.item_nodes)


def test_what_comes_after_until_changes_nothing(world: World) -> None:
    until = split_times(world.histories, (0.7,))[0]
    cut = before(world.histories, until)
    assert cut.times.max() < until
    given = (world.catalogue, world.nodes, world.interests_at, world.config, until)
    whole, short = prepare(world.histories, *given), prepare(cut, *given)
    for first, second in zip(whole.fit + whole.refit, short.fit + short.refit, strict=True):
        assert first.until <= until
        np.testing.assert_array_equal(first.rows, second.rows)
        np.testing.assert_array_equal(first.moment.inputs.history_items, second.moment.inputs.history_items)
    np.testing.assert_array_equal(whole.now.items.statistics, short.now.items.statistics)


def test_the_first_training_sees_no_click_of_the_validation_period(world: World) -> None:
    prepared = world.prepared
    assert max(part.until for part in prepared.fit) <= prepared.validation.held_out.cut
    assert max(part.until for part in prepared.refit) == prepared.now.time
    assert prepared.validation.held_out.until == prepared.now.time


def test_interests_of_another_catalogue_are_refused(world: World, interests: Path, tmp_path: Path) -> None:
    shutil.copytree(interests, tmp_path / "interests")
    np.save(tmp_path / "interests" / "interest_vectors.npy", np.zeros((3, INTEREST_DIM), np.float32))
    with pytest.raises(LogsError, match=r"interest_vectors\.npy: found 3 rows, expected"):
        build_towers(world.logs, tmp_path / "interests", tmp_path / "out", world.config)


def test_an_item_has_the_text_of_its_most_specific_interest(world: World) -> None:
    content = item_content(world.catalogue, world.nodes, interest=True)
    assert content.texts.shape == (len(world.catalogue), INTEREST_DIM)
    specific = world.nodes.item_nodes.max(axis=1)[7]
    np.testing.assert_allclose(content.texts[7], world.nodes.vectors[specific] * INTEREST_DIM**0.5, rtol=1e-6)
    assert item_content(world.catalogue, world.nodes, interest=False).texts.shape[1] == 0


def test_searches_are_cut_too(world: World) -> None:
    searched = world.histories.search_times
    assert len(searched)
    until = int(np.median(searched))
    cut = before(world.histories, until)
    assert len(cut.searches) == len(cut.search_times) == (searched < until).sum()
    for user in range(len(cut)):
        assert cut.searches_before(user, until) == replace(world.histories).searches_before(user, until)
