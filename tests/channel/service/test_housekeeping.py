"""Housekeeping of the host: nothing goes because of a clock that has leapt, everything goes when it is time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serendipity import layout
from serendipity.channel.service.housekeeping import clean_up
from serendipity.channel.snapshot.publication import Publications
from serendipity.channel.state.availability import AvailabilityStore
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.host_clock import HostClock
from serendipity.v1 import channel_pb2, records_pb2
from tests.channel.served import server_settings

NOW = 1_700_000_000.0
DAY = 86_400.0


class Host:
    """The state of one host: two snapshots, of which one was wanted before, 250 events of today, a day-old log."""

    def __init__(self, directory: Path) -> None:
        self.now = NOW
        self.settings = server_settings(directory, feedback_retention_days=30.0)
        self.clock = HostClock(self.settings.clock_path, clock=lambda: self.now)
        self.publications = Publications(self.settings.snapshots, clock=lambda: self.now)
        for version in ("before", "wanted"):
            self.write_snapshot(version, NOW - DAY)
            self.publications.publish(version)
        self.settings.serving_log_path.mkdir(parents=True)
        self.log = self.settings.serving_log_path / "of-yesterday.parquet"
        self.log.write_bytes(b"rows")
        os.utime(self.log, (NOW - DAY, NOW - DAY))
        self.feedback = FeedbackStore(self.settings.feedback_path, clock=self.clock.now)
        self.availability = AvailabilityStore(self.settings.availability_path, clock=self.clock.now)
        self.availability.update([("item", False)])
        self.record("today", 250)

    def write_snapshot(self, version: str, created_at: float) -> None:
        directory = self.settings.snapshots / version
        directory.mkdir(parents=True)
        (directory / layout.ITEM_ID_TEXT).write_text(f'["{version}"]')
        manifest = records_pb2.Manifest(layout_version=layout.LAYOUT_VERSION, version=version)
        manifest.created_at.seconds = manifest.events_until.seconds = int(created_at)
        manifest.checksums.update(layout.file_checksums(directory))
        layout.write_manifest(directory, manifest)
        os.utime(directory, (created_at, created_at))

    def record(self, name: str, count: int) -> None:
        self.feedback.record(
            channel_pb2.FeedbackEvent(
                event_id=f"{name}-{i}", user_id=f"{name}-{i}", item_id="item", type=channel_pb2.EVENT_TYPE_CLICK
            )
            for i in range(count)
        )

    def clean_up(self, hours: int = 2) -> None:
        for _ in range(hours):
            parts: Any = SimpleNamespace(
                settings=self.settings,
                feedback=SimpleNamespace(store=lambda: self.feedback),
                availability=self.availability,
            )
            clean_up(parts, self.publications, self.clock)

    def kept(self) -> tuple[int, int, bool, list[str], dict[str, bool]]:
        users = sum(self.feedback.user(f"today-{i}") is not None for i in range(250))
        versions = sorted(listed.version for listed in self.publications.listed())
        overlay = self.availability.changed_since(SimpleNamespace(generation=0, available={}))  # type: ignore[arg-type]
        return len(list(self.feedback.log())), users, self.log.exists(), versions, dict(overlay.available)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.feedback.close()
    host.availability.close()


ALL = (250, 250, True, ["before", "wanted"], {"item": False})


@pytest.mark.parametrize("had_cleaned_up", [True, False])
@pytest.mark.parametrize("leap", [40 * DAY, 3_650 * DAY, -40 * DAY, -NOW])
def test_a_start_with_a_wrong_clock_deletes_nothing_and_the_right_one_goes_on(
    host: Host, leap: float, had_cleaned_up: bool
) -> None:
    if had_cleaned_up:
        host.clean_up()
        assert host.kept() == ALL
    host.now = NOW + leap
    host.clock.begin(host.feedback.last_recorded())
    host.record("wrong", 20)
    host.clean_up()
    assert host.kept() == (270, *ALL[1:])
    host.now = NOW + 3_600
    host.clean_up()
    assert host.kept() == (270, *ALL[1:])
    # What was stamped by the wrong clock expires at the latest with what came after it.
    for day, name in ((32, "one"), (64, "two"), (96, "three")):
        host.now = NOW + day * DAY
        host.write_snapshot(name, host.now)
        host.record(name, 1)
        host.clean_up()
        assert host.kept()[1:4] == (0, False, sorted([name, "wanted"]))
    assert host.kept()[0] == 1
    assert host.feedback.user("wrong-0") is None


def test_a_snapshot_that_a_clock_ahead_dated_later_goes_in_its_time(host: Host) -> None:
    os.utime(host.settings.snapshots / "before", (NOW + 400 * DAY, NOW + 400 * DAY))
    host.clean_up(1)
    for day in range(2, 33, 2):
        host.now = NOW + day * DAY
        host.clean_up(1)
    assert host.kept()[3] == ["wanted"]
