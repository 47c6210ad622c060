"""What is known of a user near-line: snapshot, signals and acknowledged feedback laid over one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from serendipity import layout
from serendipity.channel.errors import RecordCorrupt
from serendipity.channel.snapshot.snapshot import Snapshot
from serendipity.channel.snapshot.stores import Store, StoredUser, feedback_columns
from serendipity.channel.state.feedback_clicks import feedback_clicks
from serendipity.features import LongHistory, with_clicks
from serendipity.interests.facts import SIGNAL_DAYS, FactsRule, told_searches, told_titles, user_facts
from serendipity.interests.prompt import UserFacts
from serendipity.novelty import NO_CATEGORY, Clicks, latest
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
    """A user as InterestGPT is told. known: numbers of the categories among the latest 200 clicks."""

    user_id: str
    facts: UserFacts
    known: frozenset[int]


class ContextReader:
    """Reads users of one snapshot, which must stay open.

    signals: its signals.lmdb, None where the snapshot has none; feedback: of this host; rule: which signals the model
    is told; hints: how many categories it is told of the interests that the snapshot stores, the user's or else
    everybody's; node_categories: interest node → number of its one top-level category.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        signals: SignalStore | None,
        feedback: ReadFeedback,
        rule: FactsRule,
        *,
        hints: int = 0,
        node_categories: Mapping[int, int] | None = None,
    ) -> None:
        self._hints = hints
        self._node_categories = node_categories or {}
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
        clicks = latest(recent, user.clicks)
        # The snapshot's long history counts everything up to events_until; only what came later is laid over it.
        later = recent.times > snapshot.events_until
        long_history = with_clicks(
            user.long_history, Clicks(recent.items[later], recent.categories[later], recent.times[later])
        )
        signals = records_pb2.UserSignalsRecord() if self._signals is None else self._signals.read(key)
        searches = told_searches(_searches(signals, feedback), now, self._rule)
        facts = user_facts(
            clicks,
            long_history,
            snapshot.category_names,
            now,
            profile=profile_values(snapshot, user.profile.tolist()),
            searches=searches,
            titles=told_titles(
                clicks, self._signal_items(signals, feedback, now), self._title, self._rule, has_searches=bool(searches)
            ),
        )
        known = frozenset(clicks.categories.tolist())
        if self._hints and not facts.is_empty:
            facts = replace(facts, hints=self._hints_of(key, known))
        return KnownUser(user_id, facts, known)

    def _hints_of(self, key: bytes, known: frozenset[int]) -> tuple[str, ...]:
        """Name the categories of the snapshot's interests that are still novel, best first.

        Of a user for whom it has none, those of everybody: they are better to choose from than nothing.
        """
        stored = self._snapshot.interests.read(key) or self._snapshot.interests.read(layout.DEFAULT_USER)
        numbers = [self._node_categories.get(node, NO_CATEGORY) for node in stored.node_ids.tolist()] if stored else []
        novel = [number for number in dict.fromkeys(numbers) if number != NO_CATEGORY and number not in known]
        return tuple(self._snapshot.category_names[number - 1] for number in novel[: self._hints])

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
    signals: records_pb2.UserSignalsRecord, feedback: records_pb2.UserFeedbackRecord
) -> list[tuple[str, int]]:
    """Merge searches of both places as (query, Unix seconds), newest first; what both report comes twice."""
    both = [(search.query, search.time) for search in (*feedback.searches, *signals.searches)]
    return sorted(both, key=lambda search: -search[1])


def profile_values(snapshot: Snapshot, numbers: list[int]) -> dict[str, str]:
    """Name the profile values of a stored user, field → value; numbers: of each of the snapshot's fields."""
    fields = snapshot.assembler.profile_fields
    named = {name: {number: value for value, number in values.items()} for name, values in fields.items()}
    told = zip(named.items(), numbers[: len(named)], strict=False)
    return {name: values[number] for (name, values), number in told if number in values}
