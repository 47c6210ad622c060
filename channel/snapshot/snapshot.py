"""One open snapshot: its stores, its vectors and what its manifest says."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity import layout
from serendipity.arrays import map_array
from serendipity.channel.errors import ChannelError, SnapshotUnavailable
from serendipity.channel.snapshot.graph import Graph
from serendipity.channel.snapshot.group_stores import GroupStore, NovelCategoryStore
from serendipity.channel.snapshot.merge import Merge
from serendipity.channel.snapshot.stores import InterestStore, ItemStore, NodeStore, PathStore, Store, UserStore
from serendipity.channel.snapshot.vectors import ItemVectors
from serendipity.channel.snapshot.verification import verify_once
from serendipity.channel.state.state import AvailabilityOverlay
from serendipity.features import FeatureAssembler
from serendipity.interests.text import comparable
from serendipity.item_ids import UNKNOWN, ItemIds
from serendipity.novelty import NO_CATEGORY
from serendipity.v1 import channel_pb2, records_pb2


@dataclass(frozen=True)
class Snapshot:
    """One open snapshot: stores, vectors and what the manifest says, as plain columns.

    category_names: [c] top-level names, number = index + 1; category_offsets: [c + 1] int64 item rows;
    version: its name; events_until: events up to here are in it, Unix seconds; versions: what answers say of it;
    item_ids: of n items; unavailable: [n] bool, as of the snapshot; interest_vectors: [num_nodes, D] float32, mapped;
    click_types: numbers of EventType that count as clicks; taxonomy_hash: first 8 bytes of it, as records carry it;
    vocabulary_id: number of the interest vocabulary, 0 for none; interest_gpt: model that generates interests
    near-line, empty for none; merge: how candidates become one list; group_spec, groups: group model and groups of
    users, None where none was built;
    coevolution: LLMs that novel-category lists are of, None without; novel_categories: the lists, None without a group
    model; graph: what users are folded into, None where none was built.
    """

    directory: Path
    version: str
    events_until: int
    versions: channel_pb2.Versions
    category_names: tuple[str, ...]
    category_numbers: Mapping[str, int]
    category_offsets: NDArray[np.int64]
    item_ids: ItemIds
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
    merge: Merge
    click_types: frozenset[int]
    taxonomy_hash: int
    vocabulary_id: int
    interest_gpt: str
    group_spec: records_pb2.GroupSpec | None
    groups: GroupStore | None
    coevolution: records_pb2.CoevolutionSpec | None
    novel_categories: NovelCategoryStore | None
    graph: Graph | None

    @property
    def num_categories(self) -> int:
        """How many top-level categories there are."""
        return len(self.category_names)

    @cached_property
    def _numbers_by_key(self) -> dict[str, int]:
        return {comparable(name): number for name, number in self.category_numbers.items()}

    def category_number(self, name: str) -> int:
        """Number of a category by a name of it: the logs builder takes names for one that `comparable` makes equal.

        NO_CATEGORY for other names.
        """
        return self.category_numbers.get(name) or self._numbers_by_key.get(comparable(name), NO_CATEGORY)

    def categories_of(self, items: NDArray[np.int64]) -> NDArray[np.int32]:
        """Category numbers of items given as row + 1; 0 for items without one and for 0."""
        rows = items - 1
        numbers = np.searchsorted(self.category_offsets, rows, side="right").astype(np.int32)
        numbers[(rows < 0) | (rows >= self.category_offsets[-1])] = 0
        return numbers

    def category_names_of(self, item_ids: Iterable[str]) -> dict[str, str]:
        """Names of the top-level categories of items, by id; those without one, or not in the catalogue, left out."""
        distinct = list(dict.fromkeys(item_ids))
        numbers = self.categories_of(self.item_ids.rows_of(distinct) + 1).tolist()
        named = zip(distinct, numbers, strict=True)
        return {item_id: self.category_names[number - 1] for item_id, number in named if number}

    def categories(self, unavailable: NDArray[np.bool_]) -> list[channel_pb2.Category]:
        """Describe the top-level categories, by name. unavailable: [n] bool, rows that may not be recalled now."""
        bounds = itertools.pairwise(self.category_offsets.tolist())
        return sorted(
            (
                channel_pb2.Category(
                    name=name,
                    number=number,
                    num_items=end - start,
                    num_available=end - start - np.count_nonzero(unavailable[start:end]),
                )
                for (name, number), (start, end) in zip(self.category_numbers.items(), bounds, strict=True)
            ),
            key=lambda category: category.name,
        )

    def unavailable_under(self, overlay: AvailabilityOverlay) -> NDArray[np.bool_]:
        """Rows not to be recalled, [n] bool, under later changes. 1 µs a change."""
        rows = self.item_ids.rows_of(list(overlay.available))
        known = rows != UNKNOWN
        if not known.any():
            return self.unavailable
        unavailable = self.unavailable.copy()
        unavailable[rows[known]] = ~np.fromiter(overlay.available.values(), np.bool_, len(rows))[known]
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
    lists = np.array(manifest.vector_index.category_list_offsets, np.int64)
    expected = len(offsets) if manifest.vector_index.kind == "ivf" else len(lists)
    if len(lists) != expected or (np.diff(lists) < 0).any():
        raise SnapshotUnavailable(
            f"{directory / layout.MANIFEST}: vector_index.category_list_offsets: found {len(lists)} offsets, expected "
            f"{len(offsets)} ascending ones"
        )
    vectors = ItemVectors.open(directory, manifest.vector_index, gpu)
    _expect(directory / layout.ITEM_VECTORS, vectors.vectors.shape, (num_items, manifest.vector_index.dim))
    path = directory / layout.INTEREST_VECTORS
    interest_vectors = map_array(path, np.float32, 2)
    _expect(path, interest_vectors.shape, (manifest.counts.interest_nodes, manifest.tower.interest_dim))
    item_ids = ItemIds.open(directory)
    if len(item_ids) != num_items:
        raise SnapshotUnavailable(f"{directory}: item ids: found {len(item_ids)}, expected {num_items} by the manifest")
    assembler = FeatureAssembler.from_spec(manifest.tower)
    group_spec = manifest.groups if manifest.HasField("groups") else None
    users = UserStore(
        directory / layout.USERS,
        num_items,
        num_categories,
        assembler.profile_width,
        manifest.vector_index.dim,
        manifest.groups.num_groups,
        len(manifest.graph.interests),
    )
    opened.append(users)
    interests = InterestStore(directory / layout.INTERESTS)
    opened.append(interests)
    paths = PathStore(directory / layout.INTEREST_PATHS)
    opened.append(paths)
    nodes = NodeStore(directory / layout.INTEREST_NODES)
    opened.append(nodes)
    # Made now, so that no request waits for it.
    _ = nodes.matcher
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
    path = directory / layout.ITEM_AVAILABLE
    available = map_array(path, np.bool_, 1)
    _expect(path, available.shape, (num_items,))
    unavailable = ~available
    unavailable.flags.writeable = False
    merge = Merge.open(directory, manifest)
    return Snapshot(
        directory=directory,
        version=manifest.version,
        events_until=manifest.events_until.seconds,
        versions=channel_pb2.Versions(
            snapshot=manifest.version,
            user_tower=manifest.tower.model_name,
            merge=merge.id,
            events_until=manifest.events_until,
            group_model_id=manifest.groups.group_model_id,
            generation=manifest.coevolution.generation,
        ),
        category_names=tuple(manifest.categories),
        category_numbers={name: i + 1 for i, name in enumerate(manifest.categories)},
        category_offsets=offsets,
        item_ids=item_ids,
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
        merge=merge,
        # A manifest without click types is of a data set with one kind of event.
        click_types=frozenset(manifest.click_types) or frozenset([channel_pb2.EVENT_TYPE_CLICK]),
        taxonomy_hash=int(manifest.taxonomy_hash[:16] or "0", 16),
        vocabulary_id=int(manifest.vocabulary_id[:16] or "0", 16),
        interest_gpt=manifest.interest_gpt.model_name,
        group_spec=group_spec,
        groups=groups,
        coevolution=manifest.coevolution if manifest.HasField("coevolution") else None,
        novel_categories=novel_categories,
        graph=Graph.open(directory, manifest.graph, num_items, gpu) if manifest.HasField("graph") else None,
    )


def _expect(path: Path, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise SnapshotUnavailable(f"{path}: found shape {found}, expected {expected} by the manifest")
