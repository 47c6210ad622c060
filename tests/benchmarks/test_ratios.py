"""Ratios of interleaved blocks, and how far chance would move them."""

from __future__ import annotations

import pytest

from benchmarks.ratios import ratios
from tests.benchmarks.blocks import blocks

ROUNDS = (4.0, 5.0, 6.0, 50.0, 5.0, 4.0, 6.0)


def test_a_machine_that_slows_both_down_moves_no_ratio() -> None:
    ours, others = blocks("channel", [2 * value for value in ROUNDS]), blocks("plain stack", ROUNDS)
    found = {ratio.name: ratio for ratio in ratios("1 caller", ours, others)}
    assert set(found) == {
        f"1 caller: {metric}, channel ÷ plain stack"
        for metric in ("requests/s", "p50", "server CPU", "Triton CPU", "all CPU", "p99")
    }
    for metric, expected in (("requests/s", 0.5), ("p50", 2.0), ("server CPU", 2.0), ("Triton CPU", 1.0), ("p99", 2.0)):
        ratio = found[f"1 caller: {metric}, channel ÷ plain stack"]
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((expected,) * 3)
        assert ratio.higher_is_better == (metric == "requests/s")


def test_a_ratio_spreads_as_its_rounds_do() -> None:
    ours = blocks("channel", [2, 2, 3, 3, 4, 4, 5])
    p50 = next(ratio for ratio in ratios("1 caller", ours, blocks("floor", [1] * 7)) if "p50" in ratio.name)
    assert p50.value == 3
    assert (p50.low, p50.high) == pytest.approx((2.0, 4.4))


def test_a_call_for_many_users_is_not_compared_with_one_for_one() -> None:
    batch, single = blocks("RecallBatch", [30, 30], calls=1), blocks("channel", [5, 5])
    names = " ".join(ratio.name for ratio in ratios("1 caller", batch, single))
    assert "requests/s" in names
    assert "p50" not in names
    assert "p99" not in names


def test_blocks_of_other_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="not measured in the same rounds"):
        ratios("1 caller", blocks("channel", [1, 2]), blocks("floor", [1]))
