"""The near-line store: users whose interests are wanted, and the interests that were generated for them.

One LMDB environment per host, shared by the workers, who want interests and read them, and the one near-line process,
which generates them:

    store.want("user", cause, priority)                worker; never waits
    entries = store.take(64, now)                      near-line process; they stay queued until they are settled
    store.settle([Completed(entry, interests, paths)]) records in and entry out, in one transaction

What is wanted waits in memory until a thread has committed it for all callers together (group commit). From then on it
outlives the process, and everything else here is one transaction.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import lmdb
import structlog
from google.protobuf.message import DecodeError

from serendipity.channel.errors import StateFull, StateUnavailable
from serendipity.channel.nearline.outcome import Completed, Failed, Outcome, Settled, Unneeded
from serendipity.channel.nearline.priority import BackOff, due
from serendipity.channel.nearline.tables import NearlineTables, NearlineTransaction
from serendipity.channel.nearline.wanted import Want, Wanted, WantedCounts
from serendipity.channel.server_settings import ServerSettings
from serendipity.layout import user_key
from serendipity.v1 import records_pb2

MAX_ERROR_CHARS = 300
"""Characters kept of why an attempt failed."""

_MOST_AT_ONCE = 10_000

_log = structlog.stdlib.get_logger(__name__)


class NearlineStore:
    """The near-line store of one host; every process opens it once.

    path: directory of the environment, made if missing; map_bytes: its largest size (address space, not disk, until
    it is used; the same in all processes); max_entries: users that may be queued, and parked, at most; back_off: of
    failed attempts; max_waiting: users that may wait in memory; commit_interval: seconds between commits of what is
    wanted; clock: Unix seconds. Raises StateUnavailable (StateFull) when it cannot be opened, read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        map_bytes: int = 16 << 30,
        max_entries: int = 1_000_000,
        back_off: BackOff | None = None,
        max_waiting: int = 10_000,
        commit_interval: float = 0.1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # As in messages: they reach callers, whom this machine's directories do not concern.
        self._name = path.name
        self._max_entries = max_entries
        self._back_off = back_off or BackOff()
        self._clock = clock
        with self._guarded("opened"):
            path.mkdir(parents=True, exist_ok=True)
            self.tables = NearlineTables(path, map_bytes)
        self._wanted = Wanted(self._commit, max_waiting=max_waiting, interval=commit_interval)

    def want(self, user_id: str, cause: records_pb2.RefreshCause, priority: float) -> None:
        """Ask for a user's interests to be generated; returns at once and never raises.

        priority: 0 to 1, see `refresh_priority`. A user queued already keeps the place of the most urgent want.
        What became of it is counted, see `wanted`.
        """
        try:
            user_key(user_id)
        except UnicodeEncodeError:
            user_id = ""
        if not user_id:
            self._wanted.refuse()
            return
        self._wanted.add(user_id, Want(cause, min(1.0, max(0.0, priority)) if math.isfinite(priority) else 0.0))

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was wanted before is on disk, or refused; False after `timeout` seconds."""
        return self._wanted.flush(timeout)

    def wanted(self) -> WantedCounts:
        """What became of the wants of this process so far."""
        return self._wanted.counts()

    def interests(self, user_id: str) -> records_pb2.InterestsRecord | None:
        """Read the interests generated for a user, whatever their age and taxonomy; None without any."""
        with self.reading() as transaction:
            return transaction.interests(user_key(user_id))

    def paths(self, user_id: str, generated_at: int | None = None) -> records_pb2.InterestPathsRecord | None:
        """Read how a user's interests were reached, in the order of their node ids; None without any.

        generated_at: of the interests they are read for; None is returned where others took their place meanwhile.
        """
        key = user_key(user_id)
        with self.reading() as transaction:
            if generated_at is not None:
                interests = transaction.interests(key)
                if interests is None or interests.generated_at != generated_at:
                    return None
            return transaction.paths(key)

    def take(self, most: int, now: float) -> list[records_pb2.NearlineEntry]:
        """Read the entries that are to be tried now, most urgent first.

        They stay queued until they are settled: whoever takes them and dies has lost nothing. now: Unix seconds.
        """
        with self.reading() as transaction:
            if not transaction.keys(self.tables.delayed, 1, until=now):
                return transaction.first(self.tables.ready, most)
        with self.writing() as transaction:
            for key in transaction.keys(self.tables.delayed, _MOST_AT_ONCE, until=now):
                _make_ready(transaction, key)
            return transaction.first(self.tables.ready, most)

    def complete(
        self,
        entry: records_pb2.NearlineEntry,
        interests: records_pb2.InterestsRecord,
        paths: records_pb2.InterestPathsRecord,
    ) -> bool:
        """Store a user's records and remove the entry; False, and nothing stored, if the user is no longer queued."""
        return bool(self.settle([Completed(entry, interests, paths)], self._clock()).completed)

    def fail(self, entry: records_pb2.NearlineEntry, error: str, now: float) -> None:
        """Put an entry off after a failed attempt, or park it after too many. now: Unix seconds."""
        self.settle([Failed(entry, error)], now)

    def settle(
        self, outcomes: Sequence[Outcome], now: float, counts: Mapping[str, int] = MappingProxyType({})
    ) -> Settled:
        """End attempts, all in one transaction. now: Unix seconds; counts: what else is added to the store's totals.

        An entry wanted again since it was taken stays queued: its records are stored, its failures are forgotten.
        """
        with self.writing() as transaction:
            ends = Counter(self._settle(transaction, outcome, now) for outcome in outcomes)
            for name, count in (*ends.items(), *counts.items()):
                transaction.add(name, count)
        return Settled(**ends)

    def parked(self, most: int = 1_000) -> list[records_pb2.NearlineEntry]:
        """Read the entries that were tried too often, those parked first before the others."""
        with self.reading() as transaction:
            return transaction.first(self.tables.parked, most)

    def retry(self, user_id: str | None = None) -> int:
        """Let a parked or delayed entry, or all of them, be tried at once as if they never failed; returns how many."""
        retried = 0
        with self.writing() as transaction:
            if user_id is not None:
                return int(_make_ready(transaction, user_key(user_id), afresh=True))
            for order in (self.tables.parked, self.tables.delayed):
                for key in transaction.keys(order, 2 * self._max_entries):
                    retried += _make_ready(transaction, key, afresh=True)
        return retried

    def forget(self, user_id: str) -> bool:
        """Remove all that is kept of a user: entry, interests and paths; False if there was nothing."""
        return bool(self.forget_all([user_id]))

    def forget_all(self, user_ids: Collection[str]) -> int:
        """Remove all that is kept of users; returns of how many something was."""
        for user_id in user_ids:
            self._wanted.discard(user_id)
        return self.forget_keys([user_key(user_id) for user_id in user_ids])

    def forget_keys(self, keys: Iterable[bytes]) -> int:
        """Remove all that is kept of users given by `layout.user_key`; returns of how many something was."""
        tables = self.tables
        with self.reading() as transaction:
            kept = (tables.queue, tables.interests, tables.paths, tables.quiet)
            known = [key for key in keys if any(transaction.has(table, key) for table in kept)]
        if known:
            with self.writing() as transaction:
                for key in known:
                    transaction.remove(key)
                    transaction.remove_records(key)
                    transaction.set_quiet(key, 0)
        return len(known)

    @contextlib.contextmanager
    def reading(self) -> Iterator[NearlineTransaction]:
        """See the tables as of one moment. Raises StateUnavailable."""
        with self._guarded("read"), self.tables.env.begin() as txn:
            yield NearlineTransaction(self.tables, txn)

    @contextlib.contextmanager
    def writing(self) -> Iterator[NearlineTransaction]:
        """Change the tables in one transaction; other writers of the host wait. Raises StateUnavailable, StateFull."""
        with self._guarded("written"), self.tables.env.begin(write=True) as txn:
            yield NearlineTransaction(self.tables, txn)

    def last_transaction(self) -> int:
        """Number of the last committed transaction of the environment, all processes counted."""
        with self._guarded("read"):
            return int(self.tables.env.info()["last_txnid"])

    def close(self) -> None:
        """Commit what is wanted, then close. May be called twice."""
        self._wanted.close()
        self.tables.env.close()

    def __enter__(self) -> NearlineStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _settle(self, transaction: NearlineTransaction, outcome: Outcome, now: float) -> str:
        key = user_key(outcome.entry.user_id)
        entry = transaction.entry(key)
        if entry is None:
            return "gone"
        if isinstance(outcome, Failed):
            return self._put_off(transaction, key, entry, outcome.error, now)
        if isinstance(outcome, Completed):
            transaction.put_records(key, outcome.interests, outcome.paths)
        if entry.generation > outcome.entry.generation:
            _make_ready(transaction, key, afresh=True)
        else:
            transaction.remove(key)
            if isinstance(outcome, Unneeded) and outcome.quiet_until:
                transaction.set_quiet(key, outcome.quiet_until)
        return "completed" if isinstance(outcome, Completed) else "unneeded"

    def _put_off(
        self, transaction: NearlineTransaction, key: bytes, entry: records_pb2.NearlineEntry, error: str, now: float
    ) -> str:
        entry.attempts += 1
        entry.last_error = error[:MAX_ERROR_CHARS]
        entry.parked = entry.attempts >= self._back_off.max_attempts
        if entry.parked:
            entry.not_before = math.ceil(now)
            if transaction.count(self.tables.parked) >= self._max_entries:
                for oldest in transaction.keys(self.tables.parked, 1):
                    transaction.remove(oldest)
        else:
            entry.not_before = math.ceil(now + self._back_off.delay(entry.user_id, entry.attempts))
        transaction.put(key, entry)
        return "parked" if entry.parked else "failed"

    def _commit(self, wants: Mapping[str, Want]) -> WantedCounts:
        try:
            with self.writing() as transaction:
                counts = Counter[str]()
                now = self._clock()
                for user_id, want in wants.items():
                    counts.update(self._enter(transaction, user_id, want, now))
                for name in ("refused", "displaced"):
                    transaction.add(name, counts[name])
        except StateUnavailable as error:
            _log.error("wanted interests not queued", users=len(wants), error=str(error))
            return WantedCounts(lost=len(wants))
        return WantedCounts(**counts)

    def _enter(self, transaction: NearlineTransaction, user_id: str, want: Want, now: float) -> list[str]:
        key = user_key(user_id)
        by_operator = want.cause == records_pb2.REFRESH_CAUSE_OPERATOR
        entry = transaction.entry(key)
        if entry is not None:
            # What an operator asked for is done whatever is stored, so it stays known that one did.
            if by_operator or (want.priority > entry.priority and entry.cause != records_pb2.REFRESH_CAUSE_OPERATOR):
                entry.cause = want.cause
            entry.priority = max(entry.priority, want.priority)
            entry.generation += 1
            transaction.put(key, entry)
            if by_operator:
                _make_ready(transaction, key, afresh=True)
            return ["merged"]
        if transaction.quiet_until(key) > now and not by_operator:
            return ["quiet"]
        entry = records_pb2.NearlineEntry(
            user_id=user_id, cause=want.cause, priority=want.priority, enqueued_at=int(now), generation=1
        )
        outcome = ["accepted"]
        if transaction.num_waiting() >= self._max_entries:
            last = transaction.last_ready()
            behind = None if last is None else transaction.entry(last)
            if last is None or behind is None or due(behind) <= due(entry):
                return ["refused"]
            transaction.remove(last)
            outcome.append("displaced")
        transaction.put(key, entry)
        return outcome

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError as error:
            raise StateFull(f"{self._name}: full; raise nearline_map_bytes, or let records expire sooner") from error
        except (lmdb.Error, OSError, DecodeError) as error:
            raise StateUnavailable(f"{self._name}: cannot be {what} ({error})") from error


def open_nearline(settings: ServerSettings, clock: Callable[[], float] = time.time) -> NearlineStore:
    """Open the near-line store of a host as its settings say. Raises StateUnavailable."""
    return NearlineStore(
        settings.nearline_path,
        map_bytes=settings.nearline_map_bytes,
        max_entries=settings.nearline_max_entries,
        back_off=BackOff(
            first=settings.nearline_back_off_seconds,
            longest=settings.nearline_longest_back_off_seconds,
            max_attempts=settings.nearline_max_attempts,
        ),
        commit_interval=settings.nearline_commit_seconds,
        clock=clock,
    )


def _make_ready(transaction: NearlineTransaction, key: bytes, *, afresh: bool = False) -> bool:
    """Let an entry be tried at once; afresh: as if it never failed. False if there is none."""
    entry = transaction.entry(key)
    if entry is None:
        return False
    entry.not_before, entry.parked = 0, False
    if afresh:
        entry.attempts, entry.last_error = 0, ""
    transaction.put(key, entry)
    return True
