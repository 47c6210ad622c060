"""Logs → the graph that the channel folds users into: held interests, knowledge, vectors.

graph.json            what it is made of and what was chosen on the way, see GraphSummary; written last
vectors.npz           see `served_graph`
interests.json        names of the interests that users hold
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.progress import Progress

from serendipity.layout import write_atomically
from serendipity.offline.configuration import Configuration
from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.held_interests import HeldConfig, infer_held_interests
from serendipity.offline.graph.host_graph import Knowledge, host_graph
from serendipity.offline.graph.interest_graph import GraphError, View
from serendipity.offline.graph.served_graph import ServedGraph
from serendipity.offline.graph.spectral import spectral_vectors
from serendipity.offline.graph.trainer import choose_epochs, fit
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.logs.histories import Histories

SUMMARY = "graph.json"
_CHECKPOINTS = ".checkpoints"


class GraphBuildConfig(Configuration):
    """How a host's graph is made."""

    held: HeldConfig = HeldConfig()
    """Which interests users hold."""
    trained: bool = False
    """Train the vectors (CIKG) instead of taking the graph's leading singular vectors, which take seconds."""
    model: GraphConfig = GraphConfig()
    """The vectors' dimension, and their training."""


@dataclass(frozen=True)
class Choice:
    """What is chosen on held-out clicks, once: the numbers of held interests, and epochs; 0: nothing is trained."""

    num_clusters: int
    most_held: int
    epochs: int


@dataclass(frozen=True)
class GraphSummary:
    """What a graph directory holds.

    nodes, edges: by kind; chosen: on held-out clicks, of this build or of the one it took the choice from; gains: of
    the numbers of held interests that were tried, "κ, most held" → nats a click; score: NDCG@50 on held-out clicks,
    None where the choice was taken over.
    """

    nodes: dict[str, int]
    edges: dict[str, int]
    chosen: Choice
    gains: dict[str, float]
    score: float | None

    @classmethod
    def read(cls, directory: Path) -> GraphSummary:
        """Read graph.json below a directory. Raises GraphError."""
        path = directory / SUMMARY
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**fields, "chosen": Choice(**fields["chosen"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise GraphError(f"{path}: cannot be read ({error}); expected it of the graph's builder") from error


def build_graph(
    logs: Path, out: Path, config: GraphBuildConfig, *, chosen: Choice | None = None, progress: Progress | None = None
) -> GraphSummary:
    """Make the graph of a logs directory and write it to `out`; a killed training is resumed from there.

    chosen: take this choice over instead of holding clicks out. Raises GraphError for logs without clicks, LogsError.
    """
    histories, catalogue = Histories.read(logs), Catalogue.read(logs)
    held_config = config.held
    if chosen:
        numbers = {"num_clusters": (chosen.num_clusters,), "most_held": (chosen.most_held,)}
        held_config = held_config.model_copy(update=numbers)
    held = infer_held_interests(histories, catalogue, held_config)
    knowledge = Knowledge.of(catalogue)
    graph = host_graph(histories, catalogue, knowledge, held.edges, len(held.names))
    epochs, score = 0, None
    if config.trained:
        checkpoints = out / _CHECKPOINTS
        if chosen:
            training = fit(graph, config.model, epochs=chosen.epochs, checkpoints=checkpoints, progress=progress)
        else:
            training = choose_epochs(graph, config.model, checkpoints=checkpoints, progress=progress)
        shutil.rmtree(checkpoints, ignore_errors=True)
        vectors, epochs, score = training.vectors, training.best_epoch, training.best_score
    else:
        vectors = spectral_vectors(graph, config.model.dim, config.model.seed)
    # A node without edges has the vector that its training began with.
    alive = graph.degrees(View.WHOLE)[graph.num_users :, None] > 0
    items, interests = alive[: graph.num_items], alive[graph.num_items + graph.num_entities :]
    ServedGraph(
        item_vectors=np.where(items, vectors.item_vectors, np.float32(0)),
        item_parts=np.where(items, vectors.item_parts, np.float32(0)),
        interest_parts=np.where(interests, vectors.interest_parts, np.float32(0)),
        interests=held.names,
        held=held.held,
    ).write(out)
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
        chosen=Choice(len(held.names), held.most_held, epochs),
        gains={f"{k}, {most}": gain for (k, most), gain in held.gains.items()},
        score=score,
    )
    write_atomically(out / SUMMARY, json.dumps(asdict(summary), indent=2, sort_keys=True).encode())
    return summary
