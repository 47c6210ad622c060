"""Studies as Markdown, as JSON and as plots, one of each a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.coea.protocol import CategorySplit
from benchmarks.coea.report import About, hardware
from benchmarks.coea.studies import affinity, plots
from benchmarks.coea.studies.affinity import AffinityStudy
from benchmarks.coea.studies.paired import PairedDifference
from benchmarks.coea.studies.rounds import EPISODES, RoundsStudy
from benchmarks.coea.studies.sweeps import SweepResult
from serendipity.layout import write_atomically

EVERY = 5
"""Rounds between two rows of the table."""


def write_rounds(study: RoundsStudy, split: CategorySplit, out: Path, about: About) -> Path:
    """Write rounds.md, rounds.json and rounds.png; returns the first."""
    curves = {
        curve.name: {
            "seeds": list(curve.seeds),
            "seconds": list(curve.seconds),
            "entropy": curve.entropy.tolist(),
            **{name: {key: values.tolist() for key, values in curve.of(name).items()} for name in EPISODES},
        }
        for curve in study.curves
    }
    late = {
        name: {measure: asdict(study.late_difference(name, measure)) for measure in study.measures} for name in EPISODES
    }
    content = {"late rounds": [study.late[0], study.late[-1]], "with less without, late": late, "curves": curves}
    return _write("rounds", content, plots.rounds_plot(study), rounds_page(study, split, about), out, about)


def rounds_page(study: RoundsStudy, split: CategorySplit, about: About) -> str:
    """Lay the rounds out: late novelty as numbers, then every EVERY rounds."""
    one, other = study.curves
    late = f"rounds {study.late[0]} to {study.late[-1]}"
    lines = [
        f"# Rounds of CoEA on {about.dataset}, with and without the divergence",
        "",
        _made(about, sum(one.seconds) + sum(other.seconds)),
        "",
        f"Seeds {' '.join(map(str, one.seeds))}; {len(split.validation):,} users of the validation and "
        f"{len(split.test):,} of the test, all with a target outside C_s. Lists hold all the Novelty LLM proposes, "
        "in the order they are served in; `of proposals`: the Novelty LLM's own order. Means over seeds ± their "
        "standard deviation.",
        "",
        _late_novelty(study),
        "",
        f"Late, the mean over {late}; differences are paired by seed, with Student's 95 % interval:",
        "",
        f"| | measure | {one.name} | {other.name} | with − without | {one.name}: late − round 0 | "
        f"{other.name}: late − round 0 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in EPISODES:
        for measure in study.measures:
            found = study.late_difference(name, measure)
            changes = " | ".join(str(study.late_change(curve, name, measure)) for curve in study.curves)
            lines.append(f"| {name} | {measure} | {found.one:.4f} | {found.other:.4f} | {found} | {changes} |")
    rounds = [*range(0, one.rounds, EVERY), one.rounds]
    for name in EPISODES:
        cells = [f"{measure}, {curve.name}" for measure in study.measures for curve in study.curves]
        lines += ["", f"On the {name}:", "", "| round | " + " | ".join(cells) + " |", "|---|" + "---|" * len(cells)]
        for at in rounds:
            values = [_mean(curve.of(name)[measure][:, at]) for measure in study.measures for curve in study.curves]
            lines.append(f"| {at} | " + " | ".join(values) + " |")
    lines += ["", "![quality and novelty from round to round](rounds.png)"]
    return "\n".join(lines) + "\n"


def _late_novelty(study: RoundsStudy) -> str:
    """Say what the divergence does to late novelty, in one sentence."""
    measure = study.measures[1]
    said = []
    for name, what in ((measure, "lists"), (f"{measure} of proposals", "the Novelty LLM's proposals")):
        found = study.late_difference("test", name)
        said.append(
            f"{found.other / max(found.one, 1e-12) - 1:+.1%} for {what} ({found.other:.4f} against {found.one:.4f})"
        )
    return f"Late novelty on the test, {study.without_kl.name} against {study.with_kl.name}: {'; '.join(said)}."


def write_affinity(study: AffinityStudy, split: CategorySplit, out: Path, about: About) -> Path:
    """Write affinity.md, affinity.json and affinity.png; returns the first."""
    content = {
        "seeds": list(study.seeds),
        "seconds": list(study.seconds),
        "K": study.length,
        "cosines": {name: values.tolist() for name, values in study.means.items()},
    }
    return _write("affinity", content, plots.affinity_plot(study), affinity_page(study, split, about), out, about)


def affinity_page(study: AffinityStudy, split: CategorySplit, about: About) -> str:
    """Lay the cosines out, as they are and beyond the categories' own, and each row less the one above."""
    lines = [
        f"# Categories against long-term interests on {about.dataset}",
        "",
        _made(about, sum(study.seconds)),
        "",
        f"Mean cosine of a user's long-term interest (CSA) and the first {study.length} categories of a list; "
        f"{len(split.test):,} users of the test; seeds {' '.join(map(str, study.seeds))}; means over seeds ± their "
        "standard deviation. A category's vector is the mean of the network's item vectors over its "
        f"{affinity.ITEMS} most clicked items. Beyond: less the category's mean over the users it was a "
        "candidate for. Differences are paired by seed, "
        "with Student's 95 % interval. Exact definitions: `benchmarks/coea/studies/affinity.py`.",
    ]
    for title, names in (
        ("Whose list, against the user's own interest", affinity.NAMED),
        ("Whose interest, against the categories CoEA names", affinity.READ),
    ):
        lines += ["", f"{title}:", "", "| | cosine | less the row above | beyond | less the row above |"]
        lines.append("|---|---|---|---|---|")
        for above, name in zip((None, *names), names, strict=False):
            cells = []
            for prefix in ("", affinity.BEYOND):
                cells.append(_mean(study.means[prefix + name]))
                cells.append("" if above is None else str(study.difference(prefix + name, prefix + above)))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "![cosines](affinity.png)"]
    return "\n".join(lines) + "\n"


def write_sweeps(results: Sequence[SweepResult], seconds: float, split: CategorySplit, out: Path, about: About) -> Path:
    """Write sweeps.md, sweeps.json and sweeps.png; returns the first. seconds: of all trials."""
    content = {
        found.sweep.parameter: {
            "values": list(found.sweep.values),
            "default": found.sweep.values[found.sweep.default],
            f"C-H@{found.cutoffs.hit}": found.quality.tolist(),
            f"NCP@{found.cutoffs.rank}": found.novelty.tolist(),
            "list length": found.length.tolist(),
        }
        for found in results
    }
    page = sweeps_page(results, seconds, split, about)
    return _write("sweeps", content, plots.sweeps_plot(results), page, out, about)


def sweeps_page(results: Sequence[SweepResult], seconds: float, split: CategorySplit, about: About) -> str:
    """Lay the sweeps out, each as a table."""
    hit, rank = results[0].cutoffs.hit, results[0].cutoffs.rank
    lines = [
        f"# Parameters of CoEA on {about.dataset}, at small scale",
        "",
        _made(about, seconds),
        "",
        f"{len(split.validation):,} users of the validation; {len(results[0].quality)} seeds; means over seeds ± their "
        "standard deviation; differences from the default are paired by seed, with Student's 95 % interval. What small "
        "scale is: `benchmarks/coea/studies/sweeps.py`.",
    ]
    for found in results:
        lines += [
            "",
            f"| {found.sweep.parameter} | C-H@{hit} | less the default's | NCP@{rank} | less the default's | "
            f"categories in the first {rank} |",
            "|---|---|---|---|---|---|",
        ]
        default = found.sweep.default
        for place, value in enumerate(found.sweep.values):
            cells = []
            for values in (found.quality, found.novelty):
                cells.append(_mean(values[:, place]))
                gap = PairedDifference.of(values[:, place], values[:, default])
                cells.append("" if place == default else str(gap))
            mark = " (default)" if place == default else ""
            lines.append(f"| {value:g}{mark} | {' | '.join(cells)} | {found.length[:, place].mean():.2f} |")
    lines += ["", "![quality and novelty by parameter](sweeps.png)"]
    return "\n".join(lines) + "\n"


def _write(name: str, content: Mapping[str, object], plot: bytes, page: str, out: Path, about: About) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "dataset": about.dataset,
        "command": about.command,
        "date": about.date,
        "hardware": hardware(),
        "seconds": round(about.seconds),
    }
    write_atomically(out / f"{name}.json", json.dumps({**facts, **content}, indent=2, ensure_ascii=False).encode())
    write_atomically(out / f"{name}.png", plot)
    write_atomically(out / f"{name}.md", page.encode())
    return out / f"{name}.md"


def _made(about: About, seconds: float) -> str:
    return (
        f"`{about.command}`, {about.date}, {hardware()}, {about.seconds:.0f} s this time, {seconds:.0f} s for all "
        "trials."
    )


def _mean(values: NDArray[np.float64]) -> str:
    spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread}"
