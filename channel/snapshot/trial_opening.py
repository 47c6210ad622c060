"""Whether a snapshot can be opened at all, tried before it is published.

Checksums prove that files are those the builder wrote, not that this version of the channel can serve them. The trial
runs in a short-lived process of its own: LMDB refuses to open an environment twice in one process, and a damaged file
can kill whoever maps it.

    python -m serendipity.channel.snapshot.trial_opening SNAPSHOT_DIRECTORY
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serendipity.channel.errors import PublicationRefused, SnapshotUnavailable
from serendipity.channel.snapshot.publication import Check
from serendipity.v1 import records_pb2

_REFUSED = 3
"""Exit status of a trial that ended with a reason, which is what it wrote."""


def can_be_opened(snapshots: Path, *, timeout: float = 600.0) -> Check:
    """Make a check that opens the snapshot in a child process (2 s for 90,000 items).

    snapshots: directory of the snapshots; timeout: seconds.
    """

    def check(manifest: records_pb2.Manifest, _: Path | None) -> None:
        command = [
            sys.executable,
            "-m",
            "serendipity.channel.snapshot.trial_opening",
            str(snapshots / manifest.version),
        ]
        try:
            trial = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise PublicationRefused(f"{manifest.version}: not opened within {timeout:g} s") from error
        if trial.returncode == _REFUSED:
            raise PublicationRefused(f"{manifest.version}: {trial.stdout.strip()}")
        if trial.returncode:
            last = (trial.stderr.strip().splitlines() or ["no word"])[-1]
            raise PublicationRefused(f"{manifest.version}: opening it ended with status {trial.returncode}: {last}")

    return check


def main(directory: Path) -> int:
    """Open a snapshot and close it; returns the exit status."""
    from serendipity.channel.snapshot.snapshot import open_snapshot

    try:
        # The checksums were verified by whoever publishes.
        open_snapshot(directory, verify=False).close()
    except SnapshotUnavailable as error:
        print(error)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
