"""Verify, list, publish or roll back snapshots on disk; a running service of this host follows within seconds.

    serendip snapshot list     --build var/complete-journey
    serendip snapshot verify   --build var/complete-journey [VERSION]
    serendip snapshot publish  --build var/complete-journey VERSION
    serendip snapshot rollback --build var/complete-journey

`serendip deploy` publishes too, after it has loaded and checked the models a snapshot pins.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.publication import Publications
from serendipity.channel.trial_opening import can_be_opened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip snapshot`."""
    parser.add_argument("action", choices=("list", "verify", "publish", "rollback"))
    parser.add_argument("version", nargs="?", help="snapshot (verify: the wanted one if none is named)")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--build", type=Path, metavar="DIR", help="build directory; snapshots/ in it is used")
    where.add_argument("--snapshots", type=Path, metavar="DIR", help="directory of the snapshots")
    parser.add_argument("--no-gate", action="store_true", help="publish without the quality gate")


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when it is refused, 2 when a version is missing."""
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
        elif not args.version:
            print("serendip snapshot publish: VERSION is missing; `list` names those on disk", file=sys.stderr)
            return 2
        else:
            publication = publications.publish(args.version)
            print(f"published {publication.version} (was {publication.previous or 'nothing'})")
    except (PublicationRefused, layout.SnapshotError) as error:
        print(f"serendip snapshot {args.action}: {error}", file=sys.stderr)
        return 1
    return 0


def _verify(snapshots: Path, version: str) -> None:
    if not version:
        raise PublicationRefused(f"{snapshots}: nothing is published; name the VERSION to verify")
    manifest = layout.verify_files(snapshots / version)
    print(f"{version}: {len(manifest.checksums)} files intact, layout {manifest.layout_version}")


def _list(publications: Publications) -> None:
    table = Table("", "version", "built", "events until", "items", "users", "user tower", "error")
    for listed in publications.listed():
        manifest = listed.manifest
        cells = ["", "", "", "", ""]
        if manifest is not None:
            cells = [
                f"{manifest.created_at.ToDatetime():%Y-%m-%d %H:%M}",
                f"{manifest.events_until.ToDatetime():%Y-%m-%d %H:%M}",
                f"{manifest.counts.items:,}",
                f"{manifest.counts.users:,}",
                manifest.tower.model_name,
            ]
        table.add_row("→" if listed.current else "", listed.version, *cells, listed.error)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
