"""A benchmark as a command: `python -m benchmarks.NAME`, its report, and what the report says of its making."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from serendipity.layout import write_atomically


def options_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of `python -m benchmarks.NAME`."""
    return argparse.ArgumentParser(
        f"python -m benchmarks.{name}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def read_options(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options, and the command as it was given into `command`."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(given)
    args.command = " ".join([parser.prog, *given])
    return args


def failed(parser: argparse.ArgumentParser, error: object) -> int:
    """Say why nothing was measured. Returns the exit status."""
    print(f"{parser.prog}: {error}", file=sys.stderr)
    return 1


def facts_of(args: argparse.Namespace) -> dict[str, str]:
    """Tell of a measurement with `command` and `seed` what made it, when, of which code and on what."""
    return {
        "command": f"`{args.command}`, seed {args.seed}",
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}; load, servers and "
        "Triton share it",
    }


def made_by(args: argparse.Namespace) -> str:
    """Say what a report with `command` and `seed` was made by, when and on what."""
    return (
        f"`{args.command}` on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {os.cpu_count()} cores "
        f"({platform.machine()}), Python {platform.python_version()}, seed {args.seed}"
    )


def publish(report: str, out: Path | None) -> int:
    """Print a report, and write it where that was asked for. Returns the exit status."""
    print(report)
    if out:
        write_atomically(out, report.encode())
    return 0


def _commit() -> str:
    """Name the commit of this checkout, and whether anything was changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (", with changes" if changed.stdout.strip() else "")


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()
