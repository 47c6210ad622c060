"""What builds cost: CPU time, memory and disk of whole builds, beside what `serendip logs check` estimates.

    python -m benchmarks.build_cost --root var/cost ml-100k ml-1m complete-journey
    python -m benchmarks.build_cost --root var/cost ml-100k ml-1m complete-journey --out docs/results/build-cost.md

Every data set is built by `serendip build --no-publish` in a process of its own, one after another. A build that is up
to date costs nothing, so that <root> must be new.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.command import failed, made_by, options_of, publish, read_options
from benchmarks.processes import ProcessTree, private_bytes
from serendipity.offline.errors import BuilderError
from serendipity.offline.evaluate.methods_report import table
from serendipity.offline.logs.builder import LogsSummary
from serendipity.offline.logs.cost import estimated_cost

_SECONDS_BETWEEN_SAMPLES = 0.5


@dataclass(frozen=True)
class Measured:
    """A build that was made. counts: of its logs; seconds: of the clock; peak, build, snapshot: bytes of memory at the
    highest, of the build directory, and of the snapshot in it."""

    dataset: str
    counts: dict[str, int]
    cpu_seconds: float
    seconds: float
    peak: int
    build: int
    snapshot: int


def main(argv: Sequence[str] | None = None) -> int:
    """Build every data set and publish the page; returns 1 when one cannot be built."""
    parser = options_of("build_cost", __doc__)
    parser.add_argument("datasets", nargs="+", metavar="DATASET", help="as of `serendip build --dataset`")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="new directory of the builds")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page there")
    args = read_options(parser, argv)
    args.seed = 0
    if args.root.exists():
        return failed(parser, f"{args.root}: found it, expected a new directory's name")
    try:
        found = [measure(dataset, args.root / Path(dataset).name) for dataset in args.datasets]
    except BuilderError as error:
        return failed(parser, error)
    return publish(page(found, made_by(args)), args.out)


def measure(dataset: str, out: Path) -> Measured:
    """Build a data set. Raises BuilderError when that fails."""
    command = [sys.executable, "-m", "serendipity.tools.cli", "build", "--dataset", dataset, "--no-publish"]
    out.mkdir(parents=True)
    before, start = _children_seconds(), time.monotonic()
    with (out.parent / f"{out.name}.log").open("w") as log:
        build = subprocess.Popen([*command, "--out", str(out)], stdout=log, stderr=subprocess.STDOUT)
        peak = 0
        while build.poll() is None:
            peak = max(peak, _tree_bytes(build.pid))
            time.sleep(_SECONDS_BETWEEN_SAMPLES)
    if build.returncode:
        raise BuilderError(f"{dataset}: the build ended with status {build.returncode}; see {log.name}")
    counts = LogsSummary.read(out / "logs").counts
    seconds = time.monotonic() - start
    used = _children_seconds() - before
    return Measured(dataset, counts, used, seconds, peak, _bytes_of(out), _bytes_of(out / "snapshots"))


def page(found: Sequence[Measured], made: str) -> str:
    """Lay out what was measured beside what is estimated."""
    rows = []
    for one in found:
        counts = [one.counts[name] for name in ("clicks", "users", "catalogue")]
        cost = estimated_cost(one.counts["clicks"], one.counts["catalogue"])
        rows.append(
            (
                one.dataset,
                *(f"{count:,}" for count in counts),
                f"{one.cpu_seconds / 60:.1f}",
                f"{one.seconds / 60:.1f}",
                f"{cost.minutes:.1f}",
                f"{one.peak / 1e9:.1f}",
                f"{cost.memory_gb:.1f}",
                f"{one.build / 1e9:.2f}",
                f"{cost.disk_gb:.2f}",
                f"{one.snapshot / 1e6:.0f}",
            )
        )
    header = (
        "", "clicks", "users", "items", "CPU minutes", "minutes of the clock", "estimate", "memory at the highest, GB",
        "estimate", "disk, GB", "estimate", "of it the snapshot, MB",
    )  # fmt: skip
    return "\n\n".join(
        (
            f"# What a build costs\n\n{made}",
            "Whole builds in the default configuration, two steps at a time. Memory is what belongs to the processes "
            f"alone, looked at every {_SECONDS_BETWEEN_SAMPLES:g} s. The estimate is that of `serendip logs check`.",
            table(header, rows),
        )
    )


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _tree_bytes(pid: int) -> int:
    total = 0
    for one in ProcessTree.of(pid).pids:
        try:
            total += private_bytes(one)
        except OSError:
            continue
    return total


def _bytes_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
