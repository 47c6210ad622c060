from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serendipity import layout
from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.subject import WantedList
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.novel_categories import NovelCategories
from serendipity.channel.recall.query import RecallQuery, RecentEvent
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.state.state import UserState
from serendipity.groups.lists import llms_hash
from serendipity.groups.sequence import DEFAULT_GROUP
from serendipity.keys import novel_category_key
from serendipity.v1 import channel_pb2 as pb
from serendipity.v1 import records_pb2
from tests.fixtures.grouped_world import GENERATION, GROUP_MODEL, GroupedWorld, novel_list
from tests.fixtures.small_world import NOW, SmallWorld


class State(UserState):
    """Holds what a test puts there, and what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[bytes, records_pb2.NovelCategoriesRecord] = {}
        self.clicks: Sequence[str] = ()
        self.down = False
        self.forgotten = False
        self.wanted: list[WantedList] = []

    def put(self, record: records_pb2.NovelCategoriesRecord, group: int, recent: Sequence[str]) -> None:
        self.lists[novel_category_key(GROUP_MODEL, group, recent)] = record

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
        if self.down:
            raise StateUnavailable("nearline: cannot be read")
        return self.lists.get(key)

    def want_novel_categories(self, want: WantedList) -> None:
        self.wanted.append(want)

    def feedback(self, user_id: str) -> records_pb2.UserFeedbackRecord | None:
        clicks = [
            pb.FeedbackEvent(item_id=item, time=Timestamp(seconds=NOW - i), type=pb.EVENT_TYPE_CLICK)
            for i, item in enumerate(self.clicks)
        ]
        return records_pb2.UserFeedbackRecord(clicks=clicks) if clicks else None

    def is_forgotten(self, user_id: str) -> bool:
        return self.forgotten


@pytest.fixture
def state() -> State:
    return State()


def read(
    snapshot: Snapshot,
    user_id: str,
    state: UserState | None = None,
    settings: ChannelSettings | None = None,
    **fields: object,
) -> Hydrated:
    query = RecallQuery(user_id=user_id, count=10, now=NOW, **fields)  # type: ignore[arg-type]
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, query, state or UserState(), settings or ChannelSettings())


def first_user(world: GroupedWorld, fits: Callable[[str], bool]) -> str:
    return next(user_id for user_id in world.world.user_ids if fits(user_id))


@pytest.fixture
def exact_user(grouped_world: GroupedWorld) -> str:
    """A user of a group whose most specific key, of three categories, has a list, and the next none."""
    return first_user(
        grouped_world,
        lambda user_id: (
            grouped_world.group_of(user_id) in (1, 2, 3)
            and len(grouped_world.recent(user_id)) == 3
            and (grouped_world.group_of(user_id), frozenset(grouped_world.recent(user_id))) in grouped_world.lists
            and (grouped_world.group_of(user_id), frozenset(grouped_world.recent(user_id, 2)))
            not in grouped_world.lists
        ),
    )


@pytest.fixture
def other_user(grouped_world: GroupedWorld) -> str:
    """A user of a group whose keys of three and of two categories have none."""

    def fits(user_id: str) -> bool:
        group, recent = grouped_world.group_of(user_id), grouped_world.recent(user_id)
        held = [(group, frozenset(recent[:m])) in grouped_world.lists for m in (2, 3)]
        return group in (1, 2, 3) and len(recent) == 3 and not any(held)

    return first_user(grouped_world, fits)


@pytest.fixture
def sport_user(grouped_world: GroupedWorld) -> str:
    """A user of the group that has no lists at all."""

    def fits(user_id: str) -> bool:
        group, recent = grouped_world.group_of(user_id), grouped_world.recent(user_id)
        return group == 4 and (group, frozenset(recent)) not in grouped_world.lists

    return first_user(grouped_world, fits)


def names_of(novel: NovelCategories, world: GroupedWorld) -> list[str]:
    return [world.world.catalogue.categories[number - 1] for number in novel.numbers.tolist()]


def test_the_most_specific_list_serves_without_what_the_user_clicked(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, exact_user: str
) -> None:
    user = read(grouped_snapshot, exact_user, state)
    novel = user.novel_categories
    record = grouped_world.lists[grouped_world.group_of(exact_user), frozenset(grouped_world.recent(exact_user))]
    expected = [(n, s) for n, s in zip(record.categories, record.scores, strict=True) if not user.clicked[n]][:10]
    assert (novel.key, novel.num_recent, novel.state) == (pb.NOVEL_CATEGORY_KEY_M3, 3, pb.SOURCE_STATE_OK)
    assert novel.numbers.tolist() == [number for number, _ in expected]
    np.testing.assert_allclose(novel.alignments, [score for _, score in expected], rtol=1e-6)
    assert novel.recent == grouped_world.recent(exact_user)
    assert (novel.group_id, novel.generation) == (grouped_world.group_of(exact_user), GENERATION)
    assert novel.profile.startswith("chooses ")
    assert list(novel.names) == names_of(novel, grouped_world)
    offsets = grouped_snapshot.category_offsets
    assert novel.starts.tolist() == [offsets[number - 1] for number in novel.numbers]
    assert novel.ends.tolist() == [offsets[number] for number in novel.numbers]
    assert state.wanted == []


def test_keys_are_tried_from_the_most_specific_to_the_default_groups(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, sport_user: str
) -> None:
    group, recent = grouped_world.group_of(sport_user), grouped_world.recent(sport_user)
    assert read(grouped_snapshot, sport_user, state).novel_categories.key == pb.NOVEL_CATEGORY_KEY_DEFAULT
    found = []
    for m, key in (
        (0, pb.NOVEL_CATEGORY_KEY_M0),
        (1, pb.NOVEL_CATEGORY_KEY_M1),
        (2, pb.NOVEL_CATEGORY_KEY_M2),
        (3, pb.NOVEL_CATEGORY_KEY_M3),
    ):
        if m > len(recent):
            continue
        state.put(novel_list(grouped_world.world, group, recent[:m]), group, recent[:m])
        novel = read(grouped_snapshot, sport_user, state).novel_categories
        found.append((novel.key, novel.num_recent, novel.recent, novel.group_id))
        assert found[-1] == (key, m, recent[:m], group)
    # All categories in any order are one key.
    assert len(found) >= 3


def test_the_default_groups_list_stands_in_and_says_so(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, sport_user: str
) -> None:
    novel = read(grouped_snapshot, sport_user, state).novel_categories
    assert (novel.key, novel.group_id, novel.recent, novel.num_recent) == (
        pb.NOVEL_CATEGORY_KEY_DEFAULT,
        DEFAULT_GROUP,
        (),
        -1,
    )
    assert novel.profile == "Everybody."
    assert state.wanted == [WantedList(GROUP_MODEL, 4, grouped_world.recent(sport_user))]


def test_a_list_of_known_categories_alone_is_passed_over_and_not_missing(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, other_user: str
) -> None:
    group, recent = grouped_world.group_of(other_user), grouped_world.recent(other_user)
    clicked = np.flatnonzero(read(grouped_snapshot, other_user).clicked)[1:3].tolist()
    record = novel_list(grouped_world.world, group, recent)
    del record.categories[:], record.scores[:]
    state.put(record, group, recent)
    assert read(grouped_snapshot, other_user, state).novel_categories.key == pb.NOVEL_CATEGORY_KEY_M1
    record.categories.extend(clicked)
    record.scores.extend([0.9, 0.8])
    assert read(grouped_snapshot, other_user, state).novel_categories.key == pb.NOVEL_CATEGORY_KEY_M1
    # Asked and answered: near-line has nothing better to give.
    assert state.wanted == []


def test_what_is_missing_is_wanted_once_a_request_whatever_answers(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, other_user: str
) -> None:
    novel = read(grouped_snapshot, other_user, state).novel_categories
    assert novel.key == pb.NOVEL_CATEGORY_KEY_M1
    want = WantedList(GROUP_MODEL, grouped_world.group_of(other_user), grouped_world.recent(other_user))
    assert state.wanted == [want]


def test_events_of_the_request_change_the_key(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, exact_user: str
) -> None:
    catalogue = grouped_world.world.catalogue
    recent = grouped_world.recent(exact_user)
    before = read(grouped_snapshot, exact_user, state).novel_categories
    clicked = int(before.starts[0])
    event = RecentEvent(catalogue.item_ids[clicked], pb.EVENT_TYPE_CLICK, NOW, "")
    after = read(grouped_snapshot, exact_user, state, recent_events=(event,)).novel_categories
    assert before.names[0] not in after.names
    assert state.wanted == [WantedList(GROUP_MODEL, before.group_id, (before.names[0], *recent[:2]))]
    # A click in a category that was among them already leaves the key as it is, in whatever order.
    again = catalogue.item_ids[int(catalogue.category_offsets[catalogue.categories.index(recent[-1])])]
    same = RecentEvent(again, pb.EVENT_TYPE_CLICK, NOW, "")
    assert (
        read(grouped_snapshot, exact_user, state, recent_events=(same,)).novel_categories.key
        == pb.NOVEL_CATEGORY_KEY_M3
    )
    assert len(state.wanted) == 1


def test_the_newer_of_two_current_lists_serves(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, exact_user: str
) -> None:
    group, recent = grouped_world.group_of(exact_user), grouped_world.recent(exact_user)
    stored = read(grouped_snapshot, exact_user).novel_categories
    record = novel_list(grouped_world.world, group, recent, generated_at=NOW)
    kept = int(stored.numbers[-1])
    record.categories[:], record.scores[:] = [kept], [0.5]
    state.put(record, group, recent)
    newer = read(grouped_snapshot, exact_user, state).novel_categories
    assert (newer.numbers.tolist(), newer.state) == ([kept], pb.SOURCE_STATE_OK)
    for older in (NOW - 86_400, NOW - 90_000):
        record.generated_at = older
        served = read(grouped_snapshot, exact_user, state).novel_categories
        assert (served.numbers.tolist(), served.state) == (stored.numbers.tolist(), pb.SOURCE_STATE_OK)
    assert state.wanted == []


@pytest.mark.parametrize("written_by", [{"generation": GENERATION - 1}, {"llms_hash": 1}], ids=["generation", "llms"])
@pytest.mark.parametrize("is_empty", [False, True], ids=["full", "empty"])
def test_a_newer_list_of_other_llms_does_not_hide_the_snapshots(
    grouped_world: GroupedWorld,
    grouped_snapshot: Snapshot,
    state: State,
    exact_user: str,
    written_by: dict[str, object],
    is_empty: bool,
) -> None:
    group, recent = grouped_world.group_of(exact_user), grouped_world.recent(exact_user)
    stored = read(grouped_snapshot, exact_user).novel_categories
    record = novel_list(grouped_world.world, group, recent, generated_at=NOW, **written_by)
    kept = [] if is_empty else [int(stored.numbers[-1])]
    record.categories[:], record.scores[:] = kept, [0.5] * len(kept)
    state.put(record, group, recent)
    served = read(grouped_snapshot, exact_user, state).novel_categories
    assert (served.key, served.state, served.generation) == (pb.NOVEL_CATEGORY_KEY_M3, pb.SOURCE_STATE_OK, GENERATION)
    assert served.numbers.tolist() == stored.numbers.tolist()
    assert state.wanted == []


def test_of_two_lists_of_other_llms_the_newer_serves_until_there_is_a_current_one(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, exact_user: str
) -> None:
    group, recent = grouped_world.group_of(exact_user), grouped_world.recent(exact_user)
    assert grouped_snapshot.coevolution is not None
    llms = records_pb2.CoevolutionSpec()
    llms.CopyFrom(grouped_snapshot.coevolution)
    llms.generation = GENERATION + 1
    later = replace(grouped_snapshot, coevolution=llms)
    stored = read(later, exact_user).novel_categories
    assert (stored.state, stored.generation) == (pb.SOURCE_STATE_STALE, GENERATION)
    record = novel_list(grouped_world.world, group, recent, generated_at=NOW)
    kept = int(stored.numbers[-1])
    record.categories[:], record.scores[:] = [kept], [0.5]
    state.put(record, group, recent)
    stale = read(later, exact_user, state).novel_categories
    assert (stale.numbers.tolist(), stale.state) == ([kept], pb.SOURCE_STATE_STALE)
    assert [want.categories for want in state.wanted] == [recent]
    record.generation, record.generated_at = GENERATION + 1, NOW - 90_000
    current = read(later, exact_user, state).novel_categories
    assert (current.numbers.tolist(), current.state) == ([kept], pb.SOURCE_STATE_OK)
    assert len(state.wanted) == 1


@pytest.mark.parametrize("fields", [{"taxonomy_hash": 1}, {"group_model_id": "ffffffffffffffff"}])
def test_a_list_of_another_catalogue_or_group_model_is_a_miss(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, other_user: str, fields: dict[str, object]
) -> None:
    group, recent = grouped_world.group_of(other_user), grouped_world.recent(other_user)
    record = novel_list(grouped_world.world, group, recent, generated_at=NOW, **fields)
    # Numbers of another catalogue may lie beyond this one's.
    record.categories[0] = 999
    state.put(record, group, recent)
    user = read(grouped_snapshot, other_user, state)
    assert user.novel_categories.key == pb.NOVEL_CATEGORY_KEY_M1
    assert user.failures == ()
    assert [want.categories for want in state.wanted] == [recent]


def test_a_list_of_an_earlier_generation_serves_is_stale_and_wanted_anew(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, other_user: str
) -> None:
    group, recent = grouped_world.group_of(other_user), grouped_world.recent(other_user)
    state.put(novel_list(grouped_world.world, group, recent, generation=GENERATION - 1), group, recent)
    novel = read(grouped_snapshot, other_user, state).novel_categories
    assert (novel.key, novel.state, novel.generation) == (
        pb.NOVEL_CATEGORY_KEY_M3,
        pb.SOURCE_STATE_STALE,
        GENERATION - 1,
    )
    assert [want.categories for want in state.wanted] == [recent]


def test_a_list_of_llms_tuned_from_scratch_at_the_same_generation_is_stale_too(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, other_user: str
) -> None:
    group, recent = grouped_world.group_of(other_user), grouped_world.recent(other_user)
    llms = grouped_snapshot.coevolution
    assert llms is not None
    for hash_of_llms, expected in ((llms_hash(llms), pb.SOURCE_STATE_OK), (1, pb.SOURCE_STATE_STALE)):
        state.put(novel_list(grouped_world.world, group, recent, llms_hash=hash_of_llms), group, recent)
        novel = read(grouped_snapshot, other_user, state).novel_categories
        assert (novel.key, novel.state) == (pb.NOVEL_CATEGORY_KEY_M3, expected)
    assert [want.categories for want in state.wanted] == [recent]


@pytest.mark.parametrize(
    ("field", "values", "complaint"),
    [
        ("scores", [0.5], "found 1 scores"),
        ("scores", [float("nan")] * 9, "expected alignments"),
        ("scores", [float("inf")] * 9, "expected alignments"),
        ("scores", [-0.1] * 9, "expected alignments"),
        ("categories", [0, 1, 2, 3, 4, 5, 6, 7, 8], "found numbers 0 to 8"),
        ("categories", [1, 2, 3, 4, 5, 6, 7, 8, 13], "found numbers 1 to 13"),
        ("categories", [1, 1, 3, 4, 5, 6, 7, 8, 9], "found one twice"),
    ],
)
def test_a_bad_nearline_list_is_told_and_the_next_answers(
    grouped_world: GroupedWorld,
    grouped_snapshot: Snapshot,
    state: State,
    other_user: str,
    field: str,
    values: list[float],
    complaint: str,
) -> None:
    group, recent = grouped_world.group_of(other_user), grouped_world.recent(other_user)
    record = novel_list(grouped_world.world, group, recent)
    del getattr(record, field)[:]
    getattr(record, field).extend(values)
    state.put(record, group, recent)
    user = read(grouped_snapshot, other_user, state)
    assert user.novel_categories.key == pb.NOVEL_CATEGORY_KEY_M1
    (reason,) = user.failures
    assert reason.startswith("near-line novel categories: key")
    assert complaint in reason
    # Generating it mends it.
    assert [want.categories for want in state.wanted] == [recent]


def damaged(world: GroupedWorld, directory: Path, store: str, changes: dict[bytes, bytes | None]) -> Snapshot:
    """The snapshot with records of a store replaced, or removed."""
    shutil.copytree(world.snapshot_dir, directory, ignore=shutil.ignore_patterns("lock.mdb"))
    with (
        lmdb.open(str(directory / store), lock=False, map_size=2**24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, value in changes.items():
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)
    return open_snapshot(directory, verify=False)


@pytest.mark.parametrize("value", [b"\xff\xff", b"\x0a\x02\x01\x63"], ids=["no record", "no scores"])
def test_a_bad_list_of_the_snapshot_is_told_and_the_next_answers(
    grouped_world: GroupedWorld, tmp_path: Path, exact_user: str, value: bytes
) -> None:
    group, recent = grouped_world.group_of(exact_user), grouped_world.recent(exact_user)
    changes: dict[bytes, bytes | None] = {novel_category_key(GROUP_MODEL, group, recent): value}
    snapshot = damaged(grouped_world, tmp_path / "copy", layout.NOVEL_CATEGORIES, changes)
    user = read(snapshot, exact_user)
    assert user.novel_categories.key == pb.NOVEL_CATEGORY_KEY_M1
    (reason,) = user.failures
    assert reason.startswith("novel categories: copy/novel_categories.lmdb: key")
    snapshot.close()


def test_where_no_list_can_be_read_the_source_is_unavailable(
    grouped_world: GroupedWorld, tmp_path: Path, sport_user: str
) -> None:
    changes: dict[bytes, bytes | None] = {novel_category_key(GROUP_MODEL, DEFAULT_GROUP, ()): b"\xff"}
    snapshot = damaged(grouped_world, tmp_path / "copy", layout.NOVEL_CATEGORIES, changes)
    novel = read(snapshot, sport_user).novel_categories
    assert (novel.key, len(novel), novel.state) == (pb.NOVEL_CATEGORY_KEY_NONE, 0, pb.SOURCE_STATE_UNAVAILABLE)
    snapshot.close()
    changes = dict.fromkeys(changes)
    snapshot = damaged(grouped_world, tmp_path / "other", layout.NOVEL_CATEGORIES, changes)
    user = read(snapshot, sport_user)
    assert (user.novel_categories.key, user.novel_categories.state) == (pb.NOVEL_CATEGORY_KEY_NONE, pb.SOURCE_STATE_OK)
    assert user.failures == ()
    snapshot.close()


def test_a_profile_that_cannot_be_read_costs_only_its_words(
    grouped_world: GroupedWorld, tmp_path: Path, exact_user: str
) -> None:
    group = grouped_world.group_of(exact_user)
    snapshot = damaged(grouped_world, tmp_path / "copy", layout.GROUPS, {layout.group_key(group): b"\xff"})
    user = read(snapshot, exact_user)
    assert (user.novel_categories.key, user.novel_categories.profile) == (pb.NOVEL_CATEGORY_KEY_M3, "")
    assert user.failures[0].startswith("group profile: copy/groups.lmdb: key")
    snapshot.close()


def test_nearline_that_cannot_be_read_is_told_once(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, other_user: str
) -> None:
    state.down = True
    user = read(grouped_snapshot, other_user, state)
    assert user.novel_categories.key == pb.NOVEL_CATEGORY_KEY_M1
    assert [reason.split(":")[0] for reason in user.failures] == ["near-line novel categories"]


def test_a_cold_user_is_of_the_default_group_with_categories_of_their_own(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State
) -> None:
    world = grouped_world.world
    cold = read(grouped_snapshot, world.cold_user_id, state).novel_categories
    assert (cold.key, cold.group_id, cold.recent) == (pb.NOVEL_CATEGORY_KEY_DEFAULT, DEFAULT_GROUP, ())
    assert state.wanted == []
    # The second item lies in the second category, the first in the first.
    events = [
        RecentEvent(world.item_ids[int(world.catalogue.category_offsets[i])], pb.EVENT_TYPE_CLICK, NOW - i, "")
        for i in range(2)
    ]
    recent = tuple(world.catalogue.categories[:2])
    state.put(novel_list(world, DEFAULT_GROUP, recent), DEFAULT_GROUP, recent)
    told = read(grouped_snapshot, world.cold_user_id, state, recent_events=tuple(events)).novel_categories
    assert (told.key, told.recent, told.num_recent) == (pb.NOVEL_CATEGORY_KEY_M2, recent, 2)
    state.clicks = [world.item_ids[int(world.catalogue.category_offsets[5])]]
    read(grouped_snapshot, world.cold_user_id, state)
    assert state.wanted == [WantedList(GROUP_MODEL, DEFAULT_GROUP, (world.catalogue.categories[5],))]


def test_nothing_is_read_of_a_forgotten_user_and_nothing_asked(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, state: State, exact_user: str
) -> None:
    state.forgotten = True
    event = RecentEvent(grouped_world.world.item_ids[0], pb.EVENT_TYPE_CLICK, NOW, "")
    novel = read(grouped_snapshot, exact_user, state, recent_events=(event,)).novel_categories
    assert (novel.group_id, novel.key) == (DEFAULT_GROUP, pb.NOVEL_CATEGORY_KEY_DEFAULT)
    assert grouped_world.world.catalogue.categories[0] not in novel.names
    assert state.wanted == []


def test_known_categories_are_no_novel_ones_under_any_policy(grouped_snapshot: Snapshot, other_user: str) -> None:
    for policy in (pb.NOVELTY_POLICY_STRICT, pb.NOVELTY_POLICY_SOFT, pb.NOVELTY_POLICY_OFF):
        user = read(grouped_snapshot, other_user, novelty_policy=policy)
        assert not user.clicked[user.novel_categories.numbers].any()


def test_the_request_says_which_categories_count(
    grouped_world: GroupedWorld, grouped_snapshot: Snapshot, other_user: str
) -> None:
    names = read(grouped_snapshot, other_user).novel_categories.names
    assert read(grouped_snapshot, other_user, allow_categories=names[3:4]).novel_categories.names == names[3:4]
    assert names[0] not in read(grouped_snapshot, other_user, deny_categories=names[:1]).novel_categories.names
    few = ChannelSettings(novel_categories_used=2)
    assert read(grouped_snapshot, other_user, settings=few).novel_categories.names == names[:2]
    off = ChannelSettings(novel_categories_used=0)
    assert read(grouped_snapshot, other_user, settings=off).novel_categories.key == pb.NOVEL_CATEGORY_KEY_UNSPECIFIED


def test_a_snapshot_without_groups_is_read_as_ever(small_world: SmallWorld, snapshot: Snapshot, state: State) -> None:
    assert (snapshot.group_spec, snapshot.groups, snapshot.coevolution, snapshot.novel_categories) == (None,) * 4
    user = read(snapshot, small_world.user_ids[0], state)
    assert (user.novel_categories.key, len(user.novel_categories)) == (pb.NOVEL_CATEGORY_KEY_UNSPECIFIED, 0)
    assert user.failures == ()
    assert state.wanted == []


def test_a_snapshot_before_lists_had_a_store_is_read_as_ever(small_world: SmallWorld, tmp_path: Path) -> None:
    directory = tmp_path / "old"
    shutil.copytree(small_world.snapshot_dir, directory)
    shutil.rmtree(directory / layout.NOVEL_CATEGORIES)
    older = open_snapshot(directory, verify=False)
    assert read(older, small_world.user_ids[0]).failures == ()
    older.close()


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    user=st.integers(0, 60),
    rows=st.lists(st.integers(0, 389), max_size=12),
    held=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=8),
)
def test_the_list_that_serves_is_the_first_that_holds_something(
    grouped_world: GroupedWorld,
    grouped_snapshot: Snapshot,
    user: int,
    rows: list[int],
    held: set[tuple[int, int]],
) -> None:
    """Say the back-off again without the product's code, over what both places hold."""
    world, state = grouped_world.world, State()
    user_id = f"user-{user:02d}"
    events = tuple(RecentEvent(world.item_ids[row], pb.EVENT_TYPE_CLICK, NOW, "") for row in dict.fromkeys(rows))
    stranger = read(grouped_snapshot, user_id, recent_events=events)
    names = world.catalogue.categories
    recent = list(dict.fromkeys(names[c - 1] for c in stranger.clicks.categories.tolist() if c))[:3]
    for group, m in held:
        if m <= len(recent):
            state.put(novel_list(world, group, recent[:m]), group, recent[:m])
    group = world.contents.users[user_id].group_id if user < 60 else 0
    tried = [(group, m) for m in (3, 2, 1, 0) if m <= len(recent)] + [(0, 0)]
    has = [
        key for key in tried
        if (key in held or (key[0], frozenset(recent[: key[1]])) in grouped_world.lists) and not stranger.clicked.all()
    ]  # fmt: skip
    novel = read(grouped_snapshot, user_id, state, recent_events=events).novel_categories
    if not has:
        assert novel.key == pb.NOVEL_CATEGORY_KEY_NONE
        return
    assert (novel.group_id, len(novel.recent)) == has[0]
    assert set(novel.recent) == set(recent[: has[0][1]])
    assert not stranger.clicked[novel.numbers].any()
    assert (np.diff(novel.alignments) <= 0).all()
    assert [want.categories for want in state.wanted] == ([] if has[0] == tried[0] else [tuple(recent)])


def test_alignments_are_told_by_category(grouped_snapshot: Snapshot, other_user: str) -> None:
    novel = read(grouped_snapshot, other_user).novel_categories
    asked = np.array([0, *novel.numbers[:2], 12], np.int32)
    expected = [0, *novel.alignments[:2]]
    assert novel.alignments_of(asked)[:3].tolist() == expected
    nothing = NovelCategories.none(pb.NOVEL_CATEGORY_KEY_NONE)
    assert nothing.alignments_of(asked).tolist() == [0, 0, 0, 0]
