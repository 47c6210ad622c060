"""The near-line store: what is wanted, what is generated, in which order, and what survives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from serendipity.channel.errors import StateUnavailable
from serendipity.channel.nearline.durable_queue import MAX_ERROR_CHARS
from serendipity.channel.nearline.housekeeping import census, clear
from serendipity.channel.nearline.outcome import Completed, Failed, Unneeded
from serendipity.channel.nearline.priority import PATIENCE_SECONDS, BackOff
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.layout import user_key
from serendipity.v1 import records_pb2
from tests.fixtures.nearline_store import assert_consistent, spoil

NOW = 1_700_000_000
DAY = 86_400
MISSING, STALE = records_pb2.REFRESH_CAUSE_MISSING, records_pb2.REFRESH_CAUSE_STALE


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[NearlineStore]:
    back_off = BackOff(first=100, longest=1_000, jitter=0.25)
    with NearlineStore(
        tmp_path / "nearline", map_bytes=1 << 24, max_entries=5, back_off=back_off, commit_interval=0, clock=clock
    ) as opened:
        yield opened


def want(store: NearlineStore, user_id: str, priority: float = 0.5, cause: records_pb2.RefreshCause = MISSING) -> None:
    store.want(user_id, cause, priority)
    assert store.flush(10)


def users(entries: list[records_pb2.NearlineEntry]) -> list[str]:
    return [entry.user_id for entry in entries]


def records(generated_at: int = NOW) -> tuple[records_pb2.InterestsRecord, records_pb2.InterestPathsRecord]:
    return (
        records_pb2.InterestsRecord(
            node_ids=[1], weights=[500], generated_at=generated_at, expires_at=generated_at + 9
        ),
        records_pb2.InterestPathsRecord(paths=[records_pb2.InterestPath(seed="seed")], reasoner="gpt"),
    )


def complete(
    store: NearlineStore,
    entry: records_pb2.NearlineEntry,
    interests: records_pb2.InterestsRecord,
    paths: records_pb2.InterestPathsRecord,
) -> bool:
    outcome = Completed(entry, (interests, paths))
    return store.queue(Kind.INTERESTS).settle([outcome], NOW)["completed"] == 1


def test_a_user_is_queued_once_with_the_most_urgent_cause(store: NearlineStore, clock: Clock) -> None:
    want(store, "user", 0.2, STALE)
    clock.now += 50
    want(store, "user", 0.8, MISSING)
    want(store, "user", 0.3, STALE)
    (entry,) = store.queue(Kind.INTERESTS).take(10, clock.now)
    assert (entry.cause, entry.enqueued_at, entry.generation) == (MISSING, NOW, 3)
    assert entry.priority == pytest.approx(0.8)
    assert store.queue(Kind.INTERESTS).totals() == Counter(accepted=1, merged=2)


def test_wants_before_one_commit_count_as_one(tmp_path: Path) -> None:
    with NearlineStore(tmp_path, map_bytes=1 << 24, commit_interval=60) as store:
        for priority in (0.1, 0.9, 0.5):
            store.want("user", MISSING, priority)
        assert store.flush(10)
        (entry,) = store.queue(Kind.INTERESTS).take(1, NOW)
        assert entry.generation == 1
        assert entry.priority == pytest.approx(0.9)


def test_the_most_urgent_goes_first_and_waiting_makes_urgent(store: NearlineStore, clock: Clock) -> None:
    want(store, "calm, early", 0.1)
    clock.now += 0.7 * PATIENCE_SECONDS
    want(store, "urgent", 0.9)
    want(store, "calm, late", 0.1)
    assert users(store.queue(Kind.INTERESTS).take(10, clock.now)) == ["urgent", "calm, early", "calm, late"]
    clock.now += 0.2 * PATIENCE_SECONDS
    want(store, "urgent, late", 0.9)
    assert users(store.queue(Kind.INTERESTS).take(10, clock.now)) == [
        "urgent",
        "calm, early",
        "urgent, late",
        "calm, late",
    ]
    assert users(store.queue(Kind.INTERESTS).take(2, clock.now)) == ["urgent", "calm, early"]


def test_a_full_queue_refuses_or_displaces_the_least_urgent(store: NearlineStore, clock: Clock) -> None:
    for i in range(5):
        want(store, f"user-{i}", 0.5)
    want(store, "calm", 0.1)
    assert store.queue(Kind.INTERESTS).totals() == Counter(accepted=5, refused=1)
    want(store, "urgent", 0.9)
    assert store.queue(Kind.INTERESTS).totals() == Counter(accepted=6, refused=1, displaced=1)
    queued = users(store.queue(Kind.INTERESTS).take(10, clock.now))
    assert (len(queued), queued[0]) == (5, "urgent")
    assert "calm" not in queued


def test_wants_that_cannot_be_stored_are_refused(store: NearlineStore) -> None:
    store.want("", MISSING, 0.5)
    store.want("\udc80", MISSING, 0.5)
    store.want("user", MISSING, float("nan"))
    assert store.flush(10)
    assert store.queue(Kind.INTERESTS).totals() == Counter(accepted=1, refused=2)
    assert store.queue(Kind.INTERESTS).take(1, NOW)[0].priority == 0


def test_memory_is_bounded(tmp_path: Path) -> None:
    with NearlineStore(tmp_path, map_bytes=1 << 24, max_waiting=3, commit_interval=60) as store:
        for i in range(10):
            store.want(f"user-{i}", MISSING, 0.5)
        assert store.flush(10)
        assert store.queue(Kind.INTERESTS).totals() == Counter(accepted=3, overflowed=7)


def test_completion_stores_records_and_removes_the_entry(store: NearlineStore) -> None:
    want(store, "user")
    (entry,) = store.queue(Kind.INTERESTS).take(1, NOW)
    interests, paths = records()
    assert complete(store, entry, interests, paths)
    assert store.queue(Kind.INTERESTS).take(1, NOW) == []
    assert (store.interests("user"), store.paths("user")) == (interests, paths)
    assert (store.interests("other"), store.paths("other")) == (None, None)


def test_paths_belong_to_the_interests_they_are_read_for(store: NearlineStore) -> None:
    want(store, "user")
    complete(store, store.queue(Kind.INTERESTS).take(1, NOW)[0], *records())
    assert store.paths("user", NOW) is not None
    assert store.paths("user", NOW - 1) is None


def test_a_user_wanted_again_meanwhile_stays_queued(store: NearlineStore, clock: Clock) -> None:
    want(store, "user")
    (entry,) = store.queue(Kind.INTERESTS).take(1, NOW)
    want(store, "user")
    assert complete(store, entry, *records())
    assert users(store.queue(Kind.INTERESTS).take(1, clock.now)) == ["user"]
    assert store.interests("user") is not None


def test_what_was_forgotten_meanwhile_is_not_stored(store: NearlineStore) -> None:
    want(store, "user")
    (entry,) = store.queue(Kind.INTERESTS).take(1, NOW)
    assert store.forget_all(["user"])
    assert not complete(store, entry, *records())
    assert store.interests("user") is None
    assert store.queue(Kind.INTERESTS).settle([Failed(entry, "why"), Unneeded(entry)], NOW) == Counter(gone=2)
    assert store.queue(Kind.INTERESTS).take(1, NOW) == []


def test_forgetting_removes_everything(store: NearlineStore) -> None:
    want(store, "user")
    complete(store, store.queue(Kind.INTERESTS).take(1, NOW)[0], *records())
    want(store, "user")
    assert store.forget_all(["user"])
    assert (store.interests("user"), store.paths("user"), store.queue(Kind.INTERESTS).take(1, NOW)) == (None, None, [])
    assert not store.forget_all(["user"])


def test_failures_are_put_off_ever_longer(store: NearlineStore, clock: Clock) -> None:
    want(store, "user")
    for delay in (100, 200):
        (entry,) = store.queue(Kind.INTERESTS).take(1, clock.now)
        store.queue(Kind.INTERESTS).fail(entry, "no JSON", clock.now)
        assert store.queue(Kind.INTERESTS).take(1, clock.now + 0.75 * delay - 1) == []
        clock.now += 1.25 * delay + 1
    (entry,) = store.queue(Kind.INTERESTS).take(1, clock.now)
    assert (entry.attempts, entry.last_error) == (2, "no JSON")
    store.queue(Kind.INTERESTS).fail(entry, "x" * 1_000, clock.now)
    (failed,) = store.queue(Kind.INTERESTS).delayed(9)
    assert (failed.attempts, failed.last_error) == (3, "x" * MAX_ERROR_CHARS)
    want(store, "user")
    assert store.queue(Kind.INTERESTS).take(1, clock.now) == [], "wanting a user who failed does not try again at once"


def test_delays_differ_between_users() -> None:
    back_off = BackOff(first=100, longest=1_000, jitter=0.25)
    delays = [back_off.delay(f"user-{i}", 1) for i in range(200)]
    assert 75 <= min(delays) < 80
    assert 120 < max(delays) <= 125
    assert back_off.delay("user", 100) <= 1_250


def test_a_user_of_whom_nothing_is_known_is_queued_again_when_asked_for(store: NearlineStore) -> None:
    want(store, "user")
    store.queue(Kind.INTERESTS).settle([Unneeded(store.queue(Kind.INTERESTS).take(1, NOW)[0])], NOW)
    assert store.queue(Kind.INTERESTS).take(1, NOW) == []
    want(store, "user")
    assert users(store.queue(Kind.INTERESTS).take(1, NOW)) == ["user"]
    assert store.queue(Kind.INTERESTS).totals() == Counter(accepted=2, unneeded=1)


def test_several_outcomes_end_in_one_transaction(store: NearlineStore, clock: Clock) -> None:
    for i in range(3):
        want(store, f"user-{i}")
    first, second, third = store.queue(Kind.INTERESTS).take(3, NOW)
    before = store.env.lmdb.info()["last_txnid"]
    settled = store.queue(Kind.INTERESTS).settle(
        [Completed(first, records()), Failed(second, "why"), Unneeded(third)], clock.now
    )
    assert settled == Counter(completed=1, failed=1, unneeded=1)
    assert store.env.lmdb.info()["last_txnid"] == before + 1


def test_everything_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "nearline"
    with NearlineStore(path, map_bytes=1 << 24) as store:
        store.want("queued", MISSING, 0.5)
        store.want("done", MISSING, 0.9)
        assert store.flush(10)
        complete(store, store.queue(Kind.INTERESTS).take(1, NOW)[0], *records())
    with NearlineStore(path, map_bytes=1 << 24) as store:
        assert users(store.queue(Kind.INTERESTS).take(10, NOW)) == ["queued"]
        assert store.interests("done") is not None


def test_two_processes_share_the_store(store: NearlineStore, tmp_path: Path) -> None:
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=_want_elsewhere, args=(tmp_path / "nearline",))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert users(store.queue(Kind.INTERESTS).take(1, NOW)) == ["elsewhere"]


def _want_elsewhere(path: Path) -> None:
    with NearlineStore(path, map_bytes=1 << 24) as store:
        store.want("elsewhere", MISSING, 0.5)


def test_long_and_strange_user_ids_are_users_too(store: NearlineStore) -> None:
    for user_id in ("x" * 600, "ü\x00🙂"):
        want(store, user_id)
        (entry,) = store.queue(Kind.INTERESTS).take(1, NOW)
        assert entry.user_id == user_id
        assert complete(store, entry, *records())
        assert store.interests(user_id) is not None


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnavailable, match="nearline: cannot be opened"):
        NearlineStore(tmp_path / "file" / "nearline")


def test_wants_after_close_raise_nothing(tmp_path: Path) -> None:
    store = NearlineStore(tmp_path, map_bytes=1 << 24)
    store.close()
    store.want("user", MISSING, 0.5)
    store.close()


def test_an_entry_that_cannot_be_decoded_is_passed_over(store: NearlineStore) -> None:
    for user in ("first", "second", "third"):
        want(store, user)
    ahead = users(store.queue(Kind.INTERESTS).take(3, NOW))
    spoil(store, store.queue(Kind.INTERESTS).entries, *map(user_key, ahead[:2]))
    assert users(store.queue(Kind.INTERESTS).take(1, NOW)) == ahead[2:]
    assert census(store).ready == 3
    assert clear(store, now=NOW, moment=NOW, hard_age=DAY).entries == 2
    assert assert_consistent(store).keys() == set(ahead[2:])


def test_a_user_whose_entry_cannot_be_decoded_is_queued_anew_and_nobody_is_lost_by_it(store: NearlineStore) -> None:
    want(store, "user")
    spoil(store, store.queue(Kind.INTERESTS).entries, user_key("user"), user_key("other"))
    for user in ("user", "other"):
        store.want(user, MISSING, 0.5)
    assert store.flush(10)
    assert store.queue(Kind.INTERESTS).totals() == Counter(accepted=3)
    assert assert_consistent(store).keys() == {"user", "other"}
