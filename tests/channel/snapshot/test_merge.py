"""What a snapshot says of merging candidates: its model, item statistics, category vectors, and what sources earned."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from serendipity import layout
from serendipity.channel.errors import SnapshotUnavailable
from serendipity.channel.snapshot.merge import Merge
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.offline.snapshot.contents import ContentsError
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.small_world import NOW, NUM_CATEGORIES, NUM_ITEMS, SmallWorld

WIDTH = len(layout.ITEM_STATISTICS_COLUMNS)
CLICKS_28D = layout.ITEM_STATISTICS_COLUMNS.index("item_clicks_28d")


@pytest.fixture
def copy(small_world: SmallWorld, tmp_path: Path) -> Path:
    """A snapshot that a test may damage."""
    directory = tmp_path / small_world.version
    shutil.copytree(small_world.snapshot_dir, directory, ignore=shutil.ignore_patterns("lock.mdb"))
    return directory


def merge_of(directory: Path, **fields: object) -> Merge:
    """Open what merges candidates alone, with other fields in the manifest's spec."""
    manifest = layout.read_manifest(directory)
    for name, value in fields.items():
        manifest.merge.ClearField(name)  # type: ignore[arg-type]
        manifest.merge.MergeFrom(records_pb2.MergeSpec(**{name: value}))  # type: ignore[arg-type]
    return Merge.open(directory, manifest)


def with_statistics(directory: Path, clicks: dict[int, float]) -> Merge:
    """Let some rows have been clicked lately, and no others."""
    statistics = np.zeros((NUM_ITEMS, WIDTH), np.float32)
    statistics[list(clicks), CLICKS_28D] = list(clicks.values())
    np.save(directory / layout.ITEM_STATISTICS, statistics)
    return merge_of(directory)


def test_it_says_what_the_builder_learned(small_world: SmallWorld, snapshot: Snapshot) -> None:
    contents, merge = small_world.contents, snapshot.merge
    assert merge.id == contents.merge.id == snapshot.versions.merge
    assert merge.columns == tuple(contents.merge.features)
    np.testing.assert_array_equal(merge.item_statistics, contents.item_statistics)
    np.testing.assert_array_equal(merge.category_vectors, contents.category_vectors)
    assert (merge.surprise, merge.unearned) == (0.0, frozenset())


def test_probabilities_are_those_of_the_model_in_the_order_of_the_candidates(
    small_world: SmallWorld, snapshot: Snapshot
) -> None:
    features = np.random.default_rng(1).uniform(-1, 2, (50, len(snapshot.merge.columns))).astype(np.float32)
    model = onnxruntime.InferenceSession(small_world.contents.merge_model, providers=["CPUExecutionProvider"])
    (expected,) = model.run(None, {"features": features})
    found = snapshot.merge.probabilities(features)
    assert found.shape == (50,)
    np.testing.assert_array_equal(found, expected[:, 0])
    assert ((found > 0) & (found < 1)).all()
    assert len(set(found.tolist())) > 10


def test_a_source_is_unearned_only_where_the_builder_says_so(copy: Path) -> None:
    worths = [
        records_pb2.SourceWorth(source=pb.SOURCE_GROUP, earned=False),
        records_pb2.SourceWorth(source=pb.SOURCE_INTEREST, earned=True),
        records_pb2.SourceWorth(source=pb.SOURCE_GRAPH),
    ]
    merge = merge_of(copy, sources=worths, surprise=0.35)
    assert merge.unearned == {pb.SOURCE_GROUP, pb.SOURCE_GRAPH}
    assert merge.surprise == 0.35
    assert merge_of(copy, sources=[]).unearned == frozenset()


def test_popular_are_the_most_clicked_items_of_a_category_first(small_world: SmallWorld, copy: Path) -> None:
    # The last ten rows have no category, and are nobody's to return.
    merge = with_statistics(copy, {7: 1.0, 399: 9.0, 60: 3.0, 200: 2.0, 389: 2.0, 3: 1.0})
    assert merge.popular.tolist() == [60, 200, 389, 3, 7]
    assert merge.popular_categories.tolist() == [
        int(small_world.catalogue.item_categories[row]) for row in merge.popular.tolist()
    ]
    assert (merge.popular.dtype, merge.popular_categories.dtype) == (np.int64, np.int64)
    nobody = with_statistics(copy, {})
    assert (len(nobody.popular), len(nobody.popular_categories)) == (0, 0)


def test_first_and_last_rows_of_categories_are_of_their_own(small_world: SmallWorld, copy: Path) -> None:
    offsets = small_world.catalogue.category_offsets.tolist()
    edges = {row: 1.0 for start, end in itertools.pairwise(offsets) for row in (start, end - 1)}
    merge = with_statistics(copy, edges)
    assert merge.popular_categories.tolist() == [number for number in range(1, NUM_CATEGORIES + 1) for _ in range(2)]


def test_without_a_model_nothing_but_the_model_is_missing(small_world: SmallWorld, tmp_path: Path) -> None:
    contents = replace(small_world.contents, merge=records_pb2.MergeSpec(surprise=0.5), merge_model=None)
    directory = write_snapshot(contents, tmp_path, created_at=NOW)
    assert not (directory / layout.MERGE_MODEL).exists()
    opened = open_snapshot(directory)
    assert (opened.merge.id, opened.versions.merge, opened.merge.columns) == ("", "", ())
    assert opened.merge.surprise == 0.5
    np.testing.assert_array_equal(opened.merge.item_statistics, contents.item_statistics)
    np.testing.assert_array_equal(opened.merge.category_vectors, contents.category_vectors)
    assert len(opened.merge.popular) > 0
    opened.close()


@pytest.mark.parametrize(
    ("name", "array"),
    [
        (layout.ITEM_STATISTICS, np.zeros((NUM_ITEMS - 1, WIDTH), np.float32)),
        (layout.ITEM_STATISTICS, np.zeros((NUM_ITEMS, WIDTH + 1), np.float32)),
        (layout.CATEGORY_VECTORS, np.zeros((NUM_CATEGORIES, 3), np.float32)),
        (layout.CATEGORY_VECTORS, np.zeros((NUM_CATEGORIES + 1, 3), np.float64)),
        (layout.CATEGORY_VECTORS, np.zeros(NUM_CATEGORIES + 1, np.float32)),
    ],
)
def test_an_array_of_another_shape_or_kind_is_refused_by_name(
    copy: Path, name: str, array: NDArray[np.generic]
) -> None:
    np.save(copy / name, array)
    with pytest.raises(SnapshotUnavailable, match=rf"{name}: found .*expected"):
        open_snapshot(copy, verify=False)


@pytest.mark.parametrize("name", [layout.ITEM_STATISTICS, layout.CATEGORY_VECTORS, layout.MERGE_MODEL])
def test_a_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(SnapshotUnavailable, match=name):
        open_snapshot(copy, verify=False)
    with pytest.raises(SnapshotUnavailable, match=f"{name}: missing"):
        open_snapshot(copy)


@pytest.mark.parametrize("kept", [0, 200])
def test_a_model_that_is_cut_off_is_refused_by_name(copy: Path, kept: int) -> None:
    path = copy / layout.MERGE_MODEL
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SnapshotUnavailable, match=r"merge\.onnx: cannot be used"):
        open_snapshot(copy, verify=False)


def test_a_model_that_reads_another_number_of_features_is_refused(small_world: SmallWorld, copy: Path) -> None:
    names = list(small_world.contents.merge.features)
    with pytest.raises(SnapshotUnavailable, match=rf"merge\.onnx: cannot be used .* {len(names) - 1} features to"):
        merge_of(copy, features=names[:-1])


@pytest.mark.parametrize("value", [np.nan, 1.75, -0.5])
def test_a_model_that_gives_no_probabilities_is_refused(copy: Path, value: float) -> None:
    write_constant(copy / layout.MERGE_MODEL, value, len(layout.read_manifest(copy).merge.features), columns=1)
    with pytest.raises(SnapshotUnavailable, match=rf"merge\.onnx: found \[{value}.*expected probabilities"):
        open_snapshot(copy, verify=False)


def test_a_model_that_gives_as_many_columns_as_it_reads_is_refused(copy: Path) -> None:
    width = len(layout.read_manifest(copy).merge.features)
    write_constant(copy / layout.MERGE_MODEL, 0.5, width, columns=width)
    with pytest.raises(SnapshotUnavailable, match=rf"of shape \(3, {width}\) for 3 candidates, expected probabilities"):
        open_snapshot(copy, verify=False)


@pytest.mark.parametrize("name", [layout.ITEM_STATISTICS, layout.CATEGORY_VECTORS])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_array_that_is_not_finite_is_refused_by_name(copy: Path, name: str, value: float) -> None:
    array = np.load(copy / name)
    array[1, 0] = value
    np.save(copy / name, array)
    with pytest.raises(SnapshotUnavailable, match=f"{name}: found values that are not finite"):
        open_snapshot(copy, verify=False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"surprise": 1.5}, "merge.surprise: found 1.5, expected 0 to 1"),
        ({"surprise": float("nan")}, "merge.surprise: found nan"),
        ({"features": ["novel", "novel"]}, "merge.features: found .* expected each once"),
        ({"features": ["magic"]}, "merge.features: found .*magic.* expected some of"),
        ({"sources": [records_pb2.SourceWorth()]}, r"merge.sources: found \[0\]"),
        ({"sources": [records_pb2.SourceWorth(source=pb.SOURCE_COLLABORATIVE)]}, "merge.sources: found"),
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_refused(copy: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(SnapshotUnavailable, match=message):
        merge_of(copy, **fields)


def write_constant(path: Path, value: float, width: int, columns: int) -> None:
    """Write a model that answers every candidate with as many times the same value."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "zeros"], ["nothing"]),
            helper.make_node("Add", ["nothing", "value"], ["probabilities"]),
        ],
        "constant",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, columns])],
        [
            helper.make_tensor("zeros", TensorProto.FLOAT, [width, columns], [0.0] * width * columns),
            helper.make_tensor("value", TensorProto.FLOAT, [1], [value]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def test_contents_that_do_not_fit_are_refused_by_field(small_world: SmallWorld, tmp_path: Path) -> None:
    contents = small_world.contents

    def spec(**fields: object) -> records_pb2.MergeSpec:
        changed = records_pb2.MergeSpec()
        changed.CopyFrom(contents.merge)
        for name, value in fields.items():
            setattr(changed, name, value)
        return changed

    for wrong, field in (
        (replace(contents, merge_model=None), r"merge\.id: found .* expected ''"),
        (replace(contents, merge=spec(id="")), r"merge\.id"),
        (replace(contents, merge=spec(id="0" * 16)), r"merge\.id: found '0{16}', expected '[0-9a-f]{16}'"),
        (replace(contents, item_statistics=contents.item_statistics[1:]), "item_statistics"),
        (replace(contents, item_statistics=contents.item_statistics[:, 1:]), "item_statistics"),
        (replace(contents, category_vectors=contents.category_vectors[1:]), "category_vectors"),
        (replace(contents, category_vectors=np.full_like(contents.category_vectors, np.nan)), "category_vectors"),
    ):
        with pytest.raises(ContentsError, match=field):
            write_snapshot(wrong, tmp_path, created_at=NOW)
