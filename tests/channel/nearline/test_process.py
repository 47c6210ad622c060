"""The near-line process in this process: it refreshes what is wanted, follows snapshots, and is the only one."""

from __future__ import annotations

import asyncio
import multiprocessing
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from serendipity.channel.nearline import process
from serendipity.channel.nearline.housekeeping import census
from serendipity.channel.nearline.loop import NearlineLoop
from serendipity.channel.nearline.process import (
    clean_up,
    exclusive,
    opened_nearline,
    run_nearline,
    running_nearline,
)
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.publication import ListedSnapshot, Publications
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.layout import user_key
from serendipity.v1 import channel_pb2, records_pb2
from tests.channel.served import channel_settings, copy_snapshot, hung_triton, scrape, server_settings
from tests.fixtures.nearline_store import delayed, spoil
from tests.fixtures.nearline_world import TritonStatus, answer_with, spec_of, talking_triton, write_nearline_snapshot
from tests.fixtures.small_world import DAY, NOW, SmallWorld

MISSING = records_pb2.REFRESH_CAUSE_MISSING


def settings_below(directory: Path, **changes: object) -> ServerSettings:
    return server_settings(
        directory,
        **{"nearline_poll_seconds": 0.01, "nearline_commit_seconds": 0, "nearline_retry_seconds": 0.05, **changes},
    )


def published(world: SmallWorld, directory: Path, **changes: object) -> ServerSettings:
    """Publish a snapshot with an InterestGPT; settings of a near-line process that looks often."""
    snapshot = write_nearline_snapshot(world, directory / "snapshots", spec_of(world, writes=True))
    Publications(directory / "snapshots").publish(snapshot.name)
    return settings_below(directory, **changes)


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds that another task brings about."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


def want(store: NearlineStore, *users: str, priority: float = 0.5) -> None:
    for user_id in users:
        store.want(user_id, MISSING, priority)
    assert store.flush(10)


def pipeline(url: str) -> ChannelSettings:
    return channel_settings(triton_url=url)


async def test_whoever_is_wanted_is_refreshed(small_world: SmallWorld, tmp_path: Path) -> None:
    settings = published(small_world, tmp_path)
    async with (
        talking_triton(lambda _: answer_with(*small_world.catalogue.categories)) as (url, _),
        running_nearline(settings, pipeline(url)) as nearline,
    ):
        want(nearline.store, *small_world.user_ids, "nobody")
        await until(lambda: not nearline.store.queue(Kind.INTERESTS).take(1, NOW))
        port = nearline.telemetry.metrics_port
        page = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
    metrics = scrape(page, "serendipity_nearline_events_total")
    assert metrics['{event="completed",kind="interests"}'] == len(small_world.user_ids)
    assert metrics['{event="unneeded",kind="interests"}'] == 1
    assert metrics['{event="completion_tokens",kind="interests"}'] == 10 * len(small_world.user_ids)
    assert scrape(page, "serendipity_nearline_queue")['{kind="interests",state="ready"}'] == 0
    assert scrape(page, "serendipity_nearline_records")['{kind="interests"}'] == len(small_world.user_ids)
    assert f'model="{spec_of(small_world, writes=True).model_name}"' in page
    with NearlineStore(settings.nearline_path) as store:
        for user_id in small_world.user_ids:
            interests = store.interests(user_id)
            assert interests is not None
            # The moment requests are answered as of, not the wall clock's.
            assert interests.generated_at == NOW


def _read(url: str) -> str:
    with urllib.request.urlopen(url) as response:
        return str(response.read().decode())


async def test_while_triton_is_away_the_queue_waits_and_then_goes_on(small_world: SmallWorld, tmp_path: Path) -> None:
    settings = published(small_world, tmp_path)
    down = [True]

    def answers(_: str) -> str:
        if down:
            raise TritonStatus(grpc.StatusCode.UNAVAILABLE)
        return answer_with(*small_world.catalogue.categories)

    async with talking_triton(answers) as (url, triton), running_nearline(settings, pipeline(url)) as nearline:
        want(nearline.store, *small_world.user_ids[:10])
        failures = {"kind": "interests", "error": "ModelUnavailable"}
        sample = nearline.telemetry.registry.get_sample_value
        await until(lambda: bool(sample("serendipity_nearline_failures_total", failures)) and len(triton.prompts) > 5)
        assert all(entry.attempts == 0 for entry in nearline.store.queue(Kind.INTERESTS).take(100, NOW))
        down.clear()
        await until(lambda: not nearline.store.queue(Kind.INTERESTS).take(1, NOW))
        counted = census(nearline.store)
    assert (counted.records, counted.delayed) == (10, 0)


async def test_the_one_who_brings_triton_down_is_put_off_and_the_others_are_served(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    """Every call with a certain user fails as if Triton were away: nobody else may suffer from it for long."""
    settings = published(small_world, tmp_path)
    search = channel_pb2.FeedbackEvent(
        event_id="1", user_id="poisoner", type=channel_pb2.EVENT_TYPE_SEARCH, query="bring it down"
    )
    search.time.seconds = NOW - 1
    with FeedbackStore(settings.feedback_path, clock=lambda: NOW) as feedback:
        feedback.record([search])

    def answers(prompt: str) -> str:
        if "bring it down" in prompt:
            raise TritonStatus(grpc.StatusCode.UNAVAILABLE)
        return answer_with(*small_world.catalogue.categories)

    async with talking_triton(answers) as (url, _), running_nearline(settings, pipeline(url)) as nearline:
        store = nearline.store
        want(store, "poisoner", priority=1.0)
        want(store, *small_world.user_ids)
        await until(lambda: census(store).ready == 0)
        (entry,) = delayed(store, Kind.INTERESTS)
        counted = census(store)
    assert (entry.user_id, entry.attempts) == ("poisoner", 1)
    assert "UNAVAILABLE" in entry.last_error
    assert counted.records == len(small_world.user_ids)


async def test_triton_coming_back_between_two_tries_is_nobodys_fault(small_world: SmallWorld, tmp_path: Path) -> None:
    settings = published(small_world, tmp_path, nearline_batch=1)
    absences = [TritonStatus(grpc.StatusCode.UNAVAILABLE)]

    def answers(_: str) -> str:
        if absences:
            raise absences.pop()
        return answer_with(*small_world.catalogue.categories)

    async with talking_triton(answers) as (url, _), opened_nearline(settings, pipeline(url)) as nearline:
        want(nearline.store, *small_world.user_ids[:2])
        refreshed = await nearline.loops[Kind.INTERESTS].step()
        counted = census(nearline.store)
    assert refreshed is not None
    assert (counted.records, counted.ready, counted.delayed) == (2, 0, 0)


async def test_records_carry_the_snapshot_they_were_made_with(small_world: SmallWorld, tmp_path: Path) -> None:
    settings = published(small_world, tmp_path)
    async with (
        talking_triton(lambda _: answer_with(*small_world.catalogue.categories)) as (url, _),
        running_nearline(settings, pipeline(url)) as nearline,
    ):
        want(nearline.store, small_world.user_ids[0])
        await until(lambda: nearline.store.interests(small_world.user_ids[0]) is not None)
        newer = spec_of(small_world, style="chat", writes=True)
        snapshot = write_nearline_snapshot(small_world, tmp_path / "snapshots", newer, created_at=NOW + DAY)
        Publications(tmp_path / "snapshots").publish(snapshot.name)
        served = {"kind": "interests", "snapshot": snapshot.name, "model": newer.model_name}
        sample = nearline.telemetry.registry.get_sample_value
        await until(lambda: sample("serendipity_nearline_model_info", served) == 1)
        want(nearline.store, small_world.user_ids[1])
        await until(lambda: nearline.store.interests(small_world.user_ids[1]) is not None)
        reasoners = [nearline.store.paths(user_id) for user_id in small_world.user_ids[:2]]
    assert [paths.reasoner for paths in reasoners if paths] == [
        spec_of(small_world, writes=True).model_name,
        newer.model_name,
    ]


async def test_without_a_snapshot_or_a_model_nothing_is_taken(small_world: SmallWorld, tmp_path: Path) -> None:
    settings = settings_below(tmp_path)
    async with opened_nearline(settings, pipeline("127.0.0.1:1")) as nearline:
        want(nearline.store, "user")
        copy_snapshot(small_world, tmp_path / "snapshots", "without")
        Publications(tmp_path / "snapshots").publish("without")
        await nearline.watcher.converge()
        assert await nearline.loops[Kind.INTERESTS].step() is None
        assert len(nearline.store.queue(Kind.INTERESTS).take(1, NOW)) == 1


async def test_housekeeping_removes_what_is_over_and_who_is_erased(small_world: SmallWorld, tmp_path: Path) -> None:
    settings = published(small_world, tmp_path)
    users = small_world.user_ids[:3]
    async with (
        talking_triton(lambda _: answer_with(*small_world.catalogue.categories)) as (url, _),
        running_nearline(settings, pipeline(url)) as nearline,
    ):
        want(nearline.store, *users)
        await until(lambda: all(nearline.store.interests(user_id) is not None for user_id in users))
    with ErasureList(settings.erasures_path) as erasures:
        erasures.add(users[0])
    async with opened_nearline(settings, pipeline("127.0.0.1:1")) as nearline:
        cleared = clean_up(nearline, pipeline("127.0.0.1:1"), NOW)
        assert (cleared.erased, cleared.interests) == (1, 0)
        assert nearline.store.interests(users[0]) is None
        wall = ChannelSettings(interest_hard_age_days=30.0)
        assert clean_up(nearline, wall, NOW + 29 * DAY).interests == 0
        assert clean_up(nearline, wall, NOW + 31 * DAY).interests == 2
        assert census(nearline.store).records == 0


def test_only_one_process_generates(tmp_path: Path) -> None:
    settings = settings_below(tmp_path)
    with exclusive(settings) as first, exclusive(settings) as second:
        assert (first, second) == (True, False)
    with exclusive(settings) as again:
        assert again


async def test_a_batch_in_hand_when_it_is_told_to_stop_stays_queued(small_world: SmallWorld, tmp_path: Path) -> None:
    settings = published(small_world, tmp_path, drain_seconds=0.05)
    with hung_triton() as url:
        async with running_nearline(settings, pipeline(url)) as nearline:
            want(nearline.store, small_world.user_ids[0])
            await until(lambda: nearline.loops[Kind.INTERESTS].in_hand > 0)
    with NearlineStore(settings.nearline_path) as store:
        (entry,) = store.queue(Kind.INTERESTS).take(10, NOW)
    assert (entry.user_id, entry.attempts) == (small_world.user_ids[0], 0)


async def test_housekeeping_survives_what_nobody_foresaw_and_forgets_users_all_the_same(
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = published(small_world, tmp_path)
    erased, kept = small_world.user_ids[:2]
    with NearlineStore(settings.nearline_path, map_bytes=settings.nearline_map_bytes) as store:
        old = records_pb2.InterestsRecord(node_ids=[1], weights=[1], generated_at=1)
        paths = records_pb2.InterestPathsRecord(paths=[records_pb2.InterestPath(seed="seed")])
        with store.env.writing() as txn:
            for user_id in (erased, kept):
                store.put(txn, user_key(user_id), old)
                store.put(txn, user_key(user_id), paths)
    with ErasureList(settings.erasures_path) as erasures:
        erasures.add(erased)
    broken = [True]
    listed = Publications.listed

    def list_or_fail(publications: Publications) -> list[ListedSnapshot]:
        if broken:
            raise OSError("stale file handle")
        return listed(publications)

    monkeypatch.setattr(Publications, "listed", list_or_fail)
    monkeypatch.setattr(process, "_HOUSEKEEPING_SECONDS", 0.01)
    with capture_logs() as logs:
        async with running_nearline(settings, pipeline("127.0.0.1:1")) as nearline:
            await until(lambda: sum(line["event"] == "housekeeping failed" for line in logs) > 1)
            assert nearline.store.interests(erased) is None
            assert nearline.store.interests(kept) is not None
            broken.clear()
            await until(lambda: nearline.store.interests(kept) is None)


async def test_an_erasure_list_that_cannot_be_read_keeps_nothing_else_from_expiring(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    settings = published(small_world, tmp_path)
    async with opened_nearline(settings, pipeline("127.0.0.1:1")) as nearline:
        spoil(nearline.store, nearline.store.records[Kind.LISTS][0], b"broken")
        nearline.erasures.close()
        cleared = [clean_up(nearline, pipeline("127.0.0.1:1"), NOW) for _ in range(2)]
    assert [(one.erased, one.lists) for one in cleared] == [(0, 1), (0, 0)]


async def test_what_ends_a_part_of_the_work_unforeseen_is_told_and_raised(
    small_world: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, failed = published(small_world, tmp_path), asyncio.Event()
    monkeypatch.setattr(NearlineLoop, "run", _end)
    with pytest.raises(RuntimeError, match="unforeseen"):
        async with running_nearline(settings, pipeline("127.0.0.1:1"), on_failure=failed.set):
            await asyncio.wait_for(failed.wait(), 10)


def test_a_process_a_part_of_which_ended_unforeseen_ends_with_an_error(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_be_a_broken_process, args=(settings_below(tmp_path), pipeline("127.0.0.1:1")))
    child.start()
    child.join(60)
    assert child.exitcode == 1


def _be_a_broken_process(settings: ServerSettings, channel_settings: ChannelSettings) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NearlineLoop, "run", _end)
        run_nearline(settings, channel_settings)


async def _end(loop: NearlineLoop[Any], told: asyncio.Event) -> None:
    raise RuntimeError("unforeseen")
