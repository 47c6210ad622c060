"""The checks that every user's records have to pass as they are written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serendipity.interests.text import clean_text
from serendipity.novelty import CLICK_WINDOW
from serendipity.offline.snapshot.contents import MAX_LONG_CATEGORIES, SnapshotContents, require, taxonomy_number
from serendipity.offline.snapshot.graph_checks import check_held_interests
from serendipity.v1 import records_pb2

MAX_INTERESTS_BYTES = 120
"""Bytes a hot interests record may take when it holds at most 16 interests."""

MAX_SIGNALS = 50
"""Searches a user's signals hold at most, and as many items."""


def check_user(name: str, record: records_pb2.UserRecord, contents: SnapshotContents) -> None:
    """Check one user's record against the catalogue and the tower.

    Raises ContentsError naming the user and the field.
    """
    num_categories = len(contents.catalogue.categories)
    clicks = len(record.click_items)
    require(clicks <= CLICK_WINDOW, f"{name}.click_items", f"{clicks} clicks", f"at most {CLICK_WINDOW}")
    _check_columns(f"{name}.click_*", record.click_items, record.click_categories, record.click_times)
    _check_highest(f"{name}.click_items", record.click_items, contents.num_items, "row + 1")
    _check_highest(f"{name}.click_categories", record.click_categories, num_categories, "category numbers")
    _check_newest_first(f"{name}.click_times", record.click_times)
    # A tower without profile fields is fed one column of zeros.
    bounds = [len(spec.values) for spec in contents.tower.profile_fields] or [0]
    profile = list(record.profile)
    require(len(profile) <= len(bounds), f"{name}.profile", profile, f"at most {len(bounds)} values")
    for i, (value, bound) in enumerate(zip(profile, bounds, strict=False)):
        require(value <= bound, f"{name}.profile[{i}]", value, f"at most {bound}")
    size, dim = len(record.user_vector), contents.dim
    require(size == 2 * dim, f"{name}.user_vector", f"{size} bytes", f"{2 * dim} (float16, {dim} dimensions)")
    finite = bool(np.isfinite(np.frombuffer(record.user_vector, "<f2")).all())
    require(finite, f"{name}.user_vector", "not finite", "finite")
    long = list(record.long_categories)
    require(len(long) <= MAX_LONG_CATEGORIES, f"{name}.long_categories", len(long), f"at most {MAX_LONG_CATEGORIES}")
    _check_columns(f"{name}.long_*", long, record.long_counts, record.long_last_times)
    within = all(0 < number <= num_categories for number in long)
    require(within, f"{name}.long_categories", long, f"category numbers, 1 to {num_categories}")
    _check_group(name, record, contents.group_spec)
    check_held_interests(name, record, contents)


def check_interests(name: str, record: records_pb2.InterestsRecord, contents: SnapshotContents) -> None:
    """Check one user's interests against the nodes and the taxonomy.

    Raises ContentsError naming the user and the field.
    """
    nodes, weights, size = list(record.node_ids), list(record.weights), record.ByteSize()
    require(record.vocabulary_id == 0, f"{name}.vocabulary_id", record.vocabulary_id, "0: the snapshot's own")
    require(len(nodes) == len(weights), f"{name}.weights", f"{len(weights)} weights", f"{len(nodes)}")
    require(len(set(nodes)) == len(nodes), f"{name}.node_ids", "a node twice", "each node once")
    highest, bound = max(nodes, default=-1), len(contents.nodes)
    require(highest < bound, f"{name}.node_ids", highest, f"below {bound}")
    require(max(weights, default=0) <= 1000, f"{name}.weights", max(weights, default=0), "0 … 1000")
    of_build = taxonomy_number(contents.taxonomy_hash)
    found = f"{record.taxonomy_hash:016x}"
    require(record.taxonomy_hash == of_build, f"{name}.taxonomy_hash", found, f"{of_build:016x}")
    lives = record.expires_at >= record.generated_at
    require(lives, f"{name}.expires_at", record.expires_at, f"at least generated_at, {record.generated_at}")
    small = len(nodes) > 16 or size <= MAX_INTERESTS_BYTES
    require(small, name, f"{size} bytes for {len(nodes)} interests", f"at most {MAX_INTERESTS_BYTES} bytes for 16")


def check_interest_paths(
    name: str, paths: records_pb2.InterestPathsRecord, interests: records_pb2.InterestsRecord
) -> None:
    """Check that there is a path per interest. Raises ContentsError naming the user."""
    found, expected = len(paths.paths), len(interests.node_ids)
    require(found == expected, f"{name}.paths", f"{found} paths", f"{expected}, one per interest")


def check_signals(name: str, record: records_pb2.UserSignalsRecord, contents: SnapshotContents) -> None:
    """Check one user's searches and items. Raises ContentsError naming the user and the field."""
    items, item_times = list(record.items), list(record.item_times)
    for column in (record.searches, items):
        require(len(column) <= MAX_SIGNALS, name, f"{len(column)} entries", f"at most {MAX_SIGNALS}")
    require(len(items) == len(item_times), f"{name}.item_times", len(item_times), f"{len(items)}, one per item")
    until = contents.events_until
    for field, times in (("searches", [search.time for search in record.searches]), ("item_times", item_times)):
        _check_newest_first(f"{name}.{field}", times)
        require(max(times, default=0) < until, f"{name}.{field}", max(times, default=0), f"times before {until}")
    for i, search in enumerate(record.searches):
        clean = bool(search.query) and clean_text(search.query) == search.query
        require(clean, f"{name}.searches[{i}].query", repr(search.query[:80]), "a text that is clean and not empty")
    within = all(0 < item <= contents.num_items for item in items)
    require(within, f"{name}.items", items, f"row + 1, 1 to {contents.num_items}")


def _check_columns(name: str, *columns: Sequence[int]) -> None:
    sizes = [len(column) for column in columns]
    require(len(set(sizes)) == 1, name, ", ".join(map(str, sizes)), "columns of one length")


def _check_highest(name: str, values: Sequence[int], bound: int, what: str) -> None:
    require(max(values, default=0) <= bound, name, max(values, default=0), f"{what}, at most {bound}")


def _check_newest_first(name: str, times: Sequence[int]) -> None:
    require(list(times) == sorted(times, reverse=True), name, "not descending in time", "newest first")


def _check_group(name: str, record: records_pb2.UserRecord, spec: records_pb2.GroupSpec | None) -> None:
    layers, codes, groups = (spec.num_quantizers, spec.codebook_size, spec.num_groups) if spec else (0, 0, 0)
    csid = list(record.csid)
    expected = f"none, or {layers} codes below {codes}" if spec else "none: there is no group model"
    require(not csid or (len(csid) == layers and max(csid) < codes), f"{name}.csid", csid, expected)
    require(bool(csid) == bool(record.group_id), f"{name}.group_id", record.group_id, "a group where there is a CSID")
    require(record.group_id <= groups, f"{name}.group_id", record.group_id, f"0 to {groups}")
