"""A host's own model in the place of the towers, as far as the towers directory."""

from pathlib import Path

import duckdb
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from serendipity.features import FeatureAssembler, LongHistory, TowerInputs
from serendipity.novelty import Clicks
from serendipity.offline.interests.summary import InterestsSummary
from serendipity.offline.towers.config import OwnModelConfig, TowersConfig
from serendipity.offline.towers.export import ITEM_VECTORS, load_user_tower, read_fingerprint, read_spec
from serendipity.offline.towers.own_model import OwnModelError, take_own_model
from serendipity.tools.serving.trainings import read_tower
from tests.fixtures.own_model import DIM, item_vectors, write_own_model
from tests.offline.towers.conftest import INTEREST_DIM, World


@pytest.fixture
def interests(tmp_path: Path) -> Path:
    directory = tmp_path / "interests"
    directory.mkdir()
    InterestsSummary(
        encoder="an encoder", interest_dim=INTEREST_DIM, taxonomy_hash="", vocabulary_id="", grounding_threshold=0.5,
        reasoner="taxonomy", novelty_level=1, generated_at=0, num_nodes=1, num_reasoner_nodes=0, num_users=0,
        num_interests=0,
    ).write(directory)  # fmt: skip
    return directory


def own_of(world: World, directory: Path, trained_until: int = 0) -> OwnModelConfig:
    vectors = item_vectors(world.logs.parent / "host")
    vectors.pop("i0000")
    write_own_model(directory, vectors)
    return OwnModelConfig(directory=directory, trained_until=trained_until)


def test_an_own_tower_is_fed_the_catalogues_rows_and_finds_its_own_items(
    world: World, interests: Path, tmp_path: Path
) -> None:
    own = own_of(world, tmp_path / "own")
    spec, unknown = take_own_model(world.logs, interests, tmp_path / "towers", own, TowersConfig())
    assert (unknown, spec.history_length, spec.text_encoder) == (1, 20, "an encoder")
    assert spec == read_spec(tmp_path / "towers")
    assert read_fingerprint(tmp_path / "towers") == spec.fingerprint
    vectors = item_vectors(world.logs.parent / "host")
    rows = [world.catalogue.item_ids.index(item) for item in ("i0005", "i0100")]
    assembler = FeatureAssembler.from_spec(spec)
    clicks = Clicks(np.array(rows, np.int32) + 1, np.zeros(2, np.int32), np.array([9, 8], np.int64))
    interest = np.ones((3, INTEREST_DIM), np.float32)
    one = assembler.assemble(clicks, LongHistory.empty(), assembler.encode_profile({}), interest, 10)
    found = load_user_tower(tmp_path / "towers")(TowerInputs.stack([one, one]))
    expected = (vectors["i0005"] + vectors["i0100"]) / 20
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 4, DIM)), atol=1e-6)
    laid = np.load(tmp_path / "towers" / ITEM_VECTORS)
    np.testing.assert_array_equal(laid[rows], [vectors["i0005"], vectors["i0100"]])
    stranger = world.catalogue.item_ids.index("i0000")
    alike = world.catalogue.item_categories == world.catalogue.item_categories[stranger]
    alike[stranger] = False
    np.testing.assert_allclose(laid[stranger], laid[alike].mean(axis=0), atol=1e-6)


def test_what_serves_takes_an_own_tower_for_a_tower(world: World, interests: Path, tmp_path: Path) -> None:
    own = own_of(world, tmp_path / "own")
    spec, _ = take_own_model(world.logs, interests, tmp_path / "towers", own, TowersConfig())
    assert read_tower(tmp_path / "towers") == (spec, DIM)


def test_a_model_that_has_seen_what_it_is_judged_by_is_refused(world: World, interests: Path, tmp_path: Path) -> None:
    own = own_of(world, tmp_path / "own", trained_until=4_000_000_000)
    with pytest.raises(OwnModelError, match=r"towers.own.trained_until: found 4000000000, expected at most 1\d+: the"):
        take_own_model(world.logs, interests, tmp_path / "towers", own, TowersConfig())


def test_the_model_of_an_earlier_training_is_what_the_merge_is_learned_with(
    world: World, interests: Path, tmp_path: Path
) -> None:
    own = own_of(world, tmp_path / "own")
    write_own_model(tmp_path / "own" / "fit", item_vectors(world.logs.parent / "host", seed=4))
    take_own_model(world.logs, interests, tmp_path / "towers", own, TowersConfig())
    served, first = (np.load(tmp_path / "towers" / part / ITEM_VECTORS) for part in ("", "fit"))
    assert not np.allclose(served, first)


@pytest.mark.parametrize(
    ("inputs", "rank", "message"),
    [
        (["history_items", "profile"], 2, r"inputs: found history_items, profile, expected history_items, and of"),
        (["history_ages"], 2, r"inputs: found history_ages, expected history_items"),
        (["history_items"], 1, r"outputs: found 1 of ranks \[1\], expected one, \[B, d\] or"),
        (["history_items"], 2, r"vectors of 2 users with 1 interest: found \[2, 2, 20\], expected \[2, 2, 16\]"),
    ],
)
def test_a_tower_that_does_not_fit_is_told_why(
    world: World, interests: Path, tmp_path: Path, inputs: list[str], rank: int, message: str
) -> None:
    own = own_of(world, tmp_path / "own")
    graph = helper.make_graph(
        [helper.make_node("Cast", [inputs[0]], ["user"], to=TensorProto.FLOAT)],
        "tower",
        [helper.make_tensor_value_info(name, TensorProto.INT32, ["B", 20]) for name in inputs],
        [helper.make_tensor_value_info("user", TensorProto.FLOAT, ["B", "d"][:rank])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(tmp_path / "own" / "user_tower.onnx"))
    with pytest.raises(OwnModelError, match=message):
        take_own_model(world.logs, interests, tmp_path / "towers", own, TowersConfig())


def test_a_tower_that_is_fed_one_click_is_refused(world: World, interests: Path, tmp_path: Path) -> None:
    own = own_of(world, tmp_path / "own")
    graph = helper.make_graph(
        [helper.make_node("Cast", ["history_items"], ["user"], to=TensorProto.FLOAT)],
        "tower",
        [helper.make_tensor_value_info("history_items", TensorProto.INT32, ["B"])],
        [helper.make_tensor_value_info("user", TensorProto.FLOAT, ["B", "d"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(tmp_path / "own" / "user_tower.onnx"))
    with pytest.raises(OwnModelError, match=r"history_items: found rank 1, expected \[B, L\]"):
        take_own_model(world.logs, interests, tmp_path / "towers", own, TowersConfig())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("('a', [1.0, 2.0]), ('b', [1.0])", r"vector: found lengths \[1, 2\], expected one"),
        ("('a', [1.0]), ('a', [2.0])", r"item_id: found NULL or an id twice"),
        ("('a', ['nan'::FLOAT])", r"vector: found NULL, NaN or infinity"),
    ],
)
def test_vectors_that_are_none_are_refused(
    world: World, interests: Path, tmp_path: Path, rows: str, message: str
) -> None:
    own = own_of(world, tmp_path / "own")
    path = tmp_path / "own" / "item_vectors.parquet"
    duckdb.sql(f"COPY (FROM (VALUES {rows}) AS t(item_id, vector)) TO '{path}' (FORMAT parquet)")
    with pytest.raises(OwnModelError, match=message):
        take_own_model(world.logs, interests, tmp_path / "towers", own, TowersConfig())
