"""Snapshots by way of a store: whole or not at all, whatever the store holds."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest

from serendipity import layout
from serendipity.channel.snapshot.delivery import fetch, send, wanted_in
from serendipity.v1 import records_pb2


def write_snapshot(root: Path, version: str) -> Path:
    directory = root / version
    (directory / "users.lmdb").mkdir(parents=True)
    (directory / "users.lmdb" / "data.mdb").write_bytes(bytes(range(256)))
    (directory / layout.ITEM_ID_TEXT).write_text(version)
    manifest = records_pb2.Manifest(layout_version=layout.LAYOUT_VERSION, version=version)
    manifest.checksums.update(layout.file_checksums(directory))
    layout.write_manifest(directory, manifest)
    return directory


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}/snapshots"


def write(store: str, name: str, content: bytes) -> None:
    system, root = fsspec.url_to_fs(store)
    system.makedirs(root, exist_ok=True)
    system.pipe_file(f"{root}/{name}", content)


def test_what_is_sent_is_fetched_as_it_was(store: str, tmp_path: Path) -> None:
    sent = write_snapshot(tmp_path / "build", "one")
    send(sent, store)
    assert wanted_in(store) == "one"
    snapshots = tmp_path / "host" / "snapshots"
    assert fetch(store, "one", snapshots) is True
    assert layout.file_checksums(snapshots / "one") == layout.file_checksums(sent)
    assert layout.verify_files(snapshots / "one").version == "one"
    assert fetch(store, "one", snapshots) is False
    assert [path.name for path in snapshots.iterdir() if not path.name.startswith(".")] == ["one"]


def test_an_earlier_one_is_wanted_again_without_being_copied(store: str, tmp_path: Path) -> None:
    one, two = (write_snapshot(tmp_path / "build", version) for version in ("one", "two"))
    send(one, store)
    send(two, store)
    assert wanted_in(store) == "two"
    system, root = fsspec.url_to_fs(store)
    system.rm_file(f"{root}/one/{layout.ITEM_ID_TEXT}")
    send(one, store)
    assert wanted_in(store) == "one"
    assert not system.exists(f"{root}/one/{layout.ITEM_ID_TEXT}")


def test_a_copy_that_was_cut_short_is_sent_again(store: str, tmp_path: Path) -> None:
    one = write_snapshot(tmp_path / "build", "one")
    send(one, store)
    system, root = fsspec.url_to_fs(store)
    # The manifest comes last.
    system.rm_file(f"{root}/one/{layout.MANIFEST}")
    write(store, f"one/{layout.ITEM_ID_TEXT}", b"half")
    send(one, store)
    assert fetch(store, "one", tmp_path / "host")


@pytest.mark.parametrize("name", [layout.ITEM_ID_TEXT, "users.lmdb/data.mdb"])
def test_a_file_that_is_another_in_the_store_leaves_nothing_here(store: str, name: str, tmp_path: Path) -> None:
    send(write_snapshot(tmp_path / "build", "one"), store)
    write(store, f"one/{name}", b"other")
    with pytest.raises(layout.SnapshotError, match=f"{name}: SHA-256: found"):
        fetch(store, "one", tmp_path / "host")
    assert [path for path in (tmp_path / "host").iterdir() if path.is_dir()] == []


def test_what_a_fetch_left_that_was_killed_is_cleared_away(store: str, tmp_path: Path) -> None:
    send(write_snapshot(tmp_path / "build", "one"), store)
    remains = tmp_path / "host" / ".fetched"
    remains.mkdir(parents=True)
    (remains / "stray").write_text("half")
    assert fetch(store, "one", tmp_path / "host")
    assert not (tmp_path / "host" / "one" / "stray").exists()
    assert not remains.exists()


@pytest.mark.parametrize("version", ["", "..", ".hidden", "a/b", layout.CURRENT])
def test_only_a_plain_name_is_fetched(version: str, tmp_path: Path) -> None:
    with pytest.raises(layout.SnapshotError, match="expected the name of a snapshot"):
        fetch(str(tmp_path), version, tmp_path / "host")
    assert not (tmp_path / "host").exists()


def test_a_manifest_cannot_name_files_outside_its_snapshot(store: str, tmp_path: Path) -> None:
    directory = write_snapshot(tmp_path / "build", "one")
    send(directory, store)
    manifest = layout.read_manifest(directory)
    manifest.checksums["../../outside"] = "0" * 64
    layout.write_manifest(directory, manifest)
    write(store, f"one/{layout.MANIFEST}", (directory / layout.MANIFEST).read_bytes())
    with pytest.raises(layout.SnapshotError, match=r"checksums: found '../../outside', expected files below it"):
        fetch(store, "one", tmp_path / "host")


@pytest.mark.parametrize("content", [b"", b"\n", b"2026112"])
def test_what_is_wanted_counts_once_it_is_written_whole(store: str, content: bytes) -> None:
    write(store, "wanted", content)
    with pytest.raises(layout.SnapshotError, match=r"wanted: found .*, expected a version and the end of its line"):
        wanted_in(store)


@pytest.mark.parametrize("url", ["/nowhere/at/all", "memory://nowhere", "no-such-protocol://bucket/snapshots"])
def test_a_store_that_cannot_be_read_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(layout.SnapshotError, match=url):
        wanted_in(url)
    with pytest.raises(layout.SnapshotError, match=url):
        fetch(url, "one", tmp_path / "host")


def test_what_a_store_raises_of_its_own_kind_is_told_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoCredentialsError(Exception):
        """As botocore's, which is no OSError."""

    def refuse(*_: object, **__: object) -> bytes:
        raise NoCredentialsError("Unable to locate credentials")

    system, _ = fsspec.url_to_fs("memory://bucket")
    monkeypatch.setattr(type(system), "cat_file", refuse)
    with pytest.raises(layout.SnapshotError, match="memory://bucket: NoCredentialsError: Unable to locate"):
        wanted_in("memory://bucket")
