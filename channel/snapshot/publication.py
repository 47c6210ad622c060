"""Which snapshot is wanted: publish, list and roll back on disk, for all workers that share the directory.

    <snapshots>/<version>/           immutable snapshots
    <snapshots>/current              link to the wanted one, replaced atomically; workers converge to it
    <snapshots>/publications.json    what was published when, and what was wanted before
    <snapshots>/.publish.lock        held (flock) while one of these changes

The link is the truth. The history is written right after it, and a crash between the two is mended by the next call.
A history that is damaged is set aside (publications.json.damaged-<time>) and begun anew: it must not keep an operator
from publishing.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import structlog

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.verification import verify_once
from serendipity.v1 import records_pb2

_log = structlog.stdlib.get_logger(__name__)

HISTORY = "publications.json"
_LOCK = ".publish.lock"
_DELETED = ".deleted"
_HISTORY_LENGTH = 1_000

Check = Callable[[records_pb2.Manifest, Path | None], None]
"""Asked before a snapshot becomes the wanted one: its manifest, and the directory of the one wanted so far, None
without. Raises PublicationRefused to refuse it: its model is not ready, the quality gate does not let it pass."""


@dataclass(frozen=True)
class Publication:
    """One change of the wanted snapshot. previous: version wanted before, empty for none; at: RFC 3339, UTC."""

    action: Literal["publish", "rollback"]
    version: str
    previous: str
    at: str


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

    def history(self) -> list[Publication]:
        """Read what was published, oldest first, at most the latest 1,000.

        Raises PublicationRefused when the history cannot be read.
        """
        path = self._snapshots / HISTORY
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(entries, list):
                raise TypeError(f"found {type(entries).__name__}")
            return [Publication(**entry) for entry in entries]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise PublicationRefused(f"{path}: cannot be read ({error}); expected a list of publications") from error

    def prune(self, before: float, *, keep: int = 0) -> list[str]:
        """Delete the snapshots that have neither been written nor been wanted since a time (Unix seconds).

        The wanted one stays however old it is, and so do the files of a request that still reads a deleted one. keep:
        so many stay, the newest, and where it is above 0 the one that a rollback goes back to as well. Returns the
        versions deleted. Raises PublicationRefused, and deletes nothing, when the history cannot be read.
        """
        with self._locked():
            history = self._mended_history()
            last_wanted = {
                publication.previous: datetime.datetime.fromisoformat(publication.at).timestamp()
                for publication in history
            }
            snapshots = self.listed()
            staying = {self.wanted(), *(listed.version for listed in snapshots[:keep])}
            if keep:
                staying |= set([v for v in _stack(history)[:-1] if self.directory(v).is_dir()][-1:])
            deleted = []
            for listed in snapshots:
                directory = self.directory(listed.version)
                written = directory.stat().st_mtime
                if listed.version not in staying and max(written, last_wanted.get(listed.version, 0)) < before:
                    # First out of sight, so that nobody finds half of it.
                    directory.replace(directory.with_name(f".{listed.version}{_DELETED}"))
                    deleted.append(listed.version)
            for aside in self._snapshots.glob(f".*{_DELETED}"):
                shutil.rmtree(aside)
            return deleted

    def publish(self, version: str) -> Publication:
        """Verify a snapshot and make it the wanted one. Publishing the wanted one again only verifies it.

        Raises PublicationRefused, and changes nothing, if it is missing, damaged, or a check or gate refuses it.
        """
        with self._locked():
            return self._make_wanted("publish", version, self._mended_history())

    def rollback(self) -> Publication:
        """Make the snapshot that was wanted before the present one the wanted one again, after the checks.

        Rolling back twice goes back by two publications; those deleted meanwhile are passed over. Raises
        PublicationRefused, and changes nothing, if there is none before or it is refused.
        """
        with self._locked():
            history = self._mended_history()
            before = [version for version in _stack(history)[:-1] if self.directory(version).is_dir()]
            if not before:
                raise PublicationRefused(f"{self._snapshots}: nothing was published before {self.wanted() or 'now'}")
            return self._make_wanted("rollback", before[-1], history)

    def _make_wanted(
        self, action: Literal["publish", "rollback"], version: str, history: list[Publication]
    ) -> Publication:
        previous = self.wanted()
        manifest = self._verified(version)
        for check in (*self._checks, *(self._gates if action == "publish" else ())):
            check(manifest, self.directory(previous) if previous else None)
        moment = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).isoformat(timespec="seconds")
        publication = Publication(action, version, previous, moment)
        if version == previous:
            return publication
        beside = self._snapshots / f".{layout.CURRENT}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        beside.symlink_to(version, target_is_directory=True)
        beside.replace(self._snapshots / layout.CURRENT)
        _synchronise(self._snapshots)
        self._write_history([*history, publication])
        return publication

    def _verified(self, version: str) -> records_pb2.Manifest:
        path = self._snapshots / version
        if version in ("", ".", "..", layout.CURRENT) or version.startswith(".") or Path(version).name != version:
            raise PublicationRefused(
                f"version: found {version!r}, expected the name of a directory in {self._snapshots}"
            )
        if path.is_symlink() or not path.is_dir():
            raise PublicationRefused(f"{path}: no such snapshot; `list` names those on disk")
        try:
            manifest = verify_once(path)
        except (layout.SnapshotError, OSError) as error:
            raise PublicationRefused(f"{version}: not published: {error}") from error
        if manifest.version != version:
            raise PublicationRefused(f"{path}: manifest's version: found {manifest.version!r}, expected {version!r}")
        return manifest

    def _mended_history(self) -> list[Publication]:
        """Read the history, with the change added that a crash kept out of it; a damaged one is set aside."""
        try:
            history = self.history()
        except PublicationRefused as error:
            if isinstance(error.__cause__, OSError):
                raise
            history = []
            path = self._snapshots / HISTORY
            aside = path.with_name(f"{HISTORY}.damaged-{int(self._clock())}")
            path.replace(aside)
            _log.error("history of publications set aside", error=str(error), aside=str(aside))
        stack, wanted = _stack(history), self.wanted()
        if wanted and (not stack or stack[-1] != wanted):
            rolled_back = len(stack) > 1 and stack[-2] == wanted
            moment = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).isoformat(timespec="seconds")
            history.append(
                Publication("rollback" if rolled_back else "publish", wanted, stack[-1] if stack else "", moment)
            )
            self._write_history(history)
        return history

    def _write_history(self, history: list[Publication]) -> None:
        entries = [asdict(publication) for publication in history[-_HISTORY_LENGTH:]]
        layout.write_atomically(self._snapshots / HISTORY, json.dumps(entries, indent=1).encode())

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
                # A full disk, a name no file can have. What the link says by now is wanted: see `_mended_history`.
                wanted = self.wanted() or "nothing"
                raise PublicationRefused(f"{self._snapshots}: {error}; wanted now: {wanted}") from error


def _stack(history: Sequence[Publication]) -> list[str]:
    """Versions wanted one after another without those rolled back: the last is wanted, the one before it is next."""
    stack: list[str] = []
    for publication in history:
        if publication.action == "rollback":
            # One step, or more where snapshots between had been deleted.
            del stack[-1:]
            while stack and stack[-1] != publication.version:
                stack.pop()
        if not stack or stack[-1] != publication.version:
            stack.append(publication.version)
    return stack


def _synchronise(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
