"""Novel-category lists and users' groups in the near-line store: who is queued when, and what is kept how long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from serendipity.channel.errors import StateCorrupt
from serendipity.channel.nearline import store as nearline_store
from serendipity.channel.nearline.housekeeping import EMPTY_LIST_SECONDS, Cleared, census, clear, forget
from serendipity.channel.nearline.outcome import Completed
from serendipity.channel.nearline.priority import BackOff, list_priority
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind, WantedList, subject_name, wanted_list
from serendipity.channel.state.records import NUMBER
from serendipity.layout import user_key
from serendipity.v1 import records_pb2
from tests.fixtures.nearline_store import assert_lists_consistent, spoil

NOW = 1_700_000_000
DAY = 86_400
NEEDED = 3
MAP_BYTES = 1 << 24


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NearlineStore]:
    with open_store(tmp_path / "nearline") as opened:
        yield opened


def open_store(path: Path) -> NearlineStore:
    return NearlineStore(
        path,
        map_bytes=MAP_BYTES,
        max_entries=4,
        max_lists=3,
        list_requests=NEEDED,
        back_off=BackOff(),
        commit_interval=0,
        clock=lambda: NOW,
    )


def a_list(number: int = 0) -> WantedList:
    return WantedList("model", 1 + number, ("TEA", "WINE"))


def ask(store: NearlineStore, want: WantedList, times: int = 1) -> None:
    """Ask as often, each request in a commit of its own."""
    for _ in range(times):
        store.want_list(want)
        assert store.flush(10)


def queued(store: NearlineStore) -> list[WantedList]:
    return [wanted_list(entry) for entry in store.queue(Kind.LISTS).take(10, NOW)]


def fill(store: NearlineStore, generated_at: int = NOW, *, empty: bool = False, model: str = "model") -> None:
    """Complete the first list queued."""
    (entry,) = store.queue(Kind.LISTS).take(1, NOW)
    record = records_pb2.NovelCategoriesRecord(
        categories=[] if empty else [1], scores=[] if empty else [0.5], generated_at=generated_at, group_model_id=model
    )
    assert store.queue(Kind.LISTS).settle([Completed(entry, (record,))], NOW)["completed"] == 1


def cleared(store: NearlineStore, now: int = NOW, *, group_models: set[str] | None = None) -> Cleared:
    return clear(store, now=now, moment=now, hard_age=30 * DAY, group_models=group_models)


def test_a_list_is_queued_with_the_request_that_makes_enough(store: NearlineStore) -> None:
    ask(store, a_list(), NEEDED - 1)
    assert queued(store) == []
    assert store.queue(Kind.LISTS).totals() == Counter()
    ask(store, a_list())
    assert queued(store) == [a_list()]
    (entry,) = store.queue(Kind.LISTS).take(1, NOW)
    assert entry.requests == NEEDED
    assert entry.priority == pytest.approx(list_priority(NEEDED))


def test_the_order_of_categories_makes_no_other_list(store: NearlineStore) -> None:
    ask(store, WantedList("model", 1, ("TEA", "WINE")), 2)
    ask(store, WantedList("model", 1, ("WINE", "TEA")))
    assert len(queued(store)) == 1


def test_requests_before_one_commit_all_count(tmp_path: Path) -> None:
    with NearlineStore(tmp_path, map_bytes=MAP_BYTES, list_requests=NEEDED, commit_interval=60) as store:
        for _ in range(NEEDED):
            store.want_list(a_list())
        assert store.flush(10)
        assert queued(store) == [a_list()]


def test_the_list_that_more_requests_ask_for_goes_first(store: NearlineStore) -> None:
    ask(store, a_list(0), NEEDED)
    ask(store, a_list(1), 3 * NEEDED)
    ask(store, a_list(2), 2 * NEEDED)
    assert queued(store) == [a_list(1), a_list(2), a_list(0)]


def test_a_full_queue_refuses_until_there_is_room(store: NearlineStore) -> None:
    for number in range(4):
        ask(store, a_list(number), NEEDED)
    ask(store, a_list(9), NEEDED)
    assert store.queue(Kind.LISTS).totals()["refused"] == 1
    assert a_list(9) not in queued(store)
    fill(store)
    ask(store, a_list(9), NEEDED)
    assert a_list(9) in queued(store)
    assert len(queued(store)) == 4


def test_one_is_counted_from_zero_where_too_many_lists_are_counted(
    store: NearlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearline_store, "_MOST_COUNTED", 4)
    for number in range(4):
        ask(store, a_list(number), 2)
    ask(store, a_list(9), 2)
    ask(store, a_list(0))
    assert queued(store) == []
    ask(store, a_list(9))
    assert queued(store) == [a_list(9)]


def test_lists_that_cannot_be_stored_are_refused(store: NearlineStore) -> None:
    for want in (WantedList("x" * 300, 1, ()), WantedList("model", -1, ()), WantedList("model", 1, ("\udc80",))):
        ask(store, want, NEEDED)
    # Counted with the next commit.
    ask(store, a_list(), NEEDED)
    assert store.queue(Kind.LISTS).totals() == Counter(refused=3, accepted=1)


def test_the_oldest_lists_go_where_there_are_too_many(store: NearlineStore) -> None:
    for number, age in enumerate((2, 9, 5, 1)):
        ask(store, a_list(number), NEEDED)
        fill(store, NOW - age * DAY)
    kept = [store.novel_categories(a_list(number).key) is not None for number in range(4)]
    assert kept == [True, False, True, True]
    assert store.queue(Kind.LISTS).totals()["evicted"] == 1


def test_lists_of_a_group_model_that_no_snapshot_has_go(store: NearlineStore) -> None:
    ask(store, a_list(0), NEEDED)
    fill(store, model="old")
    ask(store, a_list(1), NEEDED)
    fill(store, model="new")
    assert cleared(store).lists == 0
    assert cleared(store, group_models={"new"}).lists == 1
    assert store.novel_categories(a_list(0).key) is None
    assert store.novel_categories(a_list(1).key) is not None


def test_an_empty_list_is_remembered_for_a_while(store: NearlineStore) -> None:
    ask(store, a_list(0), NEEDED)
    fill(store, empty=True)
    ask(store, a_list(1), NEEDED)
    fill(store)
    assert cleared(store, NOW + EMPTY_LIST_SECONDS).lists == 0
    assert cleared(store, NOW + EMPTY_LIST_SECONDS + 1).lists == 1
    assert store.novel_categories(a_list(0).key) is None
    assert store.novel_categories(a_list(1).key) is not None


def test_failed_lists_are_put_off(store: NearlineStore) -> None:
    queue = store.queue(Kind.LISTS)
    ask(store, a_list(), NEEDED)
    for attempt in range(2):
        (entry,) = queue.take(1, NOW + attempt * DAY)
        queue.fail(entry, "why", NOW + attempt * DAY)
    (failed,) = queue.delayed(9)
    assert (subject_name(failed), failed.attempts) == ("group 1: TEA, WINE", 2)


def test_totals_are_kept_by_kind(store: NearlineStore) -> None:
    ask(store, a_list(), NEEDED)
    fill(store)
    assert store.queue(Kind.LISTS).totals() == {"accepted": 1, "completed": 1}
    assert store.queue(Kind.INTERESTS).totals() == {}


def test_an_environment_of_interests_alone_keeps_what_it_holds(tmp_path: Path) -> None:
    """What was written before groups and lists were queued: eight tables, entries without requests."""
    entry = records_pb2.NearlineEntry(
        user_id="user", cause=records_pb2.REFRESH_CAUSE_MISSING, priority=0.5, enqueued_at=NOW, generation=1
    )
    interests = records_pb2.InterestsRecord(node_ids=[1], weights=[2], generated_at=NOW)
    env = lmdb.open(str(tmp_path), map_size=MAP_BYTES, max_dbs=8)
    names = (b"queue", b"ready", b"delayed", b"parked", b"interests", b"paths", b"quiet", b"meta")
    tables = {name: env.open_db(name) for name in names}
    with env.begin(write=True) as txn:
        txn.put(b"user", entry.SerializeToString(), db=tables[b"queue"])
        txn.put(NUMBER.pack((NOW + DAY // 2) * 1_000) + b"\0" * 16, b"user", db=tables[b"ready"])
        txn.put(b"other", interests.SerializeToString(), db=tables[b"interests"])
        txn.put(b"completed", NUMBER.pack(7), db=tables[b"meta"])
    env.close()
    with open_store(tmp_path) as store:
        assert store.queue(Kind.INTERESTS).take(10, NOW) == [entry]
        assert store.interests("other") == interests
        assert store.queue(Kind.INTERESTS).totals() == {"completed": 7}
        ask(store, a_list(), NEEDED)
        assert queued(store) == [a_list()]


def test_a_list_that_cannot_be_decoded_is_overwritten_and_later_ones_are_evicted_as_ever(store: NearlineStore) -> None:
    ask(store, a_list(0), NEEDED)
    fill(store, NOW - 9 * DAY)
    spoil(store, store.records[Kind.LISTS][0], a_list(0).key)
    with pytest.raises(StateCorrupt, match="cannot be decoded"):
        store.novel_categories(a_list(0).key)
    for number, age in enumerate((2, 5, 4)):
        ask(store, a_list(number), NEEDED)
        fill(store, NOW - age * DAY)
    record = store.novel_categories(a_list(0).key)
    assert record is not None
    assert record.generated_at == NOW - 2 * DAY
    ask(store, a_list(3), NEEDED)
    fill(store, NOW)
    # The oldest place is that of what could not be decoded; the oldest list is another.
    assert [store.novel_categories(a_list(number).key) is not None for number in range(4)] == [True, False, True, True]
    assert store.queue(Kind.LISTS).totals()["evicted"] == 1
    assert_lists_consistent(store)


def test_lists_that_cannot_be_decoded_are_evicted_like_others(store: NearlineStore) -> None:
    for number in range(3):
        ask(store, a_list(number), NEEDED)
        fill(store, NOW - (9 - number) * DAY)
    spoil(store, store.records[Kind.LISTS][0], *(a_list(number).key for number in range(3)))
    for number in range(3, 6):
        ask(store, a_list(number), NEEDED)
        fill(store)
    assert store.queue(Kind.LISTS).totals()["evicted"] == 3
    assert assert_lists_consistent(store).keys() == {a_list(number).key for number in range(3, 6)}


def test_a_list_whose_moment_is_no_longer_its_places_is_evicted_all_the_same(store: NearlineStore) -> None:
    ask(store, a_list(0), NEEDED)
    fill(store, NOW - 9 * DAY)
    with store.env.writing() as txn:
        changed = records_pb2.NovelCategoriesRecord(generated_at=NOW - DAY)
        txn.put(a_list(0).key, changed.SerializeToString(), db=store.records[Kind.LISTS][0].table)
    for number in range(1, 4):
        ask(store, a_list(number), NEEDED)
        fill(store)
    assert assert_lists_consistent(store).keys() == {a_list(number).key for number in range(1, 4)}


def test_housekeeping_removes_what_cannot_be_decoded_and_goes_on(store: NearlineStore) -> None:
    ask(store, a_list(0), NEEDED)
    fill(store, model="old")
    ask(store, a_list(1), NEEDED)
    fill(store, model="new")
    spoil(store, store.records[Kind.LISTS][0], b"broken")
    spoil(store, store.records[Kind.INTERESTS][0], user_key("broken"))
    spoil(store, store.queue(Kind.LISTS).entries, b"broken")
    gone = cleared(store, group_models={"new"})
    assert (gone.lists, gone.interests, gone.entries) == (2, 1, 1)
    assert assert_lists_consistent(store).keys() == {a_list(1).key}
    assert census(store, Kind.LISTS).records == 1
    assert cleared(store, group_models={"new"}).lists == 0


def test_users_are_forgotten_whatever_cannot_be_decoded(store: NearlineStore) -> None:
    users = ("broken", "other")
    for user in users:
        store.want(user, records_pb2.REFRESH_CAUSE_MISSING, 0.5)
    assert store.flush(10)
    spoil(store, store.records[Kind.LISTS][0], a_list().key)
    for table in (store.queue(Kind.INTERESTS).entries, *store.records[Kind.INTERESTS]):
        spoil(store, table, user_key("broken"))
    assert forget(store, list(map(user_key, users))) == 2
    with store.env.reading() as txn:
        left = [bytes(name) for name, _ in txn.cursor() if txn.stat(store.env.lmdb.open_db(name, txn))["entries"]]
    assert [name for name in left if not name.endswith(b"meta")] == [b"lists"]
