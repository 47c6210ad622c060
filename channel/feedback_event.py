"""Which feedback events are accepted: the rules of channel.proto, and who owns the user."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serendipity.sharding import shard_of
from serendipity.v1 import channel_pb2

MAX_EVENT_ID_LENGTH = 128
"""Characters of an event id."""

MAX_ID_LENGTH = 10_000
"""Characters of a user, item or recall id (protects logs and keys)."""

RECORDED_TYPES = (
    channel_pb2.EVENT_TYPE_EXPOSURE,
    channel_pb2.EVENT_TYPE_CLICK,
    channel_pb2.EVENT_TYPE_ORDER,
    channel_pb2.EVENT_TYPE_VIEW,
    channel_pb2.EVENT_TYPE_FAVOURITE,
)
"""Event types of feedback. Searches concern no item; they come with a request, or with the logs."""

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
    for name, value, least in (
        ("user_id", event.user_id, 1),
        ("item_id", event.item_id, 1),
        ("recall_id", event.recall_id, 0),
    ):
        if not least <= len(value) <= MAX_ID_LENGTH:
            return f"{name}: found {len(value)} characters, expected {least} to {MAX_ID_LENGTH}"
        if control := _CONTROL.search(value):
            return f"{name}: holds the control character {control.group()!r}; expected none"
    if event.type not in RECORDED_TYPES:
        known = event.type in channel_pb2.EventType.values()
        found = channel_pb2.EventType.Name(event.type) if known else event.type
        return f"type: found {found}, expected one of {', '.join(map(channel_pb2.EventType.Name, RECORDED_TYPES))}"
    if event.HasField("time") and (event.time.seconds < 0 or not 0 <= event.time.nanos < 10**9):
        return f"time: found {event.time.seconds} s {event.time.nanos} ns, expected a time since 1970"
    if not ownership.owns(event.user_id):
        owner = shard_of(event.user_id, ownership.num_shards)
        return f"user_id: belongs to shard {owner}, this host is shard {ownership.shard}"
    return ""


def with_time(event: channel_pb2.FeedbackEvent, now: float) -> channel_pb2.FeedbackEvent:
    """Return the event with its time, which is `now` (Unix seconds) if unset or in the future."""
    if event.HasField("time") and event.time.seconds + event.time.nanos / 1e9 <= now:
        return event
    timed = channel_pb2.FeedbackEvent()
    timed.CopyFrom(event)
    timed.time.FromNanoseconds(int(now * 1e9))
    return timed
