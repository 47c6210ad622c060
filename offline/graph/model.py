"""The model: embeddings of the graph's nodes, and what they become by propagation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from serendipity.offline.graph.config import GraphConfig
from serendipity.offline.graph.interest_graph import InterestGraph, View
from serendipity.offline.graph.masking import Reconstruction
from serendipity.offline.graph.propagation import mean_of_layers, sum_of_layers
from serendipity.offline.graph.vectors import GraphVectors

_SPREAD = 0.1
"""Standard deviation that embeddings start with."""


class GraphModel(nn.Module):
    """Embeddings of users (or none), items, entities and interests, of relations, and UIR's parameters."""

    def __init__(self, graph: InterestGraph, config: GraphConfig) -> None:
        super().__init__()
        self.layers, self.knowledge_weight = config.layers, config.knowledge_weight
        self.num_users, self.num_items = graph.num_users, graph.num_items
        known = graph.num_nodes - graph.num_users
        self.users = (
            nn.Parameter(_SPREAD * torch.randn(graph.num_users, config.dim)) if config.user_embeddings else None
        )
        self.nodes = nn.Parameter(_SPREAD * torch.randn(known, config.dim))
        # The last relation is a click's.
        self.relations = nn.Parameter(_SPREAD * torch.randn(graph.num_relations + 1, config.dim))
        self.reconstruction = Reconstruction(config.dim, config.reconstruction)

    def embeddings(self) -> Tensor:
        """Give layer 0 of all nodes, [nodes, d]; zero for users without embeddings of their own."""
        users = self.users if self.users is not None else self.nodes.new_zeros(self.num_users, self.nodes.shape[1])
        return torch.cat([users, self.nodes])

    def encode(self, adjacency: Tensor) -> Tensor:
        """Give the vectors of all nodes, [nodes, d], over the edges of an adjacency."""
        return mean_of_layers(adjacency, self.embeddings(), self.layers)

    @torch.no_grad()
    def vectors(self, graph: InterestGraph, adjacency: Tensor) -> GraphVectors:
        """Read the vectors off. adjacency: of the whole of `graph`."""
        start = self.embeddings()
        final = (sum_of_layers(adjacency, start, self.layers) / (self.layers + 1)).cpu().numpy()
        degrees = graph.degrees(View.WHOLE, self.knowledge_weight)
        roots = np.sqrt(np.where(degrees > 0, degrees, 1.0)).astype(np.float32)
        earlier = sum_of_layers(adjacency, start, self.layers - 1) if self.layers else torch.zeros_like(start)
        parts = earlier.cpu().numpy() / (roots[:, None] * (self.layers + 1))
        items = slice(self.num_users, self.num_users + self.num_items)
        return GraphVectors(final[items], parts[items], parts[graph.first_interest :], final[: self.num_users])
