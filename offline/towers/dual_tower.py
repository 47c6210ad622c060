"""Both towers, built to one size so that their inner product is the score."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serendipity.features import FeatureAssembler
from serendipity.offline.logs.catalogue import Catalogue
from serendipity.offline.towers.config import TowersConfig
from serendipity.offline.towers.interests import InterestNodes
from serendipity.offline.towers.item_tower import ItemContent, ItemTower
from serendipity.offline.towers.rows import ItemState, Moment
from serendipity.offline.towers.user_tower import UserTower, UserTowerSizes, tensors

_DROPOUT = 0.2
"""Of the user tower's features and both towers' hidden layers."""

_LINK_SHARPNESS = 20.0
"""β: scores deviate by 1, so that this is about max(s, 0)."""

_MIN_RATE = 1e-6


class DualTower(nn.Module):
    """User tower and item tower: score s of (user, interest k, item) = inner product of their vectors.

    The factors' scores are about linear in the probability of a click, so the log-odds that BCE is taken of are
    logarithmic in s (`log_odds`): learning a linear function of log-odds instead pushed every user towards the head.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        assembler: FeatureAssembler,
        content: ItemContent,
        num_statistics: int,
        config: TowersConfig,
    ) -> None:
        """Build with layers drawn from config.seed. num_statistics: F of the item statistics."""
        super().__init__()
        # softplus(0.54) = 1: proportional to begin with.
        self.link_power = nn.Parameter(torch.tensor(0.54))
        self.link_floor = nn.Parameter(torch.tensor(-3.0))
        self.link_offset = nn.Parameter(torch.tensor(-4.0))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.user = UserTower(
                UserTowerSizes(
                    num_items=len(catalogue),
                    num_categories=len(catalogue.categories),
                    profile_sizes=_profile_sizes(assembler),
                    interest_dim=assembler.interest_dim,
                    factor_dim=config.factors.dim,
                    content_dim=config.content_dim,
                    hidden_dim=config.hidden_dim,
                    vector_dim=config.vector_dim,
                ),
                torch.from_numpy(catalogue.item_categories),
                config.factors.blocks,
                dropout=_DROPOUT,
            )
            self.item = ItemTower(
                content,
                num_statistics=num_statistics,
                factors=config.factors,
                content_dim=config.content_dim,
                hidden_dim=config.hidden_dim,
                vector_dim=config.vector_dim,
                dropout=_DROPOUT,
            )

    def start_from(self, rate: float) -> None:
        """Begin with the mean rate of clicks as that of a score of 1, a deviation above the mean."""
        with torch.no_grad():
            self.link_offset.fill_(float(np.log(max(rate, _MIN_RATE))))

    def log_odds(self, scores: Tensor) -> Tensor:
        """Turn scores into log-odds of a click: γ log(softplus(βs) / β + ε) + c γ > 0, ε, c learned; rises with s."""
        smooth = nn.functional.softplus(scores * _LINK_SHARPNESS) / _LINK_SHARPNESS
        floor = torch.exp(self.link_floor)
        return nn.functional.softplus(self.link_power) * torch.log(smooth + floor) + self.link_offset

    @torch.no_grad()
    def item_vectors(self, items: ItemState, batch: int = 8192) -> NDArray[np.float32]:
        """Embed all n items as of a moment: [n, d] float32."""
        self.item.eval()
        statistics, factors = torch.from_numpy(items.statistics), torch.from_numpy(items.factors.own)
        parts = [
            self.item(rows, statistics[rows], factors[rows])
            for rows in torch.split(torch.arange(len(statistics)), batch)
        ]
        vectors: NDArray[np.float32] = torch.cat(parts).numpy()
        return vectors

    @torch.no_grad()
    def user_vectors(
        self, moment: Moment, index: NDArray[np.int64], node_vectors: NDArray[np.float32], batch: int = 256
    ) -> NDArray[np.float32]:
        """Embed some rows of a moment: [len(index), 1 + K, d] float32."""
        self.user.eval()
        self.user.load_factors(torch.from_numpy(moment.items.factors.clicked))
        parts = [
            self.user(*tensors(moment.take(index[start : start + batch], node_vectors)))
            for start in range(0, len(index), batch)
        ]
        vectors: NDArray[np.float32] = torch.cat(parts).numpy()
        return vectors


def item_content(catalogue: Catalogue, nodes: InterestNodes, *, interest: bool) -> ItemContent:
    """Lay out the items' content; interest: with the grounded node's text.

    The node is the most specific that holds the item; items without one have zeros.
    """
    if not interest:
        return ItemContent.from_catalogue(catalogue, np.zeros((len(catalogue), 0), np.float32))
    last = (nodes.item_nodes >= 0).sum(axis=1) - 1
    node = np.where(last >= 0, nodes.item_nodes[np.arange(len(last)), last], -1)
    vectors = nodes.vectors[np.maximum(node, 0)] * np.sqrt(nodes.vectors.shape[1])
    vectors[node < 0] = 0.0
    return ItemContent.from_catalogue(catalogue, vectors.astype(np.float32))


def _profile_sizes(assembler: FeatureAssembler) -> tuple[int, ...]:
    sizes = tuple(len(values) + 1 for values in assembler.profile_fields.values())
    return sizes or (1,) * assembler.profile_width
