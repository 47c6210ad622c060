"""The snapshot's files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.v1 import records_pb2


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    (tmp_path / "items.lmdb").mkdir()
    (tmp_path / "items.lmdb" / "data.mdb").write_bytes(b"records")
    (tmp_path / "item_vectors.npy").write_bytes(b"vectors")
    manifest = records_pb2.Manifest(layout_version=layout.LAYOUT_VERSION, version="v1", categories=["THÉ", "茶"])
    manifest.checksums.update(layout.file_checksums(tmp_path))
    layout.write_manifest(tmp_path, manifest)
    return tmp_path


def test_a_manifest_is_read_as_it_was_written(snapshot: Path) -> None:
    assert list(layout.read_manifest(snapshot).categories) == ["THÉ", "茶"]


def test_an_intact_snapshot_verifies(snapshot: Path) -> None:
    assert layout.verify_files(snapshot).version == "v1"


def test_a_flipped_byte_is_found_and_its_file_named(snapshot: Path) -> None:
    (snapshot / "item_vectors.npy").write_bytes(b"vectorz")
    with pytest.raises(layout.SnapshotError, match=r"item_vectors\.npy: SHA-256: found .*, expected"):
        layout.verify_files(snapshot)


@pytest.mark.parametrize(
    ("old", "new"), [('"TH', '"TX'), ("  ", " \t"), ('"v1"', '"v2"'), ('"checksums"', '"checksum"')]
)
def test_a_manifest_that_was_changed_is_found_to_be(snapshot: Path, old: str, new: str) -> None:
    path = snapshot / layout.MANIFEST
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(layout.SnapshotError, match=r"manifest\.json"):
        layout.verify_files(snapshot)


def test_a_missing_file_is_named(snapshot: Path) -> None:
    (snapshot / "items.lmdb" / "data.mdb").unlink()
    with pytest.raises(layout.SnapshotError, match=r"data\.mdb: missing"):
        layout.verify_files(snapshot)


@pytest.mark.parametrize("version", [0, layout.LAYOUT_VERSION - 1, layout.LAYOUT_VERSION + 1])
def test_another_layout_is_refused_with_both_versions(snapshot: Path, version: int) -> None:
    (snapshot / layout.MANIFEST).write_text(f'{{"layout_version": {version}, "a_later_field": 1}}')
    with pytest.raises(layout.SnapshotError, match=f"found {version}, expected {layout.LAYOUT_VERSION}"):
        layout.read_manifest(snapshot)


def test_a_field_that_nobody_knows_is_refused(snapshot: Path) -> None:
    fields = json.loads((snapshot / layout.MANIFEST).read_text())
    (snapshot / layout.MANIFEST).write_text(json.dumps({**fields, "calibration": {"a": 1}}))
    with pytest.raises(layout.SnapshotError, match=r"manifest\.json: not a manifest .*calibration"):
        layout.read_manifest(snapshot)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"layout_version": 3, "counts": 5}'])
def test_a_file_that_is_no_manifest_is_named(snapshot: Path, text: str) -> None:
    (snapshot / layout.MANIFEST).write_text(text)
    with pytest.raises(layout.SnapshotError, match=r"manifest\.json: not a"):
        layout.read_manifest(snapshot)


def test_keys_fit_lmdb_and_stay_apart() -> None:
    ids = ["7", "ü" * 400, "ü" * 401, "x" * 511, "x" * 512]
    keys = [layout.user_key(i) for i in ids]
    assert len(set(keys)) == len(ids)
    assert all(len(key) <= 511 for key in keys)


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        layout.write_atomically(tmp_path / "taken", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    layout.write_atomically(tmp_path / "f", b"old")
    layout.write_atomically(tmp_path / "f", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"new"
