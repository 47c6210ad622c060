"""When events happened: the one rule for the events of a request, feedback and logs, as channel.proto states it."""

from __future__ import annotations

from datetime import UTC, datetime

from serendipity.v1 import channel_pb2

EARLIEST_TIME = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp())
"""Unix seconds; anything earlier is a broken clock or another unit."""

_LATEST_TIME = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
"""The last second of a Timestamp; milliseconds since 1970 in the place of seconds lie beyond."""


class EventTimes:
    """Judges the times of one list of events. field: its name in the request; now: Unix seconds, whole ones count."""

    def __init__(self, field: str, now: float) -> None:
        self._field = field
        self._now = int(now)
        self._found: dict[channel_pb2.WarningCode, list[str]] = {}

    def stands(self, index: int, event: channel_pb2.Event | channel_pb2.FeedbackEvent) -> bool:
        """Tell whether an event's time is taken as it is; it is taken as now if it is unset or cannot be.

        index: of the event in the list, for the warning.
        """
        if not event.HasField("time"):
            return False
        seconds, nanos = event.time.seconds, event.time.nanos
        if not EARLIEST_TIME <= seconds <= _LATEST_TIME or not 0 <= nanos < 10**9:
            code, expected = channel_pb2.WARNING_CODE_TIME_CORRECTED, f"Unix seconds from {EARLIEST_TIME} (1990) on"
            expected += ", not milliseconds" if seconds > _LATEST_TIME else " and 0 to 999999999 ns"
        elif seconds > self._now:
            code, expected = channel_pb2.WARNING_CODE_CLOCK_SKEW, f"at most {self._now} s, which is now"
        else:
            return True
        found = f"{self._field}[{index}].time: found {seconds} s {nanos} ns, expected {expected}; taken as now"
        self._found.setdefault(code, []).append(found)
        return False

    def warnings(self) -> list[channel_pb2.Warning]:
        """Say what was taken as now: a warning for each code, which shows the first of its events and counts them."""
        return [
            channel_pb2.Warning(
                code=code,
                field=self._field,
                message=found[0] + (f"; and {len(found) - 1} more" if len(found) > 1 else ""),
                count=len(found),
            )
            for code, found in self._found.items()
        ]
