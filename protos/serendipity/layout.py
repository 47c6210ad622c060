"""The snapshot on disk: names, encodings, checksums.

snapshots/<version>/ holds one immutable snapshot; snapshots/current is a link to the wanted one.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from google.protobuf import json_format

from serendipity.v1 import records_pb2

LAYOUT_VERSION = 3
"""Layout this code writes and reads; it refuses others."""

MANIFEST = "manifest.json"
USERS = "users.lmdb"
INTERESTS = "interests.lmdb"
INTEREST_PATHS = "interest_paths.lmdb"
INTEREST_NODES = "interest_nodes.lmdb"
INTEREST_VECTORS = "interest_vectors.npy"
"""[num_nodes, D] float32, row = node id."""
REASONER = "reasoner.npz"
"""The taxonomy reasoner as fitted by the build (TaxonomyReasoner.read); read near-line only."""
ITEMS = "items.lmdb"
ITEM_ID_TEXT = "item_ids.utf8"
ITEM_ID_OFFSETS = "item_id_offsets.npy"
ITEM_ID_HASHES = "item_id_hashes.npy"
ITEM_ID_ROWS = "item_id_rows.npy"
"""Item ids by row, and rows by item id; see serendipity.item_ids."""
ITEM_AVAILABLE = "item_available.npy"
"""[num_items] bool by row: may be recalled. The same as in the item records, which take seconds to read through."""
ITEM_VECTORS = "item_vectors.npy"
"""[num_items, d] float32, rows sorted by top-level category, then category path, then item id."""
ITEM_INDEX = "items.faiss"
"""IVF index; only where the manifest's vector index is of kind "ivf"."""
GRAPH_ITEM_VECTORS = "graph_item_vectors.npy"
"""[num_items, d] float32, rows as of the item vectors; like all of the graph only where the manifest has one."""
GRAPH_ITEM_PARTS = "graph_item_parts.npy"
"""[num_items, d] float32, what an item clicked adds to the user who is folded in."""
GRAPH_INTEREST_PARTS = "graph_interest_parts.npy"
"""[num_interests, d] float32, likewise of the interests held."""
GRAPH_ITEM_INDEX = "graph_items.faiss"
"""IVF index over the graph's item vectors, as ITEM_INDEX."""
MERGE_MODEL = "merge.onnx"
"""Features of candidates, [m, F] float32 → probabilities, [m, 1]; only where the manifest's merge has an id."""
ITEM_STATISTICS = "item_statistics.npy"
"""[num_items, len(ITEM_STATISTICS_COLUMNS)] float32, rows as of the item vectors."""
ITEM_STATISTICS_COLUMNS = ("item_clicks_28d", "item_trend_7d", "item_trend_28d", "category_share")
"""log(1 + clicks) in the last 28 days; log of the clicks of 7 and 28 days against those to be expected; log of
the share that the item's top-level category has in all clicks."""
TREND_PRIOR = 3.0
"""Clicks that an item is taken to have had as expected, so that one click more or less is no trend."""
CATEGORY_VECTORS = "category_vectors.npy"
"""[num_categories + 1, k] float32 by category number: alike where the same users click."""
NOVEL_CATEGORIES = "novel_categories.lmdb"
GROUPS = "groups.lmdb"
"""Groups of users; only in snapshots whose manifest names a group model."""
SIGNALS = "signals.lmdb"
"""Searches, views and the like by user; read near-line only."""

_NO_DIGEST = "0" * 64
"""What stands for the manifest's own checksum in the text that it is of."""

_CHUNK = 1 << 24

CURRENT = "current"

DEFAULT_USER = b"\x00default"
"""Key, in users.lmdb, interests.lmdb and interest_paths.lmdb, of the record that cold users get.
A user id cannot collide with it: ids are non-empty UTF-8 without NUL."""


class SnapshotError(Exception):
    """A snapshot cannot be read: names the file, what was found and what was expected."""


def user_key(user_id: str) -> bytes:
    """Encode a user id as an LMDB key (at most 511 bytes; longer ids are hashed)."""
    return _key(user_id)


def item_key(item_id: str) -> bytes:
    """Encode an item id as an LMDB key (at most 511 bytes; longer ids are hashed)."""
    return _key(item_id)


def node_key(node_id: int) -> bytes:
    """Encode an interest node id as an LMDB key."""
    return struct.pack(">I", node_id)


def group_key(group_id: int) -> bytes:
    """Encode a group id as an LMDB key."""
    return struct.pack(">I", group_id)


def write_manifest(directory: Path, manifest: records_pb2.Manifest) -> None:
    """Write manifest.json beside and move it into place, and its own checksum into it and the message."""
    manifest.checksums[MANIFEST] = _NO_DIGEST
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True, sort_keys=True).encode()
    manifest.checksums[MANIFEST] = hashlib.sha256(text).hexdigest()
    write_atomically(directory / MANIFEST, text.replace(_NO_DIGEST.encode(), manifest.checksums[MANIFEST].encode()))


def read_manifest(directory: Path) -> records_pb2.Manifest:
    """Read manifest.json and check the layout version.

    Raises SnapshotError when the file is missing, is not a manifest, or is of another layout.
    """
    path = directory / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SnapshotError(f"{path}: cannot be read ({error}); expected a snapshot's manifest") from error
    try:
        found = json.loads(text).get("layout_version", 0)
    except (json.JSONDecodeError, AttributeError) as error:
        raise SnapshotError(f"{path}: not a JSON object ({error})") from error
    # The version first: a later layout may hold fields this code cannot parse.
    if found != LAYOUT_VERSION:
        raise SnapshotError(f"{path}: layout_version: found {found}, expected {LAYOUT_VERSION}")
    try:
        return json_format.Parse(text, records_pb2.Manifest())
    except json_format.ParseError as error:
        raise SnapshotError(f"{path}: not a manifest ({error})") from error


def file_checksums(directory: Path) -> dict[str, str]:
    """SHA-256 (hex) of every file of a snapshot but the manifest, by path relative to it."""
    return {
        str(path.relative_to(directory)): sha256(path)
        for path in sorted(directory.rglob("*"))
        # LMDB makes lock.mdb beside data.mdb when a reader without lock=False opens it.
        if path.is_file() and path.name not in (MANIFEST, "lock.mdb")
    }


def verify_files(directory: Path, on_progress: Callable[[float], None] = lambda _: None) -> records_pb2.Manifest:
    """Check every file against the manifest's checksums and return the manifest.

    on_progress: told the share of bytes that is checked, again and again; what it raises ends the check.
    Raises SnapshotError naming the first file that is missing or different.
    """
    manifest = read_manifest(directory)
    if not manifest.checksums.keys() - {MANIFEST}:
        raise SnapshotError(f"{directory / MANIFEST}: checksums: found none, expected one per file")
    # Of small files first: what is wrong with them is told at once.
    files = sorted((size_of(directory / name), name) for name in manifest.checksums)
    total, done = sum(size for size, _ in files) or 1, 0
    for _, name in files:
        digest, expected = hashlib.sha256(), manifest.checksums[name]
        with (directory / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                # The manifest holds its own checksum.
                digest.update(chunk.replace(expected.encode(), _NO_DIGEST.encode()) if name == MANIFEST else chunk)
                done += len(chunk)
                on_progress(done / total)
        if digest.hexdigest() != expected:
            raise SnapshotError(f"{directory / name}: SHA-256: found {digest.hexdigest()}, expected {expected}")
    return manifest


def size_of(path: Path) -> int:
    """Bytes of a file that a manifest lists. Raises SnapshotError when it is missing."""
    if not path.is_file():
        raise SnapshotError(f"{path}: missing; the manifest lists it")
    return path.stat().st_size


def sha256(path: Path) -> str:
    """SHA-256 of one file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(parts: Iterable[bytes]) -> str:
    """SHA-256 over several byte strings, each preceded by its length, hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(struct.pack(">Q", len(part)) + part)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old one or the new one, and a crash leaves one of them.

    Raises OSError; nothing new is left then.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Force a file, or a directory's entries, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _key(identifier: str) -> bytes:
    encoded = identifier.encode()
    if len(encoded) <= 511:
        return encoded
    # \x01 keeps hashed keys apart from short ids, which hold no control character (serendipity.ids).
    return b"\x01" + hashlib.sha256(encoded).digest()
