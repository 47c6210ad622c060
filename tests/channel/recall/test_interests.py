"""Which interests a user is searched by, when others are asked for, and what feedback makes of their weights."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.interests import Freshness, Origin, path_reader
from serendipity.channel.recall.query import RecallQuery
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state import state as state_module
from serendipity.channel.state.availability import AvailabilityReader, AvailabilityStore
from serendipity.channel.state.erasure import ErasureList
from serendipity.channel.state.feedback import FeedbackStore
from serendipity.channel.state.state import UserState
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.small_world import DAY, NOW, SmallWorld

MISSING = records_pb2.REFRESH_CAUSE_MISSING
STALE = records_pb2.REFRESH_CAUSE_STALE
FOREIGN = records_pb2.REFRESH_CAUSE_FOREIGN
TOO_OLD = records_pb2.REFRESH_CAUSE_TOO_OLD

Wanted = list[tuple[str, records_pb2.RefreshCause, float]]


class State(UserState):
    """Holds what a test puts there, and notes what is wanted."""

    def __init__(
        self,
        interests: records_pb2.InterestsRecord | None = None,
        paths: records_pb2.InterestPathsRecord | None = None,
        record: records_pb2.UserFeedbackRecord | None = None,
    ) -> None:
        super().__init__()
        self.stored = interests
        self.paths = paths
        self.record = record
        self.wanted: Wanted = []
        self.owner = True
        self.unreadable = False

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        return self.record

    def owns(self, user_id: str) -> bool:
        return self.owner

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        if self.unreadable:
            raise StateUnavailable("nearline: cannot be read")
        return self.stored

    def interest_paths(self, user_id: str, generated_at: int) -> records_pb2.InterestPathsRecord | None:
        return self.paths if self.stored is not None and self.stored.generated_at == generated_at else None

    def want_interests(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        self.wanted.append((user_id, cause, priority))


@pytest.fixture
def served(snapshot: Snapshot) -> Snapshot:
    """The small world's snapshot as if an InterestGPT had been trained with it."""
    return replace(snapshot, interest_gpt="interest_gpt_0")


@pytest.fixture
def user_id(small_world: SmallWorld) -> str:
    return max(small_world.user_ids, key=lambda user: len(small_world.planted[user]))


def read(
    snapshot: Snapshot, user_id: str, state: UserState, settings: ChannelSettings | None = None, now: int = NOW
) -> Hydrated:
    query = RecallQuery(user_id=user_id, count=10, now=now, novelty_policy=pb.NOVELTY_POLICY_OFF)
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, state, settings or ChannelSettings())


def nearline(snapshot: Snapshot, *node_ids: int, age: int = 0, **changes: int) -> records_pb2.InterestsRecord:
    fields = {"taxonomy_hash": snapshot.taxonomy_hash, "vocabulary_id": snapshot.vocabulary_id, **changes}
    return records_pb2.InterestsRecord(
        node_ids=node_ids,
        weights=[500] * len(node_ids),
        generated_at=NOW - age,
        expires_at=NOW - age + 7 * DAY,
        **fields,  # type: ignore[arg-type]
    )


def other_nodes(small_world: SmallWorld, user_id: str, count: int = 2) -> list[int]:
    """Nodes that are not among those the snapshot holds for a user."""
    known = set(small_world.contents.interests[user_id].node_ids)
    return [node.node_id for node in small_world.contents.nodes if node.node_id not in known][:count]


def names_of(small_world: SmallWorld, node_ids: list[int]) -> tuple[str, ...]:
    return tuple(small_world.contents.nodes[node_id].name for node_id in node_ids)


def test_the_newest_record_that_fits_the_snapshot_serves(
    small_world: SmallWorld, served: Snapshot, user_id: str
) -> None:
    nodes = other_nodes(small_world, user_id)
    stored = names_of(small_world, list(small_world.contents.interests[user_id].node_ids))
    # The snapshot's are of a day ago.
    for age, origin, names in (
        (0, Origin.NEARLINE, names_of(small_world, nodes)),
        (DAY, Origin.SNAPSHOT, stored),
        (2 * DAY, Origin.SNAPSHOT, stored),
    ):
        hydrated = read(served, user_id, State(nearline(served, *nodes, age=age)))
        assert (hydrated.interests.origin, hydrated.interests.names) == (origin, names)
        assert hydrated.interests.freshness is Freshness.FRESH
    vectors = read(served, user_id, State(nearline(served, *nodes))).inputs.interests[0, : len(nodes)]
    np.testing.assert_array_equal(vectors, small_world.contents.node_vectors[nodes].astype(vectors.dtype))


def searched(snapshot: Snapshot, user_id: str, *searches: tuple[str, int]) -> Hydrated:
    """A user read after searches, each with its age in seconds."""
    record = records_pb2.UserFeedbackRecord(
        searches=[records_pb2.Search(query=query, time=NOW - age) for query, age in searches]
    )
    return read(snapshot, user_id, State(record=record))


def test_a_search_grounds_at_once_in_what_it_names_and_goes_before_the_stored_interests(
    small_world: SmallWorld, served: Snapshot, user_id: str
) -> None:
    (node_id,) = other_nodes(small_world, user_id, 1)
    (name,) = names_of(small_world, [node_id])
    stored = read(served, user_id, State()).interests
    for user in (user_id, "a stranger"):
        interests = searched(served, user, (name.upper(), 0)).interests
        assert interests.names[0] == name
        assert (interests.positions[0], interests.searches[0], interests.weights[0]) == (-1, name.upper(), 1)
        # What shares some of the words follows, and is fewer than what the user holds.
        assert interests.searches.count("") >= len(interests) // 2
        np.testing.assert_array_equal(interests.vectors[0], small_world.contents.node_vectors[node_id])
        rows = interests.grounded.take(np.array([0]))
        assert (rows.starts[0], rows.ends[-1]) == (
            small_world.contents.nodes[node_id].starts[0],
            small_world.contents.nodes[node_id].ends[-1],
        )
    kept = searched(served, user_id, (name, 0)).interests
    held = [held for held, search in zip(kept.names, kept.searches, strict=True) if not search]
    assert held == [name for name in stored.names if name in held]


def test_a_search_for_a_stored_interest_raises_it_and_keeps_its_path(
    small_world: SmallWorld, served: Snapshot, user_id: str
) -> None:
    stored = read(served, user_id, State()).interests
    raised = searched(served, user_id, (stored.names[-1], 0)).interests
    assert (raised.names[0], raised.positions[0]) == (stored.names[-1], stored.positions[-1])
    assert raised.searches[0] == stored.names[-1]
    assert raised.weights[0] == 1
    worse = searched(served, user_id, (f"cheap {stored.names[-1]} please", 0)).interests
    assert stored.weights[-1] < worse.weights[0] < 1


def test_a_search_fades_with_its_age_and_what_names_nothing_grounds_in_nothing(
    small_world: SmallWorld, served: Snapshot, user_id: str
) -> None:
    (name,) = names_of(small_world, other_nodes(small_world, user_id, 1))
    stored = read(served, user_id, State()).interests
    assert searched(served, user_id, (name, 7 * DAY)).interests.weights[0] == pytest.approx(0.5)
    for nothing in ((name, 14 * DAY), ("zebra", 0)):
        assert searched(served, user_id, nothing).interests.names == stored.names
    # The latest count, in whatever number they come.
    many = [(f"zebra {i}", i) for i in range(5)]
    assert searched(served, user_id, *many, (name, 6)).interests.names == stored.names


@pytest.mark.parametrize("changes", [{"taxonomy_hash": 1}, {"vocabulary_id": 1}, {"vocabulary_id": 0}], ids=str)
def test_a_record_of_another_catalogue_is_a_miss(
    small_world: SmallWorld, served: Snapshot, user_id: str, changes: dict[str, int]
) -> None:
    state = State(nearline(served, 0, **changes))
    hydrated = read(served, user_id, state)
    assert hydrated.interests.origin is Origin.SNAPSHOT
    assert len(hydrated.interests) > 0
    assert hydrated.failures == ()
    assert state.wanted == []


def test_interests_are_foreign_only_if_nothing_else_serves(served: Snapshot) -> None:
    # Not in the snapshot: the population's serve, and this user's own are wanted anew.
    click = pb.FeedbackEvent(item_id="item-001", type=pb.EVENT_TYPE_CLICK, time=Timestamp(seconds=NOW))
    state = State(nearline(served, 0, vocabulary_id=1), record=records_pb2.UserFeedbackRecord(clicks=[click]))
    hydrated = read(served, "nobody", state)
    assert hydrated.interests.origin is Origin.POPULATION
    assert hydrated.interests.own_freshness is Freshness.FOREIGN
    assert hydrated.failures == ()
    assert [cause for _, cause, _ in state.wanted] == [FOREIGN]


@pytest.mark.parametrize(
    ("days", "freshness", "causes"),
    [(3, Freshness.FRESH, []), (7, Freshness.STALE, [STALE]), (40, Freshness.TOO_OLD, [TOO_OLD])],
)
def test_interests_past_their_life_are_asked_for(
    served: Snapshot, user_id: str, days: int, freshness: Freshness, causes: list[int]
) -> None:
    state = State()
    hydrated = read(served, user_id, state, now=NOW + days * DAY)
    assert hydrated.interests.freshness is freshness
    assert [cause for _, cause, _ in state.wanted] == causes


def test_the_worse_and_the_more_active_go_first(served: Snapshot, small_world: SmallWorld) -> None:
    many, few = (pick(small_world.user_ids, key=lambda user: len(small_world.clicks(user))) for pick in (max, min))
    priorities = []
    for user_id, days in ((many, 40), (few, 40), (many, 8), (few, 8)):
        state = State()
        read(served, user_id, state, now=NOW + days * DAY)
        priorities += [priority for _, _, priority in state.wanted]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == 4
    assert all(0 <= priority <= 1 for priority in priorities)


def test_a_cold_users_own_interests_go_before_the_populations(served: Snapshot, small_world: SmallWorld) -> None:
    before = read(served, "nobody", State()).interests
    assert before.origin is Origin.POPULATION
    node = next(n.node_id for n in small_world.contents.nodes if n.name not in before.names)
    # However old, as long as they are used at all.
    after = read(served, "nobody", State(nearline(served, node, age=20 * DAY))).interests
    assert (after.origin, after.freshness) == (Origin.NEARLINE, Freshness.STALE)
    assert after.names == names_of(small_world, [node])


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (None, False),
        (records_pb2.UserFeedbackRecord(exposures=[pb.FeedbackEvent(item_id="item-001")]), False),
        (records_pb2.UserFeedbackRecord(clicks=[pb.FeedbackEvent(item_id="item-001")]), True),
        (records_pb2.UserFeedbackRecord(searches=[records_pb2.Search(query="tea", time=NOW)]), True),
        (records_pb2.UserFeedbackRecord(signals=[pb.FeedbackEvent(item_id="item-001")]), True),
    ],
    ids=["nothing", "exposures", "clicks", "searches", "signals"],
)
def test_a_cold_user_is_asked_for_once_there_is_something_to_reason_from(
    served: Snapshot, record: records_pb2.UserFeedbackRecord | None, wanted: bool
) -> None:
    state = State(record=record)
    read(served, "nobody", state)
    assert [(user, cause) for user, cause, _ in state.wanted] == [("nobody", MISSING)] * wanted


def test_nobody_is_asked_for_without_a_model_or_by_a_host_that_is_not_the_owner(
    snapshot: Snapshot, served: Snapshot, user_id: str
) -> None:
    state = State()
    read(snapshot, user_id, state, now=NOW + 40 * DAY)
    state.owner = False
    read(served, user_id, state, now=NOW + 40 * DAY)
    assert state.wanted == []


def test_nearline_interests_that_cannot_be_read_leave_the_snapshots(served: Snapshot, user_id: str) -> None:
    state = State()
    state.unreadable = True
    broken = State(records_pb2.InterestsRecord(node_ids=[1, 2], weights=[1], generated_at=NOW, expires_at=NOW + 1))
    for each, reason in (
        (state, "near-line interests: nearline: cannot be read"),
        (broken, "near-line interests: weights: found 1 weights, expected 2"),
    ):
        hydrated = read(served, user_id, each)
        assert hydrated.interests.origin is Origin.SNAPSHOT
        assert len(hydrated.interests) > 0
        assert hydrated.failures == (reason,)


def test_a_node_of_a_later_snapshot_leads_nowhere(served: Snapshot, user_id: str, small_world: SmallWorld) -> None:
    state = State(nearline(served, 10_000, 3))
    interests = read(served, user_id, state).interests
    assert interests.names == names_of(small_world, [3])
    assert interests.positions.tolist() == [1]


def test_paths_are_read_from_the_store_the_record_came_from(
    small_world: SmallWorld, served: Snapshot, user_id: str
) -> None:
    paths = records_pb2.InterestPathsRecord(paths=[records_pb2.InterestPath(seed="cold brew")])
    state = State(nearline(served, 3), paths)
    interests = read(served, user_id, state).interests
    read_paths = path_reader(interests, user_id, served, state)
    assert [path.seed for path in read_paths()] == ["cold brew"]
    # A refresh between the two reads: the paths in store are in another order.
    state.stored = nearline(served, 5, age=-1)
    assert not read_paths()
    stored = path_reader(read(served, user_id, State()).interests, user_id, served, state)()
    expected = small_world.contents.interest_paths[user_id].paths
    assert [path.latent_interest for path in stored] == [path.latent_interest for path in expected]


def fed(clicks: list[str], exposures: list[str], time: int = NOW - 60) -> records_pb2.UserFeedbackRecord:
    events: list[list[pb.FeedbackEvent]] = [
        [pb.FeedbackEvent(item_id=item, type=kind, time=Timestamp(seconds=time)) for item in items]
        for items, kind in ((clicks, pb.EVENT_TYPE_CLICK), (exposures, pb.EVENT_TYPE_EXPOSURE))
    ]
    return records_pb2.UserFeedbackRecord(clicks=events[0], exposures=events[1])


def items_of(small_world: SmallWorld, category: int, count: int) -> list[str]:
    start = int(small_world.contents.catalogue.category_offsets[category - 1])
    return small_world.item_ids[start : start + count]


def test_exposures_without_clicks_lower_an_interest_and_clicks_raise_it(
    small_world: SmallWorld, served: Snapshot, user_id: str
) -> None:
    first, second = small_world.planted[user_id][:2]
    shown = State(record=fed([], items_of(small_world, first, 30)))
    before, after = (read(served, user_id, state).interests for state in (State(), shown))
    names = served.category_names
    assert before.names[0] == names[first - 1]
    assert after.names[0] == names[second - 1]
    at = after.names.index(names[first - 1])
    # Beta(20 · 0.9, 20 · 0.1) and 30 exposures without a click.
    assert after.weights[at] == pytest.approx(18 / 50, abs=1e-3)
    assert after.factors[at] == pytest.approx(18 / 50 / 0.9, abs=1e-3)
    # The stored positions follow the order, so that reasons do.
    assert sorted(after.positions.tolist()) == before.positions.tolist()
    np.testing.assert_array_equal(after.vectors, before.vectors[after.positions])
    clicked = read(served, user_id, State(record=fed(items_of(small_world, second, 30), []))).interests
    assert clicked.names[0] == names[second - 1]
    assert clicked.weights[0] == pytest.approx((16 + 30) / 50, abs=1e-3)


def test_what_feedback_did_fades(small_world: SmallWorld, served: Snapshot, user_id: str) -> None:
    first = small_world.planted[user_id][0]
    lately, once = (
        read(served, user_id, State(record=fed([], items_of(small_world, first, 30), NOW - age))).interests
        for age in (0, 28 * DAY)
    )
    assert lately.factors.min() < 0.45
    assert 0.9 < once.factors.min() < 1


def test_calibration_can_be_switched_off(small_world: SmallWorld, served: Snapshot, user_id: str) -> None:
    state = State(record=fed([], items_of(small_world, small_world.planted[user_id][0], 30)))
    off = read(served, user_id, state, ChannelSettings(interest_feedback=False)).interests
    assert (off.factors == 1).all()


def test_only_the_latest_exposures_beyond_the_served_horizon_are_looked_at(
    small_world: SmallWorld, served: Snapshot, user_id: str
) -> None:
    first = small_world.planted[user_id][0]
    state = State(record=fed([], items_of(small_world, first, 30), NOW - 2 * DAY))
    none, some, everything = (
        read(served, user_id, state, ChannelSettings(interest_exposures=most)) for most in (0, 10, 300)
    )
    assert (none.interests.factors == 1).all()
    assert 1 > some.interests.factors.min() > everything.interests.factors.min()
    # Looked at for the weights only: what is beyond the horizon may be recalled again.
    assert len(everything.served) == 0


class Refusing(UserState):
    """A state whose users are all forgotten; whatever else is asked of a user fails the test."""

    def __init__(self, erasures_down: bool = False) -> None:
        super().__init__()
        self.erasures_down = erasures_down

    def is_forgotten(self, user_id: str) -> bool:
        if self.erasures_down:
            raise StateUnavailable("erasures: cannot be read")
        return True

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        pytest.fail("feedback of a forgotten user was read")

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        pytest.fail("interests of a forgotten user were read")

    def want_interests(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        pytest.fail("interests of a forgotten user were asked for")


@pytest.mark.parametrize("erasures_down", [False, True])
def test_a_forgotten_user_is_a_stranger(served: Snapshot, user_id: str, erasures_down: bool) -> None:
    forgotten = read(served, user_id, Refusing(erasures_down), now=NOW + 40 * DAY)
    stranger = read(served, "nobody", UserState(), now=NOW + 40 * DAY)
    assert forgotten.forgotten
    assert not stranger.forgotten
    assert forgotten.interests.names == stranger.interests.names
    assert forgotten.interests.origin is Origin.POPULATION
    assert len(forgotten.clicks) == 0
    assert [warning.code for warning in forgotten.warnings] == [warning.code for warning in stranger.warnings]
    for name in ("history_items", "long_categories", "profile", "interests"):
        np.testing.assert_array_equal(getattr(forgotten.inputs, name), getattr(stranger.inputs, name))
    np.testing.assert_array_equal(forgotten.stored_vector, stranger.stored_vector)
    reasons = ("erasures: erasures: cannot be read; answered as a stranger",) if erasures_down else ()
    assert forgotten.failures == reasons


@pytest.fixture
def nearline_store(tmp_path: Path) -> Iterator[NearlineStore]:
    with NearlineStore(tmp_path / "nearline") as store:
        yield store


@pytest.fixture
def host_state(tmp_path: Path, nearline_store: NearlineStore) -> Iterator[Callable[..., UserState]]:
    with contextlib.ExitStack() as stack:
        availability = stack.enter_context(contextlib.closing(AvailabilityStore(tmp_path / "availability")))
        reader = stack.enter_context(contextlib.closing(AvailabilityReader(lambda: availability, interval=3_600)))
        feedback = stack.enter_context(FeedbackStore(tmp_path / "feedback"))
        erasures = stack.enter_context(ErasureList(tmp_path / "erasures"))
        yield partial(UserState, lambda: feedback, reader.overlay, lambda: nearline_store, lambda: erasures)


def test_a_user_asked_for_all_the_time_is_queued_once_in_a_while(
    host_state: Callable[..., UserState], nearline_store: NearlineStore
) -> None:
    moments = iter([0.0, 1.0, 59.0, 60.0, 61.0])
    state = host_state(want_interval=60.0, clock=lambda: next(moments))
    for user_id in ("anna", "bob", "anna", "anna", "bob"):
        state.want_interests(user_id, STALE, 0.1)
        assert nearline_store.flush(10.0)
    assert nearline_store.queue(Kind.INTERESTS).totals() == Counter(accepted=2, merged=2)


def test_users_are_remembered_within_bounds(
    host_state: Callable[..., UserState], nearline_store: NearlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "_REMEMBERED_USERS", 2)
    state = host_state()
    for user_id in ("anna", "bob", "carl", "anna", "anna"):
        state.want_interests(user_id, STALE, 0.1)
        assert nearline_store.flush(10.0)
    # The one seen longest ago was let go, and asked for again.
    assert nearline_store.queue(Kind.INTERESTS).totals() == Counter(accepted=3, merged=1)
