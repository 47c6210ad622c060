"""The residual quantiser: a vector as one code of each of several codebooks, each of what those before left over.

Written here because what a library offers (vector-quantize-pytorch 1.32) cannot be exported with torch.export, begins
its codebooks from the first batch alone, and draws from torch's global random state.
"""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn


class ResidualQuantizer(nn.Module):
    """r₀ = z; k_l = argmin_k ‖r_l − e^l_k‖²; r_{l+1} = r_l − e^l_{k_l} (arXiv 2508.00450, eq. 2).

    Codes are moved to the moving average of the residuals they stand for; codes that hardly stand for any are dead and
    start again at a residual drawn from the batch.

    decay: of these averages; dead_below: fraction of an even share of a batch below which a code is dead.
    """

    codebooks: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(
        self, num_quantizers: int, codebook_size: int, dim: int, *, decay: float = 0.95, dead_below: float = 0.1
    ) -> None:
        super().__init__()
        self.decay, self.dead_below = decay, dead_below
        self.register_buffer("codebooks", torch.zeros(num_quantizers, codebook_size, dim))
        # Moving averages over batches: share of the residuals that are a code's, and their sum over the batch's size.
        self.register_buffer("usage", torch.full((num_quantizers, codebook_size), 1 / codebook_size))
        self.register_buffer("sums", torch.zeros(num_quantizers, codebook_size, dim))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise. vectors: [B, d]. Returns codes [B, L] int64 and their sum Σ_l e^l, [B, d]; no gradient flows."""
        residual, codes = vectors, []
        for codebook in self.codebooks:
            codes.append(nearest(residual, codebook))
            residual = residual - codebook[codes[-1]]
        csids = torch.stack(codes, 1)
        return csids, self.sum_of(csids)

    def sum_of(self, codes: Tensor) -> Tensor:
        """Add up the codes' vectors. codes: [B, L] int64 → [B, d]."""
        layers = torch.arange(codes.shape[1])
        vectors: Tensor = self.codebooks[layers, codes].sum(1)
        return vectors

    @torch.no_grad()
    def start(self, vectors: Tensor, seed: int) -> None:
        """Begin every codebook at the k-means centres of the residuals the ones before leave. vectors: [n, d].

        With fewer distinct residuals than codes, the codes left over begin at zero.
        """
        residual = vectors
        for layer in range(len(self.codebooks)):
            size = min(self.codebooks.shape[1], len(torch.unique(residual, dim=0)))
            found = KMeans(size, n_init=1, max_iter=50, random_state=seed).fit(residual.numpy())
            self.codebooks[layer].zero_()
            self.codebooks[layer, :size] = torch.from_numpy(found.cluster_centers_)
            codes = nearest(residual, self.codebooks[layer])
            self.usage[layer] = torch.bincount(codes, minlength=self.codebooks.shape[1]) / len(residual)
            residual = residual - self.codebooks[layer][codes]
        self.sums.copy_(self.codebooks * self.usage.unsqueeze(2))

    @torch.no_grad()
    def learn(self, vectors: Tensor, generator: torch.Generator) -> int:
        """Move the codebooks towards a batch, [B, d], and revive dead codes. Returns how many were revived."""
        residual, revived = vectors, 0
        for layer, codebook in enumerate(self.codebooks):
            codes = nearest(residual, codebook)
            chosen = nn.functional.one_hot(codes, len(codebook)).to(residual.dtype)
            self.usage[layer].lerp_(chosen.mean(0), 1 - self.decay)
            self.sums[layer].lerp_(chosen.T @ residual / len(residual), 1 - self.decay)
            following = residual - codebook[codes]
            alive = self.usage[layer] > 0
            codebook[alive] = self.sums[layer][alive] / self.usage[layer][alive].unsqueeze(1)
            dead = (self.usage[layer] * len(codebook) < self.dead_below).nonzero().squeeze(1)
            if len(dead):
                drawn = torch.randint(len(residual), (len(dead),), generator=generator)
                codebook[dead] = residual[drawn]
                # As if it had an even share: it has time to prove itself.
                self.usage[layer, dead] = 1 / len(codebook)
                self.sums[layer, dead] = codebook[dead] / len(codebook)
                revived += len(dead)
            residual = following
        return revived


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Find the nearest code of each vector: [B, d], [K, d] → [B] int64; the lowest number among equals."""
    # ‖r − e‖² without ‖r‖², which is the same for all codes.
    return (codebook.square().sum(1) - 2 * vectors @ codebook.T).argmin(1)
