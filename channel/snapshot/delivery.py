"""Snapshots by way of a store that builders and hosts share: a folder, or what fsspec takes (s3://bucket/snapshots).

<store>/<version>/…    a snapshot's files; its manifest is written last, so where it is all others are
<store>/wanted         the version that hosts are to serve, in one line
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fsspec

from serendipity import layout

_WANTED = "wanted"
_LOCK = ".fetch.lock"
_BESIDE = ".fetched"


def send(directory: Path, url: str) -> None:
    """Copy a snapshot into the store, and make it the one that hosts are to serve.

    directory: snapshots/<version>; what the store holds of that version already is left alone. Raises SnapshotError.
    """
    manifest = layout.verify_files(directory)
    with _told(url):
        store, root = fsspec.url_to_fs(url)
        there = f"{root}/{manifest.version}"
        if not store.exists(f"{there}/{layout.MANIFEST}"):
            for name in (*sorted(manifest.checksums.keys() - {layout.MANIFEST}), layout.MANIFEST):
                store.makedirs(str(PurePosixPath(f"{there}/{name}").parent), exist_ok=True)
                store.put_file(str(directory / name), f"{there}/{name}")
        store.pipe_file(f"{root}/{_WANTED}", f"{manifest.version}\n".encode())


def wanted_in(url: str) -> str:
    """Tell the version that hosts are to serve. Raises SnapshotError."""
    with _told(url):
        store, root = fsspec.url_to_fs(url)
        text: str = store.cat_file(f"{root}/{_WANTED}").decode(errors="replace")
    # Not every store replaces a file in one step.
    if not text.endswith("\n") or not text.strip():
        raise layout.SnapshotError(f"{url}/{_WANTED}: found {text!r}, expected a version and the end of its line")
    return text.strip()


def fetch(url: str, version: str, snapshots: Path) -> bool:
    """Copy a version from the store to below `snapshots`; False if it is there already.

    It is copied beside, every file compared with the manifest's checksum, and moved into place: whoever is killed
    leaves nothing that could be taken for a snapshot. Raises SnapshotError.
    """
    target, beside = snapshots / _plain(url, version), snapshots / _BESIDE
    with _told(url):
        snapshots.mkdir(parents=True, exist_ok=True)
        with (snapshots / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.is_dir():
                return False
            shutil.rmtree(beside, ignore_errors=True)
            try:
                _copy(url, version, beside)
                beside.rename(target)
                layout.sync_file(snapshots)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
    return True


def _copy(url: str, version: str, beside: Path) -> None:
    store, root = fsspec.url_to_fs(url)
    beside.mkdir()
    store.get_file(f"{root}/{version}/{layout.MANIFEST}", str(beside / layout.MANIFEST))
    manifest = layout.read_manifest(beside)
    if manifest.version != version:
        raise layout.SnapshotError(f"{url}/{version}: version: found {manifest.version!r}, expected {version!r}")
    for name in manifest.checksums.keys() - {layout.MANIFEST}:
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise layout.SnapshotError(f"{url}/{version}: checksums: found {name!r}, expected files below it")
        place = beside / name
        place.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(f"{root}/{version}/{name}", str(place))
        layout.sync_file(place)
    layout.verify_files(beside)
    for place in (*(path for path in beside.rglob("*") if path.is_dir()), beside / layout.MANIFEST, beside):
        layout.sync_file(place)


def _plain(url: str, version: str) -> str:
    if version.startswith(".") or version in ("", layout.CURRENT) or Path(version).name != version:
        raise layout.SnapshotError(f"{url}: version: found {version!r}, expected the name of a snapshot")
    return version


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Name the store in whatever fsspec says of it: a package that is missing, no such object, no access."""
    try:
        yield
    except layout.SnapshotError:
        raise
    except Exception as error:  # stores raise kinds of their own: botocore's of credentials or an endpoint, say
        raise layout.SnapshotError(f"{url}: {type(error).__name__}: {error}") from error
