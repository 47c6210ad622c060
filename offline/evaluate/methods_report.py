"""Every method's figures side by side as Markdown tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.evaluate.control_choice import Chosen
from serendipity.offline.evaluate.measures import EXCLUSIVE, RARITY_EXPONENT, RECALLS
from serendipity.offline.evaluate.methods import MethodResult
from serendipity.offline.evaluate.significance import Estimate

Depths = tuple[int, int]

LEGEND = (
    "Means over users and seeds. never, re-entry: targets in categories that the user never clicked, and in those "
    "clicked before the latest 200 clicks. cold items: first clicked in the last 28 days. inverse popularity: targets "
    f"weigh (users of the item)^−{RARITY_EXPONENT:g}. serendipity: hits weighted by how serendipity is felt at their "
    "unexpectedness."
)
"""What the columns of `methods_table` mean."""


def run_heading(command: str, started: float, ended: float) -> str:
    """Say what a page was made by, when, and on what. started, ended: Unix seconds."""
    date = datetime.fromtimestamp(started, UTC).date().isoformat()
    return f"`{command}`, {date}, {os.cpu_count()} cores ({platform.machine()}), {ended - started:,.0f} s."


def methods_table(methods: Sequence[MethodResult], depths: Depths) -> str:
    """Lay out every method by every measure, "@ the smaller K / @ the larger"."""
    measures = [one for one in (*RECALLS, EXCLUSIVE) if any((one, depths[0]) in method.per_user for method in methods)]
    rows = [
        (_name(method), *(" / ".join(number(method.mean(measure, k)) for k in depths) for measure in measures))
        for method in methods
    ]
    return table(("", *measures), rows)


def ratios_table(
    one: MethodResult, others: Sequence[MethodResult], compared: Sequence[tuple[str, int]], samples: int
) -> str:
    """Lay out the ratios of one method to others. compared: (measure, K); samples: of the bootstrap over users."""
    rng = np.random.default_rng(0)
    rows = [(_name(other), *(_ratio(one.ratio_to(other, *key, rng, samples)) for key in compared)) for other in others]
    return table(("", *(f"{measure}@{k}" for measure, k in compared)), rows)


def seeds_table(methods: Sequence[MethodResult], compared: Sequence[tuple[str, int]]) -> str:
    """Lay out mean ± standard deviation over seeds of the methods that have several; "" where none has."""
    rows = [
        (_name(method), ", ".join(map(str, method.seeds)), *(_spread(method.by_seed(*key)) for key in compared))
        for method in methods
        if len(method.seeds) > 1
    ]
    return table(("", "seeds", *(f"{measure}@{k}" for measure, k in compared)), rows) if rows else ""


def chosen_table(chosen: Sequence[Chosen]) -> str:
    """Lay out what was chosen for every control, and how well it did on validation."""
    rows = [
        (
            one.control.name,
            ", ".join(f"{name} {value:g}" for name, value in one.parameters.items()) or "–",
            " / ".join(map(number, one.validation)),
        )
        for one in chosen
    ]
    return table(("", "chosen", "novel recall@20 / @100 there"), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as a Markdown table, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Write a figure with four digits; NaN as a dash."""
    return "–" if value != value else f"{value:.4f}"


def method_data(method: MethodResult) -> dict[str, object]:
    """Lay a method out for JSON: the mean over users of every seed."""
    figures = {f"{measure}@{k}": method.by_seed(measure, k).tolist() for measure, k in method.per_user}
    return {"name": method.name, "kind": method.kind, "seeds": method.seeds, "by seed": figures}


def _name(method: MethodResult) -> str:
    return f"**{method.name}**" if method.kind == "channel" else method.name


def _spread(values: NDArray[np.float64]) -> str:
    return "–" if np.isnan(values).any() else f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def _ratio(ratio: Estimate | None) -> str:
    if ratio is None:
        return "–"
    high = "∞" if np.isinf(ratio.high) else f"{ratio.high:.3f}"
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {high})"
