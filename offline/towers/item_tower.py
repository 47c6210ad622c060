"""The item tower: category path, brand, tags, text, interaction factors and statistics as of a moment → vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.towers.config import FactorsConfig
from serendipity.offline.towers.rows import TREND_COLUMNS

_MAX_TAGS = 8


@dataclass(frozen=True)
class ItemContent:
    """What does not change about n items, as numbers; 0 = none everywhere.

    paths: [n, levels] int64, number of each path prefix; brands: [n] int64; tags: [n, T] int64; texts: [n, D'] float32,
    text embedding of the grounded interest, D' = 0 for none. sizes: largest number + 1 of each.
    """

    paths: NDArray[np.int64]
    brands: NDArray[np.int64]
    tags: NDArray[np.int64]
    texts: NDArray[np.float32]
    path_size: int
    brand_size: int
    tag_size: int

    @classmethod
    def from_catalogue(cls, catalogue: Catalogue, texts: NDArray[np.float32]) -> ItemContent:
        """Number path prefixes, brands and tags in order of first occurrence by row."""
        prefixes = [[path[: depth + 1] for depth in range(len(path))] for path in catalogue.paths]
        paths, path_size = _number(prefixes, max((len(path) for path in catalogue.paths), default=1))
        brands, brand_size = _number([[brand] if brand else [] for brand in catalogue.brands], 1)
        width = min(_MAX_TAGS, max((len(tags) for tags in catalogue.tags), default=1))
        tags, tag_size = _number([list(tags[:width]) for tags in catalogue.tags], width)
        return cls(paths, brands[:, 0], tags, texts, path_size, brand_size, tag_size)


class ItemTower(nn.Module):
    """Content, factors and statistics → item vectors [m, d]; the last dimension is the item's bias."""

    paths: Tensor
    brands: Tensor
    tags: Tensor
    texts: Tensor

    def __init__(
        self,
        content: ItemContent,
        *,
        num_statistics: int,
        factors: FactorsConfig,
        content_dim: int,
        hidden_dim: int,
        vector_dim: int,
        dropout: float,
    ) -> None:
        """Build with random layers; the content is held as buffers, not trained."""
        super().__init__()
        self.register_buffer("paths", torch.from_numpy(content.paths), persistent=False)
        self.register_buffer("brands", torch.from_numpy(content.brands), persistent=False)
        self.register_buffer("tags", torch.from_numpy(content.tags), persistent=False)
        self.register_buffer("texts", torch.from_numpy(content.texts), persistent=False)
        self.path_embedding = _embedding(content.path_size, content_dim)
        self.brand_embedding = _embedding(content.brand_size, content_dim)
        self.tag_embedding = _embedding(content.tag_size, content_dim)
        text_dim = content.texts.shape[1]
        self.text_layer = nn.Linear(text_dim, content_dim) if text_dim else None
        self.hidden_layer = nn.Linear(content_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, vector_dim - 1 - factors.dim)
        self.bias_layer = nn.Linear(num_statistics, 1)
        # Trends and popularity multiply what the factors say; adding them makes every user's list that of the popular.
        self.gate_layer = nn.Linear(num_statistics, 1)
        for layer in (self.output_layer, self.bias_layer, self.gate_layer):
            nn.init.zeros_(layer.bias)
        for layer in (self.bias_layer, self.gate_layer):
            nn.init.zeros_(layer.weight)
        with torch.no_grad():
            self.gate_layer.weight[0, list(TREND_COLUMNS)] = torch.tensor(factors.trend_powers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor, statistics: Tensor, factors: Tensor) -> Tensor:
        """Give [m, d]. rows: [m] item rows; statistics: [m, F]; factors: [m, f], ItemFactors.own; as of one moment."""
        content = (
            self.path_embedding(self.paths[rows]).sum(dim=1)
            + self.brand_embedding(self.brands[rows])
            + self.tag_embedding(self.tags[rows]).sum(dim=1)
        )
        if self.text_layer is not None:
            content = content + self.text_layer(self.texts[rows])
        # Neither factors nor statistics go in here: within an interest, items of one kind then differ by the factors'
        # part, and what is learned of a category cannot turn into what was popular in the training windows.
        hidden = self.dropout(nn.functional.gelu(self.hidden_layer(content)))
        gate = torch.exp(self.gate_layer(statistics).clamp(-_MAX_GATE, _MAX_GATE))
        return torch.cat([gate * factors, self.output_layer(hidden), self.bias_layer(statistics)], dim=1)


_MAX_GATE = 4.0


def _embedding(size: int, dim: int) -> nn.Embedding:
    embedding = nn.Embedding(size, dim, padding_idx=0)
    nn.init.normal_(embedding.weight, std=0.1)
    with torch.no_grad():
        embedding.weight[0] = 0.0
    return embedding


def _number(entries: Sequence[Sequence[object]], width: int) -> tuple[NDArray[np.int64], int]:
    numbers: dict[object, int] = {}
    table = np.zeros((len(entries), max(width, 1)), np.int64)
    for row, entry in enumerate(entries):
        for column, value in enumerate(entry):
            table[row, column] = numbers.setdefault(value, len(numbers) + 1)
    return table, len(numbers) + 1
