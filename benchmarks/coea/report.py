"""A comparison as JSON and as Markdown."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.affinity import OWN, READ, beyond, chosen, mean_over, random_lists
from benchmarks.coea.choice import QUALITY_KEPT, reaches
from benchmarks.coea.comparison import Comparison, RowResult
from benchmarks.coea.curve import SHARES, OverSeeds, novelty_at
from benchmarks.coea.plot import curves_plot
from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.rows import BONUSES
from benchmarks.coea.trial import TrialResult
from serendipity.layout import write_atomically
from serendipity.offline.evaluate.significance import Estimate, bootstrap_ratio

BASELINE, CONTROL, COMPOSED, LIST = "GRU4Rec", "Category ranker + bonus", "CoEA composed", "CoEA"
_PAIRS = ((COMPOSED, CONTROL), ("CoEA composed, GRU4Rec", "GRU4Rec × ranker + bonus"))
"""Composed lists, and the same bases with the trigger alone."""
_SHOWN = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 6.0)
"""Bonuses of the page's curves, of BONUSES; the JSON file has all."""
_HITS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class About:
    """What a report says of its making. now: Unix seconds; seconds: this run's, without what was kept."""

    dataset: str
    command: str
    now: float
    seconds: float

    @property
    def page(self) -> str:
        """Name of the page; JSON and picture lie beside it."""
        return f"coea-{self.dataset}.md"

    @property
    def plot(self) -> str:
        """Name of the picture."""
        return f"coea-{self.dataset}.png"

    @property
    def date(self) -> str:
        """Day of its making, UTC."""
        return datetime.fromtimestamp(self.now, UTC).date().isoformat()


def write_report(
    comparison: Comparison, trials: Sequence[TrialResult], split: CategorySplit, out: Path, about: About
) -> None:
    """Write coea-DATASET.md, .json and .png to `out`. trials: what the rows are made of."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(
        out / f"coea-{about.dataset}.json", json.dumps(_json(comparison, trials, split, about), indent=2).encode()
    )
    write_atomically(out / about.plot, curves_plot(comparison))
    write_atomically(out / about.page, _markdown(comparison, trials, split, about).encode())


def headline(comparison: Comparison) -> tuple[str, ...]:
    """The four measures of Table 2 at the split's K, and hits among the categories that are new to the user; but
    nothing that is defined for no user."""
    hit, rank = comparison.cutoffs.hit, comparison.cutoffs.rank
    names = (f"C-H@{hit}", f"C-N@{rank}", f"NCP@{rank}", f"CLTP@{rank}", f"novel C-H@{rank}")
    return tuple(name for name in names if len(comparison.results[0].by_user(name)))


def _markdown(comparison: Comparison, trials: Sequence[TrialResult], split: CategorySplit, about: About) -> str:
    """Lay the comparison out as a page: means over seeds ± their standard deviation, in the order of the rows."""
    test = split.test
    lines = [
        f"# CoEA's comparison on {about.dataset}",
        "",
        f"`{about.command}`, {about.date}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{sum(result.seconds for result in trials):.0f} s for all trainings, beside other work. Rows, choices and "
        "measures: [docs/coea-comparison.md](../coea-comparison.md).",
        "",
        *_findings(comparison),
        f"Split: {split.kind}; {len(test):,} users, {int(test.reachable.any(axis=1).sum()):,} with a target outside "
        f"their latest categories, {int(test.novel_targets.any(axis=1).sum()):,} with a novel one; "
        f"{split.num_categories} categories.",
        "",
        _rule(comparison),
        "",
        *_table(comparison),
        "",
        *_ratios(comparison),
        *_curves(comparison),
        *_matched(comparison),
        f"![C-H@K against NCP@K along the trigger]({about.plot})",
        "",
        *_affinity(comparison, trials, split),
        *_untied(comparison, split),
        "## What was chosen",
        "",
        "| | setting chosen on validation |",
        "|---|---|",
        *(f"| {result.name} | {_named(result)} |" for result in comparison.results),
        "",
        "| | seeds | s a seed |",
        "|---|---|---|",
        *_seconds(trials),
    ]
    return "\n".join(lines) + "\n"


def _findings(comparison: Comparison) -> Iterator[str]:
    """Say whether composed lists do what they are for, as it came out."""
    quality, novelty = f"C-H@{comparison.cutoffs.hit}", f"NCP@{comparison.cutoffs.rank}"
    base = comparison.named(BASELINE)
    for name, without in _PAIRS:
        composed, control = comparison.named(name), comparison.named(without)
        if base is None or composed is None or control is None:
            continue
        kept, gained = _compared(composed, base, quality), _compared(composed, control, novelty)
        used = composed.setting["alignment"] > 0 or composed.setting["novelty"] > 0
        yield f"**{name}.** Validation {'uses' if used else 'leaves out'} the group's list: {_named(composed)}."
        yield ""
        yield f"* {quality}: {_interval(kept)} × GRU4Rec's: {_verdict(kept, 1.0)}."
        yield f"* {novelty}: {_interval(gained)} × that of {without}, each at its own {quality}."
        at = _at_quality(comparison, composed, quality, novelty, 1.0)
        against = _at_quality(comparison, control, quality, novelty, 1.0)
        if at is not None and against is not None:
            ratio = OverSeeds.of(at / against)
            said = f"{_interval(ratio)} × that of {without} (over seeds): {_verdict(ratio, 1.1)}"
        else:
            lacking = ", ".join(row.name for row, found in ((composed, at), (control, against)) if found is None)
            said = f"nothing can be said of {lacking}: some seed does not come to it with any bonus"
        yield f"* {novelty} at GRU4Rec's own {quality}: {said}."
        yield ""


def _verdict(ratio: Estimate | OverSeeds | None, wanted: float) -> str:
    if ratio is None:
        return "nothing to compare with"
    if ratio.low >= wanted:
        return f"at least {wanted:g}, with its whole interval"
    return f"below {wanted:g}, with its whole interval" if ratio.high < wanted else f"{wanted:g} is within its interval"


def _rule(comparison: Comparison) -> str:
    hit, rank = comparison.cutoffs.hit, comparison.cutoffs.rank
    if not any(result.family == "exploitation" for result in comparison.results):
        return f"Settings are chosen on validation by C-H@{hit} alone: no exploitation baseline is among the rows."
    return (
        f"Settings are chosen on validation: the largest NCP@{rank} with C-H@{hit} at least {QUALITY_KEPT:g} of the "
        "best exploitation baseline's or, where none of a row's settings has that (marked *), of the row's own best."
    )


def _table(comparison: Comparison) -> list[str]:
    names = headline(comparison)
    hits = [f"C-H@{k}" for k in _HITS[1:]]
    lines = _heads([*names, *hits])
    for result in comparison.results:
        cells = " | ".join(_mean(result.by_seed(name)) for name in (*names, *hits))
        lines.append(f"| {result.name}{_mark(comparison, result)} | {cells} |")
    return lines


def _mark(comparison: Comparison, result: RowResult) -> str:
    """A star where no setting kept the quality asked for."""
    best = max(
        (point.quality for other in comparison.results if other.family == "exploitation" for point in other.validation),
        default=None,
    )
    traded = result.family in ("control", "coea")
    return "" if not traded or reaches(result.validation[result.chosen], best) else "*"


def _ratios(comparison: Comparison) -> Iterator[str]:
    names = headline(comparison)
    for baseline in (comparison.named(BASELINE), comparison.named(CONTROL), comparison.named(LIST)):
        if baseline is None:
            continue
        yield f"Ratios to {baseline.name}, with the 95 % interval of the paired bootstrap over users:"
        yield ""
        yield from _heads(names)
        for result in comparison.results:
            if result.family != "reference" and result is not baseline:
                yield _row(result.name, [_compared(result, baseline, name) for name in names])
        yield ""


def _curves(comparison: Comparison) -> Iterator[str]:
    followed = [result for result in comparison.results if result.curve]
    if not followed:
        return
    novelty = f"NCP@{comparison.cutoffs.rank}"
    names = [*(f"C-H@{k}" for k in _HITS), novelty, f"novel C-H@{comparison.cutoffs.rank}"]
    yield "## Along the trigger"
    yield ""
    yield "The setting chosen, with other bonuses, on the test; means over seeds. Nothing is chosen by this table."
    yield ""
    yield "| | bonus | " + " | ".join(names) + " |"
    yield "|---|---|" + "---|" * len(names)
    for result in followed:
        for point in result.curve:
            if point.setting["bonus"] in _SHOWN:
                cells = " | ".join(f"{point.by_seed[name].mean():.4f}" for name in names)
                yield f"| {result.name} | {point.setting['bonus']:g} | {cells} |"
    yield ""


def _matched(comparison: Comparison) -> Iterator[str]:
    control, base = comparison.named(CONTROL), comparison.named(BASELINE)
    if control is None or base is None:
        return
    novelty = f"NCP@{comparison.cutoffs.rank}"
    yield "## At equal quality"
    yield ""
    yield (
        f"{novelty} where a row's C-H@K is GRU4Rec's, or a share of it, read off the curves seed by seed; in brackets "
        f"the ratio to {CONTROL} at the same place with Student's 95 % interval over seeds. –: some seed does not come "
        "to it with any bonus."
    )
    yield ""
    asked = [(k, share) for k in (1, 3, 5) for share in SHARES]
    heads = [f"C-H@{k}" if share == 1 else f"{share:g} × C-H@{k}" for k, share in asked]
    yield from _heads(heads)
    for result in comparison.results:
        if not result.curve:
            continue
        cells = []
        for k, share in asked:
            found = _at_quality(comparison, result, f"C-H@{k}", novelty, share)
            against = _at_quality(comparison, control, f"C-H@{k}", novelty, share)
            cell = "–" if found is None else f"{found.mean():.4f}"
            if found is not None and against is not None and result is not control:
                cell += f" ({_interval(OverSeeds.of(found / against))})"
            cells.append(cell)
        yield f"| {result.name} | " + " | ".join(cells) + " |"
    yield ""


def _at_quality(
    comparison: Comparison, result: RowResult, quality: str, novelty: str, share: float
) -> NDArray[np.float64] | None:
    base = comparison.named(BASELINE)
    if base is None or not result.curve:
        return None
    return novelty_at(result.curve, quality, novelty, share * base.by_seed(quality))


def _affinity(comparison: Comparison, trials: Sequence[TrialResult], split: CategorySplit) -> Iterator[str]:
    """Table 3, of the lists chosen."""
    found = [trial for trial in trials if OWN in trial.answers]
    named = [row for name in (f"{LIST} w/o Long", LIST, COMPOSED) if (row := comparison.named(name)) is not None]
    if not found or not named:
        return
    test, rank = split.test, comparison.cutoffs.rank
    whose: dict[str, list[NDArray[np.bool_]]] = {"random": [random_lists(test, rank, one.seed) for one in found]}
    for row in named:
        whose[row.name] = [chosen(top[:, :rank], test) for top in row.lists]
    whose["clicked next"] = [test.reachable] * len(found)
    cosines = {name: [one.answers[name].astype(np.float64) for one in found] for name in READ}
    further = {name: [beyond(one, test.candidates) for one in values] for name, values in cosines.items()}
    yield "## Categories against long-term interests (Table 3)"
    yield ""
    yield (
        f"Mean cosine of a user's long-term interest and the first {rank} categories of a list; beyond: less each "
        "category's own mean. Definitions: `benchmarks/coea/affinity.py`."
    )
    for title, lines in (
        ("whose list", [(name, OWN, lists) for name, lists in whose.items()]),
        (f"whose interest, {LIST}'s list", [(name, name, whose[LIST]) for name in READ] if LIST in whose else []),
    ):
        yield ""
        yield f"| {title} | cosine | beyond |"
        yield "|---|---|---|"
        for name, reader, lists in lines:
            cells = [
                _mean(np.array([mean_over(one, some) for one, some in zip(of[reader], lists, strict=True)]))
                for of in (cosines, further)
            ]
            yield f"| {name} | {cells[0]} | {cells[1]} |"
    yield ""


def _untied(comparison: Comparison, split: CategorySplit) -> Iterator[str]:
    """Say the headline again without the users of whom the order of one second's clicks decides what comes next."""
    test = split.test
    if not test.tied.any():
        return
    left = int((test.reachable.any(axis=1) & ~test.tied).sum())
    yield "## Where the target comes strictly later than everything known"
    yield ""
    yield (
        f"Of {int(test.tied.sum()):,} users ({test.tied.mean():.0%}) the target was clicked in the same second as the "
        "click before it: which of the two comes last follows from how items are called. Without them, the same "
        f"choices, {left:,} users with a target outside their latest categories:"
    )
    yield ""
    yield from _table(comparison.among(~test.tied))
    yield ""


def _seconds(trials: Sequence[TrialResult]) -> Iterator[str]:
    for name in dict.fromkeys(trial.name for trial in trials):
        ours = [trial for trial in trials if trial.name == name]
        seeds = " ".join(str(trial.seed) for trial in ours)
        yield f"| {name} | {seeds} | {np.mean([trial.seconds for trial in ours]):.0f} |"


def _compared(result: RowResult, baseline: RowResult, measure: str) -> Estimate | None:
    """Ratio of means over the same users; None to a baseline at zero."""
    if not baseline.by_user(measure).any():
        return None
    return bootstrap_ratio(result.by_user(measure), baseline.by_user(measure), np.random.default_rng(0))


def _named(result: RowResult) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in result.setting.items()) or "none"


def _heads(names: Sequence[str]) -> list[str]:
    return ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]


def _row(name: str, ratios: Sequence[Estimate | None]) -> str:
    return f"| {name} | " + " | ".join("–" if one is None else _interval(one) for one in ratios) + " |"


def _interval(one: Estimate | OverSeeds | None) -> str:
    return "–" if one is None else f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def _mean(values: NDArray[np.float64]) -> str:
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread}"


def _json(
    comparison: Comparison, trials: Sequence[TrialResult], split: CategorySplit, about: About
) -> Mapping[str, object]:
    return {
        "dataset": about.dataset,
        "command": about.command,
        "date": about.date,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(about.seconds),
        "split": split.kind,
        "users": len(split.test),
        "trials": [{"name": one.name, "seed": one.seed, "seconds": one.seconds} for one in trials],
        "bonuses": BONUSES,
        "rows": [
            {
                "name": result.name,
                "family": result.family,
                "seeds": list(result.seeds),
                "setting": dict(result.setting),
                "validation": [
                    {"setting": dict(setting), "quality": point.quality, "novelty": point.novelty}
                    for setting, point in zip(result.settings, result.validation, strict=True)
                ],
                "test": {name: result.by_seed(name).tolist() for name in result.per_user},
                "curve": [
                    {"setting": dict(point.setting), "test": {k: v.tolist() for k, v in point.by_seed.items()}}
                    for point in result.curve
                ],
            }
            for result in comparison.results
        ],
    }
