"""Verify, list, publish or roll back snapshots on disk; a running service of this host follows within seconds.

    serendip snapshot list     --build var/complete-journey
    serendip snapshot verify   --build var/complete-journey [VERSION]
    serendip snapshot publish  --build var/complete-journey VERSION
    serendip snapshot rollback --build var/complete-journey
    serendip snapshot send     --build var/complete-journey s3://bucket/snapshots [VERSION]
    serendip snapshot fetch    --snapshots var/snapshots    s3://bucket/snapshots [VERSION] --every 60

`send` copies a snapshot into a store that hosts share, any that fsspec knows, and makes it the one that they are to
serve; `fetch` copies it to a host, verified, and publishes it there. The quality gate is the sender's: what `send`
sends by default has passed it. `serendip deploy` publishes too, after it has loaded and checked the models a snapshot
pins, on disk or over the admin service of another host.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.service.readiness import model_answers
from serendipity.channel.snapshot.delivery import fetch, send, wanted_in
from serendipity.channel.snapshot.publication import Publication, Publications
from serendipity.channel.snapshot.trial_opening import can_be_opened
from serendipity.tools.arguments import add_build, new_directory, positive
from serendipity.tools.recall import result_console
from serendipity.triton import check_url
from serendipity.v1 import records_pb2

_ACTIONS = {
    "list": "List the snapshots on disk.",
    "verify": "Compare a snapshot's files with its checksums.",
    "publish": "Make a snapshot the wanted one.",
    "rollback": "Make the snapshot wanted before the wanted one again.",
    "send": "Copy a snapshot into a store, and make it the one that hosts are to serve.",
    "fetch": "Copy the snapshot to be served from a store, and make it the wanted one here.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip snapshot`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    added = {name: actions.add_parser(name, help=text, description=text) for name, text in _ACTIONS.items()}
    for action in added.values():
        where = action.add_mutually_exclusive_group(required=True)
        add_build(where, "build directory of the snapshots")
        where.add_argument("--snapshots", type=new_directory, metavar="DIR", help="directory of the snapshots")
    added["verify"].add_argument("version", nargs="?", help="snapshot (default: the wanted one)")
    added["publish"].add_argument("version", help="snapshot; `list` names those on disk")
    added["publish"].add_argument("--no-gate", action="store_true", help="publish without the quality gate")
    for name in ("send", "fetch"):
        added[name].add_argument("url", help="the store: a folder, or what fsspec takes (s3://bucket/snapshots)")
        added[name].add_argument("version", nargs="?", help="snapshot (default: the wanted one)")
    added["fetch"].add_argument(
        "--every", type=positive, metavar="SECONDS", help="look again and again, until this process is told to end"
    )
    added["fetch"].add_argument(
        "--triton-url",
        type=_triton_url,
        metavar="URL",
        help="publish only if the user tower answers on this Triton: its HTTP port, or https://host:port?ca=FILE",
    )


def run(args: argparse.Namespace) -> int:
    """Do it; returns 1 when it is refused."""
    snapshots = args.snapshots or args.build / "snapshots"
    if args.action == "fetch" and args.every:
        # Of the first process of a container the kernel ignores what is not handled.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
    while True:
        try:
            _do(args, snapshots)
        except (PublicationRefused, layout.SnapshotError) as error:
            print(f"serendip snapshot {args.action}: {error}", file=sys.stderr, flush=True)
            status = 1
        else:
            status = 0
        if args.action != "fetch" or not args.every:
            return status
        time.sleep(args.every)


def _triton_url(text: str) -> str:
    try:
        return check_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _do(args: argparse.Namespace, snapshots: Path) -> None:
    checks = [can_be_opened(snapshots)]
    gates = []
    if args.action == "publish" and not args.no_gate:
        from serendipity.tools.quality_gate import quality_gate

        gates.append(quality_gate())
    if args.action == "fetch" and args.triton_url:
        checks.append(model_answers(args.triton_url))
    publications = Publications(snapshots, checks=checks, gates=gates)
    if args.action == "list":
        _list(publications)
    elif args.action == "verify":
        _verify(snapshots, args.version or publications.wanted())
    elif args.action == "send":
        version = args.version or publications.wanted()
        send(snapshots / _named(snapshots, version), args.url)
        print(f"sent {version} to {args.url}")
    elif args.action == "fetch":
        version = args.version or wanted_in(args.url)
        if fetch(args.url, version, snapshots):
            print(f"fetched {version}", flush=True)
        if version != publications.wanted():
            _say_published(publications.publish(version))
    elif args.action == "rollback":
        publication = publications.rollback()
        print(f"rolled back to {publication.version} (was {publication.previous})")
    else:
        _say_published(publications.publish(args.version))


def _say_published(publication: Publication) -> None:
    print(f"published {publication.version} (was {publication.previous or 'nothing'})", flush=True)


def _named(snapshots: Path, version: str) -> str:
    if not version:
        raise PublicationRefused(f"{snapshots}: nothing is published; name the VERSION")
    return version


def _verify(snapshots: Path, version: str) -> None:
    manifest = layout.verify_files(snapshots / _named(snapshots, version))
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
        table.add_row("→" if listed.current else "", escape(listed.version), *cells, escape(listed.error))
    result_console().print(table)
