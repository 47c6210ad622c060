"""Requests as bytes, as clients of other languages may send them: what cannot be read is refused by its field."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from serendipity.channel.client.errors import InvalidRequest, error_of
from serendipity.channel.errors import InvalidQuery
from serendipity.channel.service.server import SERVICE
from serendipity.channel.service.wire import parse
from serendipity.v1 import channel_pb2
from tests.channel.served import channel_settings, copy_snapshot, publish, scrape, server_settings, service
from tests.channel.service.test_server import metrics
from tests.fixtures.small_world import SmallWorld

SURROGATE = b"a\xed\xa0\x80"
"""Half a surrogate pair, as JavaScript's strings may hold it, written as if it were a character."""


def field(number: int, content: bytes) -> bytes:
    """A text or a message inside a message."""
    return bytes([number << 3 | 2, len(content)]) + content


UNREADABLE = [
    ("Recall", field(1, SURROGATE), "user_id"),
    ("Recall", field(1, b"\xff"), "user_id"),
    ("Recall", field(1, b"anna") + b"\x20\x05" + field(5, b"tea") * 2 + field(5, SURROGATE), "exclude_item_ids[2]"),
    (
        "Recall",
        field(1, b"anna") + field(2, field(1, b"tea")) + field(2, field(4, SURROGATE)),
        "recent_events[1].query",
    ),
    ("Recall", field(3, field(1, b"city") + field(2, SURROGATE)), "profile[0].value"),
    # A field of a later contract is nobody's fault.
    ("Recall", b"\xfa\x06\x01\xff" + field(10, SURROGATE), "experiment_tag"),
    ("Recall", b"\x0a\x7fanna", "RecallRequest"),
    ("Recall", field(2, b"\x0a\x7f"), "recent_events[0]"),
    ("RecallBatch", field(1, field(1, b"anna")) + field(1, field(1, SURROGATE)), "requests[1].user_id"),
    ("RecordFeedback", field(1, field(4, SURROGATE)), "events[0].item_id"),
    ("UpdateItems", field(1, field(1, SURROGATE)), "items[0].item_id"),
]


async def test_what_cannot_be_read_is_refused_by_its_field_with_a_request_id_and_counted(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    found = []
    async with service(server_settings(tmp_path), channel_settings()) as (_, worker):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
            for method, data, _ in UNREADABLE:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(f"/{SERVICE}/{method}")(data, metadata=(("x-request-id", "r-1"),))
                error = error_of(caught.value)
                assert isinstance(error, InvalidRequest)
                assert error.request_id == "r-1"
                found += [(method, data, name) for name, _ in error.violations]
        counted = scrape(await metrics(worker), "serendipity_requests_total")
    assert found == UNREADABLE
    assert counted['{code="INVALID_ARGUMENT",method="Recall"}'] == 8
    assert counted['{code="INVALID_ARGUMENT",method="UpdateItems"}'] == 1


async def test_what_is_wrong_is_said() -> None:
    for data, said in (
        (
            field(1, SURROGATE),
            "user_id: found the byte 0xed at position 1, expected valid UTF-8 without lone surrogates",
        ),
        (b"\x0a\x7fanna", "RecallRequest: found 6 bytes that cannot be read, expected a RecallRequest"),
    ):
        with pytest.raises(InvalidQuery) as caught:
            await parse(channel_pb2.RecallRequest, data)
        assert str(caught.value) == said
