"""What a host's graph is made with, chosen on the latest of its own clicks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.progress import Progress

from serendipity.offline.configuration import Configuration
from serendipity.offline.evaluate.held_out import HeldOut, Targets
from serendipity.offline.graph.category_interests import CategoryInterests
from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.held_interests import HeldConfig, HeldInterests, infer_held_interests
from serendipity.offline.graph.host_graph import Knowledge, host_graph
from serendipity.offline.graph.interest_graph import InterestGraph
from serendipity.offline.graph.spectral import spectral_vectors
from serendipity.offline.graph.trainer import fit
from serendipity.offline.graph.vectors import GraphVectors
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories, before
from serendipity.offline.logs.item_statistics import ItemClicks

_DEPTHS = (20, 100)
_USERS = 1_000
_TREND_DAYS = 28


class GraphBuildConfig(Configuration):
    """How a host's graph is made."""

    held: HeldConfig = HeldConfig()
    """Which interests users hold."""
    trained: bool = False
    """Train the vectors (CIKG) instead of taking the graph's leading singular vectors, which take seconds."""
    powers: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)] = (0.25, 0.5)
    """p of the singular vectors (serendipity.offline.graph.spectral)."""
    trends: Annotated[tuple[Annotated[float, Field(ge=0, le=4)], ...], Field(min_length=1)] = (0.0, 0.5, 1.0)
    """Powers of an item's trend of 28 days that its vector is multiplied with."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the clicks, the latest, that the above and the epochs of a training are chosen on."""
    model: GraphConfig = GraphConfig()
    """The vectors' dimension, and their training."""


@dataclass(frozen=True)
class Choice:
    """What is chosen once: the numbers of held interests, p, epochs (0: nothing is trained), the power of the trend."""

    num_clusters: int
    most_held: int
    power: float
    epochs: int
    trend: float


@dataclass(frozen=True)
class Chosen:
    """A choice and what it was chosen by.

    gains: "κ, most held" → nats a click; recall: novel recall@20 and @100, by "p, power of the trend" of what was
    tried; empty where nobody clicked anything novel.
    """

    choice: Choice
    gains: dict[str, float]
    recall: dict[str, tuple[float, float]]


def choose(
    histories: Histories,
    catalogue: Catalogue,
    config: GraphBuildConfig,
    progress: Progress | None = None,
    named: CategoryInterests | None = None,
) -> Chosen:
    """Make the graph of the earlier clicks in every way, and take the way that finds most of the later ones.

    named: by config.held's language model, if it has one.

    Held interests are chosen first, by how well they explain clicks (`infer_held_interests`); then the vectors, by the
    geometric mean of novel recall@20 and @100 over at most 1,000 users. Of equal ways the first is taken.
    """
    times = np.sort(histories.times)
    moment, end = int(times[int((1 - config.validation) * len(times))]), int(times[-1]) + 1
    past = before(histories, moment)
    held = infer_held_interests(past, catalogue, config.held, named)
    graph = graph_of(past, catalogue, held)
    judge = _Judge.of(histories, catalogue, moment, end)
    trend = item_trend(past, catalogue, moment)
    epochs, recall, best = 0, {}, (-1.0, config.powers[0], config.trends[0])
    for power in (0.0,) if config.trained else config.powers:
        if config.trained:
            training = fit(graph, config.model, validate=judge.score, progress=progress)
            vectors, epochs = training.vectors, training.best_epoch
        else:
            vectors = spectral_vectors(graph, config.model.dim, power, config.model.seed)
        for exponent in config.trends if len(judge) else ():
            found = judge.recall(with_trend(vectors, trend, exponent))
            recall[f"{power:g}, {exponent:g}"] = found
            best = max(best, (float(np.sqrt(found[0] * found[1])), power, exponent), key=lambda way: way[0])
    return Chosen(
        Choice(len(held.names), held.most_held, best[1], epochs, best[2]),
        {f"{k}, {most}": gain for (k, most), gain in held.gains.items()},
        recall,
    )


def graph_of(histories: Histories, catalogue: Catalogue, held: HeldInterests) -> InterestGraph:
    """Make the graph of a host's clicks, catalogue and held interests."""
    return host_graph(histories, catalogue, Knowledge.of(catalogue), held.edges, len(held.names))


def item_trend(histories: Histories, catalogue: Catalogue, time: int) -> NDArray[np.float32]:
    """How much more every item was clicked in the 28 days before `time` than ever, 1 where nothing is known: [n]."""
    trend: NDArray[np.float32] = np.exp(ItemClicks(histories, len(catalogue)).at(time).log_trend(_TREND_DAYS))
    return trend.astype(np.float32)


def with_trend(vectors: GraphVectors, trend: NDArray[np.float32], exponent: float) -> GraphVectors:
    """Multiply every item's scores by a power of its trend."""
    return replace(vectors, item_vectors=vectors.item_vectors * (trend**exponent)[:, None].astype(np.float32))


@dataclass(frozen=True)
class _Judge:
    """Novel recall of some users in a period. held_out: the period; targets: theirs."""

    held_out: HeldOut
    targets: Targets

    @classmethod
    def of(cls, histories: Histories, catalogue: Catalogue, start: int, end: int) -> _Judge:
        held_out = HeldOut.between(histories, catalogue, start, end)
        some = np.random.default_rng(0).permutation(held_out.novel.users)[:_USERS]
        return cls(held_out, held_out.novel.of_users(some))

    def __len__(self) -> int:
        return len(self.targets)

    def recall(self, vectors: GraphVectors) -> tuple[float, float]:
        items = vectors.item_vectors[self.held_out.candidates].T
        ranked = self.held_out.top_k(
            lambda some: vectors.user_vectors[some] @ items, self.targets.users, max(_DEPTHS), novel=True
        )
        at_20, at_100 = (float(self.targets.recall(ranked, k).mean()) for k in _DEPTHS)
        return at_20, at_100

    def score(self, vectors: GraphVectors) -> float:
        at_20, at_100 = self.recall(vectors) if len(self) else (0.0, 0.0)
        return float(np.sqrt(at_20 * at_100))
