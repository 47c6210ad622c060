"""Writes a snapshot beside and moves it into place: a reader sees all of it or nothing."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import faiss
import numpy as np
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from serendipity import layout
from serendipity.item_ids import ItemIds
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.snapshot.contents import SnapshotContents, check_contents
from serendipity.offline.snapshot.index import NUM_QUERIES, SEED, BuiltIndex, IndexConfig, Queries, build_index
from serendipity.offline.snapshot.stores import write_store
from serendipity.v1 import records_pb2

_LOCK = ".writer.lock"
_BUILDING = ".building"


def write_snapshot(
    contents: SnapshotContents, root: Path, *, created_at: int, index: IndexConfig | None = None
) -> Path:
    """Write `contents` as `root`/<version> and return that directory.

    The version is the UTC time of created_at (Unix seconds) and 8 hex digits of the content's hash. Everything is
    written into a directory beside, synced, and renamed; `root`/current is not touched. One writer works in a root
    at a time. The same contents at the same second give the same version, which is left as it is.
    Raises ContentsError, before anything appears in `root`, when the contents do not fit together.
    """
    check_contents(contents)
    root.mkdir(parents=True, exist_ok=True)
    with _exclusive(root):
        beside = root / _BUILDING
        # We hold the lock, so what lies here was left by a writer that was killed.
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            manifest = _write_files(contents, beside, created_at, index)
            place = root / manifest.version
            if place.exists():
                layout.verify_files(place)
                shutil.rmtree(beside)
                return place
            beside.rename(place)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        layout.sync_file(root)
    return place


def _write_files(
    contents: SnapshotContents, directory: Path, created_at: int, config: IndexConfig | None
) -> records_pb2.Manifest:
    lists = contents.novel_categories
    stores: dict[str, Iterator[tuple[bytes, bytes]]] = {
        layout.USERS: _of_users(contents.users, contents.default_user),
        layout.INTERESTS: _of_users(contents.interests, contents.default_interests),
        layout.INTEREST_PATHS: _of_users(contents.interest_paths, contents.default_interest_paths),
        layout.INTEREST_NODES: ((layout.node_key(node.node_id), node.SerializeToString()) for node in contents.nodes),
        layout.SIGNALS: _of_users(contents.signals),
        layout.ITEMS: _items(contents),
        layout.NOVEL_CATEGORIES: ((key, lists[key].SerializeToString()) for key in sorted(lists)),
    }
    if contents.group_spec is not None:
        groups = contents.groups
        stores[layout.GROUPS] = ((layout.group_key(group.group_id), group.SerializeToString()) for group in groups)
    for name, records in stores.items():
        write_store(directory / name, records)
    np.save(directory / layout.INTEREST_VECTORS, np.ascontiguousarray(contents.node_vectors))
    np.save(directory / layout.ITEM_VECTORS, np.ascontiguousarray(contents.item_vectors))
    np.save(directory / layout.ITEM_AVAILABLE, np.asarray(contents.catalogue.available, np.bool_))
    np.save(directory / layout.ITEM_STATISTICS, np.ascontiguousarray(contents.item_statistics))
    np.save(directory / layout.CATEGORY_VECTORS, np.ascontiguousarray(contents.category_vectors))
    if contents.reasoner:
        (directory / layout.REASONER).write_bytes(contents.reasoner)
    if contents.merge_model is not None:
        (directory / layout.MERGE_MODEL).write_bytes(contents.merge_model)
    ItemIds.of(contents.catalogue.item_ids).write(directory)
    built = build_index(
        contents.item_vectors,
        np.asarray(contents.catalogue.category_offsets, np.int64),
        _sample_queries(contents, config or IndexConfig(), _stored_vector),
        config,
    )
    if built.index is not None:
        faiss.write_index(built.index, str(directory / layout.ITEM_INDEX))
    graph = _write_graph(contents, directory, config)
    manifest = _manifest(contents, directory, created_at, built, graph)
    layout.write_manifest(directory, manifest)
    for path in (*directory.iterdir(), directory):
        layout.sync_file(path)
    return manifest


def _write_graph(
    contents: SnapshotContents, directory: Path, config: IndexConfig | None
) -> records_pb2.GraphSpec | None:
    graph = contents.graph
    if graph is None:
        return None
    np.save(directory / layout.GRAPH_ITEM_VECTORS, graph.item_vectors)
    np.save(directory / layout.GRAPH_ITEM_PARTS, graph.item_parts)
    np.save(directory / layout.GRAPH_INTEREST_PARTS, graph.interest_parts)
    queries = _sample_queries(contents, config or IndexConfig(), partial(_folded, graph))
    offsets = np.asarray(contents.catalogue.category_offsets, np.int64)
    built = build_index(graph.item_vectors, offsets, queries, config)
    if built.index is not None:
        faiss.write_index(built.index, str(directory / layout.GRAPH_ITEM_INDEX))
    return records_pb2.GraphSpec(vector_index=built.description, interests=graph.interests)


def _folded(graph: ServedGraph, user: records_pb2.UserRecord) -> NDArray[np.float32]:
    """Fold a user in as the channel does, up to a factor, which no order depends on."""
    rows = np.unique([item - 1 for item in user.click_items if item]).astype(np.int64)
    folded: NDArray[np.float32] = graph.item_parts[rows].sum(0) + graph.interest_parts[list(user.held_interests)].sum(0)
    return folded


def _manifest(
    contents: SnapshotContents,
    directory: Path,
    created_at: int,
    built: BuiltIndex,
    graph: records_pb2.GraphSpec | None,
) -> records_pb2.Manifest:
    manifest = records_pb2.Manifest(
        layout_version=layout.LAYOUT_VERSION,
        created_at=Timestamp(seconds=created_at),
        events_until=Timestamp(seconds=contents.events_until),
        dataset=contents.dataset,
        categories=contents.catalogue.categories,
        category_offsets=[int(offset) for offset in contents.catalogue.category_offsets],
        novelty_level=contents.catalogue.novelty_level,
        click_types=contents.click_types,
        counts=records_pb2.Counts(
            items=contents.num_items,
            users=len(contents.users),
            interest_nodes=len(contents.nodes),
            users_with_interests=len(contents.interests),
        ),
        vector_index=built.description,
        tower=contents.tower,
        merge=contents.merge,
        checksums=layout.file_checksums(directory),
        taxonomy_hash=contents.taxonomy_hash,
        vocabulary_id=contents.vocabulary_id,
        grounding_threshold=contents.grounding_threshold,
        interest_gpt=contents.interest_gpt,
        groups=contents.group_spec,
        coevolution=contents.coevolution,
        graph=graph,
        build_configuration=contents.build_configuration,
    )
    stamp = datetime.fromtimestamp(created_at, UTC).strftime("%Y%m%dT%H%M%SZ")
    manifest.version = f"{stamp}-{_content_hash(manifest)[:8]}"
    return manifest


def _content_hash(manifest: records_pb2.Manifest) -> str:
    content = records_pb2.Manifest()
    content.CopyFrom(manifest)
    content.ClearField("created_at")
    return layout.hash_of([content.SerializeToString(deterministic=True)])


def _of_users(records: Mapping[str, Message], default: Message | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Lay users' records out by key, each read once. default: of cold users."""
    if default is not None:
        yield layout.DEFAULT_USER, default.SerializeToString()
    for key, user_id in sorted((layout.user_key(user_id), user_id) for user_id in records):
        yield key, records[user_id].SerializeToString()


def _items(contents: SnapshotContents) -> Iterator[tuple[bytes, bytes]]:
    catalogue = contents.catalogue
    for key, row in sorted((layout.item_key(item_id), row) for row, item_id in enumerate(catalogue.item_ids)):
        record = records_pb2.ItemRecord(
            row=row,
            category=int(catalogue.item_categories[row]),
            title=catalogue.titles[row],
            path=catalogue.paths[row],
            brand=catalogue.brands[row],
            available=bool(catalogue.available[row]),
        )
        yield key, record.SerializeToString()


def _sample_queries(
    contents: SnapshotContents,
    config: IndexConfig,
    vector_of: Callable[[records_pb2.UserRecord], NDArray[np.float32]],
) -> Queries:
    """Sample users' own vectors and novel categories, which is what is asked in service."""
    novel = np.ones((0, len(contents.catalogue.categories) + 1), np.bool_)
    if contents.num_items < config.exact_below or not contents.users:
        return Queries(np.empty((0, 0), np.float32), novel)
    ids = sorted(contents.users)
    rng = np.random.default_rng(SEED)
    users = [contents.users[ids[i]] for i in rng.choice(len(ids), min(len(ids), NUM_QUERIES), replace=False)]
    novel = np.ones((len(users), novel.shape[1]), np.bool_)
    for i, user in enumerate(users):
        novel[i, list(user.click_categories)] = False
    return Queries(np.stack([vector_of(user) for user in users]), novel)


def _stored_vector(user: records_pb2.UserRecord) -> NDArray[np.float32]:
    return np.frombuffer(user.user_vector, "<f2").astype(np.float32)


@contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    with (root / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
