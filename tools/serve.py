"""Run the channel: gRPC workers on one port, and the admin service on its own.

    serendip serve --build var/complete-journey --triton-url 127.0.0.1:8000 --workers 2

Ends gracefully on SIGTERM or Ctrl-C. Every option can also be set in the environment.
"""

from __future__ import annotations

import argparse
import sys

from serendipity.channel.errors import ChannelError
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.workers import serve
from serendipity.channel.settings import ChannelSettings
from serendipity.tools.arguments import add_build
from serendipity.tools.options import add_setting_options, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `serendip serve`."""
    add_build(parser, "build directory: --snapshots and --state are folders in it")
    parser.add_argument("--no-gate", action="store_true", help="publish through the admin service without quality gate")
    add_setting_options(parser, ServerSettings)
    add_setting_options(parser, ChannelSettings)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; returns 1 when the service cannot start."""
    given = {"snapshots": args.build / "snapshots", "state": args.build / "state"} if args.build else {}
    server = read_settings(ServerSettings, args, **given)
    channel = read_settings(ChannelSettings, args)
    gates = []
    if not args.no_gate:
        # The gate reads what the builders measured: its code is part of the offline half.
        from serendipity.tools.quality_gate import quality_gate

        gates.append(quality_gate())
    try:
        return serve(server, channel, gates)
    except (ChannelError, OSError) as error:
        print(f"serendip serve: {error}", file=sys.stderr)
        return 1
