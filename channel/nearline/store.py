"""The near-line store: what is wanted of users and lists, and what was generated for them.

One LMDB environment per host, shared by the workers, who want things and read them, and the one near-line process,
which generates them:

    store.want("user", cause, priority)                      a user's interests
    store.want_group("user", num_clicks)                     a user's group
    store.want_list(WantedList("a1b2", 3, ("GROCERY",)))     a novel-category list, after enough requests for its key
    store.queue(Kind.LISTS).take(64, now)                    see durable_queue
    store.interests("user"), store.group("user"), store.novel_categories(key)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from serendipity.channel.nearline.durable_queue import DurableQueue, QueueRule
from serendipity.channel.nearline.priority import BackOff, group_priority, list_priority
from serendipity.channel.nearline.subject import USER_KINDS, Kind
from serendipity.channel.nearline.tables import NearlineTables
from serendipity.channel.nearline.wanted import Want
from serendipity.channel.nearline.wanted_list import WantedList
from serendipity.channel.service.settings import ServerSettings
from serendipity.layout import user_key
from serendipity.v1 import records_pb2

LIST_COMMIT_FACTOR = 10
"""Requests for lists are committed so many times less often: nearly every request asks for one, and none is urgent."""


class NearlineStore:
    """The near-line store of one host; every process opens it once.

    path: directory of the environment, made if missing; map_bytes: its largest size (address space, not disk, until
    it is used; the same in all processes); max_entries: entries that may be queued, and parked, at most, of each kind;
    max_lists: novel-category lists kept at most; list_requests: requests after which a list is queued; back_off: of
    failed attempts; max_waiting: subjects of each kind that may wait in memory; commit_interval: seconds between
    commits of what is wanted; clock: Unix seconds. Raises StateUnavailable (StateFull) when it cannot be opened, read
    or written.
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
        self.tables = NearlineTables(path, map_bytes, max_lists)
        rule = QueueRule(max_entries, back_off or BackOff())
        list_rule = QueueRule(max_entries, rule.back_off, list_requests, list_priority)
        self._queues = {
            kind: DurableQueue(
                self.tables,
                kind,
                list_rule if kind is Kind.LISTS else rule,
                max_waiting=max_waiting,
                commit_interval=commit_interval * (LIST_COMMIT_FACTOR if kind is Kind.LISTS else 1),
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
        self._queues[Kind.INTERESTS].want(Want(user_id, cause, urgency))

    def want_group(self, user_id: str, num_clicks: int) -> None:
        """Ask for a user's group to be assigned; returns at once and never raises. num_clicks: kept clicks."""
        want = Want(user_id, records_pb2.REFRESH_CAUSE_MISSING, group_priority(num_clicks))
        self._queues[Kind.GROUPS].want(want)

    def want_list(self, want: WantedList) -> None:
        """Count a request for a novel-category list; returns at once and never raises."""
        self._queues[Kind.LISTS].want(Want(want, records_pb2.REFRESH_CAUSE_MISSING, 0.0))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was wanted before is on disk, or refused; False after `timeout` seconds for one kind."""
        return all(queue.flush(timeout) for queue in self._queues.values())

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        """Read the interests generated for a user, whatever their age and taxonomy; None without any."""
        with self.tables.reading() as transaction:
            return transaction.interests(user_key(user_id))

    def paths(self, user_id: str, generated_at: int | None = None) -> records_pb2.InterestPathsRecord | None:
        """Read how a user's interests were reached, in the order of their node ids; None without any.

        generated_at: of the interests they are read for; None is returned where others took their place meanwhile.
        """
        key = user_key(user_id)
        with self.tables.reading() as transaction:
            if generated_at is not None:
                interests = transaction.interests(key)
                if interests is None or interests.generated_at != generated_at:
                    return None
            return transaction.paths(key)

    def group(self, user_id: str) -> records_pb2.UserGroupRecord | None:
        """Read the group assigned to a user, whatever its group model; None without any."""
        with self.tables.reading() as transaction:
            return transaction.group(user_key(user_id))

    def novel_categories(self, key: bytes) -> records_pb2.NovelCategoriesRecord | None:
        """Read the list of a key, whatever its generation and taxonomy; None without any."""
        with self.tables.reading() as transaction:
            return transaction.novel_categories(key)

    def forget_all(self, user_ids: Collection[str]) -> int:
        """Remove all that is kept of users: entries, interests, paths and group; returns of how many something was."""
        keys = [user_key(user_id) for user_id in user_ids]
        for kind in USER_KINDS:
            for key in keys:
                self._queues[kind].discard(key)
        return self.forget_keys(keys)

    def forget_keys(self, keys: Iterable[bytes]) -> int:
        """Remove all that is kept of users given by `layout.user_key`; returns of how many something was."""
        tables = self.tables
        kept = [tables.interests, tables.paths, tables.groups]
        for kind in USER_KINDS:
            kept += [tables.queues[kind].queue, tables.queues[kind].quiet, tables.queues[kind].asked]
        with self.tables.reading() as transaction:
            known = [key for key in keys if any(transaction.has(table, key) for table in kept)]
        if known:
            with self.tables.writing() as transaction:
                for key in known:
                    transaction.remove_interests(key)
                    transaction.remove_group(key)
                    for kind in USER_KINDS:
                        queue = transaction.queue(kind)
                        queue.remove(key)
                        queue.set_quiet(key, 0)
                        queue.set_asked(key, 0, 0)
        return len(known)

    def close(self) -> None:
        """Commit what is wanted, then close. May be called twice."""
        for queue in self._queues.values():
            queue.close()
        self.tables.env.close()

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
        max_lists=settings.nearline_max_lists,
        list_requests=settings.nearline_list_requests,
        back_off=BackOff(
            first=settings.nearline_back_off_seconds,
            longest=settings.nearline_longest_back_off_seconds,
            max_attempts=settings.nearline_max_attempts,
        ),
        commit_interval=settings.nearline_commit_seconds,
    )
