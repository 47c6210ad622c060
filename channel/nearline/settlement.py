"""What every kind of near-line work does alike: who is left out, which prompt is at fault, and how a batch ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeVar

import structlog

from serendipity.channel.errors import ModelRefused, StateCorrupt
from serendipity.channel.nearline.durable_queue import DurableQueue
from serendipity.channel.nearline.outcome import Outcome, Settled
from serendipity.channel.nearline.store import NearlineStore
from serendipity.channel.nearline.subject import Kind, entry_key, subject_name
from serendipity.v1 import records_pb2

_Question = TypeVar("_Question")
_Answer = TypeVar("_Answer")
_Record = TypeVar("_Record")

_log = structlog.stdlib.get_logger(__name__)


class Erasures(Protocol):
    """The users who are to be forgotten."""

    def contains(self, user_id: str) -> bool:
        """Tell whether a user is one of them. Raises StateUnavailable."""


class Settlement:
    """Ends batches of one kind. erasures: users of whom all is removed; clock: Unix seconds."""

    def __init__(self, store: NearlineStore, kind: Kind, erasures: Erasures, clock: Callable[[], float]) -> None:
        self._store = store
        self._erasures = erasures
        self.clock = clock
        self.queue: DurableQueue = store.queue(kind)

    def is_forgotten(self, entry: records_pb2.NearlineEntry) -> bool:
        """Tell whether an entry is about a user on the erasure list. Raises StateUnavailable."""
        return bool(entry.user_id) and self._erasures.contains(entry.user_id)

    def settle(
        self,
        outcomes: Sequence[Outcome],
        entries: Sequence[records_pb2.NearlineEntry],
        counts: Mapping[str, int] = MappingProxyType({}),
    ) -> tuple[Settled, int]:
        """Store outcomes and forget whom is to be forgotten, those included who asked while the model was thinking.

        Returns what became of the entries, and how many were forgotten. Raises StateUnavailable.
        """
        forgotten = {entry.user_id for entry in entries if self.is_forgotten(entry)}
        self._store.forget_all(forgotten)
        kept = [outcome for outcome in outcomes if outcome.entry.user_id not in forgotten]
        return self.queue.settle(kept, self.clock(), counts), len(forgotten)


def read_if_readable(read: Callable[[], _Record | None], entry: records_pb2.NearlineEntry) -> _Record | None:
    """Read what is stored for an entry; None also where it cannot be decoded, for generating it anew mends that."""
    try:
        return read()
    except StateCorrupt as error:
        _log.warning(
            "unreadable record counts as absent",
            subject=subject_name(entry),
            key=repr(entry_key(entry)),
            error=str(error),
        )
        return None


async def ask_in_halves(
    questions: Sequence[_Question],
    ask: Callable[[Sequence[_Question]], Awaitable[Sequence[_Answer]]],
    on_refused: Callable[[_Question, ModelRefused], None],
) -> list[tuple[_Question, _Answer]]:
    """Ask all at once; what is refused (raises ModelRefused) is halved until the questions at fault are alone.

    on_refused: told of each of them. Returns the others with their answers, in their order.
    """
    if not questions:
        return []
    try:
        answers = await ask(questions)
    except ModelRefused as error:
        if len(questions) == 1:
            on_refused(questions[0], error)
            return []
        half = len(questions) // 2
        first = await ask_in_halves(questions[:half], ask, on_refused)
        return first + await ask_in_halves(questions[half:], ask, on_refused)
    return list(zip(questions, answers, strict=True))
