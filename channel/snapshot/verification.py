"""Checksums of a snapshot, verified once per host, whoever of its processes asks first."""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
from collections.abc import Callable, Iterable
from io import FileIO
from pathlib import Path

from serendipity import layout
from serendipity.v1 import records_pb2

_VERIFIED = ".verified"
"""Directory beside the snapshots that holds a stamp per snapshot and host."""


def verify_once(directory: Path, on_progress: Callable[[float], None] = lambda _: None) -> records_pb2.Manifest:
    """Check every file's SHA-256 (about 205 MB/s) unless this host did so for the same files before.

    The stamp lies beside the snapshots; where they cannot be written, every process checks. It names size and times of
    every file, and what was found wrong with them. Who asks while another process checks waits for it. on_progress: as
    of layout.verify_files. Raises layout.SnapshotError.
    """
    try:
        stamp = _stamp_of(directory)
    except OSError:
        return layout.verify_files(directory, on_progress)
    with stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX)
        manifest = layout.read_manifest(directory)
        found = file_times(directory, {layout.MANIFEST, *manifest.checksums})
        stamp.seek(0)
        try:
            verified = json.loads(stamp.read())
        except ValueError:
            verified = {}
        if not isinstance(verified, dict) or verified.get("files") != found:
            verified = {"files": found, "wrong": ""}
            try:
                layout.verify_files(directory, on_progress)
            except layout.SnapshotError as error:
                verified["wrong"] = str(error)
            # A disk that is full keeps it from being noted, not from being served.
            with contextlib.suppress(OSError):
                stamp.truncate(0)
                stamp.write(json.dumps(verified).encode())
        if verified["wrong"]:
            raise layout.SnapshotError(verified["wrong"])
        return manifest


def file_times(directory: Path, names: Iterable[str]) -> dict[str, list[int]]:
    """Tell size and times, in nanoseconds, of files of a snapshot: any write changes the last of them.

    Raises layout.SnapshotError when one is missing.
    """
    times = {}
    for name in names:
        size = layout.size_of(directory / name)
        status = (directory / name).stat()
        times[name] = [size, status.st_mtime_ns, status.st_ctime_ns]
    return times


def _stamp_of(directory: Path) -> FileIO:
    place = directory.parent / _VERIFIED
    place.mkdir(exist_ok=True)
    return (place / f"{directory.name}.{socket.gethostname()}.json").open("a+b", buffering=0)
