"""Verify, list, publish, roll back or delete snapshots on disk; a running service of this host follows within seconds.

    serendip snapshot list     --build var/complete-journey
    serendip snapshot verify   --build var/complete-journey [VERSION]
    serendip snapshot publish  --build var/complete-journey VERSION
    serendip snapshot rollback --build var/complete-journey
    serendip snapshot publish  --admin 127.0.0.1:50052 VERSION
    serendip snapshot operation --admin 127.0.0.1:50052 [ID] [--cancel]
    serendip snapshot prune    --build var/complete-journey --keep 3
    serendip snapshot prune    --build var/complete-journey --older-than 7

With --admin the service of that address publishes or rolls back; it goes on when this command is stopped, and
`operation` tells what becomes of it. `serendip deploy` publishes too, after it has loaded and checked the models a
snapshot pins. `prune` never deletes the wanted snapshot; with --older-than, one that was written or wanted within those
days stays too, which is how long a snapshot can still hold a user who was forgotten since.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

from rich.table import Table

from serendipity import layout
from serendipity.channel.client import AdminClient, ClientError
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.snapshot.trial_opening import can_be_opened
from serendipity.channel.state.host_clock import LARGEST_LEAP
from serendipity.tools.arguments import add_build, existing_directory
from serendipity.tools.deploy import follow
from serendipity.tools.recall import result_console
from serendipity.v1 import admin_pb2, records_pb2

_ACTIONS = {
    "list": "List the snapshots on disk.",
    "verify": "Compare a snapshot's files with its checksums.",
    "publish": "Make a snapshot the wanted one.",
    "rollback": "Make the snapshot wanted before the wanted one again.",
    "prune": "Delete old snapshots.",
    "operation": "Tell how a publication fares that a service was told to make.",
}
_OVER_ADMIN = ("publish", "rollback", "operation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip snapshot`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = {name: actions.add_parser(name, help=text, description=text) for name, text in _ACTIONS.items()}
    for name, action in added.items():
        where = action.add_mutually_exclusive_group(required=True)
        if name in _OVER_ADMIN:
            where.add_argument("--admin", metavar="HOST:PORT", help="admin service of a running service")
        if name == "operation":
            continue
        add_build(where, "build directory of the snapshots")
        where.add_argument("--snapshots", type=existing_directory, metavar="DIR", help="directory of the snapshots")
    added["verify"].add_argument("version", nargs="?", help="snapshot (default: the wanted one)")
    added["publish"].add_argument("version", help="snapshot; `list` names those on disk")
    added["publish"].add_argument("--no-gate", action="store_true", help="publish without the quality gate")
    added["operation"].add_argument("id", nargs="?", default="", help="operation (default: the latest)")
    added["operation"].add_argument("--cancel", action="store_true", help="end it unless it takes effect before")
    added["prune"].add_argument(
        "--keep", type=int, metavar="N", help="leave the newest N, and the one a rollback goes back to"
    )
    added["prune"].add_argument("--older-than", type=float, metavar="DAYS", help="leave what was wanted within DAYS")


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when it is refused, 2 when it is not said what to prune."""
    if getattr(args, "admin", None):
        return _over_admin(args)
    snapshots = args.snapshots or args.build / "snapshots"
    gates = []
    if args.action == "publish" and not args.no_gate:
        from serendipity.tools.quality_gate import quality_gate

        gates.append(quality_gate())
    publications = Publications(snapshots, checks=[can_be_opened(snapshots)], gates=gates)
    try:
        if args.action == "list":
            _list(publications)
        elif args.action == "verify":
            _verify(snapshots, args.version or publications.wanted())
        elif args.action == "rollback":
            publication = publications.rollback()
            print(f"rolled back to {publication.version} (was {publication.previous})")
        elif args.action == "prune":
            return _prune(publications, args.keep, args.older_than)
        else:
            publication = publications.publish(args.version)
            print(f"published {publication.version} (was {publication.previous or 'nothing'})")
    except (PublicationRefused, layout.SnapshotError) as error:
        print(f"serendip snapshot {args.action}: {error}", file=sys.stderr)
        return 1
    return 0


def _over_admin(args: argparse.Namespace) -> int:
    """Let a service do it; returns 1 when it is refused or cancelled."""
    try:
        with AdminClient(args.admin) as admin:
            if args.action == "operation":
                operation = admin.cancel(args.id or admin.operation().id) if args.cancel else admin.operation(args.id)
            else:
                operation = admin.publish(args.version) if args.action == "publish" else admin.rollback()
            if args.action != "operation" or args.cancel:
                operation = follow(admin, operation)
    except ClientError as error:
        print(f"serendip snapshot {args.action}: {error}", file=sys.stderr)
        return 1
    state = admin_pb2.OperationState.Name(operation.state).removeprefix("OPERATION_STATE_").lower()
    told = f": {operation.error}" if operation.error else f", was {operation.previous_version or 'nothing'}"
    print(f"operation {operation.id}: {operation.version}: {state}, {operation.step} {operation.progress:.0%}{told}")
    ended_badly = (admin_pb2.OPERATION_STATE_REFUSED, admin_pb2.OPERATION_STATE_CANCELLED)
    return int(operation.state in ended_badly and not (args.action == "operation" and args.cancel))


def _prune(publications: Publications, keep: int | None, older_than: float | None) -> int:
    if (keep is None and older_than is None) or (keep or 0) < 0 or (older_than or 0) < 0:
        print("serendip snapshot prune: expected --keep N, --older-than DAYS or both, not below 0", file=sys.stderr)
        return 2
    written = [publications.directory(listed.version).stat().st_mtime for listed in publications.listed()]
    # A clock that is ahead of all that is there must not make all of it old.
    now = min(time.time(), max(written, default=0) + LARGEST_LEAP)
    before = math.inf if older_than is None else now - older_than * 86_400
    deleted = publications.prune(before, keep=keep or 0)
    print("\n".join(f"deleted {version}" for version in deleted) or "nothing to delete")
    return 0


def _verify(snapshots: Path, version: str) -> None:
    if not version:
        raise PublicationRefused(f"{snapshots}: nothing is published; name the VERSION to verify")
    manifest = layout.verify_files(snapshots / version)
    print(f"{version}: {len(manifest.checksums)} files intact, layout {manifest.layout_version}")


def _heard(spec: records_pb2.InterestGptSpec) -> str:
    """Tell how near-line hears an InterestGPT, and what that was worth when the snapshot was built."""
    report = spec.report
    if spec.writes:
        return f"{spec.fingerprint}: writes"
    return (
        f"{spec.fingerprint}: weight {spec.likelihood_weight:g} (best {report.best_weight:g}); recall@10: reasoner "
        f"{report.reasoner:.3f}, likelihood {report.likelihood:.3f}, both {report.mix:.3f} ± {report.margin:.3f}, "
        f"popularity {report.popularity:.3f}"
    )


def _list(publications: Publications) -> None:
    table = Table("", "version", "built", "events until", "items", "users", "user tower", "InterestGPT", "error")
    for listed in publications.listed():
        manifest = listed.manifest
        cells = ["", "", "", "", "", ""]
        if manifest is not None:
            cells = [
                f"{manifest.created_at.ToDatetime():%Y-%m-%d %H:%M}",
                f"{manifest.events_until.ToDatetime():%Y-%m-%d %H:%M}",
                f"{manifest.counts.items:,}",
                f"{manifest.counts.users:,}",
                manifest.tower.model_name,
                _heard(manifest.interest_gpt) if manifest.HasField("interest_gpt") else "none",
            ]
        table.add_row("→" if listed.current else "", listed.version, *cells, listed.error)
    result_console().print(table)
