"""What is acknowledged outlives kill −9 at any moment, and no record is half made."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from serendipity.channel.nearline.outcome import Completed, Failed, InterestRecords
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.v1 import records_pb2
from tests.fixtures.nearline_store import assert_consistent

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
                Completed(entry, InterestRecords(*records(entry.user_id)))
                if rng.random() < 0.7
                else Failed(entry, "why")
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


def lives_until_killed(target: Callable[[Path, int, Connection], None], path: Path) -> list[str]:
    """Run a process again and again, kill it −9 at a random moment each time; all the users it told of."""
    rng = random.Random(0)
    context = multiprocessing.get_context("spawn")
    told: list[str] = []
    for life in range(KILLS):
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
