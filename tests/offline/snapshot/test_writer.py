"""Writing a snapshot."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serendipity import layout
from serendipity.item_ids import ItemIds
from serendipity.offline.snapshot.contents import ContentsError
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.stores import store_size
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.small_world import NOW, NUM_ITEMS, NUM_USERS, SmallWorld

MAX_INTERESTS_BYTES = 120
"""Bytes a hot interests record may take when it holds at most 16 interests."""


def _store(directory: Path, name: str) -> dict[bytes, bytes]:
    # LMDB opens an environment once in a process, and other tests keep this one open: read a copy.
    with tempfile.TemporaryDirectory() as copy:
        shutil.copy(directory / name / "data.mdb", copy)
        with lmdb.open(copy, readonly=True, lock=False) as environment, environment.begin() as transaction:
            return dict(transaction.cursor())


def test_every_record_is_read_back_under_its_key(small_world: SmallWorld) -> None:
    contents, directory = small_world.contents, small_world.snapshot_dir
    users = _store(directory, layout.USERS)
    assert users.pop(layout.DEFAULT_USER) == contents.default_user.SerializeToString()
    assert users == {layout.user_key(u): r.SerializeToString() for u, r in contents.users.items()}
    interests = _store(directory, layout.INTERESTS)
    assert interests.pop(layout.DEFAULT_USER) == contents.default_interests.SerializeToString()
    assert interests == {layout.user_key(u): r.SerializeToString() for u, r in contents.interests.items()}
    paths = _store(directory, layout.INTEREST_PATHS)
    assert paths.pop(layout.DEFAULT_USER) == contents.default_interest_paths.SerializeToString()
    assert paths == {layout.user_key(u): r.SerializeToString() for u, r in contents.interest_paths.items()}
    nodes = _store(directory, layout.INTEREST_NODES)
    assert nodes == {layout.node_key(i): n.SerializeToString() for i, n in enumerate(contents.nodes)}
    signals = _store(directory, layout.SIGNALS)
    assert signals == {layout.user_key(u): r.SerializeToString() for u, r in contents.signals.items()}
    items = _store(directory, layout.ITEMS)
    for row, item_id in enumerate(small_world.item_ids):
        record = records_pb2.ItemRecord.FromString(items[layout.item_key(item_id)])
        assert (record.row, record.category) == (row, contents.catalogue.item_categories[row])
        assert (record.title, tuple(record.path)) == (contents.catalogue.titles[row], contents.catalogue.paths[row])
        assert record.available == contents.catalogue.available[row]
    assert np.array_equal(np.load(directory / layout.ITEM_VECTORS), contents.item_vectors)
    assert np.array_equal(np.load(directory / layout.INTEREST_VECTORS), contents.node_vectors)
    assert np.array_equal(np.load(directory / layout.ITEM_AVAILABLE), contents.catalogue.available)
    assert list(ItemIds.open(directory)) == small_world.item_ids
    assert np.array_equal(np.load(directory / layout.ITEM_STATISTICS), contents.item_statistics)
    assert np.array_equal(np.load(directory / layout.CATEGORY_VECTORS), contents.category_vectors)
    assert (directory / layout.MERGE_MODEL).read_bytes() == contents.merge_model


def test_the_manifest_describes_what_was_written(small_world: SmallWorld) -> None:
    manifest = layout.verify_files(small_world.snapshot_dir)
    assert manifest.version == small_world.snapshot_dir.name
    assert manifest.version.startswith("20231114T221320Z-")
    assert manifest.created_at.seconds == NOW
    assert (manifest.counts.items, manifest.counts.users) == (NUM_ITEMS, NUM_USERS)
    assert list(manifest.categories) == small_world.contents.catalogue.categories
    assert list(manifest.category_offsets) == small_world.contents.catalogue.category_offsets.tolist()
    assert manifest.tower == small_world.tower
    assert manifest.merge == small_world.contents.merge
    assert (manifest.vocabulary_id, manifest.grounding_threshold) == (small_world.contents.vocabulary_id, 0.6)
    assert not manifest.HasField("interest_gpt")
    assert list(manifest.click_types) == [channel_pb2.EVENT_TYPE_CLICK]
    assert manifest.vector_index.kind == "flat"
    assert not (small_world.snapshot_dir / layout.ITEM_INDEX).exists()
    files = {str(p.relative_to(small_world.snapshot_dir)) for p in small_world.snapshot_dir.rglob("*") if p.is_file()}
    assert files == {*manifest.checksums}


def test_the_same_contents_give_the_same_bytes_and_version(small_world: SmallWorld, tmp_path: Path) -> None:
    again = write_snapshot(small_world.contents, tmp_path, created_at=NOW)
    assert again.name == small_world.version
    assert layout.file_checksums(again) == layout.file_checksums(small_world.snapshot_dir)
    assert write_snapshot(small_world.contents, tmp_path, created_at=NOW) == again


def test_other_contents_or_another_time_give_another_version(small_world: SmallWorld, tmp_path: Path) -> None:
    later = write_snapshot(small_world.contents, tmp_path, created_at=NOW + 1)
    moved = dataclasses.replace(
        small_world.contents, item_vectors=small_world.contents.item_vectors + np.float32(0.001)
    )
    other = write_snapshot(moved, tmp_path, created_at=NOW)
    assert len({small_world.version, later.name, other.name}) == 3
    assert later.name.split("-")[1] == small_world.version.split("-")[1]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("name", ["users.lmdb/data.mdb", "item_vectors.npy", "item_ids.utf8", "item_id_hashes.npy"])
def test_a_damaged_file_is_named(small_world: SmallWorld, tmp_path: Path, name: str, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(small_world.snapshot_dir, copy)
    file = copy / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    with pytest.raises(layout.SnapshotError, match=name):
        layout.verify_files(copy)


def test_large_catalogues_are_written_with_an_index_kept_apart_by_category(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    config = IndexConfig(exact_below=100, num_lists=32, min_recall=0.9)
    directory = write_snapshot(small_world.contents, tmp_path, created_at=NOW, index=config)
    described = layout.verify_files(directory).vector_index
    catalogue = small_world.contents.catalogue
    assert described.kind == "ivf"
    # About as many as asked for: each category has lists of its own, and at least one.
    assert 24 <= described.num_lists <= 40
    assert 1 <= described.num_probes <= described.num_lists
    assert 0.9 <= described.recall_at_100 <= 1.0
    assert len(described.category_list_offsets) == len(catalogue.categories) + 1
    index = faiss.read_index(str(directory / layout.ITEM_INDEX))
    assert (index.ntotal, index.nlist) == (catalogue.category_offsets[-1], described.num_lists)
    rows_of = [
        faiss.rev_swig_ptr(index.invlists.get_ids(i), index.invlists.list_size(i)).tolist() for i in range(index.nlist)
    ]
    for number, (first, last) in enumerate(
        zip(described.category_list_offsets[:-1], described.category_list_offsets[1:], strict=True), 1
    ):
        rows = sorted(row for of_list in rows_of[first:last] for row in of_list)
        assert rows == np.flatnonzero(catalogue.item_categories == number).tolist()


def test_a_hot_record_of_sixteen_interests_stays_within_its_budget(small_world: SmallWorld, tmp_path: Path) -> None:
    node = small_world.contents.nodes[0]
    nodes = [
        records_pb2.InterestNode(node_id=i, name=node.name, path=node.path, origin=node.origin) for i in range(20_000)
    ]
    interests = {
        user_id: records_pb2.InterestsRecord(
            node_ids=range(19_984 - 16 * i, 20_000 - 16 * i),
            weights=[1000] * 16,
            generated_at=NOW,
            expires_at=NOW + 8 * 86_400,
            taxonomy_hash=small_world.contents.default_interests.taxonomy_hash,
        )
        for i, user_id in enumerate(small_world.user_ids)
    }
    paths = {u: records_pb2.InterestPathsRecord(paths=[records_pb2.InterestPath()] * 16) for u in interests}
    contents = dataclasses.replace(
        small_world.contents,
        nodes=nodes,
        node_vectors=np.zeros((len(nodes), small_world.tower.interest_dim), np.float32),
        interests=interests,
        interest_paths=paths,
    )
    directory = write_snapshot(contents, tmp_path, created_at=NOW)
    size = store_size(directory / layout.INTERESTS)
    assert size.entries == NUM_USERS + 1
    assert 80 < size.mean_value_bytes <= MAX_INTERESTS_BYTES


@given(
    st.lists(st.integers(0, 2**21 - 1), max_size=16, unique=True),
    st.lists(st.integers(0, 1000), min_size=16, max_size=16),
    st.integers(0, 2**35 - 1),
    st.integers(0, 2**64 - 1),
)
def test_sixteen_interests_of_two_million_nodes_stay_within_the_budget_near_line_too(
    node_ids: list[int], weights: list[int], time: int, number: int
) -> None:
    record = records_pb2.InterestsRecord(
        node_ids=node_ids, weights=weights[: len(node_ids)], generated_at=time, expires_at=time, taxonomy_hash=number,
        vocabulary_id=number,
    )  # fmt: skip
    assert record.ByteSize() <= MAX_INTERESTS_BYTES


def test_without_a_merge_model_there_is_no_file_of_it(small_world: SmallWorld, tmp_path: Path) -> None:
    spec = records_pb2.MergeSpec(horizon_days=30, num_candidates=5)
    without = dataclasses.replace(small_world.contents, merge=spec, merge_model=None)
    directory = write_snapshot(without, tmp_path, created_at=NOW)
    assert layout.verify_files(directory).merge == spec
    assert not (directory / layout.MERGE_MODEL).exists()


def test_the_manifest_carries_the_interest_gpt(small_world: SmallWorld, tmp_path: Path) -> None:
    spec = _interest_gpt(small_world)
    directory = write_snapshot(dataclasses.replace(small_world.contents, interest_gpt=spec), tmp_path, created_at=NOW)
    assert layout.read_manifest(directory).interest_gpt == spec


def _interest_gpt(world: SmallWorld, **changes: object) -> records_pb2.InterestGptSpec:
    spec: dict[str, Any] = {
        "model_name": "interest_gpt_0123456789abcdef",
        "fingerprint": "0123456789abcdef",
        "base": "tiny",
        "prompt_style": "compact",
        "num_interests": 2,
        "max_new_tokens": 128,
        "max_prompt_tokens": 512,
        "taxonomy_hash": world.contents.taxonomy_hash,
        "num_candidates": 8,
        "likelihood_weight": 0.5,
        "report": {"users": 10, "reasoner": 0.25, "likelihood": 0.125, "mix": 0.5, "popularity": 0.125},
        "max_batch": 8,
    }
    return records_pb2.InterestGptSpec(**(spec | changes))


def _gpt(**changes: object) -> Callable[[SmallWorld], dict[str, Any]]:
    return lambda world: {"interest_gpt": _interest_gpt(world, **changes)}


def _merge(**changes: object) -> Callable[[SmallWorld], dict[str, Any]]:
    def change(world: SmallWorld) -> dict[str, Any]:
        spec = records_pb2.MergeSpec()
        spec.CopyFrom(world.contents.merge)
        for name, value in changes.items():
            setattr(spec, name, value)
        return {"merge": spec}

    return change


def _vectors(row: int, value: float) -> Callable[[SmallWorld], dict[str, Any]]:
    def change(world: SmallWorld) -> dict[str, Any]:
        vectors = world.contents.item_vectors.copy()
        vectors[row, 3] = value
        return {"item_vectors": vectors}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_vectors(7, np.nan), r"item_vectors\[7\]: found a value that is not finite"),
        (_vectors(399, np.inf), r"item_vectors\[399\]: found a value that is not finite"),
        (lambda w: {"item_vectors": w.contents.item_vectors[:-1]}, r"item_vectors.shape: found \[399, 16\], expected"),
        (lambda w: {"node_vectors": w.contents.node_vectors[:, :-1]}, r"node_vectors.shape: found \[48, 23\]"),
        (lambda w: {"item_vectors": w.contents.item_vectors.astype(np.float64)}, "item_vectors.dtype: found .float64"),
        (_gpt(taxonomy_hash="0" * 64), "interest_gpt.taxonomy_hash: found '0000"),
        (_merge(id=""), "merge.id: found '', expected '[0-9a-f]{16}'"),
        (_merge(id="0" * 16), "merge.id: found '0000000000000000', expected '[0-9a-f]{16}'"),
        (lambda w: {"merge_model": None}, "merge.id: found '[0-9a-f]{16}', expected ''"),
        (lambda w: {"merge_model": b"another"}, "merge.id: found '[0-9a-f]{16}', expected '[0-9a-f]{16}'"),
        (
            lambda w: {"item_statistics": w.contents.item_statistics[:, :3]},
            r"item_statistics.shape: found \[400, 3\], expected \[400, 4\]",
        ),
        (
            lambda w: {"item_statistics": np.full_like(w.contents.item_statistics, np.nan)},
            r"item_statistics\[0\]: found a value that is not finite",
        ),
        (
            lambda w: {"category_vectors": w.contents.category_vectors[1:]},
            r"category_vectors.shape: found \[12, \d+\], expected \[13, d\]",
        ),
    ],
)  # fmt: skip
def test_contents_that_do_not_fit_together_are_refused_by_name(
    small_world: SmallWorld, tmp_path: Path, change: Callable[[SmallWorld], dict[str, Any]], message: str
) -> None:
    contents = dataclasses.replace(small_world.contents, **change(small_world))
    with pytest.raises(ContentsError, match=message):
        write_snapshot(contents, tmp_path / "root", created_at=NOW)
    assert _visible(tmp_path / "root") == []


_KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from serendipity.offline.snapshot import writer

def die(*_): os.kill(os.getpid(), signal.SIGKILL)
setattr(writer, sys.argv[3], die)
writer.write_snapshot(pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), created_at=int(sys.argv[4]))
"""


@pytest.mark.parametrize("moment", ["write_store", "build_index", "_manifest"])
def test_a_writer_that_is_killed_leaves_no_snapshot_and_the_next_one_succeeds(
    small_world: SmallWorld, tmp_path: Path, moment: str
) -> None:
    contents, root = tmp_path / "contents", tmp_path / "snapshots"
    contents.write_bytes(pickle.dumps(small_world.contents))
    command = [sys.executable, "-c", _KILLED, str(contents), str(root), moment, str(NOW)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert _visible(root) == []
    snapshot = write_snapshot(small_world.contents, root, created_at=NOW)
    assert _visible(root) == [snapshot.name]
    layout.verify_files(snapshot)
    assert not (root / ".building").exists()


def _visible(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("[!.]*")) if root.exists() else []
