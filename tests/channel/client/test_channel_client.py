"""The client: routing by owner, retries, rows, and the same without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from serendipity.channel.client import AsyncSerendipityClient, SerendipityClient
from serendipity.channel.client.errors import ClientError, Unavailable
from serendipity.channel.client.messages import Feedback, RecentEvent, recall_request, to_result
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.sharding import shard_of
from serendipity.v1 import channel_pb2, channel_pb2_grpc
from tests.channel.served import channel_settings, copy_snapshot, publish, server_settings, service
from tests.fixtures.small_world import SmallWorld


@contextlib.asynccontextmanager
async def serving(servicer: channel_pb2_grpc.SerendipityChannelServicer) -> AsyncIterator[str]:
    """A real server with a servicer of the test's own, for answers a whole service gives only by chance."""
    server = grpc.aio.server()
    channel_pb2_grpc.add_SerendipityChannelServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


class Flaky(channel_pb2_grpc.SerendipityChannelServicer):
    """Fails with a status so many times, then answers."""

    def __init__(self, failures: int, code: grpc.StatusCode) -> None:
        self.failures, self.code, self.calls = failures, code, 0
        self.requests: list[Any] = []

    async def _answer(self, request: Any, context: grpc.aio.ServicerContext, response: Any) -> Any:
        self.calls += 1
        self.requests.append(request)
        if self.calls <= self.failures:
            await context.abort(self.code, "not now")
        return response

    async def Recall(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        return await self._answer(request, context, channel_pb2.RecallResponse(recall_id="r"))

    async def RecordFeedback(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        return await self._answer(request, context, channel_pb2.RecordFeedbackResponse(accepted=1))


async def test_a_server_that_is_away_for_a_moment_is_asked_again() -> None:
    flaky = Flaky(2, grpc.StatusCode.UNAVAILABLE)
    async with serving(flaky) as address, AsyncSerendipityClient(address, timeout=5.0) as client:
        assert (await client.recall("anna")).recall_id == "r"
    assert flaky.calls == 3


async def test_a_repeated_feedback_call_carries_the_same_event_ids() -> None:
    flaky = Flaky(1, grpc.StatusCode.UNAVAILABLE)
    async with serving(flaky) as address, AsyncSerendipityClient(address, timeout=5.0) as client:
        await client.record_feedback([Feedback("anna", "tea")])
    first, second = (request.events[0].event_id for request in flaky.requests)
    assert first == second != ""


async def test_what_the_server_refuses_is_not_repeated() -> None:
    flaky = Flaky(9, grpc.StatusCode.RESOURCE_EXHAUSTED)
    async with serving(flaky) as address, AsyncSerendipityClient(address, timeout=5.0) as client:
        with pytest.raises(ClientError, match="RESOURCE_EXHAUSTED: not now"):
            await client.recall("anna")
    assert flaky.calls == 1


async def test_nobody_there_is_unavailable() -> None:
    async with AsyncSerendipityClient("127.0.0.1:1", timeout=5.0) as client:
        with pytest.raises(Unavailable):
            await client.recall("anna")


async def test_users_go_to_the_owner_of_their_feedback_and_answers_keep_their_order(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        targets = []
        for shard in range(2):
            directory = tmp_path / f"host-{shard}"
            copy_snapshot(small_world, directory / "snapshots", "v1")
            publish(directory, "v1")
            settings = server_settings(directory, shard=shard, num_shards=2)
            _, worker = await stack.enter_async_context(service(settings, channel_settings()))
            targets.append(f"127.0.0.1:{worker.port}")
        client = await stack.enter_async_context(AsyncSerendipityClient(targets, timeout=10.0))
        users = [*small_world.user_ids[:10], ""]
        events = [Feedback(user, "tea", event_id=f"e-{user}") for user in users]
        recorded = await client.record_feedback(events)
        assert recorded.accepted == 10
        assert [(r.index, r.event_id) for r in recorded.rejected] == [(10, "e-")]
        results = await client.recall_batch([recall_request(user, count=4) for user in users[:10]])
        for user, result in zip(users, results, strict=False):
            assert "not_owner" not in [code for code, _, _ in result.warnings]
            alone = await client.recall(user, count=4)
            assert [c.item_id for c in result.candidates] == [c.item_id for c in alone.candidates]
        item = small_world.item_ids[0]
        assert (await client.update_items({item: False})).updated == 1
    for shard in range(2):
        with FeedbackStore(tmp_path / f"host-{shard}" / "state" / "feedback") as store:
            owned = {record.event.user_id for _, record in store.log()}
        assert owned == {user for user in users[:10] if shard_of(user, 2) == shard}


async def test_the_client_without_an_event_loop_does_the_same(small_world: SmallWorld, tmp_path: Path) -> None:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    script = (
        "import sys\n"
        "from serendipity.channel.client import SerendipityClient, Feedback\n"
        "with SerendipityClient(sys.argv[1], timeout=10.0) as client:\n"
        "    result = client.recall('anyone', count=3, explain=True)\n"
        "    accepted = client.record_feedback([Feedback('anyone', 'tea')]).accepted\n"
        "    print(len(result.candidates), accepted, len(client.list_categories().categories))\n"
        "client.close()\n"
    )
    async with service(server_settings(tmp_path), channel_settings()) as (_, worker):
        finished = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", script, f"127.0.0.1:{worker.port}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (finished.stdout, finished.stderr) == ("3 1 12\n", "")


def test_the_synchronous_client_reports_errors_and_can_be_closed_twice() -> None:
    client = SerendipityClient("127.0.0.1:1", timeout=10.0)
    with pytest.raises(Unavailable):
        client.recall("anna")
    client.close()
    client.close()
    with pytest.raises(ValueError, match="expected at least one"):
        SerendipityClient([])


def test_arguments_become_the_request_they_describe() -> None:
    moment = datetime.datetime(2023, 11, 14, 22, 13, 20, 500_000, datetime.UTC)
    request = recall_request(
        "anna",
        count=3,
        recent_events=[RecentEvent("tea", "view", moment), RecentEvent("", "search", 1.25, "green tea")],
        profile={"age": "25-34"},
        novelty="soft",
        allow_repeats=True,
        quotas={"interest": (1, 2)},
    )
    assert request.allow_repeats
    assert request.recent_events[0].type == channel_pb2.EVENT_TYPE_VIEW
    assert request.recent_events[0].time.ToMilliseconds() == 1_700_000_000_500
    assert request.recent_events[1].query == "green tea"
    assert request.recent_events[1].time.ToMilliseconds() == 1_250
    assert request.novelty_policy == channel_pb2.NOVELTY_POLICY_SOFT
    assert request.source_quotas[0] == channel_pb2.SourceQuota(
        source=channel_pb2.SOURCE_INTEREST, min_count=1, max_count=2
    )
    assert not recall_request("anna", recent_events=[RecentEvent("tea")]).recent_events[0].HasField("time")


def test_columns_become_rows_with_their_own_reason_first() -> None:
    response = channel_pb2.RecallResponse(
        recall_id="r",
        item_ids=["tea", "cup"],
        scores=[0.5, 0.25],
        sources=[channel_pb2.SOURCE_INTEREST, channel_pb2.SOURCE_COLLABORATIVE],
        relevance=[1.0, 2.0],
        unexpectedness=[0.5, 0.75],
        category_indexes=[1, 0],
        categories=["kitchen", "drinks"],
        reason_indexes=[1, 0],
        reasons=[
            channel_pb2.Reason(text="close", kind=99),  # type: ignore[arg-type]  # of a service newer than this client
            channel_pb2.Reason(
                text="thirsty",
                kind=channel_pb2.REASON_KIND_GROUP,
                relation=channel_pb2.REASON_RELATION_NEXT,
                recent_categories=["cups"],
            ),
        ],
        all_reason_indexes=[0, 1, 0],
        all_reason_offsets=[0, 2, 3],
        rank_features=channel_pb2.FeatureMatrix(names=["a", "b"], num_rows=2, values=[1.0, 2.0, 3.0, 4.0]),
    )
    response.shortfalls.add(cause=99, message="of a newer service")  # type: ignore[arg-type]
    assert to_result(response).shortfalls == (("cause-99", "of a newer service"),)
    tea, cup = to_result(response).candidates
    assert (tea.item_id, tea.score, tea.source, tea.category) == ("tea", 0.5, "interest", "drinks")
    assert [reason.text for reason in tea.reasons] == ["thirsty", "close"]
    assert [reason.text for reason in cup.reasons] == ["close"]
    assert (tea.reasons[0].kind, tea.reasons[0].relation) == ("group", "next")
    assert tea.reasons[0].recent_categories == ("cups",)
    assert (cup.reasons[0].kind, cup.reasons[0].relation) == ("kind-99", "unspecified")
    assert cup.features == {"a": 3.0, "b": 4.0}
