"""Calls under faults: each is told by what became of it, and a fault by how long it was felt."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.faults.__main__ import Row, Soak, main, to_markdown
from benchmarks.faults.calls import ANSWERED, HostCalls, outcomes
from benchmarks.faults.faults import FAULTS
from benchmarks.overload import DEGRADED, WHOLE
from tests.channel.served import NO_TRITON, channel_settings, copy_snapshot, publish, server_settings, service, until
from tests.fixtures.small_world import SmallWorld


async def test_calls_come_at_their_rate_whether_or_not_they_are_answered(
    small_world: SmallWorld, tmp_path: Path
) -> None:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    settings = server_settings(tmp_path, user_tower_path=small_world.tower_path)
    async with service(settings, channel_settings()) as (_, worker):
        begin = time.monotonic()
        with (
            HostCalls(f"127.0.0.1:{worker.port}", small_world.user_ids, 5, 20.0) as answered,
            HostCalls(NO_TRITON, small_world.user_ids, 5, 20.0) as unanswered,
        ):
            await until(lambda: _is_answered(answered))
            now = time.monotonic()
        for calls in (answered, unanswered):
            # One more may have been due as it was told to end.
            assert len(calls.ended) <= 20 * (time.monotonic() - begin) + 1
    assert answered.between(begin, now)
    assert not set(outcomes(unanswered.ended)) & set(ANSWERED)


async def _is_answered(calls: HostCalls) -> bool:
    return WHOLE in outcomes(calls.ended)


def a_row(name: str, **during: int) -> Row:
    return Row(name, Counter(whole=550), Counter(during), Counter(whole=540), 0.5, 1.25, ["as expected"])


def test_the_page_counts_calls_without_an_answer_as_failed() -> None:
    row = a_row("a worker killed", whole=300, degraded=20, UNAVAILABLE=7, expired=3)
    soak = Soak(60.0, 200.0, 140.0, Counter({WHOLE: 8_390, DEGRADED: 10}), [(4.0, 9.0)] * 10, [900.0] * 11)
    page = to_markdown({"seed": "0"}, 110.0, [row], soak)
    counted = "550 whole | 300 whole, 20 degraded, 7 UNAVAILABLE, 3 expired | 540 whole"
    assert f"| a worker killed | {counted} | 10 | 0.5 | 1.2 | as expected |" in page
    assert "8,390 whole, 10 degraded" in page


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_a_build_without_a_snapshot_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(tmp_path)]) == 1
    assert f"{tmp_path}/snapshots/current: nothing published" in capsys.readouterr().err
