"""The program that tells a user's group: kept clicks and profile → CSID and group id, clusters included."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from serendipity.offline.groups.interest_encoder import InterestEncoder
from serendipity.offline.groups.residual_quantizer import nearest
from serendipity.offline.groups.rq_vae import RqVae


class GroupEncoder(nn.Module):
    """Interest encoder, RQ-VAE and clusters of CSIDs.

    centroids: [G, latent_dim], of the CSIDs' quantised vectors Σ_l e^l; a CSID is of the nearest one's group.
    """

    centroids: Tensor

    def __init__(self, interest: InterestEncoder, rq_vae: RqVae, centroids: Tensor) -> None:
        super().__init__()
        self.interest, self.rq_vae = interest, rq_vae
        self.register_buffer("centroids", centroids)

    @property
    def num_groups(self) -> int:
        """G: groups beside the default one."""
        return len(self.centroids)

    def forward(self, sequence: Tensor, profile: Tensor) -> tuple[Tensor, Tensor]:
        """Tell groups: sequence [B, L] int64, profile [B, P] int32 → CSIDs [B, layers] int32, group ids [B, 1] int32.

        Inputs and outputs of serendipity.groups.model.
        """
        codes, groups = self.groups(self.interest.latest(sequence, profile))
        return codes.int(), groups.unsqueeze(1).int()

    def groups(self, interests: Tensor) -> tuple[Tensor, Tensor]:
        """Tell the groups of interests: [B, d] → codes [B, layers] int64, group ids [B] int64, 1 … G."""
        codes, quantized = self.rq_vae(interests)
        return codes, nearest(quantized, self.centroids) + 1


def cluster_csids(quantized: Tensor, num_groups: int, seed: int) -> Tensor:
    """Cluster CSIDs by their quantised vectors, each weighed by its users: k-means, the best of four starts.

    quantized: [U, latent_dim], a row per user. Returns centroids [G, latent_dim], the largest group first; G is
    num_groups, or the number of distinct CSIDs where there are fewer.
    """
    distinct, users = np.unique(quantized.numpy(), axis=0, return_counts=True)
    clusters = min(num_groups, len(distinct))
    found = KMeans(clusters, n_init=4, random_state=seed).fit(distinct, sample_weight=users)
    sizes = np.bincount(found.labels_, weights=users, minlength=clusters)
    largest_first = np.argsort(-sizes, kind="stable")
    return torch.from_numpy(found.cluster_centers_[largest_first].astype(np.float32))
