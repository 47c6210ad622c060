"""A check before a snapshot is published: Triton must have the model it pins, or every answer would be degraded."""

from __future__ import annotations

from pathlib import Path

from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.publication import Check
from serendipity.triton import TritonError, ask
from serendipity.v1 import records_pb2


def model_is_ready(url: str) -> Check:
    """Give a check that the pinned user tower is ready on the Triton at `url` (see `triton.check_url`)."""

    def check(manifest: records_pb2.Manifest, wanted: Path | None) -> None:  # noqa: ARG001
        name = manifest.tower.model_name
        try:
            ready = ask(url, 5.0, lambda triton: triton.is_ready(name))
        except TritonError as error:
            raise PublicationRefused(
                f"{manifest.version}: Triton at {url} cannot be asked for {name}: {error}"
            ) from error
        if not ready:
            raise PublicationRefused(f"{manifest.version}: {name} is not ready on Triton at {url}; deploy it first")

    return check
