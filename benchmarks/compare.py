"""Compare two reports of a benchmark: did anything get worse?

    python -m benchmarks.compare before.json after.json

Shows every ratio of both. A ratio got worse by more than its spread where each value lies outside the other's spread
and the new one on the worse side: higher, or lower for those of requests a second. With lower-is-better ratios that is
after.value > before.high and before.value < after.low, the spread being the 10th to the 90th percentile of the rounds.
Ratios that only one report has are shown and not judged. Other work on the machine shifts ratios by more than it
spreads them, so that is shown too: reports of a busy machine prove little.

Exit status: 0 where none got worse, 1 where one did, 2 where a file is no report or the two have no ratio in common.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import options_of
from benchmarks.ratios import Ratio
from benchmarks.report import NoReport, read_ratios

WORSE, NO_REPORT = 1, 2
"""Exit statuses."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print both reports' ratios side by side; returns 1 where one got worse, 2 where there is nothing to compare."""
    parser = options_of("compare", __doc__)
    parser.add_argument("before", type=Path, metavar="BEFORE.json")
    parser.add_argument("after", type=Path, metavar="AFTER.json")
    args = parser.parse_args(argv)
    try:
        (old, busy_before), (new, busy_after) = read_ratios(args.before), read_ratios(args.after)
    except NoReport as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return NO_REPORT
    before, after = ({ratio.name: ratio for ratio in found} for found in (old, new))
    if not before.keys() & after.keys():
        print(f"{parser.prog}: {args.before} and {args.after} have no ratio in common", file=sys.stderr)
        return NO_REPORT
    print(f"Others used {busy_before:.0%} of the machine's cores before, {busy_after:.0%} after.\n")
    print("| ratio | before | after | |\n|---|---|---|---|")
    for name in dict.fromkeys([*before, *after]):
        print(f"| {name} | {_shown(before.get(name))} | {_shown(after.get(name))} | {_verdict(name, before, after)} |")
    worse = [name for name in before.keys() & after.keys() if got_worse(before[name], after[name])]
    print(f"\n{len(worse)} of {len(before.keys() & after.keys())} got worse by more than their spread")
    return WORSE if worse else 0


def got_worse(before: Ratio, after: Ratio) -> bool:
    """Tell whether a ratio got worse by more than its spread; see above."""
    if before.higher_is_better:
        return after.value < before.low and before.value > after.high
    return after.value > before.high and before.value < after.low


def _verdict(name: str, before: dict[str, Ratio], after: dict[str, Ratio]) -> str:
    if name not in before or name not in after:
        return "in one report only"
    if got_worse(before[name], after[name]):
        return "worse"
    return "better" if got_worse(after[name], before[name]) else ""


def _shown(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
