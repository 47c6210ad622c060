"""Emptying the queues: by this process, or by waiting for the one that works on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import structlog

from serendipity.channel.errors import ChannelError
from serendipity.channel.nearline.due import DueUser
from serendipity.channel.nearline.process import Nearline
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind
from serendipity.v1 import records_pb2

_FEED = 1_000
"""Users queued ahead of the work: the queue stays open to requests, and an interrupt leaves little in it."""
_LONGEST_PAUSE = 10.0
_POLL = 0.5
"""Seconds between looks while another works, and until the first new try when nothing answers."""
_PATIENCE = 8

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Drained:
    """What was done meanwhile.

    totals: of each kind, name → by how much the store's grew; refused: users the full queue refused.
    """

    totals: Mapping[Kind, Mapping[str, int]]
    refused: int
    seconds: float


async def drain(
    nearline: Nearline,
    *,
    works: bool,
    kinds: Collection[Kind] = tuple(Kind),
    users: Iterable[DueUser] = (),
) -> Drained:
    """Queue users, a thousand ahead of the work, until all were queued and nothing is left to be tried now.

    works: this process does the work, and holds the host's lock (`exclusive`); otherwise another one does. kinds: that
    are waited for or worked on, of those whose model the snapshot names; users: those without a cause are asked for by
    an operator. Raises ChannelError when eight tries in a row have failed, and StateUnavailable; what was done by then
    is kept.
    """
    store, start = nearline.store, time.perf_counter()
    interests = store.queue(Kind.INTERESTS)
    left = iter(users)
    before, refused_before = _totals(store), interests.wanted()["refused"]
    loops = {kind: nearline.loops[kind] for kind in kinds}
    failures = 0
    while True:
        queued = 0
        if await asyncio.to_thread(interests.ready) < _FEED:
            queued = await asyncio.to_thread(_feed, store, left)
        try:
            if works:
                idle = not [done for loop in loops.values() if (done := await loop.step()) is not None]
            else:
                working = [kind for kind, loop in loops.items() if await loop.has_model()]
                idle = not any([await asyncio.to_thread(store.queue(kind).ready) for kind in working])
                if not queued:
                    await asyncio.sleep(0.0 if idle else _POLL)
            failures = 0
        except ChannelError as error:
            failures += 1
            if failures == _PATIENCE:
                raise
            _log.warning("batch not done", error=str(error), failures=failures)
            await asyncio.sleep(min(_LONGEST_PAUSE, _POLL * 2.0**failures))
            continue
        if idle and not queued:
            break
    after = await asyncio.to_thread(_totals, store)
    return Drained(
        totals={
            kind: {name: count - before[kind].get(name, 0) for name, count in counts.items()}
            for kind, counts in after.items()
        },
        refused=interests.wanted()["refused"] - refused_before,
        seconds=time.perf_counter() - start,
    )


def _feed(store: NearlineStore, users: Iterator[DueUser]) -> int:
    some = list(islice(users, _FEED))
    for user in some:
        cause = records_pb2.REFRESH_CAUSE_OPERATOR if user.cause is None else user.cause
        store.want(user.user_id, cause, user.priority)
    store.flush()
    return len(some)


def _totals(store: NearlineStore) -> dict[Kind, dict[str, int]]:
    return {kind: store.queue(kind).totals() for kind in Kind}
