"""Read-only LMDB stores of a snapshot; records come out as plain columns.

Environments are opened without a lock file (snapshots are immutable) and without read-ahead (access is
random). Values are copied out inside the transaction: touching LMDB's buffers after a close is a crash.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import lmdb
import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import RecordCorrupt, StoreUnavailable
from serendipity.channel.snapshot.row_ranges import RowRanges
from serendipity.features import LongHistory
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.interests.search_matching import SearchMatcher
from serendipity.item_ids import ItemIds
from serendipity.novelty import Clicks
from serendipity.v1 import channel_pb2, records_pb2

_Record = TypeVar("_Record", bound=Message)

_environments: dict[str, tuple[lmdb.Environment, int]] = {}
"""Open environments and how often, by real path: LMDB refuses to open one twice in a process, and a snapshot
that is rolled back to may still be draining."""
_environments_lock = threading.Lock()


class Store:
    """One LMDB environment, opened read-only and shared inside the process."""

    def __init__(self, path: Path) -> None:
        """Open the environment at `path`. Raises StoreUnavailable when there is none."""
        # As in messages: they reach callers, whom this machine's directories do not concern.
        self._name = f"{path.parent.name}/{path.name}"
        self._key = os.path.realpath(path)
        with _environments_lock:
            environment, users = _environments.get(self._key, (None, 0))
            if environment is None:
                try:
                    environment = lmdb.open(self._key, readonly=True, lock=False, readahead=False, max_dbs=0)
                except lmdb.Error as error:
                    raise StoreUnavailable(f"{path}: cannot be opened ({error}); expected an LMDB store") from error
            _environments[self._key] = (environment, users + 1)
            self._environment: lmdb.Environment | None = environment

    def get(self, key: bytes) -> bytes | None:
        """Read one value, None where there is none. Raises StoreUnavailable."""
        if self._environment is None:
            raise StoreUnavailable(f"{self._name}: is closed")
        try:
            with self._environment.begin() as transaction:
                value: bytes | None = transaction.get(key)
        except lmdb.BadValsizeError:
            return None
        except lmdb.Error as error:
            raise StoreUnavailable(f"{self._name}: key {key!r} cannot be read ({error})") from error
        return value

    def values(self) -> Iterator[tuple[bytes, bytes]]:
        """Read every key and value, in order of the keys. Raises StoreUnavailable."""
        if self._environment is None:
            raise StoreUnavailable(f"{self._name}: is closed")
        try:
            with self._environment.begin() as transaction:
                yield from transaction.cursor()
        except lmdb.Error as error:
            raise StoreUnavailable(f"{self._name}: cannot be read ({error})") from error

    def __len__(self) -> int:
        if self._environment is None:
            raise StoreUnavailable(f"{self._name}: is closed")
        return int(self._environment.stat()["entries"])

    def close(self) -> None:
        """Let the environment go; the last user of it closes it."""
        with _environments_lock:
            if self._environment is None:
                return
            environment, users = _environments[self._key]
            self._environment = None
            if users > 1:
                _environments[self._key] = (environment, users - 1)
            else:
                del _environments[self._key]
                environment.close()

    def _read(self, key: bytes, record: _Record) -> _Record | None:
        value = self.get(key)
        return None if value is None else self._parse(key, value, record)

    def _parse(self, key: bytes, value: bytes, record: _Record) -> _Record:
        try:
            record.ParseFromString(value)
        except DecodeError as error:
            raise RecordCorrupt(
                f"{self._name}: key {key!r}: {len(value)} bytes are no {record.DESCRIPTOR.name} ({error})"
            ) from error
        return record

    def _corrupt(self, key: bytes, field: str, found: object, expected: object) -> RecordCorrupt:
        return RecordCorrupt(f"{self._name}: key {key!r}: {field}: found {found}, expected {expected}")


@dataclass(frozen=True)
class StoredUser:
    """A user as of the snapshot.

    clicks: latest 200, newest first; long_history: every category ever clicked; profile: [P] int32 value numbers;
    vector: [d] float32, U2I vector for when the tower is away, None where none is stored; group_id: group of the
    snapshot's group model, 0 for the default one; held_interests: [h] int64, interests of the snapshot's graph.
    """

    clicks: Clicks
    long_history: LongHistory
    profile: NDArray[np.int32]
    vector: NDArray[np.float32] | None
    group_id: int = DEFAULT_GROUP
    held_interests: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


class UserStore(Store):
    """users.lmdb."""

    def __init__(
        self,
        path: Path,
        num_items: int,
        num_categories: int,
        profile_width: int,
        dim: int,
        num_groups: int,
        num_held_interests: int = 0,
    ) -> None:
        """The counts are the manifest's; a record that goes beyond them is corrupt."""
        super().__init__(path)
        self._num_items = num_items
        self._num_categories = num_categories
        self._profile_width = profile_width
        self._dim = dim
        self._num_groups = num_groups
        self._num_held_interests = num_held_interests

    def read(self, key: bytes) -> StoredUser | None:
        """Read a user by key. Raises RecordCorrupt, StoreUnavailable."""
        record = self._read(key, records_pb2.UserRecord())
        if record is None:
            return None
        items, categories = np.array(record.click_items, np.int64), np.array(record.click_categories, np.int32)
        long_categories = np.array(record.long_categories, np.int32)
        lengths = (len(items), len(categories), len(record.click_times))
        if len(set(lengths)) > 1:
            raise self._corrupt(key, "click columns", f"lengths {lengths}", "equal lengths")
        lengths = (len(long_categories), len(record.long_counts), len(record.long_last_times))
        if len(set(lengths)) > 1:
            raise self._corrupt(key, "long-history columns", f"lengths {lengths}", "equal lengths")
        if items.max(initial=0) > self._num_items:
            raise self._corrupt(key, "click_items", items.max(), f"at most {self._num_items}")
        if max(categories.max(initial=0), long_categories.max(initial=0)) > self._num_categories:
            raise self._corrupt(key, "categories", "a number too large", f"at most {self._num_categories}")
        if len(record.profile) > self._profile_width:
            raise self._corrupt(key, "profile", f"{len(record.profile)} values", f"at most {self._profile_width}")
        if record.group_id > self._num_groups:
            raise self._corrupt(key, "group_id", record.group_id, f"at most {self._num_groups}")
        held = np.array(record.held_interests, np.int64)
        if held.max(initial=-1) >= self._num_held_interests:
            raise self._corrupt(key, "held_interests", held.max(), f"below {self._num_held_interests}")
        profile = np.zeros(self._profile_width, np.int32)
        profile[: len(record.profile)] = record.profile
        return StoredUser(
            clicks=Clicks(items, categories, np.array(record.click_times, np.int64)),
            long_history=LongHistory(
                long_categories, np.array(record.long_counts, np.int32), np.array(record.long_last_times, np.int64)
            ),
            profile=profile,
            vector=self._vector(key, record.user_vector),
            group_id=record.group_id,
            held_interests=held,
        )

    def _vector(self, key: bytes, stored: bytes) -> NDArray[np.float32] | None:
        if not stored:
            return None
        if len(stored) != 2 * self._dim:
            raise self._corrupt(key, "user_vector", f"{len(stored)} bytes", 2 * self._dim)
        vector = np.frombuffer(stored, "<f2").astype(np.float32)
        if not np.isfinite(vector).all():
            raise self._corrupt(key, "user_vector", "numbers that are not finite", "finite ones")
        return vector


@dataclass(frozen=True)
class StoredInterests:
    """A user's latent interests, best first.

    node_ids: [k] int64; weights: [k] float32, 0 to 1; generated_at, expires_at: Unix seconds; taxonomy_hash: first
    8 bytes of the hash of the taxonomy they are grounded in; vocabulary_id: number of the vocabulary of node_ids, 0
    for that of the snapshot they are stored in.
    """

    node_ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    generated_at: int
    expires_at: int
    taxonomy_hash: int
    vocabulary_id: int

    @classmethod
    def of(cls, record: records_pb2.InterestsRecord) -> StoredInterests:
        """Lay a record out. Raises ValueError if it has not as many weights as nodes."""
        node_ids = np.array(record.node_ids, np.int64)
        if len(node_ids) != len(record.weights):
            raise ValueError(f"weights: found {len(record.weights)} weights, expected {len(node_ids)}")
        return cls(
            node_ids=node_ids,
            weights=np.minimum(np.array(record.weights, np.float32) / np.float32(1000), np.float32(1)),
            generated_at=record.generated_at,
            expires_at=record.expires_at,
            taxonomy_hash=record.taxonomy_hash,
            vocabulary_id=record.vocabulary_id,
        )


class InterestStore(Store):
    """interests.lmdb."""

    def read(self, key: bytes) -> StoredInterests | None:
        """Read a user's interests by key. Raises RecordCorrupt, StoreUnavailable."""
        record = self._read(key, records_pb2.InterestsRecord())
        if record is None:
            return None
        try:
            return StoredInterests.of(record)
        except ValueError as error:
            raise RecordCorrupt(f"{self._name}: key {key!r}: {error}") from error


class PathStore(Store):
    """interest_paths.lmdb."""

    def read(self, key: bytes) -> Sequence[records_pb2.InterestPath]:
        """Read the paths of a user's interests by key, in their order; none where nothing is stored."""
        record = self._read(key, records_pb2.InterestPathsRecord())
        return () if record is None else record.paths


@dataclass(frozen=True)
class StoredNode:
    """An interest node and the item rows it is grounded in."""

    name: str
    rows: RowRanges


class NodeStore(Store):
    """interest_nodes.lmdb; nodes are few and asked for all the time, so those once read are kept."""

    def __init__(self, path: Path) -> None:
        """Open the store at `path`."""
        super().__init__(path)
        self._known: dict[int, StoredNode] = {}

    def read(self, node_id: int) -> StoredNode | None:
        """Read a node by id. Raises RecordCorrupt, StoreUnavailable."""
        if known := self._known.get(node_id):
            return known
        key = layout.node_key(node_id)
        record = self._read(key, records_pb2.InterestNode())
        if record is None:
            return None
        starts, ends = np.array(record.starts, np.int64), np.array(record.ends, np.int64)
        if len(starts) != len(ends) or (ends < starts).any():
            raise self._corrupt(key, "starts, ends", f"{starts.tolist()}, {ends.tolist()}", "ranges")
        node = self._known[node_id] = StoredNode(record.name, RowRanges.union(starts, ends))
        return node

    @cached_property
    def matcher(self) -> SearchMatcher:
        """Finds the ids of the nodes that a search speaks of, by names and aliases; 15 µs a node to make.

        Nodes of several top-level categories are not matched: a whole department is no interest. Nor are those that
        cannot be read, which is told where one is asked for. Raises StoreUnavailable.
        """
        named: list[tuple[str, int]] = []
        for key, value in self.values():
            with suppress(RecordCorrupt):
                record = self._parse(key, value, records_pb2.InterestNode())
                if len(record.categories) == 1:
                    named += ((name, record.node_id) for name in (record.name, *record.aliases))
        return SearchMatcher(named)


class ItemStore(Store):
    """items.lmdb."""

    def read(self, item_id: str) -> records_pb2.ItemRecord | None:
        """Read an item by id. Raises RecordCorrupt, StoreUnavailable."""
        return self._read(layout.item_key(item_id), records_pb2.ItemRecord())


def feedback_columns(
    events: Sequence[channel_pb2.FeedbackEvent],
    item_ids: ItemIds,
    since: int | None = None,
    at_least: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay feedback events, newest first, out as columns: items [n] (row + 1, 0 outside the catalogue), times [n].

    since: Unix seconds, events before it are left out, except the latest `at_least` of all. Takes 1.5 µs an event.
    """
    if since is not None:
        later = bisect_right(events, -since, key=lambda event: -event.time.seconds)
        events = events[: max(later, at_least)]
    items = item_ids.rows_of([event.item_id for event in events]) + 1
    return items, np.fromiter((event.time.seconds for event in events), np.int64, len(events))
