"""The snapshot being served, and its replacement under load.

A request holds a lease on the snapshot it started with; a replaced snapshot is closed when its last lease ends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.channel.errors import ChannelError, SnapshotUnavailable
from serendipity.channel.recall.recalled import Versions
from serendipity.channel.snapshot.calibration import Calibration
from serendipity.channel.snapshot.group_stores import GroupStore, NovelCategoryStore
from serendipity.channel.snapshot.stores import InterestStore, ItemStore, NodeStore, PathStore, Store, UserStore
from serendipity.channel.snapshot.vectors import ItemVectors
from serendipity.channel.snapshot.verification import verify_once
from serendipity.channel.state.state import AvailabilityOverlay
from serendipity.features import FeatureAssembler
from serendipity.v1 import channel_pb2, records_pb2


@dataclass(frozen=True)
class Snapshot:
    """One open snapshot: stores, vectors and what the manifest says, as plain columns.

    category_names: [c] top-level names, number = index + 1; category_offsets: [c + 1] int64 item rows;
    item_ids: [n] by row; rows: item id → row; id_order: [n] int32, rank of each item's id among all ids;
    unavailable: [n] bool, as of the snapshot; interest_vectors: [num_nodes, D] float32, mapped;
    click_types: numbers of EventType that count as clicks; taxonomy_hash: first 8 bytes of it, as records carry it;
    vocabulary_id: number of the interest vocabulary, 0 for none; interest_gpt: model that generates interests
    near-line, empty for none; group_spec, groups: group model and groups of users, None where none was built;
    coevolution: LLMs that novel-category lists are of, None without; novel_categories: the lists, None without a group
    model.
    """

    directory: Path
    versions: Versions
    category_names: tuple[str, ...]
    category_numbers: Mapping[str, int]
    category_offsets: NDArray[np.int64]
    item_ids: tuple[str, ...]
    rows: Mapping[str, int]
    id_order: NDArray[np.int32]
    unavailable: NDArray[np.bool_]
    vectors: ItemVectors
    interest_vectors: NDArray[np.float32]
    users: UserStore
    interests: InterestStore
    paths: PathStore
    nodes: NodeStore
    items: ItemStore
    assembler: FeatureAssembler
    tower_model: str
    calibration: Calibration
    click_types: frozenset[int]
    taxonomy_hash: int
    vocabulary_id: int
    interest_gpt: str
    group_spec: records_pb2.GroupSpec | None
    groups: GroupStore | None
    coevolution: records_pb2.CoevolutionSpec | None
    novel_categories: NovelCategoryStore | None

    @property
    def num_categories(self) -> int:
        """How many top-level categories there are."""
        return len(self.category_names)

    def categories_of(self, items: NDArray[np.int64]) -> NDArray[np.int32]:
        """Category numbers of items given as row + 1; 0 for items without one and for 0."""
        rows = items - 1
        numbers = np.searchsorted(self.category_offsets, rows, side="right").astype(np.int32)
        numbers[(rows < 0) | (rows >= self.category_offsets[-1])] = 0
        return numbers

    def category_names_of(self, item_ids: Iterable[str]) -> dict[str, str]:
        """Names of the top-level categories of items, by id; those without one, or not in the catalogue, left out."""
        known = [item_id for item_id in dict.fromkeys(item_ids) if item_id in self.rows]
        numbers = self.categories_of(np.array([self.rows[item_id] + 1 for item_id in known], np.int64))
        named = zip(known, numbers.tolist(), strict=True)
        return {item_id: self.category_names[number - 1] for item_id, number in named if number}

    def unavailable_under(self, overlay: AvailabilityOverlay) -> NDArray[np.bool_]:
        """Rows not to be recalled, [n] bool, under later changes. Some 0.2 s for a million of them."""
        known = [(self.rows[item_id], up) for item_id, up in overlay.available.items() if item_id in self.rows]
        if not known:
            return self.unavailable
        unavailable = self.unavailable.copy()
        unavailable[[row for row, _ in known]] = [not up for _, up in known]
        return unavailable

    def close(self) -> None:
        """Close the stores. Mappings of vectors go with the last array over them."""
        for store in (self.users, self.interests, self.paths, self.nodes, self.items):
            store.close()
        for of_groups in (self.groups, self.novel_categories):
            if of_groups is not None:
                of_groups.close()


def open_snapshot(directory: Path, *, verify: bool = True, gpu: bool = False) -> Snapshot:
    """Open a snapshot and check that its parts fit each other.

    verify: check the checksums as well, unless this host did so before.
    Raises SnapshotUnavailable naming the file, what was found and what was expected; nothing stays open then.
    """
    directory = directory.resolve()
    opened: list[Store] = []
    try:
        manifest = verify_once(directory) if verify else layout.read_manifest(directory)
        return _open(directory, manifest, opened, gpu)
    except (layout.SnapshotError, ChannelError, OSError, ValueError) as error:
        for store in opened:
            store.close()
        if isinstance(error, SnapshotUnavailable):
            raise
        raise SnapshotUnavailable(f"{directory}: cannot be served: {error}") from error


def _open(directory: Path, manifest: records_pb2.Manifest, opened: list[Store], gpu: bool) -> Snapshot:
    num_items, num_categories = manifest.counts.items, len(manifest.categories)
    offsets = np.array(manifest.category_offsets, np.int64)
    if len(offsets) != num_categories + 1 or (np.diff(offsets) < 0).any() or offsets[-1] > num_items or offsets[0]:
        raise SnapshotUnavailable(
            f"{directory / layout.MANIFEST}: category_offsets: found {len(offsets)} offsets; expected "
            f"{num_categories + 1} ascending ones from 0 to at most {num_items}"
        )
    vectors = ItemVectors.open(directory, manifest.vector_index.kind, manifest.vector_index.num_probes, gpu)
    _expect(directory / layout.ITEM_VECTORS, vectors.vectors.shape, (num_items, manifest.vector_index.dim))
    path = directory / layout.INTEREST_VECTORS
    interest_vectors = np.asarray(np.load(path, mmap_mode="r"))
    _expect(path, interest_vectors.shape, (manifest.counts.interest_nodes, manifest.tower.interest_dim))
    item_ids = tuple(json.loads((directory / layout.ITEM_IDS).read_text(encoding="utf-8")))
    _expect(directory / layout.ITEM_IDS, (len(item_ids),), (num_items,))
    id_order = np.empty(num_items, np.int32)
    id_order[sorted(range(num_items), key=item_ids.__getitem__)] = np.arange(num_items, dtype=np.int32)
    assembler = FeatureAssembler.from_spec(manifest.tower)
    group_spec = manifest.groups if manifest.HasField("groups") else None
    users = UserStore(
        directory / layout.USERS,
        num_items,
        num_categories,
        assembler.profile_width,
        manifest.vector_index.dim,
        manifest.groups.num_groups,
    )
    opened.append(users)
    interests = InterestStore(directory / layout.INTERESTS, manifest.counts.interest_nodes)
    opened.append(interests)
    paths = PathStore(directory / layout.INTEREST_PATHS)
    opened.append(paths)
    nodes = NodeStore(directory / layout.INTEREST_NODES)
    opened.append(nodes)
    items = ItemStore(directory / layout.ITEMS)
    opened.append(items)
    _expect(directory / layout.ITEMS, (len(items),), (num_items,))
    groups = novel_categories = None
    if group_spec is not None:
        groups = GroupStore(directory / layout.GROUPS)
        opened.append(groups)
        _expect(directory / layout.GROUPS, (len(groups),), (group_spec.num_groups + 1,))
        novel_categories = NovelCategoryStore(directory / layout.NOVEL_CATEGORIES, num_categories)
        opened.append(novel_categories)
    unavailable = ~_available(directory, manifest, items)
    unavailable.flags.writeable = False
    calibration = Calibration.from_manifest(manifest.calibration)
    return Snapshot(
        directory=directory,
        versions=Versions(
            snapshot=manifest.version,
            user_tower=manifest.tower.model_name,
            calibration=calibration.id,
            events_until=manifest.events_until.seconds,
            group_model_id=manifest.groups.group_model_id,
            generation=manifest.coevolution.generation,
        ),
        category_names=tuple(manifest.categories),
        category_numbers={name: i + 1 for i, name in enumerate(manifest.categories)},
        category_offsets=offsets,
        item_ids=item_ids,
        rows={item_id: row for row, item_id in enumerate(item_ids)},
        id_order=id_order,
        unavailable=unavailable,
        vectors=vectors,
        interest_vectors=interest_vectors,
        users=users,
        interests=interests,
        paths=paths,
        nodes=nodes,
        items=items,
        assembler=assembler,
        tower_model=manifest.tower.model_name,
        calibration=calibration,
        # A manifest without click types is of a data set with one kind of event.
        click_types=frozenset(manifest.click_types) or frozenset([channel_pb2.EVENT_TYPE_CLICK]),
        taxonomy_hash=int(manifest.taxonomy_hash[:16] or "0", 16),
        vocabulary_id=int(manifest.vocabulary_id[:16] or "0", 16),
        interest_gpt=manifest.interest_gpt.model_name,
        group_spec=group_spec,
        groups=groups,
        coevolution=manifest.coevolution if manifest.HasField("coevolution") else None,
        novel_categories=novel_categories,
    )


def _available(directory: Path, manifest: records_pb2.Manifest, items: ItemStore) -> NDArray[np.bool_]:
    """Read which rows may be recalled, [n] bool; from the item records (1.5 s for 300,000) where there is no array."""
    available: NDArray[np.bool_] = np.ones(manifest.counts.items, np.bool_)
    if layout.ITEM_AVAILABLE not in manifest.checksums:
        available[items.unavailable_rows()] = False
        return available
    path = directory / layout.ITEM_AVAILABLE
    expected = available.shape
    available = np.load(path)
    if available.dtype != np.bool_:
        raise SnapshotUnavailable(f"{path}: found {available.dtype}, expected bool")
    _expect(path, available.shape, expected)
    return available


def _expect(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise SnapshotUnavailable(f"{path}: found shape {found}, expected {expected} by the manifest")


class _Held:
    """A snapshot, how many use it, and what is derived from it and from the present availability."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.leases = 0
        self.retired = False
        # One tuple, replaced whole: readers in several threads see a generation with its own mask.
        self._unavailable = (0, snapshot.unavailable)

    def unavailable_under(self, overlay: AvailabilityOverlay) -> NDArray[np.bool_]:
        """Rows not to be recalled, [n] bool; derived anew when the overlay is later than the last one."""
        generation, unavailable = self._unavailable
        if generation < overlay.generation:
            unavailable = self.snapshot.unavailable_under(overlay)
            self._unavailable = (overlay.generation, unavailable)
        return unavailable


class Lease:
    """The right to use one snapshot until it is released; further leases on the same one can be split off."""

    def __init__(self, holder: SnapshotHolder, held: _Held) -> None:
        self._holder = holder
        self._held = held
        self._released = False

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot leased."""
        return self._held.snapshot

    def unavailable(self, overlay: AvailabilityOverlay) -> NDArray[np.bool_]:
        """Rows not to be recalled under the overlay, or under a later one the holder was given, [n] bool."""
        return self._held.unavailable_under(overlay)

    def split(self) -> Lease:
        """Lease the same snapshot once more, for work that may outlive this lease."""
        return self._holder._lease(self._held)

    def release(self) -> None:
        """End the lease; the last one on a replaced snapshot closes it. Releasing twice does nothing."""
        if not self._released:
            self._released = True
            self._holder._release(self._held)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class SnapshotHolder:
    """Holds the snapshot being served and replaces it while requests run."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        """Start with a snapshot, or with none until the first swap."""
        self._lock = threading.Lock()
        self._current = None if snapshot is None else _Held(snapshot)
        self._overlay = AvailabilityOverlay()

    @property
    def version(self) -> str:
        """Version being served; empty for none."""
        with self._lock:
            return "" if self._current is None else self._current.snapshot.versions.snapshot

    def acquire(self) -> Lease:
        """Lease the snapshot being served. Raises SnapshotUnavailable when there is none."""
        with self._lock:
            held = self._current
            if held is None:
                raise SnapshotUnavailable("no snapshot is loaded; publish one")
            held.leases += 1
        return Lease(self, held)

    def swap(self, directory: Path, *, verify: bool = True, gpu: bool = False) -> Snapshot:
        """Open another snapshot and serve it from now on; running requests finish on the one they have.

        Raises SnapshotUnavailable when it cannot be served; the present one stays then.
        """
        held = _Held(open_snapshot(directory, verify=verify, gpu=gpu))
        held.unavailable_under(self._overlay)
        self._replace(held)
        return held.snapshot

    def prepare(self, overlay: AvailabilityOverlay) -> None:
        """Derive what requests need of an overlay before any of them sees it: called beside the event loop."""
        self._overlay = overlay
        with self._lock:
            held = self._current
            if held is None:
                return
            held.leases += 1
        with Lease(self, held) as lease:
            lease.unavailable(overlay)

    def close(self) -> None:
        """Serve no snapshot any more; the last lease closes the present one."""
        self._replace(None)

    def _replace(self, held: _Held | None) -> None:
        with self._lock:
            old, self._current = self._current, held
            if old is None:
                return
            old.retired = True
            unused = old.leases == 0
        if unused:
            old.snapshot.close()

    def _lease(self, held: _Held) -> Lease:
        with self._lock:
            held.leases += 1
        return Lease(self, held)

    def _release(self, held: _Held) -> None:
        with self._lock:
            held.leases -= 1
            unused = held.retired and held.leases == 0
        if unused:
            held.snapshot.close()
