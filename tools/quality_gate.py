"""The quality gate as a publication check: what the builders measured of the new snapshot against the wanted one."""

from __future__ import annotations

from pathlib import Path

from serendipity import layout
from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.publication import Check
from serendipity.offline.snapshot.canary import Canary
from serendipity.offline.snapshot.gate import GateConfig, GateRefusedError, pass_gate, read_canary
from serendipity.v1 import records_pb2


def quality_gate(config: GateConfig | None = None) -> Check:
    """Give the check that `Publications` asks: both snapshots carry their canary's measurements in the manifest."""

    def check(manifest: records_pb2.Manifest, current: Path | None) -> None:
        new = Canary.from_quality(manifest.quality)
        if new is None:
            raise PublicationRefused(
                f"{manifest.version}/{layout.MANIFEST}: quality: nothing was measured; "
                "build it with `serendip build`, or publish with --no-gate"
            )
        try:
            pass_gate(new, None if current is None else read_canary(current), config)
        except GateRefusedError as error:
            raise PublicationRefused(f"{manifest.version}: {error}") from error

    return check
