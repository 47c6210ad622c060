"""Which feedback events are accepted: the rules of channel.proto, and who owns the user."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serendipity.interests.text import clean_text
from serendipity.sharding import shard_of
from serendipity.v1 import channel_pb2

MAX_EVENT_ID_LENGTH = 128
"""Characters of an event id."""

MAX_ID_LENGTH = 10_000
"""Characters of a user, item or recall id (protects logs and keys)."""

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

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


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
    if not 1 <= len(event.event_id) <= MAX_EVENT_ID_LENGTH:
        return f"event_id: found {len(event.event_id)} characters, expected 1 to {MAX_EVENT_ID_LENGTH}"
    is_search = event.type == channel_pb2.EVENT_TYPE_SEARCH
    for name, value, least, most in (
        ("user_id", event.user_id, 1, MAX_ID_LENGTH),
        ("item_id", event.item_id, 0 if is_search else 1, 0 if is_search else MAX_ID_LENGTH),
        ("recall_id", event.recall_id, 0, MAX_ID_LENGTH),
    ):
        if not least <= len(value) <= most:
            return f"{name}: found {len(value)} characters, expected {f'{least} to {most}' if most else 'none'}"
        if control := _CONTROL.search(value):
            return f"{name}: holds the control character {control.group()!r}; expected none"
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
