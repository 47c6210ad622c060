"""Load with deadlines: every call is told apart by what became of it, and the service's counters agree."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks.overload import DEGRADED, EXPIRED, REFUSED, WHOLE, Load, Phase, main, to_markdown
from tests.channel.served import channel_settings, copy_snapshot, publish, server_settings, service
from tests.fixtures.small_world import SmallWorld


def a_phase(name: str, number: int, answers: int, refusals: int) -> Phase:
    by_second = {WHOLE: [answers, answers], DEGRADED: [0, answers], REFUSED: [refusals, 0], EXPIRED: [0, 0]}
    return Phase(name, number, 2.0, by_second, {"OK": 3 * answers, "RESOURCE_EXHAUSTED": refusals}, [5.0] * answers)


async def test_what_becomes_of_calls_is_what_the_service_counts(small_world: SmallWorld, tmp_path: Path) -> None:
    copy_snapshot(small_world, tmp_path / "snapshots", "v1")
    publish(tmp_path, "v1")
    settings = server_settings(tmp_path, user_tower_path=small_world.tower_path)
    async with service(settings, channel_settings()) as (_, worker):
        url = f"http://127.0.0.1:{worker.metrics_port}/metrics"
        async with Load(f"127.0.0.1:{worker.port}", url, small_world.user_ids, 5) as load:
            closed = await load.phase("closed", 0, partial(load.closed, 2, 30.0), 0.3)
            rng = np.random.default_rng(0)
            hurried = await load.phase("open", 0, partial(load.open, 100.0, 0.001, rng), 0.3)
    assert closed.total(WHOLE) == closed.counted["OK"] == len(closed.milliseconds) > 0
    assert closed.goodput == pytest.approx(closed.total(WHOLE) / 0.3)
    assert sum(map(sum, hurried.by_second.values())) > 0
    assert hurried.counted.get("OK", 0) >= hurried.total(WHOLE)


def test_the_page_compares_each_phase_with_the_capacity_of_its_round() -> None:
    phases = [
        a_phase("capacity", 0, 100, 0),
        a_phase("open, 4 × capacity", 0, 90, 300),
        a_phase("capacity", 1, 50, 0),
        a_phase("open, 4 × capacity", 1, 35, 300),
    ]
    page = to_markdown({"seed": "0"}, phases)
    assert "| open, 4 × capacity | 62.5 | 31.2 | 0.0 | 150.0 | 0.0 | 0.0 | 0.80 (0.70 to 0.90) | 5.0 | 5.0 |" in page
    assert "| open, 4 × capacity | 375 | 375 | 600 | 600 | 0 | 0 | 0 |" in page


def test_a_build_without_a_snapshot_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--build", str(tmp_path)]) == 1
    assert f"{tmp_path}/snapshots/current: nothing published" in capsys.readouterr().err
