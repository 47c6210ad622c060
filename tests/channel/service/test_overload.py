"""More calls than can be answered: who is answered gets a whole answer, who is not is told so at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from serendipity.channel.client.errors import DeadlineExceeded, InvalidRequest, Overloaded
from serendipity.channel.client.messages import RecallResult, recall_request
from serendipity.channel.recall.sources.interest import InterestSource
from serendipity.v1 import channel_pb2, channel_pb2_grpc
from tests.channel.served import (
    channel_settings,
    copy_snapshot,
    hung_triton,
    metrics,
    publish,
    scrape,
    server_settings,
    service,
    until,
)
from tests.fixtures.small_world import SmallWorld


@pytest.fixture
def directory(small_world: SmallWorld, tmp_path: Path) -> Path:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    return tmp_path


async def test_a_call_beyond_the_limit_is_refused_with_a_hint_while_health_answers(directory: Path) -> None:
    with hung_triton() as url:
        settings = server_settings(directory, max_concurrent_calls=4)
        pipeline = channel_settings(triton_url=url, max_deadline_ms=60_000.0)
        async with (
            service(settings, pipeline) as (client, worker),
            grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel,
        ):
            held = [asyncio.create_task(client.recall("anyone", count=5, timeout=60.0)) for _ in range(4)]

            async def all_in_flight() -> bool:
                return scrape(await metrics(worker), "serendipity_requests_in_flight")[""] == 4.0

            await until(all_in_flight)
            stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]
            request = channel_pb2.RecallRequest(user_id="anyone", count=5)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Recall(request, metadata=(("x-request-id", "r-5"),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details() == "busy: 4 calls are being answered"
            trailing = dict(caught.value.trailing_metadata())
            assert trailing["x-request-id"] == "r-5"
            hint = error_details_pb2.RetryInfo()
            assert status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details[0].Unpack(hint)
            assert hint.retry_delay.ToMilliseconds() == int(trailing["grpc-retry-pushback-ms"]) == 100
            with pytest.raises(Overloaded) as refused:
                await client.recall("anyone", count=5)
            assert refused.value.retry_after == 0.1
            counted = scrape(await metrics(worker), "serendipity_requests_total")
            assert counted['{code="RESOURCE_EXHAUSTED",method="Recall"}'] == 2.0
            health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            answer = await health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            for call in held:
                call.cancel()
            await asyncio.gather(*held, return_exceptions=True)


async def test_idle_watches_of_health_take_nothing_from_calls(directory: Path) -> None:
    settings = server_settings(directory, max_concurrent_calls=4)
    async with (
        service(settings, channel_settings()) as (client, worker),
        AsyncExitStack() as watching,
    ):
        for _ in range(4):
            channel = await watching.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}"))
            health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            assert await health.Watch(health_pb2.HealthCheckRequest()).read()
        results = await asyncio.gather(*(client.recall("anyone", count=5) for _ in range(4)))
    assert all(result.candidates for result in results)


async def test_under_overload_an_answer_is_whole_or_no_answer(
    directory: Path, small_world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = InterestSource.propose

    def slowly(self: InterestSource, *arguments: Any) -> NDArray[np.int64]:
        Event().wait(0.01)
        return propose(self, *arguments)

    monkeypatch.setattr(InterestSource, "propose", slowly)
    settings = server_settings(directory, user_tower_path=small_world.tower_path)
    async with service(settings, channel_settings()) as (client, worker):

        async def outcome(user: str) -> str:
            try:
                result = await client.recall(user, count=5, timeout=1.0)
            except Overloaded:
                return "refused"
            except DeadlineExceeded:
                return "expired"
            assert len(result.candidates) == 5
            return "answered"

        users = small_world.user_ids
        told = Counter(await asyncio.gather(*(outcome(users[i % len(users)]) for i in range(400))))
        told += Counter(await asyncio.gather(*(outcome(users[i % len(users)]) for i in range(400))))
        assert told["answered"] > 0
        assert told["refused"] > 0
        counted = scrape(await metrics(worker), "serendipity_requests_total")
        assert counted['{code="RESOURCE_EXHAUSTED",method="Recall"}'] >= told["refused"]
        # An answer that was on its way when its caller's time ended is one more.
        assert counted['{code="OK",method="Recall"}'] >= told["answered"]


async def test_a_batch_gives_what_it_has_by_the_callers_deadline(
    directory: Path, small_world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Event()
    searches = 0
    propose = InterestSource.propose

    def hang_at_the_fourth(self: InterestSource, *arguments: Any) -> NDArray[np.int64]:
        nonlocal searches
        searches += 1
        if searches == 4:
            release.wait(60)
        return propose(self, *arguments)

    monkeypatch.setattr(InterestSource, "propose", hang_at_the_fourth)
    settings = server_settings(directory, user_tower_path=small_world.tower_path, batch_users=2)
    async with service(settings, channel_settings(max_deadline_ms=60_000.0)) as (client, _):
        requests = [recall_request(user, count=5) for user in small_world.user_ids[:8]]
        results = await client.recall_batch(requests, timeout=5.0)
        release.set()
    assert [len(result.candidates) for result in results if isinstance(result, RecallResult)] == [5, 5, 5]
    assert [type(result) for result in results[3:]] == [DeadlineExceeded] * 5


async def test_a_batch_without_any_answer_in_time_fails_as_a_whole(
    directory: Path, small_world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Event()
    monkeypatch.setattr(InterestSource, "propose", lambda *_: release.wait(60))
    async with service(server_settings(directory), channel_settings()) as (client, _):
        with pytest.raises(DeadlineExceeded):
            await client.recall_batch([recall_request(user, count=5) for user in small_world.user_ids], timeout=0.5)
        release.set()


async def test_a_batch_that_would_be_too_large_to_send_is_refused_before_the_work(directory: Path) -> None:
    settings = server_settings(directory, max_message_bytes=4 << 20)
    async with service(settings, channel_settings()) as (client, _):
        requests = [recall_request("anyone", count=1_000, explain=True) for _ in range(20)]
        with pytest.raises(InvalidRequest) as caught:
            await client.recall_batch(requests)
        ((field, description),) = caught.value.violations
        assert (field, description) == (
            "requests",
            "ask for 20,000 candidates, some 5 MiB; expected at most 4 MiB in one call",
        )
        assert len(await client.recall_batch([recall_request("anyone", count=1_000)] * 20)) == 20
