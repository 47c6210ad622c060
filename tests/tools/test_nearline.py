"""`serendip nearline` and `serendip interests` on a state directory, with and without a process at work."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic_settings import BaseSettings

from serendipity.channel.nearline.housekeeping import census
from serendipity.channel.nearline.process import exclusive, running_nearline
from serendipity.channel.nearline.store import NearlineStore, open_nearline
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.nearline.wanted_list import WantedList
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.snapshot.publication import Publications
from serendipity.tools import interests, nearline
from serendipity.v1 import records_pb2
from tests.channel.served import channel_settings, copy_snapshot, server_settings
from tests.fixtures.nearline_world import TritonStatus, answer_with, spec_of, talking_triton, write_nearline_snapshot
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


async def call_elsewhere(module: str, *words: str) -> str:
    """Run a command in a process of its own, beside this one, which holds the store open; what it prints."""
    program = (
        "import argparse, sys; "
        f"from serendipity.tools import {module} as command; "
        "parser = argparse.ArgumentParser(); command.add_arguments(parser); "
        "sys.exit(command.run(parser.parse_args(sys.argv[1:])))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *words, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


def queue(build: Path, *users: str) -> None:
    with open_nearline(settings_of(build)) as store:
        for user_id in users:
            store.want(user_id, MISSING, 0.5)


def park(build: Path, user_id: str, error: str) -> None:
    queue(build, user_id)
    with NearlineStore(settings_of(build).nearline_path) as store:
        for _ in range(5):
            store.queue(Kind.INTERESTS).fail(records_pb2.NearlineEntry(user_id=user_id), error, NOW)


def test_status_says_what_is_queued_and_why_users_are_parked(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    park(build, "poisoned [red]", "answer: no JSON")
    queue(build, "waiting")
    assert call(nearline, "status", "--build", str(build)) == 0
    said = capsys.readouterr().out
    assert "process: none is running" in said
    assert "queue: 1 ready, 0 to be tried later, 1 parked" in said
    assert "by cause: missing 1" in said
    assert "poisoned [red]" in said
    assert "answer: no JSON" in said


def test_lists_and_groups_are_shown_and_retried_beside_interests(
    build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_nearline(settings_of(build)) as store:
        store.want_group("cold", 30)
        for want in (WantedList("model", 3, ("TEA",)), WantedList("model", 4, ())):
            for _ in range(3):
                store.want_list(want)
        store.want_list(WantedList("model", 5, ()))
        assert store.flush(10)
        (entry,) = store.queue(Kind.LISTS).take(1, NOW)
        for _ in range(5):
            store.queue(Kind.LISTS).fail(entry, "group 3: found none", NOW)
    assert call(nearline, "status", "--build", str(build)) == 0
    said = capsys.readouterr().out
    assert "groups: 0 users with a group" in said
    assert "lists: 0 lists" in said
    assert said.count("queue: 1 ready, 0 to be tried later") == 2
    assert "asked for too seldom so far: 1" in said
    assert "group 3: found none" in said
    assert call(nearline, "retry", "--all", "--kind", "lists", "--build", str(build)) == 0
    assert "to be tried at once: lists 1" in capsys.readouterr().out


async def test_status_says_how_the_process_fares(
    build: Path, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(build)
    with exclusive(settings):
        async with running_nearline(settings, channel_settings()):
            said = await call_elsewhere("nearline", "status", "--build", str(build))
    assert f"model {spec_of(small_world).model_name}, no batch yet" in said


def test_without_a_store_there_is_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(nearline, "status", "--state", str(tmp_path)) == 1
    assert "no near-line store there" in capsys.readouterr().err


def test_parked_users_are_let_back_in(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for user_id in ("one", "two", "three"):
        park(build, user_id, "why")
    assert call(nearline, "retry", "one", "stranger", "--build", str(build)) == 1
    assert "not queued: stranger" in capsys.readouterr().err
    assert call(nearline, "retry", "--all", "--build", str(build)) == 0
    assert "to be tried at once: interests 2, groups 0, lists 0" in capsys.readouterr().out
    assert call(nearline, "retry", "--build", str(build)) == 2
    with open_nearline(settings_of(build)) as store:
        assert sorted(entry.user_id for entry in store.queue(Kind.INTERESTS).take(10, NOW)) == ["one", "three", "two"]


async def test_drain_does_the_work_where_no_service_runs(
    build: Path, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    queue(build, *small_world.user_ids[:3], "nobody")
    async with talking_triton(lambda _: answer_with(*small_world.catalogue.categories)) as (url, _):
        status = await asyncio.to_thread(call, nearline, "drain", "--build", str(build), "--triton-url", url)
    said = capsys.readouterr().out
    assert (status, "works the queues" in said, "refreshed 3 users in" in said) == (0, True, True)
    assert "1 unneeded" in said
    assert "interests left: 0 ready, 0 to be tried later, 0 parked" in said


async def test_everybody_who_is_due_is_refreshed_and_an_interrupted_run_goes_on(
    build: Path, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run meets a Triton that breaks down, the second does the rest, the third has nothing to do."""
    budget = [3]
    broken_down = asyncio.Event()

    def answers(_: str) -> str:
        if budget[0] == 0:
            broken_down.set()
            raise TritonStatus(grpc.StatusCode.UNAVAILABLE)
        budget[0] -= 1
        return answer_with(*small_world.catalogue.categories)

    words = ("refresh", "--due", "--build", str(build), "--clock", "snapshot", "--nearline-batch", "1")
    async with talking_triton(answers) as (url, triton):
        command = asyncio.create_task(asyncio.to_thread(call, interests, *words, "--triton-url", url))
        # A command that has failed before would not come to that.
        while not broken_down.is_set() and not command.done():
            await asyncio.sleep(0.01)
        budget[0] = 1_000
        assert await command == 0
        assert "refreshed 7 users in" in capsys.readouterr().out
        asked = len(triton.prompts)
        assert await asyncio.to_thread(call, interests, *words, "--triton-url", url) == 0
        assert len(triton.prompts) == asked
    with open_nearline(settings_of(build)) as store:
        assert census(store).records == WITHOUT


async def test_a_host_refreshes_its_own_users_and_no_others(build: Path, small_world: SmallWorld) -> None:
    words = ("refresh", "--due", "--build", str(build), "--clock", "snapshot", "--num-shards", "2", "--shard")
    counts = []
    async with talking_triton(lambda _: answer_with(*small_world.catalogue.categories)) as (url, _):
        for shard in ("0", "1"):
            assert await asyncio.to_thread(call, interests, *words, shard, "--triton-url", url) == 0
            with open_nearline(settings_of(build)) as store:
                counts.append(census(store).records)
    assert 0 < counts[0] < counts[1] == WITHOUT


async def test_who_is_named_is_refreshed_fresh_or_not(
    build: Path, small_world: SmallWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = small_world.user_ids[-1]
    async with talking_triton(lambda _: answer_with(*small_world.catalogue.categories)) as (url, _):
        words = ("refresh", "--user", fresh, "--build", str(build), "--clock", "snapshot", "--triton-url", url)
        assert await asyncio.to_thread(call, interests, *words) == 0
    assert "refreshed 1 users" in capsys.readouterr().out
    with open_nearline(settings_of(build)) as store:
        record = store.interests(fresh)
    assert record is not None
    assert record.generated_at == NOW


@pytest.mark.parametrize(
    ("module", "words"), [(nearline, ["drain"]), (nearline, ["status"]), (interests, ["refresh", "--due"])]
)
async def test_every_setting_that_is_listed_is_read(
    build: Path, monkeypatch: pytest.MonkeyPatch, module: Any, words: list[str]
) -> None:
    queue(build, "waiting")
    read: set[str] = set()

    def noting(settings: type[BaseSettings]) -> type[BaseSettings]:
        class Noted(settings):  # type: ignore[misc,valid-type]
            def __getattribute__(self, name: str) -> Any:
                read.add(name)
                return super().__getattribute__(name)

        return Noted

    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    actions = parser._actions
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            actions = action.choices[words[0]]._actions
    listed = {action.dest for action in actions if action.default == argparse.SUPPRESS} - {"help"}
    async with talking_triton(lambda _: answer_with()) as (url, _):
        arguments = parser.parse_args([*words, "--build", str(build)])
        if words != ["status"]:
            arguments.triton_url = url
        for name in ("ServerSettings", "ChannelSettings"):
            monkeypatch.setattr(nearline, name, noting(getattr(nearline, name)))
        await asyncio.to_thread(module.run, arguments)
    assert listed - read == set()
    assert "state" in listed


def test_without_snapshots_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--snapshots", str(tmp_path / "snapshots"), "--state", str(tmp_path / "state")]
    assert call(nearline, "drain", *places) == 1
    assert call(interests, "refresh", "--all", *places) == 1
    assert capsys.readouterr().err.count(f"{tmp_path / 'snapshots'}: no snapshots there") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_snapshot_without_a_model_cannot_refresh(
    small_world: SmallWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_snapshot(small_world, tmp_path / "snapshots", "plain")
    Publications(tmp_path / "snapshots").publish("plain")
    assert call(interests, "refresh", "--due", "--build", str(tmp_path)) == 1
    assert "snapshot plain: interest_gpt: found none, expected one" in capsys.readouterr().err


async def test_where_a_process_runs_it_does_the_work(build: Path, small_world: SmallWorld) -> None:
    settings = settings_of(build)
    async with talking_triton(lambda _: answer_with(*small_world.catalogue.categories)) as (url, _):
        with exclusive(settings) as first:
            assert first
            async with running_nearline(settings, channel_settings(triton_url=url)) as running:
                words = ("refresh", "--due", "--build", str(build), "--clock", "snapshot")
                said = await call_elsewhere("interests", *words, "--triton-url", "127.0.0.1:1")
                assert census(running.store).records == WITHOUT
    assert "asked by the running service" in said
    assert f"refreshed {WITHOUT} users in" in said
