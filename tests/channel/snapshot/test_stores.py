from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import RecordCorrupt, StoreError, StoreUnavailable
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.stores import InterestStore, NodeStore, PathStore, Store, UserStore, feedback_columns
from serendipity.item_ids import ItemIds
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.small_world import SmallWorld


def write(path: Path, values: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    return path


def test_a_user_comes_out_as_it_was_written(small_world: SmallWorld, snapshot: Snapshot) -> None:
    user_id = small_world.user_ids[0]
    stored = snapshot.users.read(layout.user_key(user_id))
    written = small_world.contents.users[user_id]
    assert stored is not None
    assert stored.clicks.items.tolist() == list(written.click_items)
    assert stored.clicks.categories.tolist() == list(written.click_categories)
    assert stored.long_history.counts.tolist() == list(written.long_counts)
    assert stored.profile.tolist() == list(written.profile)
    assert stored.vector is not None
    assert stored.vector.astype("<f2").tobytes() == written.user_vector


def test_interests_nodes_paths_and_items_come_out_as_they_were_written(
    small_world: SmallWorld, snapshot: Snapshot
) -> None:
    user_id = small_world.user_ids[0]
    interests = snapshot.interests.read(layout.user_key(user_id))
    assert interests is not None
    assert interests.node_ids.tolist() == list(small_world.contents.interests[user_id].node_ids)
    assert interests.weights[0] == np.float32(0.9)
    assert interests.taxonomy_hash == snapshot.taxonomy_hash
    node = snapshot.nodes.read(int(interests.node_ids[0]))
    assert node is not None
    assert node is snapshot.nodes.read(int(interests.node_ids[0]))
    assert snapshot.paths.read(layout.user_key(user_id))[0].latent_interest == node.name
    item = snapshot.items.read("item-007")
    assert item is not None
    assert (item.row, item.title) == (7, "Item 7 of food-0/part-0")


def test_keys_that_are_not_there_are_none(snapshot: Snapshot) -> None:
    assert snapshot.users.read(layout.user_key("nobody")) is None
    assert snapshot.interests.read(layout.user_key("nobody")) is None
    assert snapshot.nodes.read(999_999) is None
    assert snapshot.items.read("nothing") is None
    assert not snapshot.paths.read(layout.user_key("nobody"))
    assert snapshot.users.read(b"") is None


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (b"\xff\xff\xff\xff", "are no UserRecord"),
        (records_pb2.UserRecord(click_items=[1, 2], click_times=[1]), "click columns: found lengths"),
        (records_pb2.UserRecord(long_categories=[1]), "long-history columns"),
        (records_pb2.UserRecord(click_items=[11], click_categories=[1], click_times=[1]), "click_items: found 11"),
        (records_pb2.UserRecord(click_items=[1], click_categories=[4], click_times=[1]), "at most 3"),
        (records_pb2.UserRecord(profile=[1, 1, 1]), "profile: found 3 values"),
        (records_pb2.UserRecord(user_vector=b"123"), "user_vector: found 3 bytes, expected 8"),
        (records_pb2.UserRecord(user_vector=np.full(4, np.nan, "<f2").tobytes()), "not finite"),
    ],
)
def test_a_corrupt_user_is_named(tmp_path: Path, record: records_pb2.UserRecord | bytes, complaint: str) -> None:
    value = record if isinstance(record, bytes) else record.SerializeToString()
    store = UserStore(write(tmp_path / "users.lmdb", {b"u": value}), 10, 3, 2, 4, 5)
    with pytest.raises(RecordCorrupt, match=rf"users\.lmdb: key b'u': .*{complaint}"):
        store.read(b"u")
    store.close()


def test_corrupt_interests_and_nodes_are_named(tmp_path: Path) -> None:
    lone = records_pb2.InterestsRecord(node_ids=[1]).SerializeToString()
    interests = InterestStore(write(tmp_path / "interests", {b"lone": lone}))
    with pytest.raises(RecordCorrupt, match="weights: found 0 weights, expected 1"):
        interests.read(b"lone")
    backwards = records_pb2.InterestNode(starts=[5], ends=[2]).SerializeToString()
    nodes = NodeStore(write(tmp_path / "nodes", {layout.node_key(0): backwards}))
    with pytest.raises(RecordCorrupt, match=r"starts, ends"):
        nodes.read(0)
    paths = PathStore(write(tmp_path / "paths", {b"u": b"\x0a\xff"}))
    with pytest.raises(RecordCorrupt, match="are no InterestPathsRecord"):
        paths.read(b"u")
    for store in (interests, nodes, paths):
        store.close()


def test_a_store_that_is_missing_or_closed_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        Store(tmp_path / "missing.lmdb")
    store = Store(write(tmp_path / "store", {b"a": b"1"}))
    assert store.get(b"a") == b"1"
    store.close()
    store.close()
    for use in (lambda: store.get(b"a"), lambda: list(store.values()), lambda: len(store)):
        with pytest.raises(StoreUnavailable, match="is closed"):
            use()


def test_a_store_that_is_no_lmdb_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"not lmdb" * 1_000)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "store")


def test_one_environment_is_shared_until_its_last_user_closes_it(tmp_path: Path) -> None:
    path = write(tmp_path / "store", {b"a": b"1"})
    link = tmp_path / "link"
    link.symlink_to(path)
    first, second = Store(path), Store(link)
    first.close()
    assert second.get(b"a") == b"1"
    second.close()
    again = Store(path)
    assert again.get(b"a") == b"1"
    again.close()


def test_values_outlive_the_store(tmp_path: Path) -> None:
    store = Store(write(tmp_path / "store", {b"a": b"x" * 10_000}))
    value = store.get(b"a")
    store.close()
    assert value == b"x" * 10_000


def test_reading_leaves_no_lock_file_behind(small_world: SmallWorld, snapshot: Snapshot) -> None:
    assert snapshot.users.read(layout.DEFAULT_USER) is not None
    assert [path.name for path in (small_world.snapshot_dir / layout.USERS).iterdir()] == ["data.mdb"]


def test_feedback_is_laid_out_until_the_horizon() -> None:
    events = [channel_pb2.FeedbackEvent(item_id=item) for item in ("a", "?", "b")]
    for event, seconds in zip(events, (30, 20, 10), strict=True):
        event.time.seconds = seconds
    item_ids = ItemIds.of(["a", "b"])
    items, times = feedback_columns(events, item_ids)
    assert (items.tolist(), times.tolist()) == ([1, 0, 2], [30, 20, 10])
    assert feedback_columns(events, item_ids, since=20)[1].tolist() == [30, 20]
    # The latest are looked at whenever they were.
    assert feedback_columns(events, item_ids, since=31, at_least=2)[1].tolist() == [30, 20]
    assert [column.tolist() for column in feedback_columns([], item_ids)] == [[], []]
