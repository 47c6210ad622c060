"""A comparison as JSON, as Markdown and as a plot."""

from __future__ import annotations

import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.coea.choice import QUALITY_KEPT, reaches
from benchmarks.coea.comparison import Comparison, MethodResult
from benchmarks.coea.protocol import TRADING, CategorySplit, Family
from serendipity.layout import write_atomically
from serendipity.offline.evaluate.significance import Estimate, bootstrap_ratio

JSON_REPORT = "coea.json"
MARKDOWN_REPORT = "report.md"
TRADE_OFF_PLOT = "trade-off.png"

_AGAINST: tuple[Family, ...] = ("exploitation", "exploration", "control")
_WHOLE = "CoEA"
"""The row that its ablations are compared with."""
_COLOURS: Mapping[str, str] = {
    "reference": "tab:gray",
    "exploitation": "tab:blue",
    "exploration": "tab:orange",
    "control": "tab:green",
    "coea": "tab:red",
}


@dataclass(frozen=True)
class About:
    """What a report says of its making. now: Unix seconds; seconds: this run's, without what the cache held."""

    dataset: str
    command: str
    now: float
    seconds: float

    @property
    def date(self) -> str:
        """Day of its making, UTC."""
        return datetime.fromtimestamp(self.now, UTC).date().isoformat()


_Ratios = Mapping[str, Mapping[tuple[str, str], Estimate]]
"""By method, then by measure and baseline."""


def write_report(comparison: Comparison, split: CategorySplit, out: Path, about: About) -> None:
    """Write report.md, coea.json and trade-off.png to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    found = {result.name: ratios(comparison, result) for result in comparison.results}
    write_atomically(out / JSON_REPORT, json.dumps(_json(comparison, split, about, found), indent=2).encode())
    write_atomically(out / TRADE_OFF_PLOT, trade_off_plot(comparison))
    write_atomically(out / MARKDOWN_REPORT, _markdown(comparison, split, about, found).encode())


def hardware() -> str:
    """Name the machine a report is made on."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def headline(comparison: Comparison) -> tuple[str, ...]:
    """The four measures of Table 2 at the split's K."""
    hit, rank = comparison.cutoffs.hit, comparison.cutoffs.rank
    return f"C-H@{hit}", f"C-N@{rank}", f"NCP@{rank}", f"CLTP@{rank}"


def _markdown(comparison: Comparison, split: CategorySplit, about: About, found: _Ratios) -> str:
    """Lay the comparison out as a page: means over seeds ± their standard deviation, in the order of the methods."""
    rank = comparison.cutoffs.rank
    more = (f"novel C-H@{rank}", f"novel C-N@{rank}", f"C-T@{rank}", f"C-P@{rank}", f"NCP@{rank} ÷ K")
    test = split.test
    lines = [
        f"# CoEA's comparison on {about.dataset}",
        "",
        f"`{about.command}`, {about.date}, {hardware()}, {about.seconds:.0f} s this time, "
        f"{sum(sum(result.seconds) for result in comparison.results):.0f} s for all results.",
        "",
        f"Split: {split.kind}; {len(test):,} users, {int(test.reachable.any(axis=1).sum()):,} with a target outside "
        f"their latest categories, {int(test.novel_targets.any(axis=1).sum()):,} with a novel one; "
        f"{split.num_categories} categories. Protocol: `benchmarks/coea/protocol.py`; measures: `metrics.py`.",
        "",
        _rule(comparison),
        "",
        *_table(comparison, (*headline(comparison), f"CLTP@{rank} ÷ K")),
        "",
        *_table(comparison, more),
        "",
        *_ratios(comparison, found),
        *_untied(comparison, split),
        "",
        f"![quality and novelty of every setting on validation]({TRADE_OFF_PLOT})",
        "",
        "| | trade-off chosen | seeds | s a seed |",
        "|---|---|---|---|",
    ]
    for result in comparison.results:
        chosen = ", ".join(f"{name} {value:g}" for name, value in result.setting.items()) or "none"
        seeds = " ".join(map(str, result.seeds))
        lines.append(f"| {result.name} | {chosen} | {seeds} | {np.mean(result.seconds):.0f} |")
    return "\n".join(lines) + "\n"


def _rule(comparison: Comparison) -> str:
    hit, rank = comparison.cutoffs.hit, comparison.cutoffs.rank
    if not any(result.family == "exploitation" for result in comparison.results):
        return f"Trade-offs are chosen on validation by C-H@{hit} alone: no exploitation baseline is among the rows."
    return (
        f"Trade-offs are chosen on validation: the largest NCP@{rank} with C-H@{hit} at least {QUALITY_KEPT:g} of the "
        "best exploitation baseline's or, where none of a method's settings has that (marked *), of the method's own "
        "best."
    )


def _untied(comparison: Comparison, split: CategorySplit) -> list[str]:
    """Say the headline again without the users of whom the order of one second's clicks decides what comes next."""
    test = split.test
    if not test.tied.any():
        return []
    untied = comparison.among(~test.tied)
    left = int((test.reachable.any(axis=1) & ~test.tied).sum())
    return [
        "",
        "## Where the target comes strictly later than everything known",
        "",
        f"Of {int(test.tied.sum()):,} users ({test.tied.mean():.0%}) the target was clicked in the same second as the "
        "click before it: which of the two comes last follows from how items are called. Without them, the same "
        f"choices, {left:,} users with a target outside their latest categories:",
        "",
        *_table(untied, compared(untied)),
        "",
        *_ratios(untied, {result.name: ratios(untied, result) for result in untied.results}),
    ]


def trade_off_plot(comparison: Comparison) -> bytes:
    """Draw C-H@K against NCP@K of every setting on validation, the chosen ones filled. Returns a PNG."""
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for result in comparison.results:
            colour = _COLOURS[result.family]
            novelty = [point.novelty for point in result.validation]
            quality = [point.quality for point in result.validation]
            axes.scatter(novelty, quality, s=14, facecolors="none", edgecolors=colour, alpha=0.5)
            chosen = result.validation[result.chosen]
            axes.scatter([chosen.novelty], [chosen.quality], s=36, color=colour)
            axes.annotate(result.name, (chosen.novelty, chosen.quality), xytext=(4, 3), textcoords="offset points")
        axes.set_xlabel(f"NCP@{comparison.cutoffs.rank}")
        axes.set_ylabel(f"C-H@{comparison.cutoffs.hit}")
        axes.set_title("validation: every setting, the chosen one filled")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def compared(comparison: Comparison) -> tuple[str, ...]:
    """What rows are compared by: the headline, and hits among the categories that are new to the user; but nothing that
    is defined for no user."""
    names = (*headline(comparison), f"novel C-H@{comparison.cutoffs.rank}")
    return tuple(name for name in names if len(comparison.results[0].by_user(name)))


def ratios(comparison: Comparison, result: MethodResult) -> dict[tuple[str, str], Estimate]:
    """Ratios of a method's means to those of the best baseline of each family: (measure, baseline) → paired bootstrap.

    Best by the very measure, on the same users; an ablation is also compared with the whole method. Families without a
    row, a method against itself, and a baseline at zero are left out.
    """
    found = {}
    whole = [other for other in comparison.results if other.name == _WHOLE and result.family == other.family]
    for measure in compared(comparison):
        for best in (*(comparison.best(family, measure) for family in _AGAINST), *whole):
            if best is None or best.name == result.name or not best.by_user(measure).any():
                continue
            rng = np.random.default_rng(0)
            found[measure, best.name] = bootstrap_ratio(result.by_user(measure), best.by_user(measure), rng)
    return found


def _table(comparison: Comparison, names: tuple[str, ...]) -> list[str]:
    lines = _heads(names)
    for result in comparison.results:
        cells = " | ".join(_mean(result, name) for name in names)
        lines.append(f"| {result.name}{_mark(comparison, result)} | {cells} |")
    return lines


def _mark(comparison: Comparison, result: MethodResult) -> str:
    """A star where no setting kept the quality asked for."""
    if result.family not in TRADING:
        return ""
    best = max(
        (point.quality for other in comparison.results if other.family == "exploitation" for point in other.validation),
        default=None,
    )
    return "" if reaches(result.validation[result.chosen], best) else "*"


def _ratios(comparison: Comparison, found: _Ratios) -> list[str]:
    names = compared(comparison)
    lines = [
        "Ratios of means with the 95 % interval of the paired bootstrap over users.",
        *(line for family in _AGAINST for line in _against(comparison, found, names, family)),
    ]
    ablations = [result for result in comparison.results if (names[0], _WHOLE) in found[result.name]]
    if ablations:
        lines += ["", f"To {_WHOLE}:", "", *_heads(names)]
        lines += [_row(result.name, [found[result.name].get((name, _WHOLE)) for name in names]) for result in ablations]
    return lines


def _against(comparison: Comparison, found: _Ratios, names: tuple[str, ...], family: Family) -> list[str]:
    best = [one for name in names if (one := comparison.best(family, name)) is not None]
    explorers = [result for result in comparison.results if result.family in TRADING]
    if not best or not explorers:
        return []
    return [
        "",
        f"To the {family}{'' if family == 'control' else ' baseline'} that is best by the measure:",
        "",
        *_heads([f"{name}, {one.name}" for name, one in zip(names, best, strict=True)]),
        *(
            _row(
                result.name,
                [found[result.name].get((name, one.name)) for name, one in zip(names, best, strict=True)],
            )
            for result in explorers
        ),
    ]


def _heads(names: Sequence[str]) -> list[str]:
    return ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]


def _row(name: str, ratios: Sequence[Estimate | None]) -> str:
    """A dash stands for a row against itself, or against nothing."""
    cells = ["–" if one is None else f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in ratios]
    return f"| {name} | " + " | ".join(cells) + " |"


def _mean(result: MethodResult, name: str) -> str:
    values = result.by_seed(name)
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread}"


def _json(comparison: Comparison, split: CategorySplit, about: About, found: _Ratios) -> dict[str, object]:
    return {
        "dataset": about.dataset,
        "command": about.command,
        "date": about.date,
        "hardware": hardware(),
        "seconds": round(about.seconds),
        "split": split.kind,
        "users": len(split.test),
        "methods": [
            {
                "name": result.name,
                "family": result.family,
                "seeds": list(result.seeds),
                "seconds": list(result.seconds),
                "setting": dict(result.setting),
                "validation": [
                    {"setting": dict(setting), "quality": point.quality, "novelty": point.novelty}
                    for setting, point in zip(result.settings, result.validation, strict=True)
                ],
                "test": {name: result.by_seed(name).tolist() for name in result.per_user},
                "ratios": [
                    {"measure": measure, "against": name, "value": ratio.value, "low": ratio.low, "high": ratio.high}
                    for (measure, name), ratio in found[result.name].items()
                ],
            }
            for result in comparison.results
        ],
    }
