"""Stalls seen by probes."""

from __future__ import annotations

import numpy as np

from benchmarks.stalls import Probes


def test_the_longest_call_counts_beyond_what_calls_usually_take() -> None:
    probes = Probes(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 9.0, 1.0, 30.0]))
    assert probes.longest_stall == 29.0
    assert probes.between(1.0, 4.0).longest_stall == 8.0
    assert probes.between(3.0, 4.0).longest_stall == 0.0
