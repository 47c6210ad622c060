"""Corruptions: copies of a snapshot, each damaged at random, are published and pushed on a running service.

    python -m benchmarks.corruptions --build var/complete-journey --count 200 --out docs/results/corruptions.md

Every copy must be refused by the publication and, where the link is moved past it, by every worker, while the snapshot
of before goes on answering. Ends with status 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from benchmarks.command import failed, made_by, options_of, publish, read_options
from serendipity import layout
from serendipity.channel.client import ClientError, SerendipityClient
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.publication import Publications
from serendipity.tools.service import Service, launch_service
from serendipity.v1 import admin_pb2, admin_pb2_grpc

_NO_TRITON = "127.0.0.1:1"
_PAGE = 4_096
_SECONDS = 120.0

Damage = Callable[[bytes, np.random.Generator], bytes | None]
"""What becomes of a file's content; None: the file is gone."""


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(content)))
    return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]


def _zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(content))) // _PAGE * _PAGE
    return content[:at] + bytes(len(content[at : at + _PAGE])) + content[at + _PAGE :]


DAMAGES: dict[str, Damage] = {
    "one bit flipped": _flipped,
    "a page of zeros": _zeroed,
    "cut short": lambda content, rng: content[: int(rng.integers(len(content)))],
    "bytes behind its end": lambda content, rng: content + rng.bytes(int(rng.integers(1, _PAGE))),
    "empty": lambda _, __: b"",
    "other bytes": lambda content, rng: rng.bytes(len(content)),
    "missing": lambda _, __: None,
}


@dataclass
class Outcome:
    """Copies by what was done to them: all, refused by the publication, refused by all workers. accepted: by name."""

    copies: Counter[str] = field(default_factory=Counter)
    unpublished: Counter[str] = field(default_factory=Counter)
    unserved: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)


class Copies:
    """Damaged copies of a snapshot below a directory of snapshots. original: a whole one that nobody serves."""

    def __init__(self, original: Path, snapshots: Path, seed: int) -> None:
        self._original = original
        self._snapshots = snapshots
        self._rng = np.random.default_rng(seed)
        self._names = sorted(layout.read_manifest(original).checksums)

    def make(self, version: str) -> str:
        """Make a copy under a name and damage one of its files; returns what was done: name of the damage, and file."""
        place = self._snapshots / version
        shutil.copytree(self._original, place, copy_function=os.link)
        manifest = layout.read_manifest(self._original)
        manifest.version = version
        layout.write_manifest(place, manifest)
        while True:
            damage = list(DAMAGES)[int(self._rng.integers(len(DAMAGES)))]
            path = place / self._names[int(self._rng.integers(len(self._names)))]
            content = path.read_bytes()
            changed = DAMAGES[damage](content, self._rng) if content else None
            if changed == content:
                continue
            # The link goes, not what it leads to.
            path.unlink()
            if changed is not None:
                path.write_bytes(changed)
            return f"{damage}: {path.relative_to(place)}"


class Caller:
    """Calls Recall without a pause. answered: calls by the snapshot that answered; failures: messages of the others."""

    def __init__(self, address: str) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._call)

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _call(self) -> None:
        with SerendipityClient(self._address, timeout=10.0) as client:
            while not self._stop.is_set():
                try:
                    self.answered[client.recall("anyone", count=20).snapshot] += 1
                except ClientError as error:
                    self.failures.append(str(error))


def corrupt(service: Service, copies: Copies, snapshots: Path, count: int) -> Outcome:
    """Make copies one after another, publish each and move the link to it."""
    outcome, publications = Outcome(), Publications(snapshots)
    wanted = publications.wanted()
    with grpc.insecure_channel(service.admin_address) as channel:
        stub = admin_pb2_grpc.SerendipityAdminStub(channel)  # type: ignore[no-untyped-call]
        for number in range(count):
            version = f"copy-{number:04}"
            done = copies.make(version)
            damage = done.partition(":")[0]
            outcome.copies[damage] += 1
            try:
                publications.publish(version)
                outcome.accepted.append(f"published {done}")
            except PublicationRefused:
                outcome.unpublished[damage] += 1
            _link(snapshots, version)
            if _all_refuse(stub, version, wanted):
                outcome.unserved[damage] += 1
            else:
                outcome.accepted.append(f"served {done}")
            _link(snapshots, wanted)
            shutil.rmtree(snapshots / version)
    return outcome


def _all_refuse(stub: admin_pb2_grpc.SerendipityAdminStub, version: str, wanted: str) -> bool:
    """Wait until every worker has said what it makes of a version."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        workers = stub.GetSnapshot(admin_pb2.GetSnapshotRequest(), timeout=10.0).workers
        if any(worker.version == version for worker in workers):
            return False
        if workers and all(version in worker.error and worker.version == wanted for worker in workers):
            return True
        time.sleep(0.02)
    return False


def _link(snapshots: Path, version: str) -> None:
    (snapshots / ".link").symlink_to(version)
    (snapshots / ".link").replace(snapshots / layout.CURRENT)


def report(outcome: Outcome, caller: Caller, served: str, args: argparse.Namespace) -> str:
    """Lay the outcome out as a page."""
    rows = "\n".join(
        f"| {damage} | {outcome.copies[damage]} | {outcome.unpublished[damage]} | {outcome.unserved[damage]} |"
        for damage in DAMAGES
    )
    total = [sum(column.values()) for column in (outcome.copies, outcome.unpublished, outcome.unserved)]
    before, failures = caller.answered[served], len(caller.failures)
    others = sum(caller.answered.values()) - before
    return f"""# Damaged copies of a snapshot

{made_by(args)}.

Each copy has one damaged file, chosen at random as what was done to it. It is published, and then the link is moved to
it past the publication.

| damage | copies | refused by the publication | refused by all workers |
|---|---:|---:|---:|
{rows}
| all | {total[0]} | {total[1]} | {total[2]} |

Meanwhile a caller asked without a pause: {before:,} calls were answered from the snapshot of before, {others:,} from
another, {failures:,} failed.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Damage copies and report; returns 1 where one was accepted, a call failed, or there is no snapshot."""
    parser = options_of("corruptions", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory: snapshots/current")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="copies")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes of the service")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here, too")
    args = read_options(parser, argv)
    source = (args.build / "snapshots" / layout.CURRENT).resolve()
    try:
        version = layout.verify_files(source).version
    except layout.SnapshotError as error:
        return failed(parser, error)
    with tempfile.TemporaryDirectory(prefix="corruptions-") as scratch:
        build = Path(scratch) / "build"
        # Two: linking to the files of the one that is served would change their times.
        for place in (build / "snapshots" / version, Path(scratch) / "original"):
            shutil.copytree(source, place)
        Publications(build / "snapshots").publish(version)
        options = {
            "snapshot_poll_seconds": "0.05",
            "nearline": "false",
            "clock": "snapshot",
            "require_ready_model": "0",
        }
        with (
            launch_service(build, _NO_TRITON, workers=args.workers, options=options) as service,
            Caller(service.address) as caller,
        ):
            copies = Copies(Path(scratch) / "original", build / "snapshots", args.seed)
            outcome = corrupt(service, copies, build / "snapshots", args.count)
    publish(report(outcome, caller, version, args), args.out)
    for accepted in (*outcome.accepted, *caller.failures[:10]):
        print(accepted, file=sys.stderr)
    return int(bool(outcome.accepted or caller.failures))


if __name__ == "__main__":
    sys.exit(main())
