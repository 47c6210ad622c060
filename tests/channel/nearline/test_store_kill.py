"""What is acknowledged outlives kill −9 at any moment, and no record is half made."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from serendipity.channel.nearline.outcome import Completed, Failed
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind, WantedList, wanted_list
from serendipity.v1 import records_pb2
from tests.fixtures.nearline_store import assert_consistent, assert_lists_consistent

NOW = 1_700_000_000
KILLS = 8
LONGEST_LIFE = 0.25
MISSING = records_pb2.REFRESH_CAUSE_MISSING


def open_store(path: Path) -> NearlineStore:
    return NearlineStore(path, map_bytes=1 << 26, max_entries=10**6, commit_interval=0.001)


def want_for_ever(path: Path, life: int, out: Connection) -> None:
    """Want new users, tell each batch once it is flushed, until killed."""
    with open_store(path) as store:
        batch = 0
        while True:
            users = [f"{life}-{batch}-{i}" for i in range(5)]
            for user_id in users:
                store.want(user_id, MISSING, 0.5)
            store.flush()
            out.send(users)
            batch += 1


def settle_for_ever(path: Path, life: int, out: Connection) -> None:
    """Complete or fail whatever is queued, tell each batch once it is settled, until killed."""
    rng = random.Random(life)
    with open_store(path) as store:
        while True:
            entries = store.queue(Kind.INTERESTS).take(8, NOW)
            outcomes = [
                Completed(entry, records(entry.user_id)) if rng.random() < 0.7 else Failed(entry, "why")
                for entry in entries
            ]
            store.queue(Kind.INTERESTS).settle(outcomes, NOW)
            out.send([one.entry.user_id for one in outcomes if isinstance(one, Completed)])


def records(user_id: str) -> tuple[records_pb2.InterestsRecord, records_pb2.InterestPathsRecord]:
    """Records that tell whose they are, and whether they belong together."""
    number = sum(user_id.encode())
    return (
        records_pb2.InterestsRecord(node_ids=range(number % 5 + 1), weights=[number] * (number % 5 + 1)),
        records_pb2.InterestPathsRecord(paths=[records_pb2.InterestPath(seed=user_id)] * (number % 5 + 1)),
    )


def lives_until_killed(target: Callable[[Path, int, Connection], None], path: Path, kills: int = KILLS) -> list[str]:
    """Run a process again and again, kill it −9 at a random moment each time; all the users it told of."""
    rng = random.Random(0)
    context = multiprocessing.get_context("spawn")
    told: list[str] = []
    for life in range(kills):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=target, args=(path, life, sender))
        process.start()
        sender.close()
        # From the first word on, so that every life has done something when it ends.
        told += receiver.recv()
        time.sleep(rng.uniform(0.0, LONGEST_LIFE))
        process.kill()
        process.join()
        assert process.exitcode == -9
        while receiver.poll():
            try:
                told += receiver.recv()
            except (EOFError, OSError):
                # Killed in the middle of a word.
                break
        receiver.close()
    return told


def test_every_acknowledged_want_survives_kills(tmp_path: Path) -> None:
    told = lives_until_killed(want_for_ever, tmp_path)
    with open_store(tmp_path) as store:
        queued = assert_consistent(store)
    assert len(told) >= 5 * KILLS
    assert set(told) <= queued.keys()
    assert len({user_id.split("-")[0] for user_id in told}) == KILLS


def test_kills_lose_no_user_and_leave_no_half_made_record(tmp_path: Path) -> None:
    users = [f"user-{i}" for i in range(40_000)]
    with NearlineStore(tmp_path, map_bytes=1 << 26, max_waiting=len(users)) as store:
        for user_id in users:
            store.want(user_id, MISSING, 0.5)
    told = lives_until_killed(settle_for_ever, tmp_path)
    with open_store(tmp_path) as store:
        queued = assert_consistent(store)
        stored = {}
        for user_id in users:
            interests, paths = store.interests(user_id), store.paths(user_id)
            if interests is not None:
                stored[user_id] = (interests, paths)
    assert len(told) > 0
    assert set(told) <= stored.keys()
    # Neither lost nor both: a record and its entry change hands in one transaction.
    assert queued.keys() | stored.keys() == set(users)
    assert not queued.keys() & stored.keys()
    assert all(found == records(user_id) for user_id, found in stored.items())
    assert any(entry.attempts for entry in queued.values())


def open_lists(path: Path) -> NearlineStore:
    return NearlineStore(path, map_bytes=1 << 26, list_requests=2, commit_interval=0.0001)


def a_list(name: str) -> WantedList:
    return WantedList("model", 1, (name,))


def ask_for_ever(path: Path, life: int, out: Connection) -> None:
    """Ask for new lists often enough, tell each batch once it is flushed, until killed."""
    with open_lists(path) as store:
        batch = 0
        while True:
            names = [f"{life}-{batch}-{i}" for i in range(5)]
            for name in names:
                store.want_list(a_list(name))
                store.want_list(a_list(name))
            store.flush()
            out.send(names)
            batch += 1


def fill_for_ever(path: Path, life: int, out: Connection) -> None:
    """Fill whatever lists are queued, tell each batch once it is settled, until killed."""
    with open_lists(path) as store:
        queue = store.queue(Kind.LISTS)
        while True:
            entries = queue.take(8, NOW)
            queue.settle([Completed(entry, (list_record(entry),)) for entry in entries], NOW)
            out.send([wanted_list(entry).categories[0] for entry in entries])


def list_record(entry: records_pb2.NearlineEntry) -> records_pb2.NovelCategoriesRecord:
    """A record that tells which list it is."""
    number = sum(wanted_list(entry).categories[0].encode())
    return records_pb2.NovelCategoriesRecord(categories=[number], scores=[0.5], generated_at=NOW - number)


def test_every_list_that_enough_requests_asked_for_survives_kills_and_none_is_half_made(tmp_path: Path) -> None:
    told = lives_until_killed(ask_for_ever, tmp_path, kills=3)
    with open_lists(tmp_path) as store:
        queued = {wanted_list(entry).categories[0] for entry in store.queue(Kind.LISTS).take(10**6, NOW)}
    assert set(told) <= queued
    filled = lives_until_killed(fill_for_ever, tmp_path, kills=3)
    with open_lists(tmp_path) as store:
        lists = assert_lists_consistent(store)
        left = {wanted_list(entry).categories[0] for entry in store.queue(Kind.LISTS).take(10**6, NOW)}
    done = {name for name in queued if a_list(name).key in lists}
    assert set(filled) <= done
    assert done | left == queued
    assert not done & left
    assert all(lists[a_list(name).key].categories == [sum(name.encode())] for name in done)
