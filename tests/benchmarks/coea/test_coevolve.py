"""The closed loop in memory, as the comparison runs it."""

from __future__ import annotations

from benchmarks.coea.coevolve import coevolve
from tests.offline.coevolution.closed_loop_world import TwoGroups, catalogue, config, histories


def test_every_cycle_is_handed_out() -> None:
    seen: list[int] = []
    result = coevolve(
        histories(),
        catalogue(),
        TwoGroups(),
        config(),
        on_cycle=lambda found: seen.append(found.generation),
    )
    assert seen == [0, 1, 2]
    assert result.generation == 2
