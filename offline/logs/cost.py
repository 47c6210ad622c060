"""What a build of logs will cost, estimated from builds that were measured: docs/results/build-cost.md."""

from __future__ import annotations

from dataclasses import dataclass

MACHINE = "2 cores (AMD EPYC), the default configuration"
"""What the measured builds ran on."""


@dataclass(frozen=True)
class Cost:
    """An estimate, good to a factor of two. cpu_minutes: of one core; steps run side by side where there are more;
    memory_gb: at the highest; disk_gb: of the build directory with one snapshot; worker_mb: private memory of a worker
    that serves the snapshot (docs/results/scale.md). machine: where the builds it is told from were measured."""

    cpu_minutes: float
    memory_gb: float
    disk_gb: float
    worker_mb: float
    machine: str = MACHINE


def estimated_cost(clicks: int, items: int) -> Cost:
    """Estimate what a build of so many clicks and items costs: what every build costs, and what each million adds."""
    clicks_m, items_m = clicks / 1e6, items / 1e6
    return Cost(
        cpu_minutes=2.0 + 5.0 * clicks_m + 25.0 * items_m,
        memory_gb=1.5 + 3.0 * clicks_m + 18.0 * items_m,
        disk_gb=0.1 + 0.3 * clicks_m + 2.0 * items_m,
        worker_mb=65.0 + 42.0 * items_m,
    )
