"""Propagation over a graph: LightGCN's mean of layers (He et al. 2020, arXiv 2002.02126, eq. 4 and 6)."""

from __future__ import annotations

import warnings
from typing import Any

import scipy.sparse
import torch
from torch import Tensor


def sparse_tensor(matrix: scipy.sparse.csr_matrix, device: torch.device) -> Tensor:
    """Bring a matrix to a device in the layout that is quickest there: rows compressed, float32."""
    # torch says on first use that this layout is in beta.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype("int64")),
            torch.from_numpy(matrix.indices.astype("int64")),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            check_invariants=False,
        ).to(device)


def mean_of_layers(adjacency: Tensor, embeddings: Tensor, layers: int) -> Tensor:
    """Average what 0 … L steps along the edges bring: X̄ = (I + Â + … + Â^L) X / (L + 1).

    adjacency: Â, [nodes, nodes], sparse and symmetric: the gradient relies on Âᵀ = Â, under which the backward pass is
    the very same sum, applied to the gradient; nothing between the layers is kept. embeddings: X, [nodes, d].
    """
    mean: Tensor = _MeanOfLayers.apply(adjacency, embeddings, layers)  # type: ignore[no-untyped-call]
    return mean


def sum_of_layers(adjacency: Tensor, embeddings: Tensor, layers: int) -> Tensor:
    """Sum what 0 … L steps bring, without gradient."""
    total = embeddings
    for _ in range(layers):
        total = embeddings + adjacency @ total
    return total


class _MeanOfLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, embeddings: Tensor, layers: int) -> Tensor:
        ctx.adjacency, ctx.layers = adjacency, layers
        return sum_of_layers(adjacency, embeddings, layers) / (layers + 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, sum_of_layers(ctx.adjacency, gradient, ctx.layers) / (ctx.layers + 1), None
