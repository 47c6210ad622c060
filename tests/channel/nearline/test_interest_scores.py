"""From queued users to their records by the likelihoods of an InterestGPT, against a server that speaks for it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import ModelUnavailable, SnapshotUnavailable
from serendipity.channel.nearline.interest_gpt import InterestGpt, TritonTextEncoder
from serendipity.channel.nearline.interest_job import InterestJob
from serendipity.channel.nearline.loop import BatchDone, NearlineLoop
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.interests.mixing import mixed
from serendipity.interests.taxonomy_reasoner import likeliest
from serendipity.interests.text import comparable
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.nearline_store import loop_of
from tests.fixtures.nearline_world import (
    NUM_INTERESTS,
    WEIGHT,
    TalkingTriton,
    TritonStatus,
    spec_of,
    talking_triton,
    write_nearline_snapshot,
)
from tests.fixtures.small_world import NOW, SmallWorld

NUM_CANDIDATES = 5


@dataclass
class Parts:
    """A loop, its job and all it works with. feedback: of users, as this host acknowledged it."""

    store: NearlineStore
    loop: NearlineLoop[Any]
    job: InterestJob
    triton: TalkingTriton
    feedback: dict[str, records_pb2.UserFeedbackRecord] = field(default_factory=dict)

    async def refresh(self, *user_ids: str) -> BatchDone:
        for user_id in user_ids:
            self.store.want(user_id, records_pb2.REFRESH_CAUSE_MISSING, 0.5)
        assert self.store.flush(10)
        return await self.loop.work(self.store.queue(Kind.INTERESTS).take(100, NOW), self.job, NOW)

    def names(self, user_id: str) -> list[str]:
        record = self.store.interests(user_id)
        assert record is not None
        nodes = [self.job.snapshot.nodes.read(node_id) for node_id in record.node_ids]
        return [node.name for node in nodes if node is not None]

    def reasoned(self, user_id: str) -> Mapping[str, float]:
        """What the reasoner proposes: category → P(enter), likeliest first."""
        context = self.job.users.read(user_id, NOW).context
        probabilities = self.job.reasoner.probabilities([context])
        (best,) = likeliest(probabilities, NUM_CANDIDATES)
        return {self.job.snapshot.category_names[n - 1]: float(probabilities[0, n]) for n in best}


@pytest.fixture(scope="module")
def snapshot(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    spec = spec_of(small_world, num_candidates=NUM_CANDIDATES)
    opened = open_snapshot(write_nearline_snapshot(small_world, tmp_path_factory.mktemp("snapshots"), spec))
    yield opened
    opened.close()


@asynccontextmanager
async def refreshing(snapshot: Snapshot, directory: Path) -> AsyncIterator[Parts]:
    feedback: dict[str, records_pb2.UserFeedbackRecord] = {}
    async with talking_triton(lambda _: pytest.fail("asked to write")) as (url, triton):
        gpt, encoder = InterestGpt(url), TritonTextEncoder(url)
        job = InterestJob(snapshot, feedback.get, gpt, encoder.encode, timeout=10.0)
        with NearlineStore(directory / "nearline", map_bytes=1 << 24, commit_interval=0, clock=lambda: NOW) as store:
            yield Parts(store, loop_of(store, Kind.INTERESTS, lambda _: False), job, triton, feedback)
        job.close()
        await gpt.close()
        await encoder.close()


@pytest.fixture
async def parts(snapshot: Snapshot, tmp_path: Path) -> AsyncIterator[Parts]:
    async with refreshing(snapshot, tmp_path) as opened:
        yield opened


def clicks_of(item_ids: list[str]) -> records_pb2.UserFeedbackRecord:
    """Clicks a minute apart, the first of them latest."""
    events = [channel_pb2.FeedbackEvent(item_id=item_id, type=channel_pb2.EVENT_TYPE_CLICK) for item_id in item_ids]
    for place, event in enumerate(events, 1):
        event.time.seconds = NOW - 60 * place
    return records_pb2.UserFeedbackRecord(clicks=events)


async def test_the_model_is_asked_about_what_the_reasoner_proposes(parts: Parts, small_world: SmallWorld) -> None:
    user = small_world.user_ids[0]
    refreshed = await parts.refresh(user)
    assert refreshed.ends == Counter(completed=1)
    assert refreshed.counts["prompt_tokens"] > 0
    assert parts.triton.candidates == [list(parts.reasoned(user))]
    assert all(prompt.endswith("interests:") for prompts in parts.triton.prompts for prompt in prompts)


async def test_reasoner_and_likelihood_order_the_interests_together(parts: Parts, small_world: SmallWorld) -> None:
    user = small_world.user_ids[0]
    proposed = parts.reasoned(user)
    favourite = list(proposed)[-1]
    parts.triton.likelihood = lambda _, category: 0.0 if category == favourite else -9.0
    await parts.refresh(user)
    likelihoods = np.array([0.0 if name == favourite else -9.0 for name in proposed])
    weights = mixed(np.array(list(proposed.values())), likelihoods, WEIGHT)
    expected = sorted(zip(proposed, weights.tolist(), strict=True), key=lambda pair: -pair[1])[:NUM_INTERESTS]
    record = parts.store.interests(user)
    assert record is not None
    assert parts.names(user) == [name for name, _ in expected]
    assert list(record.weights) == [round(1000 * weight) for _, weight in expected]
    assert len(record.SerializeToString()) <= 120


async def test_likelihoods_that_are_all_alike_change_nothing(parts: Parts, small_world: SmallWorld) -> None:
    user = small_world.user_ids[3]
    parts.triton.likelihood = lambda *_: -2.0
    await parts.refresh(user)
    assert parts.names(user) == list(parts.reasoned(user))[:NUM_INTERESTS]


async def test_interests_are_still_novel_against_fresh_feedback(parts: Parts, small_world: SmallWorld) -> None:
    user = small_world.user_ids[0]
    await parts.refresh(user)
    first = parts.names(user)[0]
    clicked = next(
        item
        for item, category in zip(small_world.item_ids, small_world.catalogue.item_categories.tolist(), strict=True)
        if category == parts.job.snapshot.category_numbers[first]
    )
    parts.feedback[user] = clicks_of([clicked])
    parts.store.forget_all([user])
    await parts.refresh(user)
    assert first not in parts.names(user)
    assert first not in parts.triton.candidates[-1]


async def test_users_who_came_after_the_build_are_proposed_to_in_the_same_way(
    parts: Parts, small_world: SmallWorld
) -> None:
    clicked = small_world.clicks(small_world.user_ids[0])
    items = [small_world.item_ids[item - 1] for item in clicked.items.tolist() if item]
    parts.feedback["a stranger"] = clicks_of(items)
    assert (await parts.refresh("a stranger")).ends == Counter(completed=1)
    assert len(parts.names("a stranger")) == NUM_INTERESTS
    own = {small_world.catalogue.categories[number - 1] for number in clicked.categories.tolist()}
    assert not own & {*parts.names("a stranger")}


async def test_every_record_is_novel_distinct_and_no_path_leads_back(parts: Parts, small_world: SmallWorld) -> None:
    users = small_world.user_ids
    assert (await parts.refresh(*users)).ends == Counter(completed=len(users))
    for user in users:
        paths, record = parts.store.paths(user), parts.store.interests(user)
        assert paths is not None
        assert record is not None
        assert paths.reasoner == parts.job.spec.model_name
        clicked = {small_world.catalogue.categories[n - 1] for n in small_world.clicks(user).categories.tolist() if n}
        names = parts.names(user)
        assert names == [path.latent_interest for path in paths.paths]
        assert len({*names}) == len(names)
        assert not clicked & {*names}
        assert list(record.weights) == sorted(record.weights, reverse=True)
        for path in paths.paths:
            if path.seed_kind != records_pb2.SEED_KIND_SEARCH:
                assert comparable(path.seed) != comparable(path.latent_interest)


async def test_while_triton_is_away_nothing_counts_against_anybody(parts: Parts, small_world: SmallWorld) -> None:
    def away(*_: str) -> float:
        raise TritonStatus(grpc.StatusCode.UNAVAILABLE)

    parts.triton.likelihood = away
    with pytest.raises(ModelUnavailable):
        await parts.refresh(small_world.user_ids[0])
    (entry,) = parts.store.queue(Kind.INTERESTS).take(10, NOW)
    assert (entry.attempts, entry.last_error) == (0, "")


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        ({"reasoner": b"no archive"}, r"reasoner\.npz: found no taxonomy reasoner of these nodes"),
        ({"reasoner": b""}, r"reasoner\.npz.*build the snapshot anew"),
        ({"candidates": 0}, "found 0 num_candidates for 3 interests"),
    ],
)
async def test_a_snapshot_that_cannot_propose_is_refused_by_name(
    small_world: SmallWorld, tmp_path: Path, spoilt: dict[str, Any], message: str
) -> None:
    spec = spec_of(small_world, num_candidates=spoilt.get("candidates", NUM_CANDIDATES))
    contents = dataclasses.replace(small_world.contents, reasoner=spoilt.get("reasoner", small_world.contents.reasoner))
    world = dataclasses.replace(small_world, contents=contents)
    directory = write_nearline_snapshot(world, tmp_path, spec)
    assert (directory / layout.REASONER).is_file() == bool(contents.reasoner)
    opened = open_snapshot(directory)
    with pytest.raises(SnapshotUnavailable, match=message):
        InterestJob(opened, lambda _: None, InterestGpt("127.0.0.1:1"), lambda _: pytest.fail("asked"), timeout=1.0)
    opened.close()
