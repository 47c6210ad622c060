"""Exact slices against indexes under a selector."""

from __future__ import annotations

import numpy as np

from benchmarks.search import bench_search


def test_every_method_is_measured_against_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2_000, 8), np.float32)
    offsets = np.linspace(0, 1_900, 21).astype(np.int64)
    rows = bench_search(vectors, offsets, vectors[:5], allowed=(2, 20), k=10, seed=0)
    assert [row.categories for row in rows] == [2] * 4 + [20] * 4
    for row in rows:
        assert row.rows == 95 * row.categories
        assert row.milliseconds > 0
        assert row.recall == 1 if row.method == "exact category slices" else 0 <= row.recall <= 1
