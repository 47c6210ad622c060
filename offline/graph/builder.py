"""Logs → the graph that the channel folds users into: held interests, knowledge, vectors.

graph.json            what it is made of and what was chosen on the way, see GraphSummary; written last
vectors.npz           see `served_graph`
interests.json        names of the interests that users hold
categories.json       interests that a language model named by category, if it was asked
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from serendipity.layout import write_atomically
from serendipity.offline.graph.category_interests import CategoryInterests
from serendipity.offline.graph.choice import (
    Choice,
    Chosen,
    GraphBuildConfig,
    choose,
    graph_of,
    item_trend,
    with_trend,
)
from serendipity.offline.graph.held_interests import infer_held_interests
from serendipity.offline.graph.interest_graph import GraphError, View
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.graph.spectral import spectral_vectors
from serendipity.offline.graph.trainer import fit
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

SUMMARY = "graph.json"


@dataclass(frozen=True)
class GraphSummary:
    """What a graph directory holds.

    nodes, edges: by kind; choice: on held-out clicks, of this build or of the one it was taken over from; gains,
    recall: see serendipity.offline.graph.choice.Chosen, empty where the choice was taken over.
    """

    nodes: dict[str, int]
    edges: dict[str, int]
    choice: Choice
    gains: dict[str, float]
    recall: dict[str, tuple[float, float]]

    @classmethod
    def read(cls, directory: Path) -> GraphSummary:
        """Read graph.json below a directory. Raises GraphError."""
        path = directory / SUMMARY
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**fields, "choice": Choice(**fields["choice"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise GraphError(f"{path}: cannot be read ({error}); expected it of the graph's builder") from error


def build_graph(
    logs: Path,
    out: Path,
    config: GraphBuildConfig,
    *,
    choice: Choice | None = None,
    named: CategoryInterests | None = None,
    progress: Progress | None = None,
) -> GraphSummary:
    """Make the graph of a logs directory and write it to `out`.

    choice: take it over instead of holding clicks out; named: by config.held's language model, if it has one. Raises
    GraphError for logs without clicks, LogsError, LanguageModelError.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    if not len(histories.times):
        raise GraphError(f"{logs}: found no clicks, expected at least one to learn from")
    chosen = Chosen(choice, {}, {}) if choice else choose(histories, catalogue, config, progress, named)
    choice = chosen.choice
    numbers = {"num_clusters": (choice.num_clusters,), "most_held": (choice.most_held,)}
    held = infer_held_interests(histories, catalogue, config.held.model_copy(update=numbers), named)
    graph = graph_of(histories, catalogue, held)
    if config.trained:
        training = fit(graph, config.model, epochs=choice.epochs, progress=progress)
        vectors = training.vectors
    else:
        vectors = spectral_vectors(graph, config.model.dim, choice.power, config.model.seed)
    trend = item_trend(histories, catalogue, int(histories.times.max()) + 1)
    vectors = with_trend(vectors, trend, choice.trend)
    # A node without edges has the vector that its training began with.
    alive = graph.degrees(View.WHOLE)[graph.num_users :, None] > 0
    items, interests = alive[: graph.num_items], alive[graph.num_items + graph.num_entities :]
    ServedGraph(
        item_vectors=np.where(items, vectors.item_vectors, np.float32(0)),
        item_parts=np.where(items, vectors.item_parts, np.float32(0)),
        interest_parts=np.where(interests, vectors.interest_parts, np.float32(0)),
        interests=held.names,
        held=held.held,
        item_interests=held.items,
    ).write(out)
    if named:
        named.write(out)
    summary = GraphSummary(
        nodes={
            "users": graph.num_users,
            "items": graph.num_items,
            "entities": graph.num_entities,
            "interests": graph.num_interests,
        },
        edges={
            "clicks": graph.clicks.shape[1],
            "holds": graph.holds.shape[1],
            "knowledge": graph.knowledge.shape[1],
        },
        choice=choice,
        gains=chosen.gains,
        recall=chosen.recall,
    )
    write_atomically(out / SUMMARY, json.dumps(asdict(summary), indent=2, sort_keys=True).encode())
    return summary
