from __future__ import annotations

import pytest
from pydantic import ValidationError

from serendipity.channel.settings import ChannelSettings


def test_fields_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERENDIPITY_SERVED_HORIZON_HOURS", "12")
    monkeypatch.setenv("SERENDIPITY_CLOCK", "snapshot")
    settings = ChannelSettings()
    assert settings.served_horizon_hours == 12
    assert settings.clock == "snapshot"


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERENDIPITY_OVER_FETCH", "3")
    assert ChannelSettings(over_fetch=4).over_fetch == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tower_share", "1"),
        ("over_fetch", "0.5"),
        ("clock", "sundial"),
        ("default_deadline_ms", "0"),
        ("surprise", "1.5"),
        ("explored_users", "0"),
        ("explored_users", "1.1"),
        ("explored_share", "-0.1"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"SERENDIPITY_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        ChannelSettings()


def test_every_field_says_what_it_is() -> None:
    assert [name for name, field in ChannelSettings.model_fields.items() if not field.description] == []
