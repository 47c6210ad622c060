"""The user tower: user features with one interest embedding → two fully connected layers → vector.

Embedding and pooling of the raw ids happen in here, so that what Triton serves is what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from serendipity.features import INPUT_NAMES, TowerInputs
from serendipity.offline.towers.config import FactorBlock

_DAY = 86_400.0
_NUM_SCALARS = 6
_MAX_LOG_ACTIVITY = 3.0


@dataclass(frozen=True)
class UserTowerSizes:
    """Sizes the user tower is built with.

    num_items, num_categories: of the catalogue; profile_sizes: values of each profile column, unknown included;
    interest_dim: D; factor_dim: f; content_dim, hidden_dim, vector_dim: as in TowersConfig.
    """

    num_items: int
    num_categories: int
    profile_sizes: tuple[int, ...]
    interest_dim: int
    factor_dim: int
    content_dim: int
    hidden_dim: int
    vector_dim: int


class UserTower(nn.Module):
    """History, long-term categories and profile, with each interest, → user vectors.

    Arguments of forward are serendipity.features.INPUT_NAMES, in their order; the output is [B, 1 + k, d] float32.
    Row 0 uses the learned null interest. The last of the d dimensions is a constant, against which the item's bias
    stands. Every row is scaled by how active the user is, which makes scores of different users comparable.
    """

    item_factors: Tensor
    item_categories: Tensor
    user_powers: Tensor

    def __init__(
        self, sizes: UserTowerSizes, item_categories: Tensor, blocks: Sequence[FactorBlock], dropout: float
    ) -> None:
        """Build with random layers. item_categories: [n] category numbers; blocks: of the item factors."""
        super().__init__()
        self.sizes = sizes
        powers = [block.user_power for block in blocks for _ in range(block.dim)]
        self.register_buffer("user_powers", torch.tensor(powers), persistent=False)
        padded = torch.cat([torch.zeros(1, dtype=torch.int64), item_categories.long()])
        self.register_buffer("item_categories", padded, persistent=False)
        self.register_buffer("item_factors", torch.zeros(sizes.num_items + 1, sizes.factor_dim), persistent=False)
        self.profile = nn.ModuleList(nn.Embedding(size, sizes.content_dim) for size in sizes.profile_sizes)
        for values in self.profile.parameters():
            nn.init.normal_(values, std=0.1)
        self.pooled_dim = 2 * sizes.factor_dim + 4 * (sizes.num_categories + 1) + _NUM_SCALARS
        self.user_layer = nn.Linear(self.pooled_dim + sizes.content_dim, sizes.hidden_dim)
        # Second half of the first fully connected layer: it acts on the user's features and the interest laid end to
        # end, and is kept in two so that the user's half is computed once for all K interests.
        self.interest_layer = nn.Linear(sizes.interest_dim, sizes.hidden_dim, bias=False)
        self.null_interest = nn.Parameter(torch.zeros(sizes.interest_dim))
        self.output_layer = nn.Linear(sizes.hidden_dim, sizes.vector_dim)
        with torch.no_grad():
            self.output_layer.weight *= 0.1
            nn.init.zeros_(self.output_layer.bias)
        self.recent_share = nn.Parameter(torch.tensor(0.0))
        self.dropout = nn.Dropout(dropout)

    def load_factors(self, factors: Tensor) -> None:
        """Take ItemFactors.clicked of a moment, [n + 1, f] by row + 1."""
        self.item_factors = factors

    def forward(
        self,
        history_items: Tensor,
        history_ages: Tensor,
        long_categories: Tensor,
        long_counts: Tensor,
        long_ages: Tensor,
        profile: Tensor,
        interests: Tensor,
    ) -> Tensor:
        """Give [B, 1 + k, d]: row 0 the user alone (null interest), row k the user with interest k."""
        pooled = self.pool(history_items, history_ages, long_categories, long_counts, long_ages)
        return self.combine(pooled, profile, interests)

    def pool(
        self,
        history_items: Tensor,
        history_ages: Tensor,
        long_categories: Tensor,
        long_counts: Tensor,
        long_ages: Tensor,
    ) -> Tensor:
        """Pool histories: [B, pooled_dim]. Nothing in here is trained, so training pools every row once."""
        # ONNX's GatherND takes 64-bit indices only.
        history_items = history_items.long()
        factors = self.item_factors[history_items]
        days = history_ages.float() / _DAY
        clicked = (history_items > 0).float()
        # A click repeated within the window counts once: the factors are those of a binary matrix.
        repeats = (history_items.unsqueeze(2) == history_items.unsqueeze(1)).sum(dim=2).clamp(min=1)
        once = clicked / repeats
        return torch.cat(
            [
                self._fold_in(factors, once),
                self._fold_in(factors, once * torch.exp2(-days / 30.0)),
                self._categories(history_items, days, clicked, long_categories, long_counts, long_ages),
                _scalars(days, clicked, long_counts),
            ],
            dim=1,
        )

    def combine(self, pooled: Tensor, profile: Tensor, interests: Tensor) -> Tensor:
        """Put pooled histories, profiles and interests through the fully connected layers: [B, 1 + k, d]."""
        user = self.user_layer(torch.cat([self.dropout(pooled), self._profile(profile)], dim=1))
        null = self.null_interest.expand(interests.shape[0], 1, -1)
        # Text embeddings have unit length; the layer expects components of unit size.
        scaled = interests.float() * self.sizes.interest_dim**0.5
        interest = self.interest_layer(torch.cat([null, scaled], dim=1))
        hidden = self.dropout(nn.functional.gelu(user.unsqueeze(1) + interest))
        out = self.output_layer(hidden)
        f = self.sizes.factor_dim
        folded = pooled[:, :f] + self.recent_share * (pooled[:, f : 2 * f] - pooled[:, :f])
        carried = nn.functional.pad(folded, (0, self.sizes.vector_dim - 1 - f)).unsqueeze(1)
        vector = torch.cat([out[..., :-1] + carried, torch.ones_like(out[..., :1])], dim=2)
        activity: Tensor = torch.exp(out[..., -1:].clamp(-_MAX_LOG_ACTIVITY, _MAX_LOG_ACTIVITY))
        return vector * activity

    def _fold_in(self, factors: Tensor, weights: Tensor) -> Tensor:
        """Sum the factors up as the factorisations do: Σ_j w_j q_j n_j^−b / (Σ_j w_j)^a, [B, f].

        factors: [B, L, f]; weights: [B, L], 0 = not clicked.
        """
        total = weights.sum(dim=1, keepdim=True).clamp(min=1.0)
        summed = torch.einsum("bl,blf->bf", weights, factors)
        return summed * torch.exp(-self.user_powers * torch.log(total))

    def _categories(
        self,
        history_items: Tensor,
        days: Tensor,
        clicked: Tensor,
        long_categories: Tensor,
        long_counts: Tensor,
        long_ages: Tensor,
    ) -> Tensor:
        """Spread counts over categories: [B, 4 (categories + 1)]."""
        zeros = torch.zeros(
            (history_items.shape[0], self.sizes.num_categories + 1), dtype=days.dtype, device=days.device
        )
        recent = self.item_categories[history_items]
        long = long_categories.long()
        known = (long > 0).float()
        return torch.cat(
            [
                torch.log1p(zeros.scatter_add(1, recent, clicked)),
                zeros.scatter_add(1, recent, clicked * torch.exp2(-days / 30.0)).clamp(max=5.0),
                zeros.scatter_add(1, long, torch.log1p(long_counts.float()) * known),
                zeros.scatter_add(1, long, torch.exp2(-long_ages.float() / _DAY / 60.0) * known),
            ],
            dim=1,
        )

    def _profile(self, profile: Tensor) -> Tensor:
        embedded = [embedding(profile[:, column]) for column, embedding in enumerate(self.profile)]
        return torch.stack(embedded).sum(dim=0)


def tensors(inputs: TowerInputs) -> tuple[Tensor, ...]:
    """Hand inputs to a user tower as they are served: tensors in the order of INPUT_NAMES."""
    arrays = inputs.arrays()
    return tuple(torch.from_numpy(arrays[name]) for name in INPUT_NAMES)


def _scalars(days: Tensor, clicked: Tensor, long_counts: Tensor) -> Tensor:
    """Sum up how much and how recently a user clicks: [B, _NUM_SCALARS]."""
    number = clicked.sum(dim=1)
    total = long_counts.float().sum(dim=1)
    newest = torch.log1p((days + 1e4 * (1 - clicked)).amin(dim=1))
    oldest = torch.log1p((days * clicked).amax(dim=1))
    rate = torch.log1p((clicked * torch.exp2(-days / 14.0)).sum(dim=1))
    breadth = torch.log1p((long_counts > 0).float().sum(dim=1))
    return torch.stack([torch.log1p(number), torch.log1p(total), newest, oldest, rate, breadth], dim=1) / 4.0
