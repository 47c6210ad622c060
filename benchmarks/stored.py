"""A snapshot's files as anybody can read them who knows `serendipity.layout`: what plain stack and floor start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.features import FeatureAssembler, LongHistory, TowerInputs
from serendipity.groups.sequence import DEFAULT_GROUP, latest_distinct
from serendipity.item_ids import ItemIds
from serendipity.keys import back_off_keys, novel_category_key
from serendipity.novelty import Clicks, clicked_categories
from serendipity.rank_features import popularity
from serendipity.v1 import records_pb2

INTERESTS_USED = 10
CATEGORIES_USED = 10
"""As the channel's settings have them."""

_MOST_POPULAR = 5_000
"""As the channel keeps them."""


def known_users(snapshot: Path, seed: int) -> list[str]:
    """List the users of a snapshot of whom interests are known, in random order; hashed ids are passed over."""
    found = []
    for name in (layout.USERS, layout.INTERESTS):
        with lmdb.open(str(snapshot / name), readonly=True, lock=False) as store, store.begin() as transaction:
            found.append(set(transaction.cursor().iternext(keys=True, values=False)))
    keys = sorted(key for key in found[0] & found[1] if key != layout.DEFAULT_USER and key[:1] != b"\x01")
    return [keys[i].decode() for i in np.random.default_rng(seed).permutation(len(keys)).tolist()]


@dataclass(frozen=True)
class Node:
    """An interest node. starts, ends: [r] int64, item rows it is grounded in; categories: [c] int64, their numbers."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    categories: NDArray[np.int64]


@dataclass(frozen=True)
class NovelCategory:
    """A category of the list of a user's group. start, end: its item rows; alignment: 0 to 1."""

    number: int
    start: int
    end: int
    alignment: float


@dataclass(frozen=True)
class StoredUser:
    """What an answer needs of a user.

    inputs: of the user tower, one user; allowed: [c + 1] bool by category number, novel ones; interests: nodes of the
    interests with novel categories, best first, as many as are used; novel: best aligned first; of_graph: [g] float32,
    vector in the graph, None where the graph knows nothing of the user.
    """

    inputs: TowerInputs
    allowed: NDArray[np.bool_]
    interests: list[Node]
    novel: list[NovelCategory]
    of_graph: NDArray[np.float32] | None


class Stored:
    """A snapshot, opened to be read.

    item_categories: [n] int32 category number of each row, 0 for none; popular: rows of the most popular items, best
    first; merge_model: ONNX, None where there is none; unearned: sources that are not searched; graph_vectors:
    [n, g] float32, of the items in the graph, g = 0 without one.
    """

    def __init__(self, snapshot: Path) -> None:
        self.manifest = layout.read_manifest(snapshot)
        self.item_ids = list(ItemIds.open(snapshot))
        self.item_vectors: NDArray[np.float32] = np.load(snapshot / layout.ITEM_VECTORS)
        self.available: NDArray[np.bool_] = np.load(snapshot / layout.ITEM_AVAILABLE)
        self.offsets = np.array(self.manifest.category_offsets, np.int64)
        self.item_categories = np.zeros(len(self.item_vectors), np.int32)
        self.item_categories[: self.offsets[-1]] = np.repeat(np.arange(1, len(self.offsets)), np.diff(self.offsets))
        self.item_statistics: NDArray[np.float32] = np.load(snapshot / layout.ITEM_STATISTICS)
        self.category_vectors: NDArray[np.float32] = np.load(snapshot / layout.CATEGORY_VECTORS)
        clicks = popularity(self.item_statistics[: self.offsets[-1]])
        popular = np.argsort(-clicks, kind="stable")[:_MOST_POPULAR]
        self.popular: NDArray[np.int64] = popular[clicks[popular] > 0]
        merge = self.manifest.merge
        self.merge_model = (snapshot / layout.MERGE_MODEL).read_bytes() if merge.id else None
        self.unearned = {worth.source for worth in merge.sources if not worth.earned}
        self.graph_vectors, self._item_parts, self._interest_parts = self._graph(snapshot)
        self._interest_vectors: NDArray[np.float32] = np.load(snapshot / layout.INTEREST_VECTORS)
        self._assembler = FeatureAssembler.from_spec(self.manifest.tower)
        names = (layout.USERS, layout.INTERESTS, layout.INTEREST_NODES, layout.NOVEL_CATEGORIES)
        self._stores = {name: lmdb.open(str(snapshot / name), readonly=True, lock=False) for name in names}
        self._nodes: dict[int, Node] = {}

    def user(self, user_id: str) -> StoredUser:
        """Read a user that the snapshot knows. "Now" is the moment after the snapshot's last event."""
        key = layout.user_key(user_id)
        user = records_pb2.UserRecord.FromString(self._read(layout.USERS, key))
        clicks = Clicks(
            np.array(user.click_items, np.int64),
            np.array(user.click_categories, np.int32),
            np.array(user.click_times, np.int64),
        )
        long_history = LongHistory(
            np.array(user.long_categories, np.int32),
            np.array(user.long_counts, np.int32),
            np.array(user.long_last_times, np.int64),
        )
        allowed = ~clicked_categories(clicks, len(self.offsets) - 1)
        interests = records_pb2.InterestsRecord.FromString(self._read(layout.INTERESTS, key))
        nodes = {node_id: self._node(node_id) for node_id in interests.node_ids}
        used = [node_id for node_id, node in nodes.items() if allowed[node.categories].any()][:INTERESTS_USED]
        inputs = self._assembler.assemble(
            clicks,
            long_history,
            np.array(user.profile, np.int32),
            self._interest_vectors[used],
            self.manifest.events_until.seconds + 1,
        )
        novel = self._novel_categories(user.group_id, clicks, allowed)
        of_graph = self._of_graph(clicks, np.array(user.held_interests, np.int64))
        return StoredUser(inputs, allowed, [nodes[node_id] for node_id in used], novel, of_graph)

    def close(self) -> None:
        """Close the stores."""
        for store in self._stores.values():
            store.close()

    def _novel_categories(self, group_id: int, clicks: Clicks, allowed: NDArray[np.bool_]) -> list[NovelCategory]:
        """Read the first list with a category that may be shown, from the most specific key to the default group's."""
        model = self.manifest.groups.group_model_id
        recent = [self.manifest.categories[number - 1] for number in latest_distinct(clicks)]
        keys = [key for _, key in back_off_keys(model, group_id, recent)]
        for key in (*keys, novel_category_key(model, DEFAULT_GROUP, ())):
            record = records_pb2.NovelCategoriesRecord.FromString(self._read(layout.NOVEL_CATEGORIES, key))
            listed = (
                NovelCategory(number, int(self.offsets[number - 1]), int(self.offsets[number]), alignment)
                for number, alignment in zip(record.categories, record.scores, strict=True)
            )
            if found := [category for category in listed if allowed[category.number] and category.end > category.start]:
                return found[:CATEGORIES_USED]
        return []

    def _graph(self, snapshot: Path) -> list[NDArray[np.float32]]:
        """Vectors of the items in the graph, and what items and interests add to those who chose or hold them."""
        names = (layout.GRAPH_ITEM_VECTORS, layout.GRAPH_ITEM_PARTS, layout.GRAPH_INTEREST_PARTS)
        if not self.manifest.HasField("graph"):
            return [np.zeros((len(self.item_vectors), 0), np.float32)] * len(names)
        return [np.load(snapshot / name) for name in names]

    def _of_graph(self, clicks: Clicks, held: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Fold a user in: the sum of what neighbours add, over the root of their number."""
        rows = np.unique(clicks.items[clicks.items > 0]) - 1
        parts = np.concatenate([self._item_parts[rows], self._interest_parts[held]])
        parts = parts[parts.any(axis=1)]
        vector: NDArray[np.float32] = parts.sum(axis=0) / np.float32(np.sqrt(max(1, len(parts))))
        return vector if len(parts) else None

    def _node(self, node_id: int) -> Node:
        if node_id not in self._nodes:
            node = records_pb2.InterestNode.FromString(self._read(layout.INTEREST_NODES, layout.node_key(node_id)))
            starts, ends, categories = (
                np.array(column, np.int64) for column in (node.starts, node.ends, node.categories)
            )
            self._nodes[node_id] = Node(starts, ends, categories)
        return self._nodes[node_id]

    def _read(self, store: str, key: bytes) -> bytes:
        with self._stores[store].begin() as transaction:
            value: bytes = transaction.get(key, b"")
        return value
