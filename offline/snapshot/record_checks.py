"""The checks that every user's records have to pass as they are written."""

from __future__ import annotations

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
    require(
        clicks == len(record.click_categories) == len(record.click_times),
        f"{name}.click_*",
        f"{clicks}, {len(record.click_categories)}, {len(record.click_times)}",
        "columns of one length",
    )
    require(
        max(record.click_items, default=0) <= contents.num_items,
        f"{name}.click_items",
        max(record.click_items, default=0),
        f"row + 1, at most {contents.num_items}",
    )
    require(
        max(record.click_categories, default=0) <= num_categories,
        f"{name}.click_categories",
        max(record.click_categories, default=0),
        f"category numbers, at most {num_categories}",
    )
    times = list(record.click_times)
    require(times == sorted(times, reverse=True), f"{name}.click_times", "not descending", "newest first")
    # A tower without profile fields is fed one column of zeros.
    bounds = [len(spec.values) for spec in contents.tower.profile_fields] or [0]
    require(
        len(record.profile) <= len(bounds), f"{name}.profile", list(record.profile), f"at most {len(bounds)} values"
    )
    for i, (value, bound) in enumerate(zip(record.profile, bounds, strict=False)):
        require(value <= bound, f"{name}.profile[{i}]", value, f"at most {bound}")
    vector = np.frombuffer(record.user_vector, "<f2") if len(record.user_vector) % 2 == 0 else None
    require(
        vector is not None and len(vector) == contents.dim,
        f"{name}.user_vector",
        f"{len(record.user_vector)} bytes",
        f"{2 * contents.dim} (float16, {contents.dim} dimensions)",
    )
    require(vector is not None and bool(np.isfinite(vector).all()), f"{name}.user_vector", "not finite", "finite")
    long = len(record.long_categories)
    require(long <= MAX_LONG_CATEGORIES, f"{name}.long_categories", long, f"at most {MAX_LONG_CATEGORIES}")
    require(
        long == len(record.long_counts) == len(record.long_last_times),
        f"{name}.long_*",
        f"{long}, {len(record.long_counts)}, {len(record.long_last_times)}",
        "columns of one length",
    )
    require(
        min(record.long_categories, default=1) > 0 and max(record.long_categories, default=1) <= num_categories,
        f"{name}.long_categories",
        list(record.long_categories),
        f"category numbers, 1 to {num_categories}",
    )
    _check_group(name, record, contents.group_spec)
    check_held_interests(name, record, contents)


def check_interests(name: str, record: records_pb2.InterestsRecord, contents: SnapshotContents) -> None:
    """Check one user's interests against the nodes and the taxonomy.

    Raises ContentsError naming the user and the field.
    """
    count = len(record.node_ids)
    require(record.vocabulary_id == 0, f"{name}.vocabulary_id", record.vocabulary_id, "0: the snapshot's own")
    require(count == len(record.weights), f"{name}.weights", f"{len(record.weights)} weights", f"{count}")
    require(len(set(record.node_ids)) == count, f"{name}.node_ids", "a node twice", "each node once")
    require(
        max(record.node_ids, default=-1) < len(contents.nodes),
        f"{name}.node_ids",
        max(record.node_ids, default=-1),
        f"below {len(contents.nodes)}",
    )
    require(max(record.weights, default=0) <= 1000, f"{name}.weights", max(record.weights, default=0), "0 … 1000")
    require(
        record.taxonomy_hash == taxonomy_number(contents.taxonomy_hash),
        f"{name}.taxonomy_hash",
        f"{record.taxonomy_hash:016x}",
        contents.taxonomy_hash[:16],
    )
    require(
        record.expires_at >= record.generated_at,
        f"{name}.expires_at",
        record.expires_at,
        f"at least generated_at, {record.generated_at}",
    )
    size = record.ByteSize()
    require(
        count > 16 or size <= MAX_INTERESTS_BYTES,
        name,
        f"{size} bytes for {count} interests",
        f"at most {MAX_INTERESTS_BYTES} bytes for 16 interests",
    )


def check_interest_paths(
    name: str, paths: records_pb2.InterestPathsRecord, interests: records_pb2.InterestsRecord
) -> None:
    """Check that there is a path per interest.

    Raises ContentsError naming the user.
    """
    require(
        len(paths.paths) == len(interests.node_ids),
        f"{name}.paths",
        f"{len(paths.paths)} paths",
        f"{len(interests.node_ids)}, one per interest",
    )


def check_signals(name: str, record: records_pb2.UserSignalsRecord, contents: SnapshotContents) -> None:
    """Check one user's searches and items.

    Raises ContentsError naming the user and the field.
    """
    for column in (record.searches, record.items):
        require(len(column) <= MAX_SIGNALS, name, f"{len(column)} entries", f"at most {MAX_SIGNALS}")
    require(
        len(record.items) == len(record.item_times),
        f"{name}.item_times",
        f"{len(record.item_times)}",
        f"{len(record.items)}, one per item",
    )
    until = contents.events_until
    for field, times in (
        ("searches", [search.time for search in record.searches]),
        ("item_times", list(record.item_times)),
    ):
        require(times == sorted(times, reverse=True), f"{name}.{field}", "not descending in time", "newest first")
        require(max(times, default=0) < until, f"{name}.{field}", max(times, default=0), f"times before {until}")
    for i, search in enumerate(record.searches):
        clean = bool(search.query) and clean_text(search.query) == search.query
        require(clean, f"{name}.searches[{i}].query", repr(search.query[:80]), "a text that is clean and not empty")
    items = list(record.items)
    require(
        min(items, default=1) > 0 and max(items, default=1) <= contents.num_items,
        f"{name}.items",
        items,
        f"row + 1, 1 to {contents.num_items}",
    )


def _check_group(name: str, record: records_pb2.UserRecord, spec: records_pb2.GroupSpec | None) -> None:
    layers, codes, groups = (spec.num_quantizers, spec.codebook_size, spec.num_groups) if spec else (0, 0, 0)
    csid = list(record.csid)
    expected = f"none, or {layers} codes below {codes}" if spec else "none: there is no group model"
    require(not csid or (len(csid) == layers and max(csid) < codes), f"{name}.csid", csid, expected)
    require(bool(csid) == bool(record.group_id), f"{name}.group_id", record.group_id, "a group where there is a CSID")
    require(record.group_id <= groups, f"{name}.group_id", record.group_id, f"0 to {groups}")
