"""Which feedback events are accepted: the rules of channel.proto, and who owns the user."""

from __future__ import annotations

from dataclasses import dataclass

from serendipity.ids import MAX_ID_LENGTH, id_fault
from serendipity.interests.text import clean_text
from serendipity.sharding import shard_of
from serendipity.v1 import channel_pb2

MAX_EVENT_ID_LENGTH = 128
"""Characters of an event id."""

MAX_QUERY_LENGTH = 10_000
"""Characters of a query as sent; kept are those that `clean_text` leaves."""

RECORDED_TYPES = (
    channel_pb2.EVENT_TYPE_EXPOSURE,
    channel_pb2.EVENT_TYPE_CLICK,
    channel_pb2.EVENT_TYPE_ORDER,
    channel_pb2.EVENT_TYPE_VIEW,
    channel_pb2.EVENT_TYPE_FAVOURITE,
    channel_pb2.EVENT_TYPE_SEARCH,
    channel_pb2.EVENT_TYPE_NOT_INTERESTED,
)
"""Event types of feedback."""

FORGOTTEN = "user_id: is on the erasure list; nothing of this user is kept"
"""Why events of users who asked to be forgotten are refused."""


@dataclass(frozen=True)
class Ownership:
    """The users this host owns: those whose shard_of(user id, num_shards) is `shard`."""

    shard: int = 0
    num_shards: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.shard < self.num_shards:
            raise ValueError(f"shard: found {self.shard}, expected 0 … num_shards - 1 = {self.num_shards - 1}")

    def owns(self, user_id: str) -> bool:
        """Tell whether this host keeps the user's feedback."""
        return self.num_shards == 1 or shard_of(user_id, self.num_shards) == self.shard


def refusal(event: channel_pb2.FeedbackEvent, ownership: Ownership) -> str:
    """Say why an event is refused: the field, what was found, what was expected. Empty if it is accepted."""
    is_search = event.type == channel_pb2.EVENT_TYPE_SEARCH
    for name, value, is_due, most in (
        ("event_id", event.event_id, True, MAX_EVENT_ID_LENGTH),
        ("user_id", event.user_id, True, MAX_ID_LENGTH),
        ("item_id", event.item_id, not is_search, MAX_ID_LENGTH),
        ("recall_id", event.recall_id, bool(event.recall_id), MAX_ID_LENGTH),
    ):
        if is_due and (fault := id_fault(value, most)):
            return f"{name}: {fault}"
    if is_search and event.item_id:
        return f"item_id: found {len(event.item_id)} characters, expected none in searches"
    if event.type not in RECORDED_TYPES:
        known = event.type in channel_pb2.EventType.values()
        found = channel_pb2.EventType.Name(event.type) if known else event.type
        return f"type: found {found}, expected one of {', '.join(map(channel_pb2.EventType.Name, RECORDED_TYPES))}"
    if is_search and not 1 <= len(event.query) <= MAX_QUERY_LENGTH:
        return f"query: found {len(event.query)} characters, expected 1 to {MAX_QUERY_LENGTH}"
    if is_search and not clean_text(event.query):
        return "query: found no visible character, expected what was typed"
    if not is_search and event.query:
        return f"query: found {len(event.query)} characters, expected none except in searches"
    if not ownership.owns(event.user_id):
        owner = shard_of(event.user_id, ownership.num_shards)
        return f"user_id: belongs to shard {owner}, this host is shard {ownership.shard}"
    return ""


def as_kept(event: channel_pb2.FeedbackEvent, now: float | None) -> channel_pb2.FeedbackEvent:
    """Return an accepted event as it is kept. now: what its time becomes, Unix seconds; None: its time stands.

    Of a query only what `clean_text` leaves is kept, so that nothing behind this door, exports included, meets the text
    as it was typed.
    """
    query = clean_text(event.query) if event.query else ""
    if now is None and query == event.query:
        return event
    kept = channel_pb2.FeedbackEvent()
    kept.CopyFrom(event)
    kept.query = query
    if now is not None:
        kept.time.FromNanoseconds(int(now * 1e9))
    return kept
