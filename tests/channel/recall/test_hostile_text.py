"""Whatever is typed, answered by a model or stored near-line: answers stay whole, and reasons hold only clean text."""

from __future__ import annotations

import contextlib
import itertools
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serendipity.channel.local import LocalChannel
from serendipity.channel.nearline.outcome import Completed
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.state.availability import AvailabilityReader, AvailabilityStore
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.feedback_event import refusal
from serendipity.channel.state.state import UserState
from serendipity.channel.tower.local_tower import LocalTower
from serendipity.interests.text import MAX_CHARS, clean_text
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.hostile_texts import HOSTILE_TEXTS, any_text
from tests.fixtures.small_world import DAY, NOW, SmallWorld

# Protobuf refuses lone surrogates before any of this is reached.
texts = any_text.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))
CORPUS = [text for text in HOSTILE_TEXTS if not any("\ud800" <= character <= "\udfff" for character in text)]


class Host:
    """A channel over real stores, which a test fills as the service and the near-line process do."""

    def __init__(self, world: SmallWorld, channel: LocalChannel, feedback: FeedbackStore, nearline: NearlineStore):
        self.world = world
        self.channel = channel
        self.feedback = feedback
        self.nearline = nearline
        self._ids = itertools.count()

    def search(self, user_id: str, *queries: str) -> list[str]:
        """Record searches; returns why those refused were."""
        kind = pb.EVENT_TYPE_SEARCH
        events = [
            pb.FeedbackEvent(event_id=f"e{next(self._ids)}", user_id=user_id, type=kind, query=q) for q in queries
        ]
        return [rejection.reason for rejection in self.feedback.record(events).rejected]

    def store_paths(self, user_id: str, *paths: tuple[str, str, str]) -> None:
        """Store interests with paths as no reasoner of ours would write them."""
        self.nearline.want(user_id, records_pb2.REFRESH_CAUSE_MISSING, 1.0)
        assert self.nearline.flush(10.0)
        (entry,) = self.nearline.queue(Kind.INTERESTS).take(1, NOW)
        manifest = self.world.contents
        interests = records_pb2.InterestsRecord(
            node_ids=range(len(paths)),
            weights=[900] * len(paths),
            generated_at=NOW + next(self._ids),
            expires_at=NOW + 7 * DAY,
            taxonomy_hash=int(manifest.taxonomy_hash[:16], 16),
            vocabulary_id=int(manifest.vocabulary_id[:16], 16),
        )
        kinds = itertools.cycle(records_pb2.SeedKind.values())
        written = [
            records_pb2.InterestPath(seed_kind=next(kinds), seed=seed, core_demand=demand, latent_interest=interest)
            for seed, demand, interest in paths
        ]
        records = (interests, records_pb2.InterestPathsRecord(paths=written))
        assert self.nearline.queue(Kind.INTERESTS).settle([Completed(entry, records)], NOW)["completed"] == 1

    def recall(self, user_id: str, **fields: object) -> pb.RecallResponse:
        """Ask, and send the answer over the wire."""
        request = pb.RecallRequest(user_id=user_id, count=20, explain=True, **fields)  # type: ignore[arg-type]
        return pb.RecallResponse.FromString(self.channel.recall(request).SerializeToString())


@pytest.fixture(scope="module")
def host(small_world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    state = tmp_path_factory.mktemp("state")
    with contextlib.ExitStack() as stack:
        erasures = stack.enter_context(ErasureList(state / "erasures"))
        availability = stack.enter_context(contextlib.closing(AvailabilityStore(state / "availability")))
        overlay = stack.enter_context(contextlib.closing(AvailabilityReader(lambda: availability, interval=3_600)))
        feedback = stack.enter_context(FeedbackStore(state / "feedback", clock=lambda: float(NOW)))
        clock = lambda: float(NOW)  # noqa: E731
        nearline = stack.enter_context(NearlineStore(state / "nearline", commit_interval=0.001, clock=clock))
        tower = LocalTower(small_world.tower_path)
        host_state = UserState(lambda: feedback, overlay.overlay, lambda: nearline, lambda: erasures)
        channel = stack.enter_context(LocalChannel(small_world.snapshot_dir, tower, host_state, clock=clock))
        yield Host(small_world, channel, feedback, nearline)


def expect_whole_and_clean(host: Host, response: pb.RecallResponse) -> None:
    assert len(response.item_ids) == 20
    assert set(response.item_ids) <= set(host.world.item_ids)
    assert set(response.categories) <= set(host.world.catalogue.categories)
    assert not response.degraded
    assert response.reasons
    for reason in response.reasons:
        for text in (reason.seed, reason.core_demand, reason.latent_interest):
            assert text == clean_text(text)
        # A sentence is our own words and at most three texts.
        assert len(reason.text) <= 3 * MAX_CHARS + 80
        assert not any(unicodedata.category(character).startswith("C") for character in reason.text)
        assert 0 <= reason.weight <= 1


@settings(max_examples=60, deadline=None)
@given(user=st.integers(0, 59), queries=st.lists(texts, min_size=1, max_size=4))
@example(user=0, queries=CORPUS)
def test_what_is_searched_for_in_requests_and_feedback_never_breaks_an_answer(
    host: Host, user: int, queries: list[str]
) -> None:
    for user_id in (host.world.user_ids[user], f"newcomer {user}"):
        for reason in host.search(user_id, *queries):
            assert reason.startswith("query:")
        record = host.feedback.user(user_id)
        assert all(search.query == clean_text(search.query) != "" for search in (record.searches if record else ()))
        sent = [pb.Event(type=pb.EVENT_TYPE_SEARCH, query=query) for query in queries]
        expect_whole_and_clean(host, host.recall(user_id, recent_events=sent))


@settings(max_examples=60, deadline=None)
@given(user=st.integers(0, 59), paths=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=8))
@example(user=0, paths=[(text, text, text) for text in CORPUS[:8]])
@example(user=1, paths=[(text, "", text) for text in CORPUS[8:16]])
@example(user=2, paths=[("", text, "") for text in CORPUS[16:24]])
def test_whatever_stands_in_a_nearline_record_reasons_are_clean(
    host: Host, user: int, paths: list[tuple[str, str, str]]
) -> None:
    for user_id in (host.world.user_ids[user], f"newcomer {user}"):
        host.store_paths(user_id, *paths)
        response = host.recall(user_id, novelty_policy=pb.NOVELTY_POLICY_OFF)
        expect_whole_and_clean(host, response)
        assert any(reason.source == pb.SOURCE_INTEREST for reason in response.reasons)


@settings(max_examples=60, deadline=None)
@given(some=st.lists(texts, min_size=5, max_size=5))
def test_hostile_text_in_any_other_field_is_refused_or_harmless(host: Host, some: list[str]) -> None:
    item, excluded, category, name, value = some
    response = host.recall(
        host.world.user_ids[0],
        recent_events=[pb.Event(type=pb.EVENT_TYPE_CLICK, item_id=item)],
        exclude_item_ids=[excluded],
        deny_categories=[category],
        profile={name: value},
    )
    expect_whole_and_clean(host, response)
    assert all(len(warning.message) < 2_000 for warning in response.warnings)
    event = pb.FeedbackEvent(event_id="e", user_id=name, item_id=item, type=pb.EVENT_TYPE_CLICK, recall_id=value)
    if not refusal(event, host.feedback.ownership):
        assert not any(unicodedata.category(character) == "Cc" for character in name + item + value)


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_a_search_is_kept_clean_or_refused(host: Host, text: str) -> None:
    user_id = "one search"
    refused = host.search(user_id, text)
    if refused:
        assert refused[0].startswith("query: found")
        assert not clean_text(text) or len(text) > 10_000
    else:
        record = host.feedback.user(user_id)
        assert record is not None
        assert record.searches[0].query == clean_text(text)
