"""The channel over gRPC, a real server on a free port over a real snapshot."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.errors import ClientError, DeadlineExceeded, InvalidRequest
from serendipity.channel.client.messages import Feedback, RecentEvent, recall_request
from serendipity.channel.service.server import SERVICE
from serendipity.channel.service.worker import Worker, run_worker
from serendipity.channel.service.worker_status import read_statuses
from serendipity.item_ids import ItemIds
from serendipity.v1 import channel_pb2, channel_pb2_grpc
from tests.channel.served import (
    channel_settings,
    copy_snapshot,
    damage,
    hung_triton,
    metrics,
    publish,
    scrape,
    server_settings,
    service,
    until,
)
from tests.fixtures.serving_log import read_serving_log
from tests.fixtures.small_world import NOW, SmallWorld

Service = tuple[AsyncSerendipityClient, Worker]


@pytest.fixture
def directory(small_world: SmallWorld, tmp_path: Path) -> Path:
    """A service's directory with the snapshots v1 (published) and v2."""
    for version in ("v1", "v2"):
        copy_snapshot(small_world, tmp_path / "snapshots", version)
    publish(tmp_path, "v1")
    return tmp_path


@pytest.fixture
async def running(directory: Path) -> AsyncIterator[Service]:
    async with service(server_settings(directory), channel_settings()) as started:
        yield started


async def test_a_known_user_gets_novel_scored_explained_candidates(running: Service, small_world: SmallWorld) -> None:
    client, _ = running
    user = small_world.user_ids[0]
    result = await client.recall(user, count=20, explain=True)
    assert result.snapshot == "v1"
    assert len(result.candidates) == 20
    clicked = {small_world.contents.catalogue.categories[c - 1] for c in small_world.clicks(user).categories if c}
    assert not clicked & {candidate.category for candidate in result.candidates}
    scores = [candidate.score for candidate in result.candidates]
    assert scores == sorted(scores, reverse=True)
    assert all(candidate.reasons and candidate.reasons[0].text for candidate in result.candidates)
    assert all(candidate.features["novel"] == 1.0 for candidate in result.candidates)


async def test_an_unknown_user_is_a_cold_start_and_no_error(running: Service, small_world: SmallWorld) -> None:
    client, _ = running
    result = await client.recall(small_world.cold_user_id, count=5)
    assert len(result.candidates) == 5
    assert [code for code, _, _ in result.warnings] == ["cold_user"]
    assert result.candidates[0].reasons == ()


async def test_without_triton_the_answer_comes_and_says_it_is_degraded(running: Service) -> None:
    client, _ = running
    result = await client.recall("anyone", count=5)
    assert result.degraded
    assert "user tower" in result.degraded_reasons[0]
    assert result.message.versions.user_tower == "stored user vectors"


async def test_a_host_without_triton_runs_the_user_tower_in_its_workers(
    directory: Path, small_world: SmallWorld
) -> None:
    settings = server_settings(directory, user_tower_path=small_world.tower_path)
    async with service(settings, channel_settings()) as (client, _):
        result = await client.recall(small_world.user_ids[0], count=5)
    assert not result.degraded
    assert result.message.versions.user_tower == small_world.tower.model_name


async def test_callers_who_come_together_get_the_answers_they_would_get_alone(
    running: Service, small_world: SmallWorld
) -> None:
    client, _ = running
    alone = [await client.recall(user, count=10) for user in small_world.user_ids]
    together = await asyncio.gather(*(client.recall(user, count=10) for user in small_world.user_ids))
    for a, b in zip(alone, together, strict=True):
        assert [candidate.item_id for candidate in a.candidates] == [candidate.item_id for candidate in b.candidates]


async def test_a_bad_request_names_every_field_at_fault(running: Service) -> None:
    client, _ = running
    with pytest.raises(InvalidRequest) as caught:
        await client.recall("", count=1_001, experiment_tag="x" * 129)
    assert [field for field, _ in caught.value.violations] == ["user_id", "count", "experiment_tag"]
    assert "expected 1 to 1000" in dict(caught.value.violations)["count"]


async def test_violations_travel_as_standard_details(running: Service) -> None:
    _, worker = running
    async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
        stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Recall(channel_pb2.RecallRequest(user_id="a"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    bad_request = error_details_pb2.BadRequest()
    assert status_pb2.Status.FromString(details).details[0].Unpack(bad_request)
    assert [violation.field for violation in bad_request.field_violations] == ["count"]


async def test_a_batch_answers_in_order_like_single_calls(running: Service, small_world: SmallWorld) -> None:
    client, _ = running
    users = [*small_world.user_ids[:40], small_world.cold_user_id]
    batch = await client.recall_batch([recall_request(user, count=7) for user in users])
    for user, result in zip(users, batch, strict=True):
        alone = await client.recall(user, count=7)
        assert [c.item_id for c in result.candidates] == [c.item_id for c in alone.candidates]


async def test_a_batch_names_the_request_at_fault(running: Service) -> None:
    client, _ = running
    with pytest.raises(InvalidRequest) as caught:
        await client.recall_batch([recall_request("anna", count=1), recall_request("bob", count=0)])
    assert [field for field, _ in caught.value.violations] == ["requests[1].count"]
    with pytest.raises(InvalidRequest, match="257 entries; expected at most 256"):
        await client.recall_batch([recall_request("anna", count=1)] * 257)
    # All violations together would be more than a client takes as metadata.
    with pytest.raises(InvalidRequest, match="240 more than these: requests"):
        await client.recall_batch([recall_request("anna", count=0)] * 256)


async def test_a_click_acknowledged_makes_its_category_known_to_the_next_recall(
    running: Service, small_world: SmallWorld
) -> None:
    client, _ = running
    user = small_world.user_ids[1]
    before = await client.recall(user, count=30)
    clicked = before.candidates[0]
    recorded = await client.record_feedback([Feedback(user, clicked.item_id, "click", before.recall_id)])
    assert recorded.accepted == 1
    after = await client.recall(user, count=30)
    assert clicked.category in {candidate.category for candidate in before.candidates}
    assert clicked.category not in {candidate.category for candidate in after.candidates}


async def test_a_click_counts_for_novelty_after_its_item_has_left_the_catalogue(
    running: Service, small_world: SmallWorld, directory: Path
) -> None:
    client, _ = running
    user = small_world.user_ids[1]
    clicked = (await client.recall(user, count=30)).candidates[0]
    await client.record_feedback([Feedback(user, clicked.item_id, "click")])
    without = copy_snapshot(small_world, directory / "snapshots", "without")
    ids = ["another" if item_id == clicked.item_id else item_id for item_id in small_world.item_ids]
    ItemIds.of(ids).write(without)
    manifest = layout.read_manifest(without)
    manifest.checksums.update(layout.file_checksums(without))
    layout.write_manifest(without, manifest)
    publish(directory, "without")

    async def served() -> bool:
        return (await client.recall(user, count=1)).message.versions.snapshot == "without"

    await until(served)
    after = await client.recall(user, count=30)
    assert clicked.category not in {candidate.category for candidate in after.candidates}


async def test_a_click_whose_time_cannot_be_counts_now_at_both_doors_and_is_said(
    running: Service, small_world: SmallWorld
) -> None:
    client, _ = running
    user = small_world.user_ids[1]
    before = await client.recall(user, count=30)
    in_request, recorded = (
        next(c for c in before.candidates if c.category == name)
        for name in sorted({c.category for c in before.candidates})[:2]
    )
    told = await client.record_feedback([Feedback(user, recorded.item_id, time=NOW * 1_000)])
    assert [(w.code, w.field) for w in told.warnings] == [(channel_pb2.WARNING_CODE_TIME_CORRECTED, "events")]
    after = await client.recall(user, count=30, recent_events=[RecentEvent(in_request.item_id, time=0)])
    assert [(code, field) for code, field, _ in after.warnings] == [("time_corrected", "recent_events")]
    assert not {in_request.category, recorded.category} & {candidate.category for candidate in after.candidates}


async def test_an_item_exposed_is_not_served_again(running: Service, small_world: SmallWorld) -> None:
    client, _ = running
    user = small_world.user_ids[2]
    before = await client.recall(user, count=5)
    shown = before.candidates[0].item_id
    await client.record_feedback([Feedback(user, shown, "exposure", before.recall_id, time=NOW - 60)])
    after = await client.recall(user, count=5)
    assert shown not in {candidate.item_id for candidate in after.candidates}


async def test_what_the_request_says_was_shown_is_not_served_and_a_view_is_said_to_change_nothing(
    running: Service, small_world: SmallWorld
) -> None:
    client, _ = running
    user = small_world.user_ids[2]
    before = [candidate.item_id for candidate in (await client.recall(user, count=5)).candidates]
    shown, viewed, long_ago = before[:3]
    events = [
        RecentEvent(long_ago, "exposure", time=NOW - 2 * 86_400),
        RecentEvent(shown, "exposure"),
        RecentEvent(viewed, "view"),
    ]
    after = await client.recall(user, count=5, recent_events=events)
    returned = [candidate.item_id for candidate in after.candidates]
    assert shown not in returned
    assert {viewed, long_ago} <= set(returned)
    assert [(code, field) for code, field, _ in after.warnings] == [("event_ignored", "recent_events")]
    assert {f.filter: f.removed for f in after.message.filter_counts}["served"] == 1


async def test_feedback_is_idempotent_and_refuses_event_by_event(running: Service) -> None:
    client, _ = running
    events = [Feedback("anna", "tea", event_id="1"), Feedback("anna", "", event_id="2")]
    first = await client.record_feedback(events)
    assert (first.accepted, first.duplicates) == (1, 0)
    assert [(r.index, r.event_id) for r in first.rejected] == [(1, "2")]
    assert (await client.record_feedback(events)).duplicates == 1
    with pytest.raises(InvalidRequest, match="1001 entries"):
        await client.record_feedback([Feedback("anna", "tea")] * 1_001)


async def test_an_item_out_of_stock_is_gone_at_once_and_comes_back(running: Service, small_world: SmallWorld) -> None:
    client, _ = running
    user = small_world.user_ids[3]
    best = (await client.recall(user, count=5)).candidates[0].item_id
    result = await client.update_items({best: False, "of the next catalogue": True})
    assert (result.updated, list(result.unknown_item_ids), result.unknown_count) == (2, ["of the next catalogue"], 1)
    assert best not in {c.item_id for c in (await client.recall(user, count=5)).candidates}
    await client.update_items({best: True})
    assert (await client.recall(user, count=5)).candidates[0].item_id == best
    with pytest.raises(InvalidRequest, match=r"items\[0\].item_id"):
        await client.update_items({"": True})


async def test_categories_are_listed_as_allow_and_deny_lists_take_them(
    running: Service, small_world: SmallWorld
) -> None:
    client, _ = running
    listed = await client.list_categories()
    catalogue = small_world.contents.catalogue
    assert listed.snapshot == "v1"
    assert [category.name for category in listed.categories] == sorted(catalogue.categories)
    for category in listed.categories:
        assert catalogue.categories[category.number - 1] == category.name
        items = catalogue.item_categories == category.number
        assert (category.num_items, category.num_available) == (items.sum(), (items & catalogue.available).sum())
    # What is sold out is no longer counted as available, and what comes back is again.
    item, name = next(
        (c.item_id, c.category) for c in (await client.recall(small_world.user_ids[0], count=1)).candidates
    )
    before = next(category for category in listed.categories if category.name == name)
    for available, missing in ((False, 1), (True, 0)):
        await client.update_items({item: available})
        now = next(c for c in (await client.list_categories()).categories if c.name == name)
        assert (now.num_items, now.num_available) == (before.num_items, before.num_available - missing)
    allowed = await client.recall(small_world.cold_user_id, count=5, allow_categories=[name])
    assert {candidate.category for candidate in allowed.candidates} == {name}


@pytest.mark.parametrize("no_id", ["x" * 513, "a\tb", "a\x9fb"])
async def test_ids_are_held_to_one_rule_in_every_call(running: Service, no_id: str) -> None:
    client, _ = running
    for call, field in (
        (client.recall(no_id), "user_id"),
        (client.recall_batch([recall_request("anna"), recall_request(no_id)]), "requests[1].user_id"),
        (client.update_items({"tea": True, no_id: False}), "items[1].item_id"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await call
        assert [name for name, _ in caught.value.violations] == [field]
    recorded = await client.record_feedback([Feedback(no_id, "tea"), Feedback("anna", no_id)])
    assert [refused.reason.split(":")[0] for refused in recorded.rejected] == ["user_id", "item_id"]


async def test_what_is_only_looked_up_is_nobodys_id_and_costs_no_answer(running: Service) -> None:
    client, _ = running
    no_id = "x" * 513
    result = await client.recall(
        "anna", count=5, recent_events=[RecentEvent(no_id)], exclude_item_ids=[no_id], deny_categories=[no_id]
    )
    assert len(result.candidates) == 5
    assert {(warning.code, warning.field) for warning in result.message.warnings} >= {
        (channel_pb2.WARNING_CODE_EVENT_IGNORED, "recent_events"),
        (channel_pb2.WARNING_CODE_UNKNOWN_ITEM, "exclude_item_ids"),
        (channel_pb2.WARNING_CODE_UNKNOWN_CATEGORY, "deny_categories"),
    }


async def test_the_answer_comes_before_the_callers_deadline_though_triton_hangs(directory: Path) -> None:
    with hung_triton() as url:
        # The tower's share of the caller's ten seconds is half a second; of the most a call may take, it would be more
        # than those ten.
        pipeline = channel_settings(triton_url=url, tower_share=0.05, max_deadline_ms=600_000.0)
        async with service(server_settings(directory), pipeline) as (client, _):
            # Raises DeadlineExceeded where the answer comes too late.
            result = await client.recall("anyone", count=5, timeout=10.0)
            assert result.degraded
            assert len(result.candidates) == 5


async def test_a_deadline_that_is_over_ends_the_call_and_the_next_is_answered(running: Service) -> None:
    client, _ = running
    with pytest.raises(DeadlineExceeded):
        # Not 0: gRPC rounds up to a whole millisecond, which can be enough.
        await client.recall("anyone", count=5, timeout=-1)
    assert (await client.recall("anyone", count=5)).candidates


async def test_a_cancelled_call_is_counted_and_leaves_nothing_behind(directory: Path) -> None:
    with hung_triton() as url:
        pipeline = channel_settings(triton_url=url, max_deadline_ms=60_000.0)
        async with service(server_settings(directory), pipeline) as (client, worker):
            call = asyncio.create_task(client.recall("anyone", count=5, timeout=60.0))

            async def in_flight() -> bool:
                return scrape(await metrics(worker), "serendipity_requests_in_flight")[""] == 1.0

            await until(in_flight)
            call.cancel()

            async def cancelled() -> bool:
                counted = scrape(await metrics(worker), "serendipity_requests_total")
                return counted.get('{code="CANCELLED",method="Recall"}') == 1.0

            await until(cancelled)
            assert scrape(await metrics(worker), "serendipity_requests_in_flight")[""] == 0.0


async def test_a_worker_listens_only_once_it_has_a_snapshot_to_serve(small_world: SmallWorld, tmp_path: Path) -> None:
    damage(copy_snapshot(small_world, tmp_path / "snapshots", "damaged"))
    (tmp_path / "snapshots" / layout.CURRENT).symlink_to("damaged")
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    settings = server_settings(tmp_path)
    waiting = service(settings, channel_settings())
    entering = asyncio.create_task(waiting.__aenter__())

    async def refused() -> bool:
        return any("SHA-256" in status.error for status in read_statuses(settings.workers_path))

    await until(refused)
    assert not entering.done()
    publish(tmp_path, "v1")
    client, worker = await entering
    async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        for name in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert (await client.recall("anyone", count=5)).snapshot == "v1"
    await waiting.__aexit__(None, None, None)


async def test_a_worker_that_waits_for_a_snapshot_ends_when_it_is_told_to(tmp_path: Path) -> None:
    settings = server_settings(tmp_path)
    arguments = (settings, channel_settings(), 0)
    process = multiprocessing.get_context("spawn").Process(target=run_worker, args=arguments)
    process.start()

    async def started() -> bool:
        return bool(read_statuses(settings.workers_path))

    await until(started)
    process.terminate()
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode == 0


async def test_the_state_is_its_owners_alone_also_what_was_there_before(directory: Path) -> None:
    settings = server_settings(directory)
    settings.feedback_path.mkdir(parents=True, mode=0o755)
    for path in (settings.state, settings.feedback_path):
        path.chmod(0o755)
    async with service(settings, channel_settings()) as (client, _):
        await client.recall("anyone", count=5)
        await client.record_feedback([Feedback("anna", "tea")])
    assert settings.state.stat().st_mode & 0o777 == 0o700
    stores = (settings.feedback_path, settings.nearline_path, settings.erasures_path, settings.availability_path)
    for place in (*stores, settings.serving_log_path):
        assert place.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}


async def test_a_worker_that_starts_with_a_damaged_snapshot_serves_the_one_before_and_says_so(
    directory: Path,
) -> None:
    publish(directory, "v2")
    vectors = directory / "snapshots" / "v2" / layout.USERS / "data.mdb"
    with vectors.open("r+b") as file:
        file.truncate(vectors.stat().st_size // 2)
    settings = server_settings(directory)
    async with service(settings, channel_settings()) as (client, _):
        assert (await client.recall("anyone", count=5)).snapshot == "v1"
        (status,) = read_statuses(settings.workers_path)
        assert status.version == "v1"
        assert "SHA-256" in status.error
        assert "v1, wanted before, stands in" in status.error


async def test_reflection_lists_the_services(running: Service) -> None:
    _, worker = running
    async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = [a async for a in stub.ServerReflectionInfo(iter([request]))]
    assert {SERVICE, "grpc.health.v1.Health"} <= {s.name for s in answer.list_services_response.service}


async def test_snapshots_are_swapped_under_load_without_a_failed_call(running: Service, directory: Path) -> None:
    client, _ = running
    seen: list[str] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            seen.append((await client.recall("anyone", count=10)).snapshot)

    async def answered() -> bool:
        return bool(seen)

    callers = [asyncio.create_task(load()) for _ in range(4)]
    await until(answered)
    assert set(seen) == {"v1"}
    for version in ("v2", "v1", "v2"):
        await asyncio.to_thread(publish, directory, version)

        async def serves(version: str = version) -> bool:
            # A call of its own, too: one of the callers' may begin before the swap and end after it.
            return seen[-1] == version == (await client.recall("anyone", count=10)).snapshot

        await until(serves)
    stop.set()
    await asyncio.gather(*callers)
    assert set(seen) == {"v1", "v2"}
    assert (await client.recall("anyone", count=10)).snapshot == "v2"


async def test_a_bad_snapshot_is_refused_the_old_one_stays_and_a_good_one_follows(
    running: Service, directory: Path
) -> None:
    client, worker = running
    damage(directory / "snapshots" / "v2")
    # Past the publication's own checks: damage between publishing and opening.
    (directory / "snapshots" / ".link").symlink_to("v2")
    (directory / "snapshots" / ".link").replace(directory / "snapshots" / layout.CURRENT)

    async def refused() -> bool:
        return "SHA-256" in read_statuses(directory / "state" / "workers")[0].error

    await until(refused)
    assert (await client.recall("anyone", count=5)).snapshot == "v1"
    assert read_statuses(directory / "state" / "workers")[0].version == "v1"
    assert scrape(await metrics(worker), "serendipity_snapshot_swaps_total")['{outcome="refused"}'] == 1.0
    publish(directory, "v1")

    async def content() -> bool:
        return read_statuses(directory / "state" / "workers")[0].error == ""

    await until(content)


async def test_the_callers_request_id_comes_back(running: Service) -> None:
    _, worker = running
    async with grpc.aio.insecure_channel(f"127.0.0.1:{worker.port}") as channel:
        stub = channel_pb2_grpc.SerendipityChannelStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Recall(channel_pb2.RecallRequest(user_id="a", count=1), metadata=(("x-request-id", "mine-7"),))
        await call
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine-7"
        call = stub.Recall(channel_pb2.RecallRequest(user_id="a", count=1), metadata=(("x-request-id", "bad id"),))
        await call
        assert len(dict(await call.trailing_metadata())["x-request-id"]) == 32
    client, _ = running
    with pytest.raises(ClientError) as caught:
        await client.recall("", request_id="refused-7")
    assert caught.value.request_id == "refused-7"


async def test_the_metrics_tell_what_was_answered(running: Service, small_world: SmallWorld) -> None:
    client, worker = running
    await client.recall(small_world.user_ids[0], count=10)
    with pytest.raises(InvalidRequest):
        await client.recall("", count=10)
    await client.record_feedback([Feedback("anna", "tea", event_id="1"), Feedback("anna", "tea", event_id="1")])
    await client.update_items({"tea": False})
    text = await metrics(worker)
    requests = scrape(text, "serendipity_requests_total")
    assert requests['{code="OK",method="Recall"}'] == 1.0
    assert requests['{code="INVALID_ARGUMENT",method="Recall"}'] == 1.0
    assert sum(scrape(text, "serendipity_novel_candidates_total").values()) == 10.0
    returned = {k: v for k, v in scrape(text, "serendipity_candidates_total").items() if 'step="returned"' in k}
    assert sum(returned.values()) == 10.0
    assert scrape(text, "serendipity_degraded_answers_total")[""] == 1.0
    assert scrape(text, "serendipity_stage_seconds_count")['{stage="hydrate"}'] == 1.0
    assert scrape(text, "serendipity_interests_age_seconds_count")[""] == 1.0
    assert '{filter="novelty"}' in scrape(text, "serendipity_removed_candidates_total")
    feedback = scrape(text, "serendipity_feedback_events_total")
    assert (feedback['{outcome="accepted"}'], feedback['{outcome="duplicate"}']) == (1.0, 1.0)
    assert scrape(text, "serendipity_serving_log_dropped_total")[""] == 0.0
    assert scrape(text, "serendipity_availability_generation")[""] == 1.0
    (labels,) = scrape(text, "serendipity_snapshot_info")
    assert 'version="v1"' in labels


async def test_a_short_answer_says_why_and_is_counted_by_cause(running: Service, small_world: SmallWorld) -> None:
    client, worker = running
    user = small_world.user_ids[0]
    assert (await client.recall(user, count=10)).shortfalls == ()
    nothing_listed = await client.recall(user, count=10, deny_categories=small_world.catalogue.categories)
    assert nothing_listed.candidates == ()
    assert nothing_listed.shortfalls == (
        ("categories_not_listed", "found no category that the allow and deny lists leave"),
    )
    bounded = await client.recall(user, count=10, quotas={"interest": (0, 2), "collaborative": (0, 2)})
    assert [cause for cause, _ in bounded.shortfalls] == ["quotas", "no_list", "no_graph"]
    assert scrape(await metrics(worker), "serendipity_shortfalls_total") == {
        '{cause="categories_not_listed"}': 1.0, '{cause="quotas"}': 1.0, '{cause="no_list"}': 1.0,
        '{cause="no_graph"}': 1.0,
    }  # fmt: skip


async def test_quotas_that_cannot_be_met_are_refused_by_field(running: Service) -> None:
    client, _ = running
    with pytest.raises(InvalidRequest, match=r"source_quotas: found min_counts of 11 together, .* count: 10"):
        await client.recall("anna", count=10, quotas={"interest": (6, 0), "collaborative": (5, 0)})


async def test_what_was_just_clicked_is_returned_only_if_repeats_are_allowed(
    running: Service, small_world: SmallWorld
) -> None:
    client, _ = running
    user = small_world.user_ids[0]
    first = (await client.recall(user, count=1, novelty="off")).candidates[0].item_id
    again, other = [
        (await client.recall(user, count=1, novelty="off", allow_repeats=repeats, recent_events=[RecentEvent(first)]))
        for repeats in (True, False)
    ]
    assert again.candidates[0].item_id == first != other.candidates[0].item_id
    (removed,) = [count.removed for count in other.message.filter_counts if count.filter == "repeated"]
    assert removed
    await client.record_feedback([Feedback(user, first, "order")])
    assert (await client.recall(user, count=1, novelty="off")).candidates[0].item_id != first


async def test_what_was_served_is_in_the_log_once_the_worker_has_ended(
    directory: Path, small_world: SmallWorld
) -> None:
    async with service(server_settings(directory), channel_settings()) as (client, _):
        result = await client.recall(
            small_world.user_ids[0], count=5, experiment_tag="b", recent_events=[RecentEvent("nothing known", "view")]
        )
    (record,) = read_serving_log(directory / "state" / "serving_log")
    assert record.response.recall_id == result.recall_id
    assert record.experiment_tag == "b"
    assert list(record.response.item_ids) == [candidate.item_id for candidate in result.candidates]
    assert record.response.reasons
    assert not result.message.reasons


async def test_feedback_of_another_shards_user_is_refused_and_recall_says_so(directory: Path) -> None:
    async with service(server_settings(directory, shard=0, num_shards=2), channel_settings()) as (client, _):
        recorded = await client.record_feedback([Feedback(f"user-{i}", "tea") for i in range(20)])
        assert 0 < recorded.accepted < 20
        foreign = f"user-{recorded.rejected[0].index}"
        assert recorded.rejected[0].reason == "user_id: belongs to shard 1, this host is shard 0"
        assert "not_owner" in [code for code, _, _ in (await client.recall(foreign, count=5)).warnings]
