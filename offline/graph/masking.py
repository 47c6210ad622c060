"""Reconstruction of masked interests, UIR: which are hidden, and how well the graph tells what they were."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serendipity.offline.graph.config import ReconstructionConfig
from serendipity.offline.graph.losses import reconstruction_loss
from serendipity.offline.graph.propagation import mean_of_layers


def masked_share(config: ReconstructionConfig, epoch: int) -> float:
    """Give p_t of epoch t, counted from 0: p₀(p_max/p₀)^{t/T} or p₀ + t(p_max − p₀)/T, and p_max from T on."""
    first, last, done = config.first_share, config.last_share, min(epoch / config.ramp_epochs, 1.0)
    return first * (last / first) ** done if config.schedule == "exponential" else first + done * (last - first)


class Reconstruction(nn.Module):
    """Hides interests behind a token, encodes the graph, hides them again, and decodes them from their neighbours."""

    def __init__(self, dim: int, config: ReconstructionConfig) -> None:
        super().__init__()
        self._config = config
        self.token = nn.Parameter(torch.zeros(dim))
        self.to_decoder = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        adjacency: Tensor,
        embeddings: Tensor,
        interests: NDArray[np.int64],
        epoch: int,
        rng: np.random.Generator,
    ) -> Tensor:
        """Give the loss of one draw. adjacency: of the whole graph; embeddings: [nodes, d], layer 0.

        interests: nodes of the interests that somebody holds; of those with no edge nothing could be told, so none is
        ever hidden. The target, the hidden embeddings themselves, is detached; the others' gradients flow.
        """
        count = max(1, round(masked_share(self._config, epoch) * len(interests)))
        drawn = rng.permutation(interests)[:count]
        replaced = round(self._config.replaced_share * count)
        hidden = torch.from_numpy(drawn).to(embeddings.device)
        others = torch.from_numpy(rng.choice(interests, replaced)).to(embeddings.device)
        shown = embeddings.index_copy(0, hidden[replaced:], self.token.expand(count - replaced, -1))
        shown = shown.index_copy(0, hidden[:replaced], embeddings[others])
        code = self.to_decoder(mean_of_layers(adjacency, shown, self._config.layers))
        found = mean_of_layers(adjacency, code.index_fill(0, hidden, 0.0), 1)
        return reconstruction_loss(found[hidden], embeddings[hidden], self._config.power)
