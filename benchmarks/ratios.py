"""How one system compares with another over interleaved blocks: ratios, with how far chance would move them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.load import Block

RESAMPLES = 1_000
SPREAD = (10, 90)
"""Percentiles between which a ratio is said to spread."""


@dataclass(frozen=True)
class Metric:
    """One number of a block. higher_is_better: as of requests a second; else less is better."""

    name: str
    of: Callable[[Block], float]
    higher_is_better: bool = False


P50 = "p50"
METRICS = (
    Metric("requests/s", lambda block: block.users / block.seconds, higher_is_better=True),
    Metric(P50, lambda block: float(np.median(block.milliseconds))),
    Metric("server CPU", lambda block: block.server_cpu / block.users),
    Metric("Triton CPU", lambda block: block.triton_cpu / block.users),
    Metric("all CPU", lambda block: (block.server_cpu + block.triton_cpu) / block.users),
)
"""What is compared round by round."""

P99 = "p99"
"""What is compared over all calls: a block has too few."""


@dataclass(frozen=True)
class Ratio:
    """One system ÷ another. name: "phase: metric, system ÷ system"; low, high: its spread."""

    name: str
    value: float
    low: float
    high: float
    higher_is_better: bool = False


def ratios(phase: str, ours: Sequence[Block], others: Sequence[Block]) -> list[Ratio]:
    """Compare two systems' blocks of the same rounds by every metric, and by p99.

    A ratio is the median of the rounds' ratios, and spreads from the 10th to the 90th percentile of them. p99 is that
    of all calls, a round having too few; its ratio spreads over the same percentiles of 1,000 draws of as many rounds,
    with replacement and of both systems together.
    Where a call of one is for more users than a call of the other, how long calls take is not compared.
    Raises ValueError for blocks of different rounds.
    """
    if [block.round for block in ours] != [block.round for block in others]:
        raise ValueError(f"{phase}: {ours[0].system} and {others[0].system} were not measured in the same rounds")
    systems = f"{ours[0].system} ÷ {others[0].system}"
    same_calls = len(ours[0].milliseconds) == len(others[0].milliseconds)
    found = []
    for metric in METRICS if same_calls else [metric for metric in METRICS if metric.name != P50]:
        by_round = np.array([metric.of(a) / metric.of(b) for a, b in zip(ours, others, strict=True)])
        low, high = np.percentile(by_round, SPREAD)
        found.append(
            Ratio(
                f"{phase}: {metric.name}, {systems}",
                float(np.median(by_round)),
                float(low),
                float(high),
                metric.higher_is_better,
            )
        )
    if same_calls:
        found.append(_p99(f"{phase}: {P99}, {systems}", ours, others))
    return found


def p99(blocks: Sequence[Block]) -> float:
    """99th percentile of all calls, milliseconds."""
    return float(np.percentile(np.concatenate([block.milliseconds for block in blocks]), 99))


def _p99(name: str, ours: Sequence[Block], others: Sequence[Block]) -> Ratio:
    draws = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    times = [[np.array(block.milliseconds) for block in blocks] for blocks in (ours, others)]
    resampled = [
        np.percentile(np.concatenate([times[0][i] for i in draw]), 99)
        / np.percentile(np.concatenate([times[1][i] for i in draw]), 99)
        for draw in draws.tolist()
    ]
    low, high = np.percentile(resampled, SPREAD)
    return Ratio(name, p99(ours) / p99(others), float(low), float(high))
