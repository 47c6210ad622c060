"""The curves of a comparison, drawn."""

from __future__ import annotations

import io

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.coea.comparison import Comparison


def curves_plot(comparison: Comparison) -> bytes:
    """Draw every curve on the test, C-H@K and the last C-H of the curves against NCP@K. Returns a PNG."""
    novelty = f"NCP@{comparison.cutoffs.rank}"
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 5), layout="constrained")
        for axes, k in zip(figure.subplots(1, 2), (comparison.cutoffs.hit, comparison.cutoffs.rank), strict=True):
            for number, result in enumerate(comparison.results):
                colour = f"C{number % 10}"
                quality = f"C-H@{k}"
                if result.curve:
                    points = [(point.by_seed[novelty].mean(), point.by_seed[quality].mean()) for point in result.curve]
                    axes.plot(*zip(*points, strict=True), marker=".", linewidth=0.8, color=colour, label=result.name)
                else:
                    at = result.by_seed(novelty).mean(), result.by_seed(quality).mean()
                    axes.scatter([at[0]], [at[1]], color=colour, marker="x", label=result.name)
            axes.set_xlabel(novelty)
            axes.set_ylabel(f"C-H@{k}")
        axes.legend(fontsize=7)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
