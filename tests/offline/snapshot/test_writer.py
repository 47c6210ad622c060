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
from serendipity.offline.snapshot.contents import ContentsError, SnapshotContents
from serendipity.offline.snapshot.index import IndexConfig
from serendipity.offline.snapshot.record_checks import MAX_INTERESTS_BYTES
from serendipity.offline.snapshot.stores import store_size
from serendipity.offline.snapshot.writer import write_snapshot
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.small_world import NOW, NUM_ITEMS, NUM_USERS, SmallWorld


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
    assert files == {*manifest.checksums, layout.MANIFEST}


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
        "rank_weights": [0.5, 0.25],
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


def _node(**changes: object) -> Callable[[SmallWorld], dict[str, Any]]:
    def change(world: SmallWorld) -> dict[str, Any]:
        node = records_pb2.InterestNode()
        node.CopyFrom(world.contents.nodes[0])
        for name in changes:
            node.ClearField(name)  # type: ignore[arg-type]
        node.MergeFrom(records_pb2.InterestNode(**changes))
        return {"nodes": [node, *world.contents.nodes[1:]]}

    return change


def _signals(**changes: object) -> Callable[[SmallWorld], dict[str, Any]]:
    return lambda world: {"signals": {"user-01": records_pb2.UserSignalsRecord(**changes)}}


def _user(**changes: object) -> Callable[[SmallWorld], dict[str, Any]]:
    def change(world: SmallWorld) -> dict[str, Any]:
        record = records_pb2.UserRecord()
        record.CopyFrom(world.contents.users["user-01"])
        for name, value in changes.items():
            if isinstance(value, bytes):
                setattr(record, name, value)
            else:
                record.ClearField(name)
                getattr(record, name).extend(value)
        return {"users": {**world.contents.users, "user-01": record}}

    return change


def _interests_of(**changes: object) -> Callable[[SmallWorld], dict[str, Any]]:
    def change(world: SmallWorld) -> dict[str, Any]:
        record = records_pb2.InterestsRecord(
            node_ids=[1], weights=[500], generated_at=NOW, expires_at=NOW,
            taxonomy_hash=world.contents.default_interests.taxonomy_hash,
        )  # fmt: skip
        record.MergeFrom(records_pb2.InterestsRecord(**changes))
        return {"interests": {**world.contents.interests, "user-01": record}}

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
        (lambda w: {"item_vectors": w.contents.item_vectors.astype(np.float64)}, r"item_vectors.dtype: found float64"),
        (lambda w: {"taxonomy_hash": "abc"}, "taxonomy_hash: found 'abc', expected 64 hex digits"),
        (lambda w: {"nodes": [*w.contents.nodes[:-1], w.contents.nodes[0]]}, r"nodes\[47\].node_id: found 0"),
        (lambda w: {"users": {**w.contents.users, "": w.contents.default_user}}, "users: found '', expected a"),
        (
            lambda w: {"interests": {**w.contents.interests, "stranger": w.contents.default_interests}},
            "interests: found user 'stranger', expected only users that are in `users`",
        ),
        (_user(click_items=[401], click_categories=[1], click_times=[1]), r"users\['user-01'\].click_items: found 401"),
        (_user(click_items=[1, 2], click_categories=[1], click_times=[2, 1]), r"click_\*: found 2, 1, 2, expected"),
        (_user(click_items=[1, 2], click_categories=[1, 1], click_times=[1, 2]), "click_times: found not descending"),
        (_user(click_categories=[13] * 1, click_items=[1], click_times=[1]), "click_categories: found 13, expected"),
        (_user(click_items=[1] * 201), "click_items: found 201 clicks, expected at most 200"),
        (_user(profile=[4, 0]), r"profile\[0\]: found 4, expected at most 3"),
        (_user(user_vector=b"\0" * 30), r"user_vector: found 30 bytes, expected 32"),
        (_user(user_vector=b"\x00\x7c" * 16), "user_vector: found not finite"),
        (_user(long_categories=[13], long_counts=[1], long_last_times=[1]), r"long_categories: found \[13\], expected"),
        (_interests_of(node_ids=[48], weights=[1]), r"interests\['user-01'\].node_ids: found 48, expected below 48"),
        (_interests_of(weights=[1]), r"interests\['user-01'\].weights: found 2 weights, expected 1"),
        (_interests_of(node_ids=[2], weights=[1001]), "weights: found 1001, expected 0 … 1000"),
        (_interests_of(node_ids=[1], weights=[1]), "node_ids: found a node twice"),
        (_interests_of(taxonomy_hash=1), "taxonomy_hash: found 0000000000000001"),
        (_interests_of(vocabulary_id=1), "vocabulary_id: found 1, expected 0: the snapshot's own"),
        (lambda w: {"vocabulary_id": "abc"}, "vocabulary_id: found 'abc', expected 16 hex digits"),
        (lambda w: {"grounding_threshold": 0.0}, "grounding_threshold: found 0.0, expected a cosine"),
        (_node(categories=[2, 1]), r"nodes\[0\].categories: found \[2, 1\], expected category numbers"),
        (_node(categories=[13]), r"nodes\[0\].categories: found \[13\]"),
        (_node(categories=[]), r"nodes\[0\].categories: found \[\], expected some where there are items"),
        (_node(origin=0), r"nodes\[0\].origin: found NODE_ORIGIN_UNSPECIFIED"),
        (_node(path=["elsewhere"]), r"nodes\[0\].path: found \['elsewhere'\], expected ending in"),
        (_gpt(fingerprint="0"), "interest_gpt.fingerprint: found '0', expected 16 hex digits"),
        (_gpt(model_name="gpt"), "interest_gpt.model_name: found gpt|interest_gpt.model_name: found 'gpt'"),
        (_gpt(prompt_style="prose"), "interest_gpt.prompt_style: found 'prose', expected one of compact, chat"),
        (_gpt(max_batch=0), "interest_gpt.max_batch: found 0, expected above 0"),
        (_gpt(rank_weights=[0.5]), "interest_gpt.rank_weights: found 1, expected 2"),
        (_gpt(rank_weights=[0.5, 1.5]), "interest_gpt.rank_weights: found .* expected within 0 … 1"),
        (_gpt(taxonomy_hash="0" * 64), "interest_gpt.taxonomy_hash: found 0000"),
        (_merge(id=""), "merge.id: found '', expected an id where there is a model"),
        (_merge(id="0" * 16), "merge.id: found 0000000000000000, expected the model's hash"),
        (lambda w: {"merge_model": None}, "merge.id: found '[0-9a-f]{16}', expected an id where there is a model"),
        (lambda w: {"merge_model": b"another"}, "merge.id: found [0-9a-f]{16}, expected the model's hash"),
        (_merge(surprise=1.5), "merge.surprise: found 1.5, expected 0 to 1"),
        (_merge(surprise=-0.5), "merge.surprise: found -0.5, expected 0 to 1"),
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
        (
            lambda w: {"signals": {"stranger": records_pb2.UserSignalsRecord(items=[1], item_times=[1])}},
            "signals: found user 'stranger', expected only users",
        ),
        (_signals(items=[401], item_times=[1]), r"signals\['user-01'\].items: found \[401\], expected row"),
        (_signals(items=[1]), "item_times: found 0, expected 1, one per item"),
        (_signals(items=[1, 2], item_times=[1, 2]), "item_times: found not descending in time"),
        (_signals(items=[1], item_times=[NOW]), "item_times: found 1700000000, expected times before 1699999999"),
        (_signals(items=[1] * 51, item_times=[1] * 51), "found 51 entries, expected at most 50"),
        (
            _signals(searches=[records_pb2.Search(query="<b>", time=1)]),
            r"searches\[0\].query: found '<b>', expected a text that is clean",
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


def test_an_uncovered_row_of_the_catalogue_is_refused(small_world: SmallWorld, tmp_path: Path) -> None:
    catalogue = small_world.contents.catalogue
    numbers = np.array(catalogue.item_categories)
    numbers[5] = 2
    contents: SnapshotContents = dataclasses.replace(
        small_world.contents,
        catalogue=dataclasses.replace(catalogue, item_categories=numbers),  # type: ignore[type-var]
    )
    with pytest.raises(ContentsError, match=r"catalogue.item_categories\[5\]: found 2, expected 1"):
        write_snapshot(contents, tmp_path, created_at=NOW)


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
