from datetime import UTC, datetime
from typing import get_args

import pytest
from pydantic import ValidationError

from serendipity.offline.logs.schema import EVENT_TYPES, EventName, LogsConfig
from serendipity.v1 import channel_pb2


def test_event_names_are_the_wire_types_names() -> None:
    assert set(EVENT_TYPES) == set(get_args(EventName))
    assert {f"EVENT_TYPE_{name.upper()}": int(value) for name, value in EVENT_TYPES.items()} == {
        name: number for name, number in channel_pb2.EventType.items() if number
    }


@pytest.mark.parametrize(
    "until",
    [
        1_500_000_000,
        "1500000000",
        "2017-07-14T02:40:00",
        "2017-07-14T04:40:00+02:00",
        datetime(2017, 7, 14, 2, 40, tzinfo=UTC),
    ],
)
def test_until_is_read_as_unix_seconds_in_utc(until: object) -> None:
    assert LogsConfig.model_validate({"until": until}).until == 1_500_000_000


@pytest.mark.parametrize(
    "config",
    [
        {"novelty_level": 8},
        {"novelty_level": -1},
        {"click_types": []},
        {"click_types": ["search"]},
        {"click_types": ["not_interested"]},
        {"click_types": ["buy"]},
        {"signal_types": ["search"]},
        {"signal_types": ["exposure"]},
        {"signal_types": ["not_interested"]},
        {"max_rejected": 2},
        {"until": "soon"},
        {"unknown": 1},
        {"files": {"clicks": "a.parquet"}},
        {"columns": {"events": {"user": "uid"}}},
        {"time_zone": "Berlin"},
    ],
)
def test_configuration_that_makes_no_sense_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LogsConfig.model_validate(config)
