from pathlib import Path

import numpy as np
import onnxruntime
import torch

from serendipity import layout
from serendipity.features import OUTPUT_NAME, FeatureAssembler, LongHistory, TowerInputs
from serendipity.novelty import Clicks
from serendipity.offline.towers.export import ITEM_VECTORS, ONNX, PROGRAM, export_towers, load_user_tower, read_spec
from serendipity.offline.towers.user_tower import tensors
from tests.offline.towers.conftest import World


def test_exports_answer_as_the_towers_do(world: World, tmp_path: Path) -> None:
    towers = world.towers()
    with torch.no_grad():
        # Towers start near their factors; drawn layers let every input show.
        torch.nn.init.normal_(towers.item.output_layer.weight, std=0.5)
        torch.nn.init.normal_(towers.user.output_layer.weight, std=0.5)
    prepared = world.prepared
    spec = export_towers(
        towers, prepared.builder.assembler, prepared.now, world.nodes.vectors, world.nodes.encoder, tmp_path
    )
    moment = prepared.validation.moment
    inputs = moment.take(np.arange(30), world.nodes.vectors)
    towers.user.load_factors(torch.from_numpy(prepared.now.items.factors.clicked))
    with torch.no_grad():
        eager = towers.user.eval()(*tensors(inputs)).numpy()
    np.testing.assert_allclose(load_user_tower(tmp_path)(inputs), eager, rtol=0, atol=1e-5)
    np.testing.assert_allclose(load_user_tower(tmp_path / PROGRAM)(inputs), eager, rtol=0, atol=1e-5)
    items = np.load(tmp_path / ITEM_VECTORS)
    assert items.dtype == np.float32
    assert items.shape == (len(world.catalogue), world.config.vector_dim)
    np.testing.assert_array_equal(items, towers.item_vectors(prepared.now.items))
    assert (tmp_path / ONNX).stat().st_size > 0
    assert read_spec(tmp_path) == spec


def test_the_spec_gives_back_the_assembler_and_names_the_training(world: World, tmp_path: Path) -> None:
    assembler = world.prepared.builder.assembler
    spec = export_towers(world.towers(), assembler, world.prepared.now, world.nodes.vectors, "drawn", tmp_path)
    assert FeatureAssembler.from_spec(spec) == assembler
    assert spec.fingerprint == layout.sha256(tmp_path / PROGRAM)[:16]
    assert spec.model_name == f"user_tower_{spec.fingerprint}"
    assert spec.text_encoder == "drawn"


def test_a_user_nothing_is_known_of_gets_finite_vectors(world: World, tmp_path: Path) -> None:
    assembler = world.prepared.builder.assembler
    export_towers(world.towers(), assembler, world.prepared.now, world.nodes.vectors, "drawn", tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / ONNX), providers=["CPUExecutionProvider"])
    # With as many interests as there are, and a row of zeros where there are none.
    for interests, rows in ((0, 1), (1, 1), (2, 2), (world.config.rows.max_interests + 1,) * 2):
        unknown = assembler.assemble(
            Clicks.empty(),
            LongHistory.empty(),
            assembler.encode_profile({}),
            world.nodes.vectors[:interests],
            1_700_000_000,
        )
        found = load_user_tower(tmp_path)(TowerInputs.stack([unknown]))
        assert found.shape == (1, 1 + min(rows, world.config.rows.max_interests), world.config.vector_dim)
        assert np.isfinite(found).all()
        (served,) = session.run([OUTPUT_NAME], unknown.arrays())
        np.testing.assert_allclose(served, found, rtol=0, atol=1e-5)
