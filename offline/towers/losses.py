"""Losses of the dual tower: L = L_BCE + λ · (L_user–item + L_interest) (Dewu, arXiv 2508.04032, stage 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def click_loss(scores: Tensor, weights: Tensor, positive_index: Tensor, positive_weights: Tensor) -> Tensor:
    """Binary cross-entropy on clicks over drawn candidates.

    L = − Σ_p w_p log σ(s_p) − Σ_{r,j} w_rj log(1 − σ(s_rj)), summed. With w_rj = v_rj / π_j for an item drawn with
    probability π_j the second sum estimates that over all items without bias (Horvitz–Thompson; for BCE, what the
    log Q correction is for the sampled softmax), so scores stay log-odds whatever was drawn.

    scores: [R, M]; weights: [R, M], 0 where the pair is a positive, was not drawn, or was clicked before.
    positive_index: [P] into the flattened scores; positive_weights: [P].
    """
    positives = scores.reshape(-1)[positive_index]
    return (weights * F.softplus(scores)).sum() + (positive_weights * F.softplus(-positives)).sum()


def user_item_contrast(user_vectors: Tensor, item_vectors: Tensor, items: Tensor, temperature: float) -> Tensor:
    """Contrast user × interest vectors with items of the same interest, against the other items of the batch.

    L = − 1/N Σ_i log [ exp(sim(h_ui, h_vi⁺)/τ) / Σ_j exp(sim(h_ui, h_vj)/τ) ], sim = cosine, v_i⁺ an item the user
    clicked that is grounded in the interest. The same item met twice in the batch is not its own negative.

    user_vectors, item_vectors: [N, d]; items: [N] item rows. Returns 0 for fewer than two pairs.
    """
    if len(items) < 2:
        return user_vectors.sum() * 0.0
    similarity = F.normalize(user_vectors, dim=1) @ F.normalize(item_vectors, dim=1).T / temperature
    same = (items[:, None] == items[None, :]) & ~torch.eye(len(items), dtype=torch.bool)
    return F.cross_entropy(similarity.masked_fill(same, -torch.inf), torch.arange(len(items)))


def interest_contrast(vectors: Tensor, nodes: Tensor, temperature: float) -> Tensor:
    """Contrast vectors of the same interest with those of other interests.

    L = − 1/|A| Σ_{i∈A} 1/|P_i| Σ_{p∈P_i} log [ exp(sim(h_i, h_p)/τ) / Σ_{j≠i} exp(sim(h_i, h_j)/τ) ], P_i the other
    vectors of the batch with the interest node of i, A those i with P_i not empty (the supervised form of the loss,
    Khosla et al. 2020, since a batch holds several users with one interest).

    vectors: [N, d]; nodes: [N] interest node ids. Returns 0 where no two vectors share a node.
    """
    own = torch.eye(len(nodes), dtype=torch.bool)
    same = (nodes[:, None] == nodes[None, :]) & ~own
    anchors = same.any(dim=1)
    if not bool(anchors.any()):
        return vectors.sum() * 0.0
    unit = F.normalize(vectors, dim=1)
    similarity = (unit @ unit.T / temperature).masked_fill(own, -torch.inf)
    log_share = (similarity - similarity.logsumexp(dim=1, keepdim=True)).masked_fill(~same, 0.0)
    return -(log_share.sum(dim=1)[anchors] / same.sum(dim=1)[anchors]).mean()
