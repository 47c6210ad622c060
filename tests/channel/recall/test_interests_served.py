"""Interests on a running service: near-line records, feedback that moves weights, users who are forgotten meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.channel.client import AsyncSerendipityClient
from serendipity.channel.client.messages import Feedback, RecentEvent, recall_request, to_feedback_event
from serendipity.channel.nearline.outcome import Completed
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.service.worker import Worker
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.feedback_event import FORGOTTEN
from serendipity.v1 import channel_pb2, records_pb2
from tests.channel.served import (
    channel_settings,
    copy_snapshot,
    publish,
    scrape,
    server_settings,
    service,
)
from tests.fixtures.serving_log import read_serving_log
from tests.fixtures.small_world import DAY, NOW, SmallWorld

INTERESTS_ONLY = {"collaborative": (0, 0)}


@pytest.fixture
def directory(small_world: SmallWorld, tmp_path: Path) -> Path:
    """A service's directory with one snapshot, published, that an InterestGPT goes with."""
    copied = copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    manifest = layout.read_manifest(copied)
    manifest.interest_gpt.model_name = "interest_gpt_0"
    layout.write_manifest(copied, manifest)
    publish(tmp_path, "v1")
    return tmp_path


@pytest.fixture
def user_id(small_world: SmallWorld) -> str:
    """One with several interests."""
    return max(small_world.user_ids, key=lambda user: len(small_world.planted[user]))


def store_interests(directory: Path, world: SmallWorld, user_id: str, node_id: int) -> None:
    """Do what the near-line process does, in a process of its own as it is."""
    with NearlineStore(directory / "state" / "nearline") as store:
        store.want(user_id, records_pb2.REFRESH_CAUSE_MISSING, 1.0)
        assert store.flush(10.0)
        (entry,) = store.queue(Kind.INTERESTS).take(1, NOW)
        manifest = layout.read_manifest(directory / "snapshots" / "v1")
        interests = records_pb2.InterestsRecord(
            node_ids=[node_id],
            weights=[700],
            generated_at=NOW,
            expires_at=NOW + 7 * DAY,
            taxonomy_hash=int(manifest.taxonomy_hash[:16], 16),
            vocabulary_id=int(manifest.vocabulary_id[:16], 16),
        )
        path = records_pb2.InterestPath(
            seed_kind=records_pb2.SEED_KIND_SEARCH,
            seed="cold brew",
            core_demand="a quiet morning",
            latent_interest=world.contents.nodes[node_id].name,
        )
        done = Completed(entry, (interests, records_pb2.InterestPathsRecord(paths=[path], reasoner="test")))
        assert store.queue(Kind.INTERESTS).settle([done], NOW)["completed"] == 1


def queued(directory: Path) -> list[tuple[str, int]]:
    with NearlineStore(directory / "state" / "nearline") as store:
        return [(entry.user_id, entry.cause) for entry in store.queue(Kind.INTERESTS).take(100, time.time())]


async def metrics(worker: Worker) -> str:
    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.metrics_port}/metrics") as response:
            return str(response.read().decode())

    return await asyncio.to_thread(get)


async def test_a_cold_user_who_searched_is_queued_refreshed_and_served_with_the_path(
    directory: Path, small_world: SmallWorld
) -> None:
    async with service(server_settings(directory), channel_settings()) as (client, worker):
        await client.recall("newcomer", count=5)
        await client.record_feedback([Feedback("newcomer", type="search", query="cold brew")])
        before = await client.recall("newcomer", count=5, explain=True)
        await client.recall("newcomer", count=5)
        text = await metrics(worker)
        assert scrape(text, "serendipity_interests_total") == {'{freshness="fresh",origin="population"}': 3.0}
    assert queued(directory) == [("newcomer", records_pb2.REFRESH_CAUSE_MISSING)]
    node = small_world.contents.nodes[5]
    store_interests(directory, small_world, "newcomer", node.node_id)
    async with service(server_settings(directory), channel_settings()) as (client, worker):
        after = await client.recall("newcomer", count=5, explain=True, quotas=INTERESTS_ONLY)
        text = await metrics(worker)
    assert not any("cold brew" in reason.text for c in before.candidates for reason in c.reasons)
    reason = after.candidates[0].reasons[0]
    assert (reason.seed, reason.core_demand, reason.latent_interest) == ("cold brew", "a quiet morning", node.name)
    assert "You searched for “cold brew”" in reason.text
    assert reason.weight == pytest.approx(0.7)
    assert {candidate.category for candidate in after.candidates} == {node.path[0]}
    assert scrape(text, "serendipity_interests_total") == {'{freshness="fresh",origin="nearline"}': 1.0}
    assert queued(directory) == []


async def shares(client: AsyncSerendipityClient, user_id: str) -> Counter[str]:
    """How many of an answer's candidates each interest led to. Without novelty, so that clicks do not end it."""
    answer = await client.recall(user_id, count=40, quotas=INTERESTS_ONLY, novelty="off", explain=True)
    assert len(answer.candidates) == 40
    return Counter(candidate.reasons[0].latent_interest for candidate in answer.candidates)


async def weights(client: AsyncSerendipityClient, user_id: str, *events: RecentEvent) -> dict[str, float]:
    answer = await client.recall(user_id, count=60, novelty="off", explain=True, recent_events=events)
    assert [code for code, _, _ in answer.warnings] == []
    reasons = [reason for candidate in answer.candidates for reason in candidate.reasons]
    return {reason.latent_interest: reason.weight for reason in reasons if reason.source == "interest"}


async def test_searches_and_favourites_raise_the_interests_they_are_of_at_both_doors(
    directory: Path, small_world: SmallWorld, user_id: str
) -> None:
    async with service(server_settings(directory), channel_settings()) as (client, _):
        before = await weights(client, user_id)
        searched, saved = list(before)[:2]
        row = next(node for node in small_world.contents.nodes if node.name == saved).starts[0]
        search = RecentEvent("", "search", query=f"cheap {searched.upper()}, please")
        favourite = RecentEvent(small_world.item_ids[row], "favourite")
        after = await weights(client, user_id, search, favourite)
        assert {name for name in before if after[name] > before[name]} == {searched, saved}
        assert all(after[name] == before[name] for name in before.keys() - {searched, saved})
        for event in (search, favourite):
            await client.record_feedback([Feedback(user_id, event.item_id, event.type, query=event.query, time=NOW)])
        assert await weights(client, user_id) == after
        # What both doors tell counts once.
        assert await weights(client, user_id, search, favourite) == after


@pytest.mark.parametrize("acknowledged", [True, False], ids=["feedback", "request"])
async def test_what_the_user_does_not_want_goes_then_its_interest_then_its_category(
    directory: Path, small_world: SmallWorld, user_id: str, acknowledged: bool
) -> None:
    catalogue = small_world.contents.catalogue
    number = small_world.planted[user_id][0]
    category = catalogue.categories[number - 1]
    offsets = catalogue.category_offsets
    items = [row for row in range(int(offsets[number - 1]), int(offsets[number])) if catalogue.available[row]]
    unwanted = [small_world.item_ids[row] for row in items[:3]]
    async with service(server_settings(directory), channel_settings(category_share=1.0)) as (client, _):

        async def answer(num_unwanted: int, days_ago: float = 0) -> tuple[set[str], set[str], set[str], int]:
            """Items, categories and interests of all there is, and how many items were removed for being unwanted."""
            told = [(item, NOW - days_ago * DAY) for item in unwanted[:num_unwanted]]
            if acknowledged:
                events = [Feedback(user_id, item, "not_interested", time=time, event_id=item) for item, time in told]
                await client.record_feedback(events)
                told = []
            sent = [RecentEvent(item, "not_interested", time) for item, time in told]
            found = await client.recall(user_id, count=400, novelty="off", explain=True, recent_events=sent)
            candidates, counts = found.candidates, found.message.filter_counts
            interests = {r.latent_interest for c in candidates for r in c.reasons if r.source == "interest"}
            removed = next(count.removed for count in counts if count.filter == "dismissed")
            return {c.item_id for c in candidates}, {c.category for c in candidates}, interests, removed

        whole = await answer(0)
        assert set(unwanted) <= whole[0]
        assert category in whole[2]
        for num_unwanted in (1, 2, 3):
            found, categories, interests, removed = await answer(num_unwanted)
            assert not set(unwanted[:num_unwanted]) & found
            assert (category in interests, category in categories) == (num_unwanted < 2, num_unwanted < 3)
            # A category that is not wanted is not searched at all.
            assert removed == (num_unwanted if num_unwanted < 3 else 0)
            assert len(whole[0] - found) == (num_unwanted if num_unwanted < 3 else len(items))
        if not acknowledged:
            assert (await answer(3, days_ago=31))[0] == whole[0]


async def test_feedback_moves_an_interests_share_of_the_next_answer(
    directory: Path, small_world: SmallWorld, user_id: str
) -> None:
    # A cap per category would hide what is measured here.
    async with service(server_settings(directory), channel_settings(category_share=1.0)) as (client, _):
        before = await shares(client, user_id)
        interest, _ = before.most_common(1)[0]
        node = next(node for node in small_world.contents.nodes if node.name == interest)
        items = small_world.item_ids[node.starts[0] : node.ends[0]]
        # Longer ago than an item counts as served: it is the weight that keeps these back, not that they were seen.
        seen = [Feedback(user_id, item, "exposure", time=NOW - 2 * DAY) for item in items[:25]]
        assert (await client.record_feedback(seen)).accepted == 25
        ignored = await shares(client, user_id)
        weights = await reason_weights(client, user_id)
        assert ignored[interest] < before[interest]
        assert weights[interest] < 0.9
        clicks = [Feedback(user_id, item, "click", time=NOW - 2 * DAY + 60) for item in items[:25]]
        assert (await client.record_feedback(clicks)).accepted == 25
        clicked = await shares(client, user_id)
        assert clicked[interest] > ignored[interest]
        assert (await reason_weights(client, user_id))[interest] > weights[interest]


async def reason_weights(client: AsyncSerendipityClient, user_id: str) -> dict[str, float]:
    answer = await client.recall(user_id, count=200, quotas=INTERESTS_ONLY, novelty="off", explain=True)
    for candidate in answer.candidates:
        assert candidate.features["interest_weight"] == pytest.approx(candidate.reasons[0].weight)
    return {r.latent_interest: r.weight for candidate in answer.candidates for r in candidate.reasons}


async def test_feedback_moves_nothing_where_calibration_is_off(
    directory: Path, small_world: SmallWorld, user_id: str
) -> None:
    pipeline = channel_settings(interest_feedback=False)
    async with service(server_settings(directory), pipeline) as (client, _):
        before = await shares(client, user_id)
        old = [Feedback(user_id, item, "exposure", time=NOW - 2 * DAY) for item in small_world.item_ids]
        await client.record_feedback(old)
        assert await shares(client, user_id) == before


def run_users(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import argparse, sys; from serendipity.tools import users; parser = argparse.ArgumentParser(); "
        "users.add_arguments(parser); sys.exit(users.run(parser.parse_args()))"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def known_user(directory: Path, small_world: SmallWorld, user_id: str) -> str:
    """One of whom everything is stored: snapshot, near-line interests, feedback."""
    store_interests(directory, small_world, user_id, 5)
    with FeedbackStore(directory / "state" / "feedback") as feedback:
        event = Feedback(user_id, type="search", query="secret wish")
        feedback.record([to_feedback_event(event, "e-0")])
    return user_id


async def test_a_running_service_forgets_at_once_all_there_is(
    directory: Path, small_world: SmallWorld, known_user: str
) -> None:
    async with service(server_settings(directory), channel_settings()) as (client, _):
        item = small_world.item_ids[7]
        before = await client.recall(known_user, count=30, explain=True)
        assert (await client.record_feedback([Feedback(known_user, item)])).accepted == 1
        state = str(directory / "state")
        done = await asyncio.to_thread(run_users, "forget", known_user, "someone-else", "--state", state)
        assert done.returncode == 0, done.stderr
        assert "forgotten: 2 users" in done.stdout
        assert "removed: 1 feedback records, near-line entries or interests of 1 users" in done.stdout
        assert "the feedback log within 30 days, the serving log within 30 days" in done.stdout
        # No restart, no waiting: the next call.
        after = await client.recall(known_user, count=30, explain=True)
        stranger = await client.recall("a stranger", count=30, explain=True)
        assert [c.item_id for c in after.candidates] == [c.item_id for c in stranger.candidates]
        assert after.candidates[0].reasons == stranger.candidates[0].reasons
        assert after.warnings == stranger.warnings
        assert [c.item_id for c in before.candidates] != [c.item_id for c in after.candidates]
        refused = await client.record_feedback(
            [Feedback(known_user, item), Feedback(known_user, type="search", query="tea"), Feedback("bob", item)]
        )
        assert (refused.accepted, refused.duplicates) == (1, 0)
        assert [(r.index, r.reason) for r in refused.rejected] == [(0, FORGOTTEN), (1, FORGOTTEN)]
        # The events of the request itself are not stored, and count while it lasts.
        (batched,) = await client.recall_batch([request_of(known_user, item)])
        category = small_world.contents.catalogue.paths[7][0]
        assert category not in {candidate.category for candidate in batched.candidates}
        await client.recall(known_user, count=30)
    records = list(read_serving_log(directory / "state" / "serving_log"))
    assert [record.user_id for record in records] == [known_user, "", "a stranger", "", ""]
    assert not any("secret wish" in record.response.SerializeToString().decode("latin-1") for record in records[1:])
    assert queued(directory) == []
    with NearlineStore(directory / "state" / "nearline") as nearline:
        assert nearline.interests(known_user) is None
        assert nearline.paths(known_user) is None
    with FeedbackStore(directory / "state" / "feedback") as feedback:
        assert feedback.user(known_user) is None
        assert feedback.user("bob") is not None
    listed = run_users("list", "--state", str(directory / "state"))
    assert known_user in listed.stdout
    assert "someone-else" in listed.stdout
    assert "bob" not in listed.stdout


def request_of(user_id: str, item_id: str) -> channel_pb2.RecallRequest:
    return recall_request(user_id, count=30, recent_events=[RecentEvent(item_id)])


def test_forgetting_needs_somebody_and_somewhere(tmp_path: Path) -> None:
    missing = run_users("forget", "--state", str(tmp_path / "state"))
    assert (missing.returncode, missing.stderr) == (
        2,
        "serendip users forget: ID is missing; name the users to forget\n",
    )
    nobody = run_users("list", "--state", str(tmp_path / "state"))
    assert (nobody.returncode, nobody.stdout) == (0, "nobody is forgotten\n")
    # Before the service ever ran: whoever is on the list is a stranger from its first call on.
    assert run_users("forget", "anna", "--build", str(tmp_path)).returncode == 0
    again = run_users("forget", "anna", "--build", str(tmp_path))
    assert "forgotten: 0 users (1 were already)" in again.stdout
    (tmp_path / "state" / "erasures" / "data.mdb").write_bytes(b"not an environment" * 1_000)
    broken = run_users("list", "--build", str(tmp_path))
    assert broken.returncode == 1
    assert "cannot be opened" in broken.stderr
