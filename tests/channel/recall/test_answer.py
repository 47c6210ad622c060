from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.deadline import Deadline
from serendipity.channel.local import LocalChannel
from serendipity.channel.recall.answer import Answer, compose
from serendipity.channel.recall.filters import FILTERS
from serendipity.channel.recall.hydrate import Hydrated, hydrate
from serendipity.channel.recall.query import SOURCES, RecallQuery, parse_query, warning
from serendipity.channel.recall.reasons import Reasons
from serendipity.channel.recall.scorer import Scored
from serendipity.channel.recall.sources import NO_INTEREST
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.holder import SnapshotHolder
from serendipity.channel.snapshot.snapshot import Snapshot, open_snapshot
from serendipity.channel.state.state import UserState
from serendipity.rank_features import FEATURE_NAMES
from serendipity.v1 import channel_pb2 as pb
from tests.fixtures.grouped_world import GENERATION, GROUP_MODEL
from tests.fixtures.small_world import NOW, SmallWorld

REASON_COLUMNS = ("reasons", "reason_indexes", "all_reason_indexes", "all_reason_offsets")

ROWS = [130, 7, 131]
"""Rows of the answer that is laid out: of the categories music-0 (row 130 on), food-0, and music-0 again."""


@pytest.fixture
def user(grouped_snapshot: Snapshot, small_world: SmallWorld) -> Hydrated:
    query = RecallQuery(user_id=small_world.user_ids[4], count=3, now=NOW, deny_categories=("no such category",))
    return read(grouped_snapshot, replace(query, experiment_tag="b"))


def read(snapshot: Snapshot, query: RecallQuery) -> Hydrated:
    told = replace(query, warnings=(warning(pb.WARNING_CODE_CLOCK_SKEW, "recent_events", "as parsed"),))
    with SnapshotHolder(snapshot).acquire() as lease:
        return hydrate(lease, told, UserState(), ChannelSettings())


def chosen(snapshot: Snapshot) -> Scored:
    rows = np.array(ROWS, np.int64)
    return Scored(
        rows=rows,
        values=np.array([0.75, 0.5, 0.25], np.float32),
        scores=np.array([0.75, 0.5, 0.25], np.float32),
        sources=np.array([pb.SOURCE_GROUP, pb.SOURCE_COLLABORATIVE, pb.SOURCE_COLLABORATIVE], np.int8),
        raw=np.array([3.0, 2.0, 1.0], np.float32),
        interests=np.full(3, NO_INTEREST, np.int16),
        categories=snapshot.categories_of(rows + 1),
        grounded=np.zeros((3, 0), np.bool_),
        source_ranks=np.array([[-1, -1, 0, -1], [-1, 0, -1, -1], [-1, 1, 1, -1]], np.int32),
        features=np.random.default_rng(0).random((3, len(FEATURE_NAMES)), np.float32),
    )


REASONS = Reasons(
    reasons=[
        pb.Reason(source=pb.SOURCE_COLLABORATIVE, text="near", weight=1.0),
        pb.Reason(source=pb.SOURCE_GROUP, text="like others", weight=0.5),
    ],
    indexes=np.array([1, 0, 0]),
    all_indexes=np.array([1, 0, 0, 1]),
    all_offsets=np.array([0, 1, 2, 4]),
    failure="",
)


def composed(snapshot: Snapshot, user: Hydrated, *degraded: str) -> pb.RecallResponse:
    return compose(
        "recall-1",
        chosen(snapshot),
        REASONS,
        user,
        snapshot,
        source_statuses=[pb.SourceStatus(source=source, requested=6, found=4) for source in SOURCES],
        filter_counts=[pb.FilterCount(filter="novelty", kept=8, removed=2)],
        shortfalls=[pb.Shortfall(cause=pb.SHORTFALL_CAUSE_FILTERED)],
        degraded_reasons=degraded,
        user_tower="tower-1",
    )


def test_every_column_tells_of_the_items_in_their_order(
    small_world: SmallWorld, grouped_snapshot: Snapshot, user: Hydrated
) -> None:
    scored = chosen(grouped_snapshot)
    response = composed(grouped_snapshot, user)
    assert response.recall_id == "recall-1"
    assert list(response.item_ids) == [small_world.item_ids[row] for row in ROWS]
    assert list(response.scores) == [0.75, 0.5, 0.25]
    assert list(response.sources) == [pb.SOURCE_GROUP, pb.SOURCE_COLLABORATIVE, pb.SOURCE_COLLABORATIVE]
    assert list(response.relevance) == [3.0, 2.0, 1.0]
    paths = small_world.contents.catalogue.paths
    assert [response.categories[i] for i in response.category_indexes] == [paths[row][0] for row in ROWS]
    assert len(response.categories) == len(set(response.categories)) == 2
    matrix = np.array(response.rank_features.values, np.float32).reshape(3, len(FEATURE_NAMES))
    assert (list(response.rank_features.names), response.rank_features.num_rows) == (list(FEATURE_NAMES), 3)
    np.testing.assert_array_equal(matrix, scored.features)
    assert list(response.unexpectedness) == scored.features[:, FEATURE_NAMES.index("unexpectedness")].tolist()


def test_reasons_warnings_statuses_and_counts_are_told(grouped_snapshot: Snapshot, user: Hydrated) -> None:
    response = composed(grouped_snapshot, user)
    assert [reason.text for reason in response.reasons] == ["near", "like others"]
    assert list(response.reason_indexes) == [1, 0, 0]
    assert list(response.all_reason_indexes) == [1, 0, 0, 1]
    assert list(response.all_reason_offsets) == [0, 1, 2, 4]
    assert [warning.code for warning in response.warnings] == [
        pb.WARNING_CODE_CLOCK_SKEW,
        pb.WARNING_CODE_UNKNOWN_CATEGORY,
    ]
    statuses = [(status.source, status.requested, status.found, status.returned) for status in response.source_statuses]
    assert statuses == [(source, 6, 4, returned) for source, returned in zip(SOURCES, (0, 2, 1, 0), strict=True)]
    assert [(count.filter, count.kept, count.removed) for count in response.filter_counts] == [("novelty", 8, 2)]
    assert [shortfall.cause for shortfall in response.shortfalls] == [pb.SHORTFALL_CAUSE_FILTERED]


def test_an_answer_is_degraded_for_every_reason_that_is_one(grouped_snapshot: Snapshot, user: Hydrated) -> None:
    whole, poor = (
        composed(grouped_snapshot, user, *reasons) for reasons in (("", ""), ("", "the tower", "", "a disk"))
    )
    assert (whole.degraded, list(whole.degraded_reasons)) == (False, [])
    assert (poor.degraded, list(poor.degraded_reasons)) == (True, ["the tower", "a disk"])


def test_versions_are_those_of_the_snapshot_with_what_stood_for_the_tower(
    grouped_snapshot: Snapshot, user: Hydrated
) -> None:
    before = grouped_snapshot.versions.SerializeToString()
    versions = composed(grouped_snapshot, user).versions
    assert (versions.snapshot, versions.user_tower) == (grouped_snapshot.version, "tower-1")
    assert versions.events_until.seconds == NOW - 1
    assert versions.merge == grouped_snapshot.merge.id != ""
    assert (versions.group_model_id, versions.generation) == (GROUP_MODEL, GENERATION)
    # The generation is that of the list the user is searched by.
    older = replace(user, novel_categories=replace(user.novel_categories, generation=GENERATION - 1))
    assert len(older.novel_categories)
    assert composed(grouped_snapshot, older).versions.generation == GENERATION - 1
    # One message for all answers, which none of them changes.
    assert grouped_snapshot.versions.SerializeToString() == before


def test_titles_are_for_those_who_ask_for_explanations(
    small_world: SmallWorld, grouped_snapshot: Snapshot, user: Hydrated
) -> None:
    assert not composed(grouped_snapshot, user).titles
    asked = replace(user, query=replace(user.query, explain=True))
    titles = small_world.contents.catalogue.titles
    assert list(composed(grouped_snapshot, asked).titles) == [titles[row] for row in ROWS]


def test_a_title_that_cannot_be_read_is_empty(small_world: SmallWorld, tmp_path: Path) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(small_world.snapshot_dir, directory, ignore=shutil.ignore_patterns("lock.mdb"))
    with (
        lmdb.open(str(directory / layout.ITEMS), lock=False, map_size=2**24) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(layout.item_key(small_world.item_ids[ROWS[1]]), b"\xff\xff")
    snapshot = open_snapshot(directory, verify=False)
    query = RecallQuery(user_id="nobody", count=3, now=NOW, explain=True)
    titles = small_world.contents.catalogue.titles
    assert list(composed(snapshot, read(snapshot, query)).titles) == [titles[ROWS[0]], "", titles[ROWS[2]]]
    snapshot.close()


def test_nothing_chosen_is_an_empty_answer(grouped_snapshot: Snapshot, user: Hydrated) -> None:
    nothing = chosen(grouped_snapshot).take(np.empty(0, np.int64))
    none = Reasons([], np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(1, np.int64), "")
    response = compose(
        "recall-2",
        nothing,
        none,
        user,
        grouped_snapshot,
        source_statuses=[],
        filter_counts=[],
        shortfalls=[],
        degraded_reasons=[],
        user_tower="tower-1",
    )
    assert not response.item_ids
    assert not response.categories
    assert response.rank_features.num_rows == 0
    assert list(response.all_reason_offsets) == [0]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_record_has_reasons_nobody_asked_for_and_no_id_of_the_forgotten(
    grouped_snapshot: Snapshot, user: Hydrated, forgotten: bool
) -> None:
    answer = Answer(composed(grouped_snapshot, user), replace(user, forgotten=forgotten))
    record = answer.to_record(1_700_000_000.5)
    told = answer.for_caller()
    assert not any(getattr(told, name) for name in REASON_COLUMNS)
    assert [reason.text for reason in record.response.reasons] == ["near", "like others"]
    assert record.user_id == ("" if forgotten else user.query.user_id)
    assert user.query.user_id.encode() in record.SerializeToString() or forgotten
    assert record.experiment_tag == "b"
    assert record.novelty_policy == pb.NOVELTY_POLICY_STRICT
    assert record.time.ToMilliseconds() == 1_700_000_000_500


def test_reasons_are_sent_only_when_asked_for(grouped_snapshot: Snapshot, user: Hydrated) -> None:
    for explain in (False, True):
        asked = replace(user, query=replace(user.query, explain=explain))
        response = Answer(composed(grouped_snapshot, asked), asked).for_caller()
        assert len(response.item_ids) == 3
        for name in REASON_COLUMNS:
            assert bool(getattr(response, name)) is explain


IN_SHADOW = {"recall_id", "degraded", "degraded_reasons", "versions", "timings"}


def test_an_answer_in_shadow_is_logged_whole_and_returned_without_candidates(
    grouped_snapshot: Snapshot, user: Hydrated
) -> None:
    asked = replace(user, query=replace(user.query, shadow=True, explain=True))
    answer = Answer(composed(grouped_snapshot, asked, "user tower: away"), asked)
    record = answer.to_record(1_700_000_000.5)
    told = answer.for_caller()
    assert (record.shadow, len(record.response.item_ids)) == (True, 3)
    assert {field.name for field, _ in told.ListFields()} == IN_SHADOW
    assert told.recall_id == record.response.recall_id


@pytest.fixture(scope="module")
def answer(local_channel: LocalChannel) -> Answer:
    """An answer of the whole pipeline."""
    request = pb.RecallRequest(user_id="nobody", count=12, deny_categories=["no such category"])
    work = local_channel.channel.recall(parse_query(request, NOW), Deadline.after(60))
    return local_channel._loop.run_until_complete(work)


def test_an_answer_of_the_pipeline_is_whole(answer: Answer) -> None:
    response = pb.RecallResponse.FromString(answer.response.SerializeToString())
    columns = ("item_ids", "scores", "sources", "relevance", "unexpectedness", "category_indexes", "reason_indexes")
    assert {name: len(getattr(response, name)) for name in columns} == dict.fromkeys(columns, 12)
    assert (response.rank_features.num_rows, len(response.rank_features.values)) == (12, 12 * len(FEATURE_NAMES))
    assert len(response.all_reason_offsets) == 13
    assert response.all_reason_offsets[-1] == len(response.all_reason_indexes)
    assert [warning.code for warning in response.warnings] == [
        pb.WARNING_CODE_UNKNOWN_CATEGORY,
        pb.WARNING_CODE_COLD_USER,
    ]
    assert [status.source for status in response.source_statuses] == list(SOURCES)
    assert [count.filter for count in response.filter_counts] == list(FILTERS)
    assert response.recall_id
    assert not response.degraded


def test_times_are_sent(answer: Answer) -> None:
    timings = answer.response.timings
    stages = [timings.hydrate, timings.user_tower, timings.sources, timings.rank]
    seconds = [stage.ToNanoseconds() / 1e9 for stage in stages]
    assert all(stage > 0 for stage in seconds)
    # What each took is part of what all took together.
    assert sum(seconds) <= timings.total.ToNanoseconds() / 1e9 + 1e-6
    assert all(status.elapsed.ToNanoseconds() >= 0 for status in answer.response.source_statuses)
