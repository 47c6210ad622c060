"""Whatever is asked of the list queue, and wherever it is reopened, it holds what a simple model of it holds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serendipity.channel.nearline.housekeeping import EMPTY_LIST_SECONDS, clear
from serendipity.channel.nearline.outcome import Completed, Failed
from serendipity.channel.nearline.priority import BackOff
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind, WantedList, wanted_list
from serendipity.v1 import records_pb2
from tests.fixtures.nearline_store import ALL, assert_lists_consistent

NOW = 1_700_000_000
NEEDED = 3
MAX_LISTS = 3
MODELS = ("old", "new")
WANTS = st.builds(WantedList, st.sampled_from(MODELS), st.integers(0, 2), st.sampled_from([(), ("TEA",)]))


@dataclass
class Expected:
    """An entry as the model knows it."""

    requests: int
    attempts: int = 0
    is_ready: bool = True


class ListMachine(RuleBasedStateMachine):
    """The store beside dictionaries of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.now = NOW
        self.asked: dict[WantedList, int] = {}
        self.entries: dict[WantedList, Expected] = {}
        self.lists: dict[WantedList, tuple[int, bool]] = {}
        self.seen: set[WantedList] = set()

    @initialize()
    def open(self) -> None:
        self.store = NearlineStore(
            Path(self.directory.name),
            map_bytes=1 << 22,
            max_lists=MAX_LISTS,
            list_requests=NEEDED,
            back_off=BackOff(first=100, longest=100, jitter=0),
            commit_interval=0,
            clock=lambda: self.now,
        )

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        # What a process has counted goes with it.
        self.asked.clear()
        self.open()

    @rule(want=WANTS, times=st.integers(1, NEEDED + 1))
    def ask(self, want: WantedList, times: int) -> None:
        self.seen.add(want)
        for _ in range(times):
            self.store.want_list(want)
            assert self.store.flush(10)
            requests = self.asked.pop(want, 0) + 1
            if requests < NEEDED:
                self.asked[want] = requests
            elif want in self.entries:
                self.entries[want].requests += NEEDED
            else:
                self.entries[want] = Expected(NEEDED)

    @rule(fails=st.booleans(), empty=st.booleans(), seconds=st.sampled_from([1, 1, 1, 40_000]))
    def work(self, fails: bool, empty: bool, seconds: int) -> None:
        self.now += seconds
        ready = [want for want, entry in self.entries.items() if entry.is_ready]
        entries = self.store.queue(Kind.LISTS).take(1, NOW)
        assert len(entries) == min(1, len(ready))
        for entry in entries:
            want = wanted_list(entry)
            # Queued at various seconds, so the one asked for most need not come first; it is one that is ready.
            assert want in ready
            if fails:
                self.store.queue(Kind.LISTS).fail(entry, "why", self.now)
                self.entries[want].attempts += 1
                self.entries[want].is_ready = False
                continue
            record = records_pb2.NovelCategoriesRecord(
                categories=[] if empty else [1], generated_at=self.now, group_model_id=want.group_model_id
            )
            self.store.queue(Kind.LISTS).settle([Completed(entry, (record,))], self.now)
            del self.entries[want]
            self.lists.pop(want, None)
            self.lists[want] = (self.now, empty)
            while len(self.lists) > MAX_LISTS:
                del self.lists[min(self.lists, key=lambda kept: self.lists[kept][0])]

    @rule()
    def fail_what_is_gone(self) -> None:
        gone = records_pb2.NearlineEntry(novel_categories=records_pb2.NovelCategoriesWant(group_model_id="gone"))
        assert self.store.queue(Kind.LISTS).settle([Failed(gone, "why")], self.now)["gone"] == 1

    @rule(models=st.sets(st.sampled_from(MODELS)))
    def keep_house(self, models: set[str]) -> None:
        over = [
            want
            for want, (generated_at, empty) in self.lists.items()
            if want.group_model_id not in models or (empty and generated_at < self.now - EMPTY_LIST_SECONDS)
        ]
        cleared = clear(self.store, now=self.now, moment=self.now, hard_age=30 * 86_400, group_models=models)
        assert cleared.lists == len(over)
        for want in over:
            del self.lists[want]

    @invariant()
    def holds_what_is_expected(self) -> None:
        if not hasattr(self, "store"):
            return
        assert_lists_consistent(self.store)
        table = self.store.queue(Kind.LISTS).entries
        with self.store.env.reading() as txn:
            found = [table.get(txn, key) for key in table.keys_after(txn, b"", ALL)]
        entries = {wanted_list(entry): entry for entry in found if entry is not None}
        assert entries.keys() == self.entries.keys()
        for want, entry in entries.items():
            expected = self.entries[want]
            assert (entry.requests, entry.attempts) == (expected.requests, expected.attempts)
        for want in self.seen:
            record = self.store.novel_categories(want.key)
            assert (record is None) == (want not in self.lists)
            if record is not None:
                assert (record.generated_at, not record.categories) == self.lists[want]


ListMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None, derandomize=True)
TestNearlineLists = ListMachine.TestCase
