"""The closed loop in memory, as the comparison runs it."""

from __future__ import annotations

from benchmarks.coea.coevolve import coevolve
from tests.offline.coevolution.closed_loop_world import TwoGroups, catalogue, config, histories


def test_every_cycle_is_handed_out() -> None:
    seen: list[tuple[int, int]] = []
    result = coevolve(
        histories(),
        catalogue(),
        TwoGroups(),
        config(),
        on_cycle=lambda found, report: seen.append((found.generation, report.cycle)),
    )
    assert seen == [(0, 0), (1, 1), (2, 2)]
    assert result.generation == 2
