"""The admin service: publications as operations that are begun, followed and cancelled, and what is told of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.channel.client import AdminClient, ClientError
from serendipity.channel.service.admin import AdminServicer, serving_admin
from serendipity.channel.service.process_telemetry import CallTelemetry
from serendipity.channel.snapshot.publication import Publications
from serendipity.v1 import admin_pb2, records_pb2
from tests.channel.served import server_settings
from tests.tools.test_snapshot import write_snapshot

RUNNING, DONE, REFUSED, CANCELLED = (
    admin_pb2.OPERATION_STATE_RUNNING,
    admin_pb2.OPERATION_STATE_DONE,
    admin_pb2.OPERATION_STATE_REFUSED,
    admin_pb2.OPERATION_STATE_CANCELLED,
)


class Host:
    """An admin service over the snapshots a, b and c, whose check can be held up."""

    def __init__(self, directory: Path) -> None:
        self.snapshots = directory / "snapshots"
        for age, version in enumerate(("a", "b", "c")):
            write_snapshot(self.snapshots, version, age)
        self.go_on = threading.Event()
        self.go_on.set()
        self.checked = threading.Event()
        self.publications = Publications(self.snapshots, checks=[self.check])
        self.address = ""

    def check(self, manifest: records_pb2.Manifest, _: Path | None) -> None:
        self.checked.set()
        assert self.go_on.wait(60)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    settings = server_settings(tmp_path)
    async with serving_admin(AdminServicer(host.publications, settings), settings, CallTelemetry()) as ports:
        host.address = f"127.0.0.1:{ports.main}"
        yield host
        host.go_on.set()


async def test_a_publication_longer_than_any_deadline_is_begun_followed_and_seen_to_its_end(host: Host) -> None:
    host.go_on.clear()
    seen: list[str] = []

    def publish() -> admin_pb2.Operation:
        with AdminClient(host.address, timeout=5.0) as admin:
            begun = admin.publish("a")
            assert (begun.state, begun.previous_version) == (RUNNING, "")
            assert host.checked.wait(60)
            # Repeated, by a deploy that had lost the answer, it is the same.
            assert admin.publish("a").id == begun.id
            assert admin.operation().step == "checking"
            with pytest.raises(ClientError, match=f"operation {begun.id} is publishing a"):
                admin.publish("b")
            assert host.publications.wanted() == ""
            host.go_on.set()
            return admin.follow(begun.id, lambda operation: seen.append(operation.step))

    ended = await asyncio.to_thread(publish)
    assert (ended.state, ended.step, ended.progress, ended.error) == (DONE, "publishing", 1.0, "")
    assert ended.started_at.ToMilliseconds() <= ended.ended_at.ToMilliseconds()
    assert host.publications.wanted() == "a"
    assert seen[-1] == "publishing"


async def test_a_cancelled_publication_changes_nothing_and_says_where_it_was(host: Host) -> None:
    host.go_on.clear()

    def cancel() -> admin_pb2.Operation:
        with AdminClient(host.address) as admin:
            begun = admin.publish("a")
            assert host.checked.wait(60)
            assert admin.cancel(begun.id).state == RUNNING
            host.go_on.set()
            return admin.follow(begun.id)

    ended = await asyncio.to_thread(cancel)
    assert (ended.state, ended.error) == (CANCELLED, "a: cancelled while publishing")
    assert host.publications.wanted() == ""


async def test_an_operation_says_what_became_of_it(host: Host) -> None:
    def ended() -> list[tuple[int, str, str]]:
        with AdminClient(host.address) as admin:
            operations = [admin.follow(admin.publish(version).id) for version in ("a", "b")]
            (host.snapshots / "c" / layout.ITEM_ID_TEXT).write_text("[]")
            operations += [admin.follow(admin.publish("c").id), admin.follow(admin.rollback().id), admin.operation()]
            with pytest.raises(ClientError, match="expected one begun since this service was started"):
                admin.operation("nobody-knows")
            return [(operation.state, operation.version, operation.previous_version) for operation in operations]

    told = await asyncio.to_thread(ended)
    assert told == [(DONE, "a", ""), (DONE, "b", "a"), (REFUSED, "c", "b"), (DONE, "a", "b"), (DONE, "a", "b")]
    assert host.publications.wanted() == "a"
