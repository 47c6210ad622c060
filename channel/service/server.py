"""The channel over gRPC: messages in, messages out; everything between is `Channel` and the host's stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

import grpc
import numpy as np
import structlog

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import ChannelError, DeadlinePassed, FieldViolation, InvalidQuery, SnapshotUnavailable
from serendipity.channel.recall.answer import Answer
from serendipity.channel.recall.query import MAX_COUNT, RecallQuery, parse_query
from serendipity.channel.recall.recall import Channel
from serendipity.channel.service.callers import Callers
from serendipity.channel.service.edge import Edge
from serendipity.channel.service.listening import Health, Ports, listening
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.service.status import refusal_of
from serendipity.channel.service.telemetry import Telemetry
from serendipity.channel.service.tracing import Tracing
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.state.availability import AvailabilityReader, AvailabilityStore
from serendipity.channel.state.feedback import DEFAULT_CLICK_TYPES, FeedbackStore
from serendipity.channel.state.reopening import Reopening
from serendipity.channel.state.serving_log import ServingLog
from serendipity.ids import id_fault
from serendipity.item_ids import UNKNOWN
from serendipity.v1 import channel_pb2, channel_pb2_grpc

SERVICE = channel_pb2.DESCRIPTOR.services_by_name["SerendipityChannel"].full_name
MAX_BATCH = 256
MAX_FEEDBACK_EVENTS = 1_000
MAX_ITEM_CHANGES = 100_000
MAX_LISTED_ITEMS = 100
"""Hard caps, as channel.proto states them."""

_WAY_BACK_SECONDS, _WAY_BACK_SECONDS_EACH, _WAY_BACK_SHARE = 0.02, 0.0005, 0.05
"""Time of a batch that is kept for the way back of its answers: a part of it at least, half of it at most."""
_CANDIDATE_BYTES, _EXPLAINED_BYTES = 100, 300
"""Size of a candidate in a message, about."""
_INTERNAL = grpc.StatusCode.INTERNAL.value[0]
_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the servicer works with; all of it is the worker's to open and close."""

    channel: Channel
    holder: SnapshotHolder
    feedback: Reopening[FeedbackStore]
    availability: Reopening[AvailabilityStore]
    overlay: AvailabilityReader
    serving_log: ServingLog
    telemetry: Telemetry
    settings: ServerSettings
    tracing: Tracing | None = None
    clock: Callable[[], float] = time.time


class ChannelServicer(channel_pb2_grpc.SerendipityChannelServicer):
    """SerendipityChannel: each method calls the part concerned and builds the answer; errors are the Edge's to tell."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # Batches take turns, some users each, so that a large one does not hold up all others.
        self._turn = asyncio.Lock()

    async def Recall(  # noqa: N802
        self, request: channel_pb2.RecallRequest, context: grpc.aio.ServicerContext
    ) -> channel_pb2.RecallResponse:
        """Answer one user's request."""
        channel = self._parts.channel
        deadline = channel.deadline(context.time_remaining())
        return self._told(await channel.recall(parse_query(request, channel.now()), deadline))

    async def RecallBatch(  # noqa: N802
        self, request: channel_pb2.RecallBatchRequest, context: grpc.aio.ServicerContext
    ) -> channel_pb2.RecallBatchResponse:
        """Answer several users' requests, in their order: as many as there is time for."""
        channel, settings = self._parts.channel, self._parts.settings
        _expect_sendable(request.requests, settings.max_message_bytes)
        deadline = channel.deadline(context.time_remaining(), len(request.requests))
        way_back = _WAY_BACK_SECONDS + _WAY_BACK_SECONDS_EACH * len(request.requests)
        left = deadline.remaining
        deadline = Deadline(deadline.at - min(max(way_back, _WAY_BACK_SHARE * left), 0.5 * left))
        queries = await _parse_batch(request.requests, channel.now(), deadline)
        response = channel_pb2.RecallBatchResponse()
        failure: Exception | None = None
        for start in range(0, len(queries), settings.batch_users):
            for answer in await self._answer_some(queries[start : start + settings.batch_users], deadline):
                if isinstance(answer, Exception):
                    failure = answer
                    response.responses.add()
                    response.statuses.append(_status_of(answer))
                else:
                    response.responses.append(self._told(answer))
                    response.statuses.add()
        if failure is not None and all(status.code for status in response.statuses):
            raise failure
        return response

    async def RecordFeedback(  # noqa: N802
        self, request: channel_pb2.RecordFeedbackRequest, _: grpc.aio.ServicerContext
    ) -> channel_pb2.RecordFeedbackResponse:
        """Store feedback; answers when it is on disk."""
        _expect_at_most("events", len(request.events), MAX_FEEDBACK_EVENTS)
        stored = self._parts.feedback.store().submit(request.events, *self._click_rules(request.events))
        recorded = await asyncio.wrap_future(stored)
        self._parts.telemetry.recorded(recorded)
        return recorded

    async def UpdateItems(  # noqa: N802
        self, request: channel_pb2.UpdateItemsRequest, _: grpc.aio.ServicerContext
    ) -> channel_pb2.UpdateItemsResponse:
        """Store changed availability; this worker sees it at once, the others with their next look."""
        _expect_at_most("items", len(request.items), MAX_ITEM_CHANGES)
        changes = await asyncio.to_thread(self._update, request.items)
        unknown = self._unknown_items(changes)
        return channel_pb2.UpdateItemsResponse(
            updated=len(changes), unknown_item_ids=unknown[:MAX_LISTED_ITEMS], unknown_count=len(unknown)
        )

    async def ListCategories(  # noqa: N802
        self, _request: channel_pb2.ListCategoriesRequest, _: grpc.aio.ServicerContext
    ) -> channel_pb2.ListCategoriesResponse:
        """Tell the categories of the snapshot being served."""
        with self._parts.holder.acquire() as lease:
            categories = lease.snapshot.categories(lease.unavailable(self._parts.overlay.overlay()))
            return channel_pb2.ListCategoriesResponse(categories=categories, snapshot=lease.snapshot.version)

    async def _answer_some(self, queries: Sequence[RecallQuery], deadline: Deadline) -> Sequence[Answer | Exception]:
        try:
            async with asyncio.timeout(deadline.remaining), self._turn:
                return await self._parts.channel.recall_batch(queries, deadline)
        except TimeoutError:
            return [DeadlinePassed("no time was left to begin")] * len(queries)

    def _told(self, answer: Answer) -> channel_pb2.RecallResponse:
        """Count and log an answer, and give what its caller asked for."""
        self._parts.telemetry.answered(answer)
        if self._parts.tracing is not None:
            self._parts.tracing.answered(answer.response)
        self._parts.serving_log.append(answer.to_record(self._parts.clock()))
        return answer.for_caller()

    def _update(self, items: Sequence[channel_pb2.ItemAvailability]) -> dict[str, bool]:
        """Store changes of availability; returns them by item id, the last one of each."""
        faults = ((index, id_fault(item.item_id)) for index, item in enumerate(items))
        if violations := [FieldViolation(f"items[{index}].item_id", fault) for index, fault in faults if fault]:
            raise InvalidQuery(violations)
        changes = {item.item_id: item.available for item in items}
        if changes:
            self._parts.availability.store().update(changes.items())
            self._parts.overlay.refresh()
        return changes

    def _click_rules(self, events: Iterable[channel_pb2.FeedbackEvent]) -> tuple[frozenset[int], dict[str, str]]:
        """Tell which events count as clicks, and the categories of their items, as of the snapshot."""
        try:
            with self._parts.holder.acquire() as lease:
                names = lease.snapshot.category_names_of(event.item_id for event in events)
                return lease.snapshot.click_types, names
        except SnapshotUnavailable:
            return DEFAULT_CLICK_TYPES, {}

    def _unknown_items(self, item_ids: Sequence[str] | dict[str, bool]) -> list[str]:
        try:
            with self._parts.holder.acquire() as lease:
                ids = list(item_ids)
                rows = lease.snapshot.item_ids.rows_of(ids)
                return [ids[i] for i in np.flatnonzero(rows == UNKNOWN).tolist()]
        except SnapshotUnavailable:
            return list(item_ids)


def serving_channel(parts: Parts, health: Health) -> AbstractAsyncContextManager[Ports]:
    """Serve the channel as one worker of those that share the ports. See `listening`."""
    settings = parts.settings
    callers = Callers(settings.callers, "host") if settings.callers else None
    edge = Edge(parts.telemetry, callers, settings.max_concurrent_calls, parts.tracing)
    return listening(
        partial(
            edge.add_service,
            service=SERVICE,
            servicer=ChannelServicer(parts),
            admissions={"Recall": parts.channel.admit},
        ),
        health,
        (settings.address, settings.health_address),
        settings,
        share_ports=True,
        drain_seconds=settings.drain_seconds,
    )


async def _parse_batch(
    requests: Sequence[channel_pb2.RecallRequest], now: int, deadline: Deadline
) -> list[RecallQuery]:
    _expect_at_most("requests", len(requests), MAX_BATCH)
    queries: list[RecallQuery] = []
    violations: list[FieldViolation] = []
    for index, request in enumerate(requests):
        # One request of a thousand events takes 10 ms: others must get their turn between.
        await asyncio.sleep(0)
        if deadline.expired:
            raise DeadlinePassed(f"no time was left when {index} of {len(requests)} requests were read")
        try:
            queries.append(parse_query(request, now))
        except InvalidQuery as error:
            violations += [FieldViolation(f"requests[{index}].{v.field}", v.description) for v in error.violations]
    if violations:
        raise InvalidQuery(violations)
    return queries


def _status_of(error: Exception) -> channel_pb2.RecallStatus:
    if not isinstance(error, ChannelError):
        _log.error("one of a batch failed", exc_info=error)
        return channel_pb2.RecallStatus(code=_INTERNAL, message="internal error; the logs name it")
    refusal = refusal_of(error)
    return channel_pb2.RecallStatus(code=refusal.code.value[0], message=refusal.message)


def _expect_sendable(requests: Sequence[channel_pb2.RecallRequest], most: int) -> None:
    """Refuse before the work what would be too large to send after it."""
    size = sum(min(r.count, MAX_COUNT) * (_EXPLAINED_BYTES if r.explain else _CANDIDATE_BYTES) for r in requests)
    if size > most:
        found = f"ask for {sum(r.count for r in requests):,} candidates, some {size >> 20} MiB"
        raise InvalidQuery([FieldViolation("requests", f"{found}; expected at most {most >> 20} MiB in one call")])


def _expect_at_most(field: str, found: int, cap: int) -> None:
    if found > cap:
        raise InvalidQuery([FieldViolation(field, f"has {found} entries; expected at most {cap}")])
