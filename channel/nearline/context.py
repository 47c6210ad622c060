"""What is known of a user near-line: snapshot, signals and acknowledged feedback laid over one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serendipity import layout
from serendipity.channel.errors import RecordCorrupt
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.stores import Store, StoredUser, feedback_columns
from serendipity.channel.state.feedback_clicks import feedback_clicks
from serendipity.features import LongHistory, with_clicks
from serendipity.interests.facts import SIGNAL_DAYS, FactsRule, facts_of
from serendipity.interests.prompt import UserFacts
from serendipity.interests.reasoner import UserContext
from serendipity.novelty import Clicks, latest
from serendipity.v1 import records_pb2

_DAY = 86_400

ReadFeedback = Callable[[str], records_pb2.UserFeedbackRecord | None]
"""User id → acknowledged feedback, newest first; None without any. Raises StateUnavailable."""


class SignalStore(Store):
    """signals.lmdb."""

    def read(self, key: bytes) -> records_pb2.UserSignalsRecord:
        """Read a user's signals by key, an empty record without any. Raises RecordCorrupt, StoreUnavailable."""
        record = self._read(key, records_pb2.UserSignalsRecord()) or records_pb2.UserSignalsRecord()
        if len(record.item_times) != len(record.items):
            raise self._corrupt(key, "item_times", f"{len(record.item_times)} times", len(record.items))
        return record


@dataclass(frozen=True)
class KnownUser:
    """A user as the reasoner knows and as InterestGPT is told."""

    context: UserContext
    facts: UserFacts

    @property
    def known(self) -> frozenset[int]:
        """Numbers of the categories among the latest 200 clicks: what is not novel."""
        return frozenset(self.context.clicks.categories.tolist())


class ContextReader:
    """Reads users of one snapshot, which must stay open.

    signals: its signals.lmdb, None where the snapshot has none; feedback: of this host; rule: which signals the model
    is told.
    """

    def __init__(
        self, snapshot: Snapshot, signals: SignalStore | None, feedback: ReadFeedback, rule: FactsRule
    ) -> None:
        self._snapshot = snapshot
        self._signals = signals
        self._feedback = feedback
        self._rule = rule

    def read(self, user_id: str, now: int) -> KnownUser:
        """Read what is known of a user as of `now` (Unix seconds); empty facts if that is nothing.

        Raises RecordCorrupt, StoreUnavailable and StateUnavailable.
        """
        snapshot = self._snapshot
        key = layout.user_key(user_id)
        user = snapshot.users.read(key) or StoredUser(
            Clicks.empty(), LongHistory.empty(), snapshot.assembler.encode_profile({}), None
        )
        feedback = self._feedback(user_id) or records_pb2.UserFeedbackRecord()
        recent = feedback_clicks(snapshot, feedback)
        # The snapshot's long history counts everything up to events_until; only what came later is laid over it.
        later = recent.times > snapshot.events_until
        added = Clicks(recent.items[later], recent.categories[later], recent.times[later])
        signals = records_pb2.UserSignalsRecord() if self._signals is None else self._signals.read(key)
        context = UserContext(
            user_id=user_id,
            clicks=latest(recent, user.clicks),
            long_history=with_clicks(user.long_history, added),
            now=now,
            searches=_searches(signals, feedback, now),
            profile=profile_values(snapshot, user.profile.tolist()),
            signals=self._signal_items(signals, feedback, now),
        )
        return KnownUser(context, facts_of(context, snapshot.category_names, self._title, self._rule))

    def _signal_items(
        self, signals: records_pb2.UserSignalsRecord, feedback: records_pb2.UserFeedbackRecord, now: int
    ) -> list[tuple[int, int]]:
        """Lay signals of both places out as (item row + 1, Unix seconds), newest first, each item once."""
        items, times = feedback_columns(feedback.signals, self._snapshot.item_ids)
        both = [*zip(items.tolist(), times.tolist(), strict=True), *zip(signals.items, signals.item_times, strict=True)]
        newest: dict[int, int] = {}
        for item, time in sorted(both, key=lambda event: -event[1]):
            if item > len(self._snapshot.item_ids):
                raise RecordCorrupt(
                    f"{layout.SIGNALS}: items: found {item}, expected at most {len(self._snapshot.item_ids)}"
                )
            if item and time >= now - SIGNAL_DAYS * _DAY:
                newest.setdefault(item, time)
        return list(newest.items())

    def _title(self, row: int) -> str:
        item = self._snapshot.items.read(self._snapshot.item_ids[row])
        return item.title if item else ""


def _searches(
    signals: records_pb2.UserSignalsRecord, feedback: records_pb2.UserFeedbackRecord, now: int
) -> list[tuple[str, int]]:
    """Merge searches of both places as (query, Unix seconds), newest first, each once."""
    both = {(search.query, search.time): None for search in (*feedback.searches, *signals.searches)}
    recent = [search for search in both if search[1] >= now - SIGNAL_DAYS * _DAY]
    return sorted(recent, key=lambda search: -search[1])


def profile_values(snapshot: Snapshot, numbers: list[int]) -> dict[str, str]:
    """Name the profile values of a stored user, field → value; numbers: of each of the snapshot's fields."""
    fields = snapshot.assembler.profile_fields
    named = {name: {number: value for value, number in values.items()} for name, values in fields.items()}
    told = zip(named.items(), numbers[: len(named)], strict=False)
    return {name: values[number] for (name, values), number in told if number in values}
