"""The channel as a library: requests in, responses out, without a server.

    with LocalChannel(Path("out/snapshots/current"), LocalTower(Path("out/towers/user_tower.onnx"))) as channel:
        response = channel.recall(RecallRequest(user_id="42", count=20))

The same pipeline as the service's, message for message.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serendipity.channel.deadline import Deadline
from serendipity.channel.recall.query import parse_query
from serendipity.channel.recall.recall import Channel
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import open_snapshot
from serendipity.channel.state.state import UserState
from serendipity.channel.tower.tower import UserTower
from serendipity.v1 import channel_pb2

_DEADLINE_SECONDS = 60.0
"""Generous, so that a replay on a busy machine gives the same answers as on an idle one."""


class LocalChannel:
    """Answers requests one after another in the calling thread, which must not be running an event loop."""

    def __init__(
        self,
        snapshot: Path,
        tower: UserTower,
        state: UserState | None = None,
        settings: ChannelSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        verify: bool = True,
    ) -> None:
        """Open a snapshot directory. The tower is closed with the channel. clock: Unix seconds.

        Raises SnapshotUnavailable.
        """
        settings = settings or ChannelSettings()
        self._holder = SnapshotHolder(open_snapshot(snapshot, verify=verify, gpu=settings.gpu))
        self._tower = tower
        self.channel = Channel(self._holder, tower, state, settings, clock=clock)
        # Not asyncio.Runner: it sets a signal handler per call, whose enum lookup renders every array of the answer as
        # text (7 ms of 15).
        self._loop = asyncio.new_event_loop()

    def recall(self, request: channel_pb2.RecallRequest) -> channel_pb2.RecallResponse:
        """Answer one request. Raises InvalidQuery."""
        return self.recall_batch([request])[0]

    def recall_batch(self, requests: Sequence[channel_pb2.RecallRequest]) -> list[channel_pb2.RecallResponse]:
        """Answer several requests, in their order, with one call of the tower. Raises as `recall`."""
        queries = [parse_query(request, self.channel.now()) for request in requests]
        deadline = Deadline.after(_DEADLINE_SECONDS)
        responses = []
        for answer in self._loop.run_until_complete(self.channel.recall_batch(queries, deadline)):
            if isinstance(answer, Exception):
                raise answer
            responses.append(answer.for_caller())
        return responses

    def close(self) -> None:
        """Close the tower and the snapshot."""
        self._loop.run_until_complete(self._tower.close())
        self._loop.close()
        self.channel.close()
        self._holder.close()

    def __enter__(self) -> LocalChannel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
