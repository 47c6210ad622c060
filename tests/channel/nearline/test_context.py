"""Users near-line are described exactly as builds describe them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from serendipity import layout
from serendipity.channel.errors import RecordCorrupt
from serendipity.channel.nearline.context import ContextReader, SignalStore
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.features import LongHistory
from serendipity.interests.facts import FactsRule, facts_of
from serendipity.interests.reasoner import UserContext
from serendipity.offline.interests.user_facts import FactsConfig
from serendipity.v1 import channel_pb2, records_pb2
from tests.fixtures.small_world import DAY, NOW, SmallWorld

EVERYTHING = records_pb2.FactsSpec(search_days=30, clicked_titles="always", signal_titles=True)


@pytest.fixture(scope="module")
def signals(small_world: SmallWorld) -> Iterator[SignalStore]:
    store = SignalStore(small_world.snapshot_dir / layout.SIGNALS)
    yield store
    store.close()


def reader(
    snapshot: Snapshot,
    signals: SignalStore | None,
    feedback: records_pb2.UserFeedbackRecord | None = None,
    rule: FactsRule = EVERYTHING,
) -> ContextReader:
    return ContextReader(snapshot, signals, lambda _: feedback, rule)


def built_context(world: SmallWorld, user_id: str) -> UserContext:
    """The user as builds see one: the same history, from where the snapshot was written from."""
    record = world.contents.users[user_id]
    signals = world.contents.signals.get(user_id, records_pb2.UserSignalsRecord())
    fields = zip(world.tower.profile_fields, record.profile, strict=True)
    return UserContext(
        user_id=user_id,
        clicks=world.clicks(user_id),
        long_history=LongHistory(
            np.array(record.long_categories, np.int32),
            np.array(record.long_counts, np.int32),
            np.array(record.long_last_times, np.int64),
        ),
        now=NOW,
        searches=[(search.query, search.time) for search in signals.searches],
        profile={field.name: field.values[number - 1] for field, number in fields if number},
        signals=list(zip(signals.items, signals.item_times, strict=True)),
    )


def event(
    item_id: str, time: int, kind: channel_pb2.EventType = channel_pb2.EVENT_TYPE_CLICK
) -> channel_pb2.FeedbackEvent:
    made = channel_pb2.FeedbackEvent(item_id=item_id, type=kind)
    made.time.seconds = time
    return made


@pytest.mark.parametrize(
    "config",
    [
        FactsConfig(),
        FactsConfig(clicked_titles="never", search_days=5),
        FactsConfig(clicked_titles="without searches", signal_titles=False),
    ],
)
def test_facts_equal_those_of_a_build_for_every_user(
    small_world: SmallWorld, snapshot: Snapshot, signals: SignalStore, config: FactsConfig
) -> None:
    rule = records_pb2.FactsSpec(**config.model_dump())
    for user_id in small_world.user_ids:
        found = reader(snapshot, signals, rule=rule).read(user_id, NOW)
        context = built_context(small_world, user_id)
        catalogue = small_world.catalogue
        assert found.facts == facts_of(context, catalogue.categories, catalogue.titles.__getitem__, config)
        assert found.known == set(context.clicks.categories.tolist())


def test_feedback_is_laid_over_the_snapshot(small_world: SmallWorld, snapshot: Snapshot, signals: SignalStore) -> None:
    user_id = small_world.user_ids[0]
    wanted = small_world.planted[user_id][0]
    row = int(snapshot.category_offsets[wanted - 1])
    feedback = records_pb2.UserFeedbackRecord(
        clicks=[event(small_world.item_ids[row], NOW + 5)],
        click_categories=[snapshot.category_names[wanted - 1]],
        searches=[records_pb2.Search(query="mend a bicycle", time=NOW + 4)],
        signals=[event(small_world.item_ids[7], NOW + 3, channel_pb2.EVENT_TYPE_VIEW)],
    )
    before = reader(snapshot, signals).read(user_id, NOW + 10)
    after = reader(snapshot, signals, feedback).read(user_id, NOW + 10)
    assert after.known == {*before.known, wanted}
    assert after.facts.searches == ("mend a bicycle", *before.facts.searches)
    titles = small_world.catalogue.titles
    assert after.facts.titles[:2] == (titles[row], titles[7])
    assert snapshot.category_names[wanted - 1] in {fact.name for fact in after.facts.recent}


def test_a_user_only_feedback_knows_is_described_by_it(small_world: SmallWorld, snapshot: Snapshot) -> None:
    feedback = records_pb2.UserFeedbackRecord(clicks=[event(small_world.item_ids[0], NOW - DAY)])
    user = reader(snapshot, None, feedback).read("newcomer", NOW)
    assert [fact.name for fact in user.facts.recent] == [snapshot.category_names[0]]
    assert not user.facts.profile


def test_clicks_on_items_gone_since_keep_their_category(small_world: SmallWorld, snapshot: Snapshot) -> None:
    feedback = records_pb2.UserFeedbackRecord(
        clicks=[event("gone", NOW - DAY)], click_categories=[snapshot.category_names[4]]
    )
    assert reader(snapshot, None, feedback).read("newcomer", NOW).known == {5}


def test_old_searches_and_signals_are_not_told(snapshot: Snapshot, small_world: SmallWorld) -> None:
    feedback = records_pb2.UserFeedbackRecord(
        searches=[records_pb2.Search(query="long ago", time=NOW - 31 * DAY)],
        signals=[event(small_world.item_ids[7], NOW - 31 * DAY, channel_pb2.EVENT_TYPE_VIEW)],
    )
    assert reader(snapshot, None, feedback).read("newcomer", NOW).facts.is_empty


def test_of_an_unknown_user_nothing_is_known(snapshot: Snapshot, signals: SignalStore) -> None:
    assert reader(snapshot, signals).read("nobody", NOW).facts.is_empty


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (records_pb2.UserSignalsRecord(items=[401], item_times=[NOW]), "items: found 401, expected at most 400"),
        (records_pb2.UserSignalsRecord(items=[1]), "item_times: found 0 times, expected 1"),
    ],
)
def test_signals_that_cannot_be_are_corrupt(
    snapshot: Snapshot, tmp_path: Path, record: records_pb2.UserSignalsRecord, message: str
) -> None:
    with lmdb.open(str(tmp_path / layout.SIGNALS)) as environment, environment.begin(write=True) as txn:
        txn.put(layout.user_key("user"), record.SerializeToString())
    store = SignalStore(tmp_path / layout.SIGNALS)
    with pytest.raises(RecordCorrupt, match=message):
        reader(snapshot, store).read("user", NOW)
    store.close()
