"""A user tower that was trained on nothing: the inputs of a real one, and about its work."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_DAY = 86_400
_HIDDEN = 256
"""As of the towers that are trained."""


class SyntheticTower(nn.Module):
    """The centre of what a user clicks, moved by interests; through two layers of a trained tower's width.

    Categories are looked up instead of items, so that a million items do not make a large model.
    """

    item_categories: Tensor
    centres: Tensor
    projection: Tensor

    def __init__(
        self, item_categories: NDArray[np.int32], centres: NDArray[np.float32], projection: NDArray[np.float32]
    ) -> None:
        """item_categories: [n] numbers; centres: [c, d] of the categories; projection: [D, d], interests to items."""
        super().__init__()
        num_categories, dim = centres.shape
        torch.manual_seed(0)
        self.register_buffer("item_categories", torch.from_numpy(np.r_[0, item_categories].astype(np.int64)))
        self.register_buffer("centres", torch.from_numpy(np.r_[np.zeros((1, dim), np.float32), centres]))
        self.register_buffer("projection", torch.from_numpy(projection))
        self.user_layer = nn.Linear(dim + 2 * (num_categories + 1) + 1, _HIDDEN)
        self.interest_layer = nn.Linear(len(projection), _HIDDEN, bias=False)
        self.output_layer = nn.Linear(_HIDDEN, dim)

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
        """Give [B, 1 + k, d]: row 0 the user alone, row k the user with interest k."""
        weights = (history_items > 0) * (0.2 + torch.exp2(-history_ages.float() / _DAY / 30.0))
        clicked = self.centres[self.item_categories[history_items.long()]]
        user = torch.einsum("bl,bld->bd", weights, clicked) / weights.sum(dim=1, keepdim=True).clamp(min=1.0)
        zeros = torch.zeros((history_items.shape[0], len(self.centres)), dtype=user.dtype)
        long, known = long_categories.long(), (long_categories > 0).float()
        habits = [
            zeros.scatter_add(1, long, torch.log1p(long_counts.float()) * known),
            zeros.scatter_add(1, long, torch.exp2(-long_ages.float() / _DAY / 60.0) * known),
        ]
        hidden = self.user_layer(torch.cat([user, *habits, profile.float().sum(dim=1, keepdim=True)], dim=1))
        nothing = torch.zeros((interests.shape[0], 1, interests.shape[2]))
        rows = torch.cat([nothing, interests.float()], dim=1)
        moved = self.output_layer(nn.functional.gelu(hidden.unsqueeze(1) + self.interest_layer(rows)))
        vectors: Tensor = 4.0 * (user.unsqueeze(1) + rows @ self.projection + 0.1 * moved)
        return vectors
