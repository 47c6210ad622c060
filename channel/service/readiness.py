"""A check before a snapshot is published: Triton must answer with its model, or every answer would be degraded."""

from __future__ import annotations

from pathlib import Path

from serendipity.channel.errors import PublicationRefused, TowerAnswerInvalid
from serendipity.channel.snapshot.publication import Check
from serendipity.channel.tower.tower import check_user_vectors
from serendipity.features import OUTPUT_NAME, canary
from serendipity.triton import TritonError, ask
from serendipity.v1 import records_pb2

_SECONDS = 5.0


def model_answers(url: str) -> Check:
    """Give a check that the pinned user tower answers on the Triton at `url` (see `triton.check_url`).

    That Triton calls it ready says little: it goes on doing so when the processes behind a model have died.
    """

    def check(manifest: records_pb2.Manifest, wanted: Path | None) -> None:  # noqa: ARG001
        name, inputs = manifest.tower.model_name, canary(manifest.tower)
        try:
            arrays = ask(url, _SECONDS, lambda triton: triton.infer(name, inputs.arrays(), (OUTPUT_NAME,), _SECONDS))
            check_user_vectors(arrays.get(OUTPUT_NAME), inputs, name)
        except (TritonError, TowerAnswerInvalid) as error:
            raise PublicationRefused(
                f"{manifest.version}: {name} does not answer on Triton at {url}, deploy it first: {error}"
            ) from error

    return check
