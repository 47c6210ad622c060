"""What a build costs, measured of a real one and laid out."""

from pathlib import Path

import pytest

from benchmarks import build_cost
from serendipity.offline.errors import BuilderError
from serendipity.offline.logs.cost import estimated_cost


def test_a_build_that_fails_is_named_with_where_its_output_lies(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"nowhere: the build ended with status 1; see .*/nowhere\.log"):
        build_cost.measure("nowhere", tmp_path / "nowhere")
    assert "found neither a data set nor a folder" in (tmp_path / "nowhere.log").read_text()


def test_measured_and_estimated_stand_side_by_side() -> None:
    counts = {"clicks": 1_000_000, "users": 5_000, "catalogue": 100_000}
    page = build_cost.page([build_cost.Measured("one", counts, 600.0, 400.0, 3 * 10**9, 10**9, 10**8)], "by a test")
    cost = estimated_cost(1_000_000, 100_000)
    estimated = f"10.0 | 6.7 | {cost.minutes:.1f} | 3.0 | {cost.memory_gb:.1f} | 1.00 | {cost.disk_gb:.2f}"
    assert page.startswith("# What a build costs\n\nby a test\n")
    assert f"| one | 1,000,000 | 5,000 | 100,000 | {estimated} | 100 |" in page


def test_an_estimate_grows_with_clicks_and_items() -> None:
    small, more_clicks, more_items = (
        estimated_cost(10**5, 10**4),
        estimated_cost(10**7, 10**4),
        estimated_cost(10**5, 10**6),
    )
    for name in ("minutes", "memory_gb", "disk_gb"):
        assert getattr(small, name) > 0
        assert getattr(more_clicks, name) > getattr(small, name)
        assert getattr(more_items, name) >= getattr(small, name)
    assert more_items.worker_mb > small.worker_mb
