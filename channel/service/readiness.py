"""A check before a snapshot is published: Triton must have the model it pins, or every answer would be degraded."""

from __future__ import annotations

from pathlib import Path

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from serendipity.channel.errors import PublicationRefused
from serendipity.channel.snapshot.publication import Check
from serendipity.v1 import records_pb2


def model_is_ready(url: str, timeout: float = 5.0) -> Check:
    """Give a check that the pinned user tower is ready on the Triton at `url` (gRPC host:port). timeout: seconds."""

    def check(manifest: records_pb2.Manifest, wanted: Path | None) -> None:  # noqa: ARG001
        name = manifest.tower.model_name
        client = triton_grpc.InferenceServerClient(url)
        try:
            ready = client.is_model_ready(name, client_timeout=timeout)
        except InferenceServerException as error:
            raise PublicationRefused(
                f"{manifest.version}: Triton at {url} cannot be asked for {name}: {error.message()}"
            ) from error
        finally:
            client.close()
        if not ready:
            raise PublicationRefused(f"{manifest.version}: {name} is not ready on Triton at {url}; deploy it first")

    return check
