"""The studies' plots, one figure each, as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmarks.coea.studies import affinity
from benchmarks.coea.studies.affinity import AffinityStudy
from benchmarks.coea.studies.rounds import EPISODES, RoundsStudy
from benchmarks.coea.studies.sweeps import SweepResult

_QUALITY, _NOVELTY = "tab:blue", "tab:orange"


def rounds_plot(study: RoundsStudy) -> bytes:
    """Draw every measure over the rounds, mean and standard deviation over seeds: rows are episodes."""
    with _style():
        columns = study.measures
        figure = Figure(figsize=(3.4 * len(columns), 5.6), layout="constrained")
        rows = figure.subplots(len(EPISODES), len(columns), sharex=True, squeeze=False)
        for row, name in zip(rows, EPISODES, strict=True):
            for axes, measure in zip(row, columns, strict=True):
                for curve, colour, line in zip(study.curves, ("tab:red", "tab:gray"), ("-", "--"), strict=True):
                    _band(axes, curve.of(name)[measure], colour, line, curve.name)
                axes.set_title(f"{measure}, {name}")
        for axes in rows[-1]:
            axes.set_xlabel("round")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        rows[0][0].legend()
        seeds = len(study.with_kl.seeds)
        figure.suptitle(f"mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}")
        return _png(figure)


def affinity_plot(study: AffinityStudy) -> bytes:
    """Draw the mean cosines as bars, as they are and beyond the categories' own, a point for every seed."""
    with _style():
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, names, title in (
            (panels[0], affinity.NAMED, "categories named by …, user's own interest"),
            (panels[1], affinity.READ, "interest of …, categories named by CoEA"),
        ):
            places = np.arange(len(names))
            for shift, prefix, colour, label in (
                (-0.2, "", _QUALITY, "cosine"),
                (0.2, affinity.BEYOND, _NOVELTY, "beyond the category's own"),
            ):
                values = [study.means[prefix + name] for name in names]
                axes.bar(places + shift, [one.mean() for one in values], 0.38, color=colour, alpha=0.75, label=label)
                for place, one in zip(places, values, strict=True):
                    axes.scatter(np.full(len(one), place + shift), one, s=10, color="black", zorder=3)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_xticks(places, labels=[name.replace(" (", "\n(") for name in names])
            axes.set_title(title)
            axes.set_ylabel("mean cosine")
        panels[0].legend()
        return _png(figure)


def sweeps_plot(results: Sequence[SweepResult]) -> bytes:
    """Draw quality (left axis) and novelty (right axis) over the values of each parameter."""
    with _style():
        columns = min(3, len(results))
        rows = -(-len(results) // columns)
        figure = Figure(figsize=(4.2 * columns, 3.1 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, found in zip(panels, results, strict=False):
            places = np.arange(len(found.sweep.values))
            other = axes.twinx()
            other.grid(visible=False)
            lines = [
                side.errorbar(
                    places, values.mean(axis=0), _spread(values), color=colour, marker=marker, capsize=2, label=label
                )
                for side, values, colour, marker, label in (
                    (axes, found.quality, _QUALITY, "o", f"C-H@{found.cutoffs.hit}"),
                    (other, found.novelty, _NOVELTY, "s", f"NCP@{found.cutoffs.rank}"),
                )
            ]
            default = axes.axvline(found.sweep.default, color="tab:gray", linestyle=":", label="default")
            axes.set_xticks(places, labels=[f"{value:g}" for value in found.sweep.values])
            axes.set_xlabel(found.sweep.parameter)
            axes.set_ylabel(f"C-H@{found.cutoffs.hit}", color=_QUALITY)
            other.set_ylabel(f"NCP@{found.cutoffs.rank}", color=_NOVELTY)
            if found is results[0]:
                figure.legend(handles=[*lines, default], loc="outside upper center", ncols=3)
        for axes in panels[len(results) :]:
            axes.set_axis_off()
        return _png(figure)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True})


def _band(axes: Axes, values: NDArray[np.float64], colour: str, line: str, label: str) -> None:
    rounds, middle, spread = np.arange(values.shape[1]), values.mean(axis=0), _spread(values)
    axes.plot(rounds, middle, color=colour, linestyle=line, label=label)
    axes.fill_between(rounds, middle - spread, middle + spread, color=colour, alpha=0.2, linewidth=0)


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation over seeds, zeros for one seed."""
    found: NDArray[np.float64] = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return found


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
