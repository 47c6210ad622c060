"""Which snapshot is wanted: publish, list and roll back on disk, for all workers that share the directory.

    <snapshots>/<version>/           immutable snapshots
    <snapshots>/current              link to the wanted one, replaced atomically; workers converge to it
    <snapshots>/publications.json    versions wanted one after another, without those rolled back: the last is wanted
    <snapshots>/.publish.lock        held (flock) while one of these changes

The link is the truth. The history is written right after it, and a crash between the two is mended by the next call.
A history that is damaged is begun anew from the link: it must not keep an operator from publishing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.verification import verify_once
from serendipity.v1 import records_pb2

_log = structlog.stdlib.get_logger(__name__)

HISTORY = "publications.json"
_LOCK = ".publish.lock"
_DELETED = ".deleted"
_HISTORY_LENGTH = 1_000
_VERSIONS = TypeAdapter(list[str])

Check = Callable[[records_pb2.Manifest, Path | None], None]
"""Asked before a snapshot becomes the wanted one: its manifest, and the directory of the one wanted so far, None
without. Raises PublicationRefused to refuse it: its model is not ready, the quality gate does not let it pass."""

OnProgress = Callable[[str, float], None]
"""Told what is done and the share of it that is done, 0 to 1; what it raises ends the publication."""


@dataclass(frozen=True)
class Publication:
    """A change of the wanted snapshot. previous: version wanted before, empty for none."""

    version: str
    previous: str


@dataclass(frozen=True)
class ListedSnapshot:
    """A snapshot on disk. manifest: None if it cannot be read, and `error` says why."""

    version: str
    current: bool
    manifest: records_pb2.Manifest | None
    error: str


class Publications:
    """The wanted snapshot of one directory.

    snapshots: the directory; checks: asked before every publication, rollbacks included (its model must be ready);
    gates: asked before a publication that is no rollback (what is left behind may have measured better, and yet be
    what an operator wants to leave); clock: Unix seconds.
    """

    def __init__(
        self,
        snapshots: Path,
        *,
        checks: Sequence[Check] = (),
        gates: Sequence[Check] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshots = snapshots
        self._checks = checks
        self._gates = gates
        self._clock = clock

    def wanted(self) -> str:
        """Version wanted; empty if none was ever published."""
        try:
            return (self._snapshots / layout.CURRENT).readlink().name
        except OSError:
            return ""

    def directory(self, version: str) -> Path:
        """Directory of a version."""
        return self._snapshots / version

    def earlier(self) -> list[str]:
        """Versions wanted before the wanted one that are still there, the latest first, each once."""
        try:
            history = self._history()
        except OSError:
            return []
        return list(dict.fromkeys(reversed(self._ways_back([*history, self.wanted()]))))

    def listed(self) -> list[ListedSnapshot]:
        """Read the manifests of the snapshots on disk, newest first; those that cannot be read come last."""
        wanted = self.wanted()
        found = []
        for path in sorted(self._snapshots.iterdir()) if self._snapshots.is_dir() else ():
            if path.is_symlink() or not path.is_dir() or path.name.startswith("."):
                continue
            try:
                found.append(ListedSnapshot(path.name, path.name == wanted, layout.read_manifest(path), ""))
            except layout.SnapshotError as error:
                found.append(ListedSnapshot(path.name, path.name == wanted, None, str(error)))
        found.sort(key=lambda s: (s.manifest.created_at.ToNanoseconds() if s.manifest else -1, s.version), reverse=True)
        return found

    def prune(self, before: float, now: float = math.inf) -> list[str]:
        """Delete the snapshots that have neither been written nor been wanted since a time (Unix seconds).

        The wanted one stays however old it is, and so do the files of a request that still reads a deleted one. now:
        Unix seconds; what a clock that was ahead has dated later is brought down to it. Returns the versions deleted.
        """
        with self._locked():
            deleted = []
            for listed in self.listed():
                directory = self.directory(listed.version)
                # When it was written, or wanted last.
                used = directory.stat().st_mtime
                if used > now:
                    os.utime(directory, (now, now))
                if not listed.current and used < before:
                    # First out of sight, so that nobody finds half of it.
                    directory.replace(directory.with_name(f".{listed.version}{_DELETED}"))
                    deleted.append(listed.version)
            for aside in self._snapshots.glob(f".*{_DELETED}"):
                shutil.rmtree(aside)
            return deleted

    def publish(self, version: str, on_progress: OnProgress = lambda _, __: None) -> Publication:
        """Verify a snapshot and make it the wanted one. Publishing the wanted one again only verifies it.

        Raises PublicationRefused, and changes nothing, if it is missing, damaged, or a check or gate refuses it.
        """
        with self._locked():
            history = self._history()
            publication = self._make_wanted(version, (*self._checks, *self._gates), on_progress)
            if version != publication.previous:
                self._write_history([*history, version])
            return publication

    def rollback(self, on_progress: OnProgress = lambda _, __: None) -> Publication:
        """Make the snapshot that was wanted before the present one the wanted one again, after the checks.

        Rolling back twice goes back by two publications; those deleted meanwhile are passed over. Raises
        PublicationRefused, and changes nothing, if there is none before or it is refused.
        """
        with self._locked():
            history = self._history()
            if not (before := self._ways_back(history)):
                raise PublicationRefused(f"{self._snapshots}: nothing was published before {self.wanted() or 'now'}")
            publication = self._make_wanted(before[-1], self._checks, on_progress)
            history.pop()
            while history[-1] != publication.version:
                history.pop()
            self._write_history(history)
            return publication

    def _make_wanted(self, version: str, checks: Sequence[Check], on_progress: OnProgress) -> Publication:
        previous = self.wanted()
        manifest = self._verified(version, on_progress)
        for number, check in enumerate(checks):
            on_progress("checking", number / len(checks))
            check(manifest, self.directory(previous) if previous else None)
        on_progress("publishing", 1.0)
        if version != previous:
            beside = self._snapshots / f".{layout.CURRENT}.{os.getpid()}"
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()
            beside.symlink_to(version, target_is_directory=True)
            beside.replace(self._snapshots / layout.CURRENT)
            layout.sync_file(self._snapshots)
            if previous:
                # From now on it may grow too old: see `prune`. One that was deleted, or is another's, does not.
                with contextlib.suppress(OSError):
                    os.utime(self.directory(previous), (self._clock(), self._clock()))
        return Publication(version, previous)

    def _verified(self, version: str, on_progress: OnProgress) -> records_pb2.Manifest:
        path = self._snapshots / version
        if version in ("", ".", "..", layout.CURRENT) or version.startswith(".") or Path(version).name != version:
            raise PublicationRefused(
                f"version: found {version!r}, expected the name of a directory in {self._snapshots}"
            )
        if path.is_symlink() or not path.is_dir():
            raise PublicationRefused(f"{path}: no such snapshot; `list` names those on disk")
        try:
            manifest = verify_once(path, lambda share: on_progress("verifying", share))
        except (layout.SnapshotError, OSError) as error:
            raise PublicationRefused(f"{version}: not published: {error}") from error
        if manifest.version != version:
            raise PublicationRefused(f"{path}: manifest's version: found {manifest.version!r}, expected {version!r}")
        return manifest

    def _ways_back(self, history: Sequence[str]) -> list[str]:
        """Versions that a rollback could go back to, the next one last."""
        return [version for version in history[:-1] if version != history[-1] and self.directory(version).is_dir()]

    def _history(self) -> list[str]:
        """Read the history, with the change made good that a crash kept out of it. Raises OSError."""
        path, wanted = self._snapshots / HISTORY, self.wanted()
        try:
            history = _VERSIONS.validate_json(path.read_bytes())
        except FileNotFoundError:
            history = []
        except ValidationError as error:
            _log.error("history of publications cannot be read", path=str(path), error=str(error))
            history = []
        if history[-2:-1] == [wanted]:
            history.pop()
        elif wanted and history[-1:] != [wanted]:
            history.append(wanted)
        return history

    def _write_history(self, history: list[str]) -> None:
        layout.write_atomically(self._snapshots / HISTORY, json.dumps(history[-_HISTORY_LENGTH:]).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            file = (self._snapshots / _LOCK).open("a")
        except OSError as error:
            raise PublicationRefused(f"{self._snapshots}: cannot be written ({error})") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            except OSError as error:
                # A full disk, a name no file can have. What the link says by now is wanted: see `_history`.
                wanted = self.wanted() or "nothing"
                raise PublicationRefused(f"{self._snapshots}: {error}; wanted now: {wanted}") from error
