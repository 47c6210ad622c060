"""`serendip nearline` on a state directory, with and without a process at work."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from serendipity.channel.nearline.process import exclusive
from serendipity.channel.nearline.store import NearlineStore, open_nearline
from serendipity.channel.nearline.subject import Kind, WantedList
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.snapshot.publication import Publications
from serendipity.tools import nearline
from serendipity.v1 import records_pb2
from tests.channel.served import server_settings
from tests.fixtures.nearline_world import spec_of, write_nearline_snapshot
from tests.fixtures.small_world import NOW, SmallWorld

MISSING = records_pb2.REFRESH_CAUSE_MISSING
WITHOUT = 7
"""Users the snapshot holds no interests of."""


@pytest.fixture
def build(small_world: SmallWorld, tmp_path: Path) -> Iterator[Path]:
    """A build directory with a published snapshot that names an InterestGPT."""
    without = small_world.user_ids[:WITHOUT]
    snapshot = write_nearline_snapshot(
        small_world, tmp_path / "snapshots", spec_of(small_world), without_interests=without
    )
    Publications(tmp_path / "snapshots").publish(snapshot.name)
    return tmp_path


def settings_of(build: Path) -> ServerSettings:
    return server_settings(build, nearline_poll_seconds=0.01, nearline_commit_seconds=0)


def call(module: object, *words: str) -> int:
    """Run a command as the console does."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return int(module.run(parser.parse_args(words)))  # type: ignore[attr-defined]


def queue(build: Path, *users: str) -> None:
    with open_nearline(settings_of(build)) as store:
        for user_id in users:
            store.want(user_id, MISSING, 0.5)


def fail(build: Path, user_id: str, error: str) -> None:
    queue(build, user_id)
    with NearlineStore(settings_of(build).nearline_path) as store:
        store.queue(Kind.INTERESTS).fail(records_pb2.NearlineEntry(user_id=user_id), error, NOW)


def test_status_says_what_is_queued_and_why_users_failed(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fail(build, "poisoned [red]", "answer: no JSON")
    queue(build, "waiting")
    assert call(nearline, "status", "--build", str(build)) == 0
    said = capsys.readouterr().out
    assert "process: none is running" in said
    assert "queue: 1 ready, 1 failed, to be tried later" in said
    assert "the next has waited" in said
    assert "poisoned [red]" in said
    assert "answer: no JSON" in said


def test_lists_are_shown_beside_interests(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_nearline(settings_of(build)) as store:
        for want in (WantedList("model", 3, ("TEA",)), WantedList("model", 4, ())):
            for _ in range(3):
                store.want_list(want)
        store.want_list(WantedList("model", 5, ()))
        assert store.flush(10)
        (entry,) = store.queue(Kind.LISTS).take(1, NOW)
        store.queue(Kind.LISTS).fail(entry, "group 3: found none", NOW)
    assert call(nearline, "status", "--build", str(build)) == 0
    said = capsys.readouterr().out
    assert "lists: 0 lists" in said
    assert said.count("queue: 1 ready, 1 failed, to be tried later") == 1
    assert "group 3: found none" in said


def test_status_says_whether_a_process_runs(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queue(build)
    with exclusive(settings_of(build)):
        assert call(nearline, "status", "--build", str(build)) == 0
    assert "process: one is running" in capsys.readouterr().out


def test_without_a_store_there_is_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(nearline, "status", "--state", str(tmp_path)) == 1
    assert "no near-line store there" in capsys.readouterr().err
