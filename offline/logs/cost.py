"""What a build of logs will take, estimated from what is known of others; `python -m benchmarks.build_cost` measures.

Known are The Complete Journey's build (1.45 million clicks; README.md, docs/building.md): 5 minutes on two cores and
5.8 GB of memory; and a worker's memory with 92 thousand and a million items (docs/results/scale.md). What no logs make
longer, trainings of a fixed number of examples, is taken for half of the time; what processes are before they read
anything, for 1.8 GB. Disk is counted: what every click and every item is in the files of a build and one snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass

BASIS = "an estimate from The Complete Journey's build on 2 cores (AMD EPYC), in the default configuration"


@dataclass(frozen=True)
class Cost:
    """An estimate. minutes: of the clock on two cores; memory_gb: at the highest, two steps at a time; disk_gb: of the
    build directory with one snapshot; worker_mb: private memory of a worker that serves it; basis: what it rests on."""

    minutes: float
    memory_gb: float
    disk_gb: float
    worker_mb: float
    basis: str = BASIS


def estimated_cost(clicks: int, items: int) -> Cost:
    """Estimate what a build of so many clicks and items takes."""
    clicks_m, items_m = clicks / 1e6, items / 1e6
    return Cost(
        minutes=2.5 + 1.75 * clicks_m,
        memory_gb=1.8 + 2.8 * clicks_m,
        disk_gb=0.1 + 0.03 * clicks_m + 2.3 * items_m,
        worker_mb=65.0 + 42.0 * items_m,
    )
