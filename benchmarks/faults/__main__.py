"""Break what is around the service, under load, and count what becomes of a host's calls.

    python -m benchmarks.synthetic_snapshot --items 3000 --users 200 --categories 60 --out var/faults
    python -m benchmarks.faults --build var/faults --out docs/results/faults.md

Two workers and `serendip triton`, over loopback; 110 calls a second through the client, each with a second's time. The
disk that fills up is a file system of its own, for which one has to be root.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.command import facts_of, failed, options_of, publish, read_options
from benchmarks.faults.calls import ANSWERED, Call, HostCalls, outcomes
from benchmarks.faults.faults import FAULTS, Fault, Notes
from benchmarks.faults.signals import Signals
from benchmarks.faults.site import Site, Triton, running_site, running_triton
from benchmarks.overload import WHOLE
from benchmarks.processes import ProcessTree, private_bytes
from benchmarks.stored import known_users
from serendipity import layout
from serendipity.tools.arguments import positive
from serendipity.tools.service import ServiceError
from serendipity.tools.serving.triton_program import TritonError

_QUIET_SECONDS = 5.0
"""Before a fault, and after it once all answers are whole again."""
_WHOLE_SECONDS = 3.0
"""For which all answers must be whole until the fault counts as over."""
_LONGEST_SECONDS = 120.0
_CAPACITY_SECONDS = 15.0
_SOAK_SHARE = 0.7


@dataclass(frozen=True)
class Row:
    """What became of the calls. failed_for, degraded_for: seconds until the last such call was begun, of the fault or,
    where it lasts until it is healed, of the healing."""

    name: str
    before: Counter[str]
    during: Counter[str]
    after: Counter[str]
    failed_for: float
    degraded_for: float
    notes: Notes

    @property
    def failed(self) -> int:
        """Calls without an answer, during and after."""
        return sum(n for counted in (self.during, self.after) for kind, n in counted.items() if kind not in ANSWERED)


@dataclass(frozen=True)
class Soak:
    """capacity, rate: calls a second; milliseconds: p50 and p99 by tenth; memory: MB of all processes, at each end."""

    seconds: float
    capacity: float
    rate: float
    counted: Counter[str]
    milliseconds: list[tuple[float, float]]
    memory: list[float]


def main(argv: Sequence[str] | None = None) -> int:
    """Inject all faults and print; returns 1 when something cannot be started."""
    parser = options_of("faults", __doc__)
    parser.add_argument("--build", type=Path, required=True, metavar="DIR", help="build directory; gets a copy's swaps")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="faults whose names hold one of these words")
    parser.add_argument("--rate", type=float, default=110.0, help="calls a second")
    parser.add_argument("--count", type=positive, default=10, help="candidates asked for")
    parser.add_argument("--soak-seconds", type=float, default=600.0, help="length of the soak; 0: none")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the users")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page here")
    args = read_options(parser, argv)
    if not (args.build / "snapshots" / layout.CURRENT).exists():
        return failed(parser, f"{args.build / 'snapshots' / layout.CURRENT}: nothing published; run `serendip build`")
    chosen = [fault for fault in FAULTS if not args.only or any(word in fault.name for word in args.only)]
    try:
        with tempfile.TemporaryDirectory(prefix="serendip-faults-") as scratch:
            rows, soak = _measure(args, chosen, Path(scratch))
    except (ServiceError, TritonError) as error:
        return failed(parser, error)
    return publish(to_markdown(facts_of(args), args.rate, rows, soak), args.out)


def _measure(args: argparse.Namespace, chosen: Sequence[Fault], scratch: Path) -> tuple[list[Row], Soak | None]:
    users = known_users((args.build / "snapshots" / layout.CURRENT).resolve(), args.seed)
    rows, soak = [], None
    with running_triton(args.build, scratch) as triton:
        for number, fault in enumerate(chosen):
            with fault.where(args.build, scratch / f"state-{number}", triton, fault.options) as site:
                rows.append(_suffer(fault, site, users, args))
            print(_line_of(rows[-1]), file=sys.stderr, flush=True)
        if args.soak_seconds:
            with running_site(args.build, scratch / "soak", triton, {}) as site:
                soak = _soak(site, triton, users, args)
    return rows, soak


def _suffer(fault: Fault, site: Site, users: Sequence[str], args: argparse.Namespace) -> Row:
    """Call, inject the fault, heal it, and wait until all answers are whole again."""
    notes: Notes = []
    # What comes first, connections and the first batches, is no part of it.
    with HostCalls(site.service.address, users, args.count, args.rate) as calls:
        _until_whole(calls, time.monotonic())
        start = time.monotonic()
        time.sleep(_QUIET_SECONDS)
        broken = time.monotonic()
        with Signals(site.state) as signals:
            with fault.inject(site, notes):
                time.sleep(max(0.0, fault.seconds - (time.monotonic() - broken)))
                healed = time.monotonic()
            over = _until_whole(calls, time.monotonic())
        notes.append(f"metrics: {', '.join(f'`{one}`' for one in sorted(signals.told)) or 'none'}")
        end = time.monotonic() + _QUIET_SECONDS
        time.sleep(_QUIET_SECONDS)
    since = healed if fault.lasts else broken
    after = calls.between(broken, end)
    return Row(
        fault.name,
        before=outcomes(calls.between(start, broken)),
        during=outcomes(calls.between(broken, over)),
        after=outcomes(calls.between(over, end)),
        failed_for=_seconds_until_last([call for call in after if call.outcome not in ANSWERED], since),
        degraded_for=_seconds_until_last([call for call in after if call.outcome != WHOLE], since),
        notes=notes,
    )


def _until_whole(calls: HostCalls, since: float) -> float:
    """Wait until all answers have been whole for a while; returns when that began, or gives up."""
    while True:
        time.sleep(_WHOLE_SECONDS / 4)
        now = time.monotonic()
        late = [call.begun for call in calls.between(since, now) if call.outcome != WHOLE]
        over = max(late, default=since)
        if (now - over >= _WHOLE_SECONDS and calls.between(over, now)) or now - since > _LONGEST_SECONDS:
            return over


def _seconds_until_last(calls: Sequence[Call], since: float) -> float:
    return max(0.0, max((call.begun for call in calls), default=since) - since)


def _soak(site: Site, triton: Triton, users: Sequence[str], args: argparse.Namespace) -> Soak:
    def memory() -> float:
        pids = (*ProcessTree.of(site.service.pid).pids, *ProcessTree.of(triton.pid).pids)
        found = 0
        for pid in pids:
            # A killed stub stays in the tree until Triton asks for it, and has no memory.
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                found += private_bytes(pid)
        return found / 1e6

    with HostCalls(site.service.address, users, args.count, None) as calls:
        time.sleep(_CAPACITY_SECONDS)
        now = time.monotonic()
        capacity = outcomes(calls.between(now - _CAPACITY_SECONDS / 2, now))[WHOLE] / (_CAPACITY_SECONDS / 2)
    rate, tenth, milliseconds, measured = _SOAK_SHARE * capacity, args.soak_seconds / 10, [], [memory()]
    with HostCalls(site.service.address, users, args.count, rate) as calls:
        for _ in range(10):
            begin = time.monotonic()
            time.sleep(tenth)
            some = [call.seconds * 1e3 for call in calls.between(begin, time.monotonic())]
            milliseconds.append((float(np.percentile(some, 50)), float(np.percentile(some, 99))))
            measured.append(memory())
    return Soak(args.soak_seconds, capacity, rate, outcomes(calls.ended), milliseconds, measured)


def to_markdown(facts: dict[str, str], rate: float, rows: Sequence[Row], soak: Soak | None) -> str:
    """Lay the page out."""
    lines = [
        "# Faults",
        "",
        *(f"* {name}: {value}" for name, value in facts.items()),
        f"* calls: {rate:g} a second, through the client with eight connections, a second's time each; two workers",
        "",
        "Before: five seconds. During: until all answers were whole again. After: five seconds. Failed: without an "
        "answer. Seconds until the last such call was begun: from the fault or, where it lasts until it is healed, "
        "from the healing.",
        "",
        "| fault | before | during | after | failed | seconds of failures | seconds until all answers are whole | |",
        "|---|---|---|---|---|---|---|---|",
        *map(_line_of, rows),
    ]
    if soak is not None:
        shares = " ".join(f"{p50:.0f}/{p99:.0f}" for p50, p99 in soak.milliseconds)
        lines += [
            "",
            "## Soak",
            "",
            f"{soak.seconds:.0f} s at {soak.rate:.0f} calls a second, {_SOAK_SHARE:.0%} of what sixteen callers get "
            f"({soak.capacity:.0f}). Memory: private, of supervisor, workers and Triton.",
            "",
            "| | |",
            "|---|---|",
            f"| calls | {_told(soak.counted)} |",
            f"| p50/p99 by tenth of the time, ms | {shares} |",
            f"| memory at the beginning and after each tenth, MB | {' '.join(f'{mb:.0f}' for mb in soak.memory)} |",
        ]
    return "\n".join([*lines, ""])


def _line_of(row: Row) -> str:
    counted = [_told(counted) for counted in (row.before, row.during, row.after)]
    seconds = f"{row.failed_for:.1f} | {row.degraded_for:.1f}"
    return f"| {row.name} | {' | '.join(counted)} | {row.failed} | {seconds} | {'; '.join(row.notes)} |"


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in counted.most_common()) or "–"


if __name__ == "__main__":
    sys.exit(main())
