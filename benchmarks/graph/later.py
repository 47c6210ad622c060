"""What a build's graph is judged on for other uses: the clicks before a cut, those after it, and tables of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serendipity.offline.evaluate.held_out import HeldOut
from serendipity.offline.evaluate.significance import bootstrap_difference
from serendipity.offline.graph.choice import Choice, graph_of, item_trend, with_trend
from serendipity.offline.graph.held_interests import HeldConfig, infer_held_interests
from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.graph.spectral import spectral_vectors
from serendipity.offline.graph.vectors import GraphVectors
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, before

DIM = 64
"""d of the graph's vectors, as in builds."""

Values = Mapping[str, NDArray[np.float64]]
"""What is compared → a value per user, of the same users in the same order."""


@dataclass(frozen=True)
class Later:
    """What came after a cut: held_out, and the graph of the clicks before, made as a build chose to."""

    histories: Histories
    catalogue: Catalogue
    held_out: HeldOut
    choice: Choice
    graph: InterestGraph

    @classmethod
    def of(cls, histories: Histories, catalogue: Catalogue, cut: int, until: int, choice: Choice) -> Later:
        """Hold out the clicks of [cut, until), Unix seconds."""
        held_out = HeldOut.between(histories, catalogue, cut, until)
        return cls(histories, catalogue, held_out, choice, graph_before(histories, catalogue, cut, choice))

    def vectors(self, graph: InterestGraph) -> GraphVectors:
        """Take vectors of the graph, or of one with other interest edges, as a build does."""
        trend = item_trend(self.histories, self.catalogue, self.held_out.cut)
        return with_trend(spectral_vectors(graph, DIM, self.choice.power), trend, self.choice.trend)


def graph_before(histories: Histories, catalogue: Catalogue, moment: int, choice: Choice) -> InterestGraph:
    """Make the graph of the clicks before a moment, with the numbers of interests that a build chose."""
    past = before(histories, moment)
    numbers = HeldConfig(num_clusters=(choice.num_clusters,), most_held=(choice.most_held,))
    return graph_of(past, catalogue, infer_held_interests(past, catalogue, numbers))


def table(title: str, values: Values, against: Sequence[str]) -> list[str]:
    """Write the mean of each, and its difference against some with a 95 % interval, users resampled in pairs."""
    lines = [
        f"| {title} | mean | {' | '.join(f'against {name}' for name in against)} |",
        "|---|---:|" + "---:|" * len(against),
    ]
    for name, ours in values.items():
        cells = [f"{ours.mean():.4f}"]
        for other in against:
            found = bootstrap_difference(ours, values[other], np.random.default_rng(0))
            cells.append("–" if other == name else f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]
