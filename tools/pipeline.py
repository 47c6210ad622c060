"""The real pipeline opened on a build's files, for the builders: they may not import the channel themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerUnavailable
from serendipity.channel.local import LocalChannel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.channel.tower.tower import UserTower
from serendipity.features import TowerInputs
from serendipity.offline.evaluate.replay import Recall, ReplayError
from serendipity.v1 import channel_pb2, channel_pb2_grpc

_CONNECT_SECONDS = 5.0
_CALL_SECONDS = 30.0

CODE = ("serendipity.channel", "serendipity.features", "serendipity.novelty")
"""Modules whose source decides what the pipeline recalls."""


class AbsentTower:
    """No user tower, as when Triton is away: the pipeline falls back to the stored user vectors."""

    async def user_vectors(
        self,
        model_name: str,
        inputs: TowerInputs,  # noqa: ARG002
        deadline: Deadline,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Raise TowerUnavailable."""
        raise TowerUnavailable(f"{model_name}: this replay measures the fallback")

    async def close(self) -> None:
        """Do nothing: nothing is open."""


@contextmanager
def open_pipeline(snapshot: Path, tower: Path | None, *, by_tower: bool = False) -> Iterator[Recall]:
    """Open the pipeline over a snapshot directory and an exported user tower; None: as if the tower were away.

    Its clock stands at the moment the snapshot was built as of. by_tower: True: with the group and the graph source
    switched off.
    """
    off = {"novel_categories_used": 0, "graph_source": False} if by_tower else {}
    settings = ChannelSettings(clock="snapshot").model_copy(update=off)
    runner: UserTower = AbsentTower() if tower is None else LocalTower(tower)
    log = logging.getLogger("serendipity.channel.recall.recall")
    level = log.level
    if tower is None:
        # The pipeline warns at every request of a tower that is away; here that is what was asked for.
        log.setLevel(logging.ERROR)
    try:
        with LocalChannel(snapshot, runner, settings=settings) as channel:
            yield channel.recall
    finally:
        log.setLevel(level)


@contextmanager
def open_service(target: str) -> Iterator[Recall]:
    """Open a running service instead. target: host:port.

    Raises ReplayError when it does not answer, at once or later.
    """
    with grpc.insecure_channel(target) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise ReplayError(
                f"{target}: found no service within {_CONNECT_SECONDS:g} s, expected a channel that serves the build"
            ) from error
        stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]

        def recall(request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
            try:
                response: channel_pb2.RecallResponse = stub.Recall(request, timeout=_CALL_SECONDS)
            except grpc.RpcError as error:
                raise ReplayError(f"{target}: {error.code().name}: {error.details()}") from error
            return response

        yield recall
