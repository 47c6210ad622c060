"""Whose interests are due: the rule by which requests ask for them, applied to everybody a snapshot knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from serendipity import layout
from serendipity.channel.nearline.priority import refresh_priority
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.recall.hydrate import REFRESH_CAUSES
from serendipity.channel.recall.interests import InterestEvents, InterestReader
from serendipity.channel.settings import ChannelSettings
from serendipity.channel.snapshot.row_ranges import RowRanges
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.state.state import UserState
from serendipity.v1 import records_pb2


@dataclass(frozen=True)
class DueUser:
    """A user and how things stand. cause: why interests are wanted, None for fresh ones; priority: 0 to 1."""

    user_id: str
    cause: records_pb2.RefreshCause | None
    priority: float

    def by_operator(self) -> DueUser:
        """The same user, asked for whatever is stored."""
        return replace(self, cause=records_pb2.REFRESH_CAUSE_OPERATOR)


class DueUsers:
    """Looks at the users of one snapshot, which must stay open. now: moment requests are answered as of."""

    def __init__(self, snapshot: Snapshot, store: NearlineStore, settings: ChannelSettings, now: int) -> None:
        self._snapshot = snapshot
        self._now = now
        self._reader = InterestReader(snapshot, UserState(nearline=lambda: store), settings, now)

    def __len__(self) -> int:
        """Users that `all` looks at."""
        return sum(1 for _ in self._ids())

    def all(self) -> Iterator[DueUser]:
        """Look at every user of the snapshot, by id.

        Users of more than 511 bytes are left out: the snapshot knows but their hash. Their own requests ask for them.
        """
        return map(self.look, self._ids())

    def look(self, user_id: str) -> DueUser:
        """Look at one user, whom the snapshot need not know. Raises StoreError when the snapshot cannot be read."""
        key = layout.user_key(user_id)
        user = self._snapshot.users.read(key)
        known = layout.DEFAULT_USER if user is None else key
        interests = self._reader.of_user(user_id, known, InterestEvents.none(), RowRanges.none())
        cause = REFRESH_CAUSES.get(interests.own_freshness)
        times = user.clicks.times if user else np.empty(0, np.int64)
        latest = int(times[0]) if len(times) else 0
        wanted = records_pb2.REFRESH_CAUSE_OPERATOR if cause is None else cause
        return DueUser(user_id, cause, refresh_priority(wanted, len(times), latest, self._now))

    def _ids(self) -> Iterator[str]:
        for key, _ in self._snapshot.users.values():
            if key != layout.DEFAULT_USER and not key.startswith(b"\x01"):
                yield key.decode()
