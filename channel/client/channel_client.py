"""The client for hosts, with an event loop and without."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import grpc

from serendipity.channel.client.credentials import NO_CREDENTIALS, Credentials
from serendipity.channel.client.errors import ClientError, error_of
from serendipity.channel.client.messages import (
    Feedback,
    RecallResult,
    Wishes,
    recall_request,
    to_feedback_event,
    to_result,
    to_results,
)
from serendipity.sharding import shard_of
from serendipity.v1 import channel_pb2, channel_pb2_grpc

_Answer = TypeVar("_Answer")
_Arguments = ParamSpec("_Arguments")

_MAX_MESSAGE_BYTES = 32 << 20
_RETRIES: Any = {
    "methodConfig": [
        {
            # Recall only reads. Feedback is idempotent by event id, and availability by being a state: sending either
            # again changes nothing. So all may be repeated when the server was not reached, inside the deadline.
            "name": [{"service": "serendipity.v1.SerendipityChannel"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.005s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 4,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_RETRIES)),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # Connections of their own, so that several of them reach several workers behind one port.
    ("grpc.use_local_subchannel_pool", 1),
)


class AsyncSerendipityClient:
    """Calls the channel from one event loop.

    targets: host:port, or one per shard in the order of the shards' numbers: a user's calls go to the owner of the
    user's feedback. timeout: seconds a call may take unless it says otherwise; connections: per target, used in turn
    (one connection reaches one worker); credentials: for TLS, and for services that ask who calls.
    All methods raise ClientError: InvalidRequest, DeadlineExceeded, Unavailable or another status.
    """

    def __init__(
        self,
        targets: str | Sequence[str],
        *,
        timeout: float = 0.2,
        connections: int = 1,
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        addresses = [targets] if isinstance(targets, str) else list(targets)
        if not addresses or connections < 1:
            raise ValueError(f"found {len(addresses)} targets and {connections} connections, expected at least one")
        self._timeout = timeout
        self._metadata = credentials.metadata
        self._channels = [
            [credentials.connect(grpc.aio, address, _OPTIONS) for _ in range(connections)] for address in addresses
        ]
        # The generated class is untyped.
        new_stub: Any = channel_pb2_grpc.SerendipityChannelStub
        self._stubs = [itertools.cycle([new_stub(channel) for channel in of_target]) for of_target in self._channels]

    async def recall(
        self, user_id: str, *, timeout: float | None = None, request_id: str = "", **wishes: Unpack[Wishes]
    ) -> RecallResult:
        """Ask for candidates for one user, 50 unless count says otherwise.

        timeout: seconds; request_id: stands in the service's logs; wishes: what RecallRequest has, see `Wishes`.
        """
        request = recall_request(user_id, **wishes)
        return to_result(await self._call(self._stub_of(user_id).Recall, request, timeout, request_id))

    async def recall_batch(
        self, requests: Sequence[channel_pb2.RecallRequest], *, timeout: float | None = None, request_id: str = ""
    ) -> list[RecallResult | ClientError]:
        """Ask for several users at once, at most 256 a shard; answers keep the order. See `recall_request`.

        Of a user that there was no time for there is an error in place of the answer; without any answer it is raised.
        """
        shards = self._by_shard([request.user_id for request in requests])
        answers = await self._together(
            self._call(
                self._stub(shard).RecallBatch,
                channel_pb2.RecallBatchRequest(requests=[requests[i] for i in indexes]),
                # A batch takes longer than one user; the service bounds it by itself.
                timeout if timeout is not None else self._timeout * len(indexes),
                request_id,
            )
            for shard, indexes in shards.items()
        )
        results: dict[int, RecallResult | ClientError] = {}
        for indexes, answer in zip(shards.values(), answers, strict=True):
            results.update(zip(indexes, to_results(answer), strict=True))
        return [results[i] for i in range(len(requests))]

    async def record_feedback(
        self, events: Sequence[Feedback], *, timeout: float | None = None, request_id: str = ""
    ) -> channel_pb2.RecordFeedbackResponse:
        """Record what users did, at most 1,000 events a shard. When it returns, the accepted events are on disk.

        Events without an id are given one, so that retries inside this call do not count twice; a host that calls
        again after an error must set ids of its own.
        """
        messages = [to_feedback_event(event, event.event_id or uuid.uuid4().hex) for event in events]
        shards = self._by_shard([event.user_id for event in events])
        answers = await self._together(
            self._call(
                self._stub(shard).RecordFeedback,
                channel_pb2.RecordFeedbackRequest(events=[messages[i] for i in indexes]),
                timeout,
                request_id,
            )
            for shard, indexes in shards.items()
        )
        recorded = channel_pb2.RecordFeedbackResponse(
            accepted=sum(answer.accepted for answer in answers), duplicates=sum(answer.duplicates for answer in answers)
        )
        for indexes, answer in zip(shards.values(), answers, strict=True):
            recorded.warnings.extend(answer.warnings)
            for refused in answer.rejected:
                refused.index = indexes[refused.index]
                recorded.rejected.append(refused)
        recorded.rejected.sort(key=lambda refused: refused.index)
        return recorded

    async def update_items(
        self, available: Mapping[str, bool], *, timeout: float | None = None, request_id: str = ""
    ) -> channel_pb2.UpdateItemsResponse:
        """Change items' availability on all targets, at most 100,000 items; effective there within 5 s.

        Of several targets the answer is that of the one that knows the fewest of the items.
        """
        request = channel_pb2.UpdateItemsRequest(
            items=[channel_pb2.ItemAvailability(item_id=item_id, available=up) for item_id, up in available.items()]
        )
        answers = await self._together(
            self._call(self._stub(shard).UpdateItems, request, timeout, request_id) for shard in range(len(self._stubs))
        )
        answer: channel_pb2.UpdateItemsResponse = max(answers, key=lambda answer: answer.unknown_count)
        return answer

    async def list_categories(
        self, *, timeout: float | None = None, request_id: str = ""
    ) -> channel_pb2.ListCategoriesResponse:
        """Ask for the categories that may be allowed or denied, of the snapshot that the first target serves."""
        request = channel_pb2.ListCategoriesRequest()
        answer: channel_pb2.ListCategoriesResponse = await self._call(
            self._stub(0).ListCategories, request, timeout, request_id
        )
        return answer

    async def close(self) -> None:
        """Close the connections."""
        for of_target in self._channels:
            for channel in of_target:
                await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _stub(self, shard: int) -> Any:
        return next(self._stubs[shard])

    def _stub_of(self, user_id: str) -> Any:
        return self._stub(shard_of(user_id, len(self._stubs)))

    def _by_shard(self, user_ids: Sequence[str]) -> dict[int, list[int]]:
        shards: dict[int, list[int]] = {}
        for index, user_id in enumerate(user_ids):
            shards.setdefault(shard_of(user_id, len(self._stubs)), []).append(index)
        return shards

    async def _together(self, calls: Iterable[Coroutine[Any, Any, _Answer]]) -> list[_Answer]:
        """Wait for all calls even if one fails, so that none is left running; the first failure is raised."""
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _call(self, method: Any, request: Any, timeout: float | None, request_id: str) -> Any:
        metadata = (*self._metadata, ("x-request-id", request_id or uuid.uuid4().hex))
        try:
            return await method(request, timeout=self._timeout if timeout is None else timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error


def _waiting(
    call: Callable[Concatenate[AsyncSerendipityClient, _Arguments], Coroutine[Any, Any, _Answer]],
) -> Callable[Concatenate[SerendipityClient, _Arguments], _Answer]:
    """Make the same method, which waits for its answer."""

    @functools.wraps(call)
    def wait(client: SerendipityClient, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        return client._run(call(client._client, *args, **kwargs))

    return wait


class SerendipityClient:
    """AsyncSerendipityClient for code without an event loop; may be shared by threads. Same arguments and methods."""

    def __init__(self, targets: str | Sequence[str], **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="serendipity-client", daemon=True)
        self._thread.start()

        async def connect() -> AsyncSerendipityClient:
            return AsyncSerendipityClient(targets, **settings)

        try:
            self._client = self._run(connect())
        except BaseException:
            self._end()
            raise

    recall = _waiting(AsyncSerendipityClient.recall)
    recall_batch = _waiting(AsyncSerendipityClient.recall_batch)
    record_feedback = _waiting(AsyncSerendipityClient.record_feedback)
    update_items = _waiting(AsyncSerendipityClient.update_items)
    list_categories = _waiting(AsyncSerendipityClient.list_categories)

    def close(self) -> None:
        """Close the connections and end the thread. May be called twice."""
        if not self._loop.is_closed():
            self._run(self._client.close())
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
