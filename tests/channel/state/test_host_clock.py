"""The host's clock: what has leapt deletes nothing, until something independent of it agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from serendipity.channel.state.host_clock import LARGEST_LEAP, HostClock

NOW = 1_700_000_000.0
DAY = 86_400.0


def clock_at(path: Path, now: float) -> HostClock:
    return HostClock(path / "clock.json", clock=lambda: now)


def test_a_clock_that_leaps_either_way_agrees_with_nothing_and_is_believed_again_when_it_is_right(
    tmp_path: Path,
) -> None:
    assert clock_at(tmp_path, NOW).agreed([]) == NOW
    for leap in (40 * DAY, -40 * DAY, LARGEST_LEAP + 1, -NOW):
        # However often it is asked, and whatever is recorded by it meanwhile.
        for _ in range(3):
            assert clock_at(tmp_path, NOW + leap).agreed([NOW - 9 * DAY]) is None
    assert clock_at(tmp_path, NOW + DAY).agreed([]) == NOW + DAY


def test_time_passes_for_a_host_that_is_up_or_off_for_a_weekend(tmp_path: Path) -> None:
    for day in (1, 2, 4.5, 7, 100 - 93):
        assert clock_at(tmp_path, NOW + day * DAY).agreed([NOW]) == NOW + day * DAY


def test_after_a_long_pause_a_snapshot_built_by_the_same_time_is_believed(tmp_path: Path) -> None:
    assert clock_at(tmp_path, NOW).agreed([NOW])
    later = NOW + 60 * DAY
    assert clock_at(tmp_path, later).agreed([NOW]) is None
    assert clock_at(tmp_path, later).agreed([NOW, later - DAY]) == later


def test_without_a_moment_agreed_on_the_latest_feedback_of_before_counts(tmp_path: Path) -> None:
    clock_at(tmp_path, NOW + 40 * DAY).begin(NOW)
    clock_at(tmp_path, NOW + 40 * DAY).begin(NOW + 40 * DAY)
    assert clock_at(tmp_path, NOW + 40 * DAY).agreed([]) is None
    assert clock_at(tmp_path, NOW + DAY).agreed([]) == NOW + DAY


def test_what_is_recorded_is_never_older_than_what_was_agreed_on(tmp_path: Path) -> None:
    assert clock_at(tmp_path, NOW).agreed([])
    assert clock_at(tmp_path, NOW - 40 * DAY).now() == NOW
    assert clock_at(tmp_path, NOW + 5).now() == NOW + 5


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"soon"'])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "clock.json").write_text(content)
    clock_at(tmp_path, NOW).begin(NOW - 40 * DAY)
    assert clock_at(tmp_path, NOW).agreed([]) is None
    assert clock_at(tmp_path, NOW - 39 * DAY).agreed([]) == NOW - 39 * DAY
