"""The near-line store: what is wanted of users and lists, and what was generated for them.

One LMDB environment per host, shared by the workers, who want things and read them, and the one near-line process,
which generates them:

    store.want("user", cause, priority)                      a user's interests
    store.want_list(WantedList("a1b2", 3, ("Jazz",)))     a novel-category list, after enough requests for its key
    store.queue(Kind.LISTS).take(64, now)                    see durable_queue, which tells the queues' tables
    store.interests("user"), store.novel_categories(key)

    interests      user → InterestsRecord
    paths          user → InterestPathsRecord, of the same refresh as the interests
    lists          novel-category key → NovelCategoriesRecord
    lists_by_age   their order by generated_at

Whatever changes together changes in one transaction, so a process that dies leaves all of it or nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import lmdb

from serendipity.channel.nearline.durable_queue import DurableQueue
from serendipity.channel.nearline.outcome import NearlineRecord
from serendipity.channel.nearline.priority import BackOff
from serendipity.channel.nearline.subject import Kind, WantedList
from serendipity.channel.service.settings import ServerSettings
from serendipity.channel.state.environment import Environment
from serendipity.channel.state.records import OrderedRecords, Records
from serendipity.layout import user_key
from serendipity.v1 import records_pb2

_BY_AGE = "lists_by_age"
_MAX_TABLES = 32

_LIST_COMMIT_FACTOR = 10
"""Wanted lists are committed so many times less often: many requests ask for one, and none is urgent."""

_MOST_COUNTED = 50_000
"""Lists whose requests are counted: some 20 MB."""


class NearlineStore:
    """The near-line store of one host; every process opens it once.

    path: directory of the environment, made if missing; map_bytes: its largest size (address space, not disk, until
    it is used; the same in all processes); max_entries: entries of each kind that may be queued at most;
    max_lists: novel-category lists kept at most, the oldest go first; list_requests: requests of this process after
    which a list is queued; back_off: of failed attempts; max_waiting: wants of each kind that may wait in memory;
    commit_interval: seconds between commits of what is wanted; clock: Unix seconds. Raises StateUnavailable (StateFull)
    when it cannot be opened, read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        map_bytes: int = 16 << 30,
        max_entries: int = 1_000_000,
        max_lists: int = 1_000_000,
        list_requests: int = 3,
        back_off: BackOff | None = None,
        max_waiting: int = 10_000,
        commit_interval: float = 0.1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.env = env = Environment(path, map_bytes, _MAX_TABLES)
        self._max_lists = max_lists
        self._requests_needed = list_requests
        self._counting = threading.Lock()
        self._requests: dict[tuple[str, int, frozenset[str]], int] = {}
        self._interests = Records(env, "interests", records_pb2.InterestsRecord)
        self._paths = Records(env, "paths", records_pb2.InterestPathsRecord)
        self._lists = OrderedRecords(
            env,
            "lists",
            records_pb2.NovelCategoriesRecord,
            {_BY_AGE: _BY_AGE},
            lambda record: (_BY_AGE, record.generated_at),
        )
        self.records: dict[Kind, Sequence[Records[Any]]] = {
            Kind.INTERESTS: (self._interests, self._paths),
            Kind.LISTS: (self._lists,),
        }
        """What is generated for a key of each kind; the first tells of the others what they are."""
        self._queues = {
            kind: DurableQueue(
                env,
                kind,
                self.put,
                max_entries=max_entries,
                back_off=back_off or BackOff(),
                max_waiting=max_waiting,
                commit_interval=commit_interval * (_LIST_COMMIT_FACTOR if kind is Kind.LISTS else 1),
                clock=clock,
            )
            for kind in Kind
        }

    def queue(self, kind: Kind) -> DurableQueue:
        """The queue of one kind."""
        return self._queues[kind]

    def want(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        """Ask for a user's interests to be generated; returns at once and never raises.

        priority: 0 to 1, see `refresh_priority`.
        """
        urgency = min(1.0, max(0.0, priority)) if math.isfinite(priority) else 0.0
        self._queues[Kind.INTERESTS].want(user_id=user_id, cause=cause, priority=urgency, requests=1)

    def want_list(self, want: WantedList) -> None:
        """Count a request for a novel-category list, and queue it with the last that is needed.

        Returns at once and never raises. Of too many lists the one asked for longest ago is counted from zero.
        """
        key = (want.group_model_id, want.group_id, frozenset(want.categories))
        with self._counting:
            requests = self._requests.pop(key, 0) + 1
            if requests < self._requests_needed:
                self._requests[key] = requests
                if len(self._requests) > _MOST_COUNTED:
                    del self._requests[next(iter(self._requests))]
                return
        self._queues[Kind.LISTS].want(
            cause=records_pb2.REFRESH_CAUSE_MISSING,
            requests=requests,
            novel_categories={
                "group_model_id": want.group_model_id,
                "group_id": want.group_id,
                "categories": want.categories,
            },
        )

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was wanted before is on disk, or refused; False after `timeout` seconds for one kind."""
        return all(queue.flush(timeout) for queue in self._queues.values())

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        """Read the interests generated for a user, whatever their age and taxonomy; None without any."""
        with self.env.reading() as txn:
            return self._interests.get(txn, user_key(user_id))

    def paths(self, user_id: str, generated_at: int | None = None) -> records_pb2.InterestPathsRecord | None:
        """Read how a user's interests were reached, in the order of their node ids; None without any.

        generated_at: of the interests they are read for; None is returned where others took their place meanwhile.
        """
        key = user_key(user_id)
        with self.env.reading() as txn:
            if generated_at is not None:
                interests = self._interests.get(txn, key)
                if interests is None or interests.generated_at != generated_at:
                    return None
            return self._paths.get(txn, key)

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
        """Read the list of a key, whatever its generation and taxonomy; None without any.

        An empty one says that nothing reached the threshold.
        """
        with self.env.reading() as txn:
            return self._lists.get(txn, key)

    def put(self, txn: lmdb.Transaction, key: bytes, record: NearlineRecord) -> None:
        """Write what was generated for a key. The oldest lists go where there are too many, and are counted."""
        tables: dict[type[Any], Records[Any]] = {
            records_pb2.InterestsRecord: self._interests,
            records_pb2.InterestPathsRecord: self._paths,
            records_pb2.NovelCategoriesRecord: self._lists,
        }
        tables[type(record)].put(txn, key, record)
        while self._lists.count(txn) > self._max_lists:
            if self._lists.delete_first(txn, _BY_AGE):
                self._queues[Kind.LISTS].add(txn, "evicted")

    def forget_all(self, user_ids: Collection[str]) -> int:
        """Remove all that is kept of users: entries, interests and paths; returns of how many something was."""
        return self.forget_keys([user_key(user_id) for user_id in user_ids])

    def forget_keys(self, keys: Collection[bytes]) -> int:
        """Remove all that is kept of users given by `layout.user_key`; returns of how many something was."""
        if not keys:
            return 0
        tables = (*self.records[Kind.INTERESTS], self._queues[Kind.INTERESTS].entries)
        with self.env.writing() as txn:
            return sum(1 for key in keys if sum(table.delete(txn, key) for table in tables))

    def close(self) -> None:
        """Commit what is wanted, then close. May be called twice."""
        for queue in self._queues.values():
            queue.close()
        self.env.close()

    def __enter__(self) -> NearlineStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_nearline(settings: ServerSettings) -> NearlineStore:
    """Open the near-line store of a host as its settings say. Raises StateUnavailable."""
    return NearlineStore(
        settings.nearline_path,
        map_bytes=settings.nearline_map_bytes,
        max_entries=settings.nearline_max_entries,
        list_requests=settings.nearline_list_requests,
        commit_interval=settings.nearline_commit_seconds,
    )
