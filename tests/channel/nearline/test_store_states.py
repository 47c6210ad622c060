"""Whatever is done to a near-line store, and wherever it is reopened, it holds what a simple model of it holds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serendipity.channel.nearline.housekeeping import clear
from serendipity.channel.nearline.outcome import Completed, Failed, Unneeded
from serendipity.channel.nearline.priority import PATIENCE_SECONDS, BackOff
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.v1 import records_pb2
from tests.fixtures.nearline_store import assert_consistent

NOW = 1_700_000_000
MAX_ENTRIES = 6
USERS = st.sampled_from([f"user-{i}" for i in range(10)])
PRIORITIES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
CAUSES = st.sampled_from([c for c in records_pb2.RefreshCause.values() if c])


@dataclass
class Expected:
    """An entry as the model knows it."""

    priority: float
    enqueued_at: int
    attempts: int = 0
    generation: int = 1
    state: str = "ready"

    @property
    def due(self) -> float:
        return self.enqueued_at + PATIENCE_SECONDS * (1 - self.priority)


class NearlineMachine(RuleBasedStateMachine):
    """The store beside a dictionary of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = float(NOW)
        self.entries: dict[str, Expected] = {}
        self.records: dict[str, int] = {}
        self.taken: list[records_pb2.NearlineEntry] = []

    @initialize()
    def open(self) -> None:
        self.store = NearlineStore(
            Path(self.directory.name),
            map_bytes=1 << 22,
            max_entries=MAX_ENTRIES,
            back_off=BackOff(first=100, longest=1_000, jitter=0),
            commit_interval=0,
            clock=lambda: self.now,
        )

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.open()

    @rule(seconds=st.sampled_from([1, 50, 200, PATIENCE_SECONDS]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(user=USERS, cause=CAUSES, priority=PRIORITIES)
    def want(self, user: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        self.store.want(user, cause, priority)
        assert self.store.flush(10)
        entry = self.entries.get(user)
        if entry is not None:
            entry.priority = max(entry.priority, priority)
            entry.generation += 1
            return
        new = Expected(priority, int(self.now))
        if len(self.entries) >= MAX_ENTRIES:
            ready = {u: e for u, e in self.entries.items() if e.state == "ready"}
            latest = max((e.due for e in ready.values()), default=0.0)
            if latest <= new.due:
                return
            # Of several that are due at once, the store's own order tells.
            (gone,) = (u for u in ready if u not in assert_consistent(self.store))
            assert self.entries[gone].due == latest
            del self.entries[gone]
        self.entries[user] = new

    @rule(most=st.integers(1, 8))
    def take(self, most: int) -> None:
        for user, entry in self.entries.items():
            if entry.state.startswith("delayed") and float(entry.state.split()[1]) <= self.now:
                self.entries[user].state = "ready"
        self.taken = self.store.queue(Kind.INTERESTS).take(most, self.now)
        ready = sorted(e.due for e in self.entries.values() if e.state == "ready")
        assert [self.entries[entry.user_id].due for entry in self.taken] == ready[:most]

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if not self.taken:
            return
        entry = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        kind = data.draw(st.sampled_from(["complete", "fail", "nothing known"]))
        user, expected = entry.user_id, self.entries.get(entry.user_id)
        if kind == "complete":
            generated_at = int(self.now)
            self.store.queue(Kind.INTERESTS).settle([Completed(entry, self.made(generated_at))], self.now)
            if expected is not None:
                self.records[user] = generated_at
                self.leave(user, expected, entry)
        elif kind == "fail":
            self.store.queue(Kind.INTERESTS).settle([Failed(entry, "why")], self.now)
            if expected is not None:
                expected.attempts += 1
                delay = min(1_000, 100 * 2 ** (expected.attempts - 1))
                expected.state = f"delayed {self.now + delay}"
        else:
            self.store.queue(Kind.INTERESTS).settle([Unneeded(entry)], self.now)
            if expected is not None:
                self.leave(user, expected, entry)

    @rule(user=USERS)
    def forget(self, user: str) -> None:
        self.store.forget_all([user])
        for kept in (self.entries, self.records):
            kept.pop(user, None)

    @rule(age=st.sampled_from([10, 1_000]))
    def keep_house(self, age: int) -> None:
        cleared = clear(self.store, now=self.now, moment=self.now, hard_age=age)
        old = [user for user, generated_at in self.records.items() if generated_at < self.now - age]
        given_up = [
            user
            for user, entry in self.entries.items()
            if entry.state.startswith("delayed") and entry.enqueued_at < self.now - age
        ]
        assert (cleared.interests, cleared.entries) == (len(old), len(given_up))
        for user in given_up:
            del self.entries[user]
        for user in old:
            del self.records[user]

    @invariant()
    def holds_what_is_expected(self) -> None:
        if not hasattr(self, "store"):
            return
        entries = assert_consistent(self.store)
        assert entries.keys() == self.entries.keys()
        for user, entry in entries.items():
            expected = self.entries[user]
            assert (entry.attempts, entry.generation) == (expected.attempts, expected.generation)
            assert (entry.priority, entry.enqueued_at) == (expected.priority, expected.enqueued_at)
        assert len(entries) <= MAX_ENTRIES
        for user in {*self.records, *(f"user-{i}" for i in range(10))}:
            interests, paths = self.store.interests(user), self.store.paths(user)
            generated_at = self.records.get(user)
            assert (interests, paths) == ((None, None) if generated_at is None else self.made(generated_at))

    @staticmethod
    def made(generated_at: int) -> tuple[records_pb2.InterestsRecord, records_pb2.InterestPathsRecord]:
        return (
            records_pb2.InterestsRecord(node_ids=[1], weights=[2], generated_at=generated_at),
            records_pb2.InterestPathsRecord(paths=[records_pb2.InterestPath(seed=str(generated_at))]),
        )

    def leave(self, user: str, expected: Expected, entry: records_pb2.NearlineEntry) -> None:
        """Remove an entry unless it was wanted again since it was taken."""
        if expected.generation > entry.generation:
            expected.state, expected.attempts = "ready", 0
        else:
            del self.entries[user]


NearlineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
TestNearlineStore = NearlineMachine.TestCase
