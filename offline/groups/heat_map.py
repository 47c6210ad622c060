"""The cosine matrix as a picture."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from serendipity.offline.groups.cohesion import Cohesion


def heat_map(cohesion: Cohesion) -> bytes:
    """Draw the matrix as a PNG: rows are first subsets, columns second ones, by group id."""
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    size = len(cohesion.group_ids)
    if size:
        image = axes.imshow(np.array(cohesion.matrix), vmin=-1, vmax=1, cmap="RdBu_r")
        figure.colorbar(image, ax=axes)
    axes.set_xticks(range(size), labels=[str(group) for group in cohesion.group_ids])
    axes.set_yticks(range(size), labels=[str(group) for group in cohesion.group_ids])
    axes.set_xlabel("group, second subset of users")
    axes.set_ylabel("group, first subset of users")
    axes.set_title(f"cosine of mean interests: {cohesion.intra:.2f} within, {cohesion.inter:.2f} between groups")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
