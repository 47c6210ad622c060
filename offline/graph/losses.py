"""Losses of CIKG (arXiv 2412.13544): L = L_rec + L_CL + L_UIR, and TransE's in steps of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def ranking_loss(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """BPR: mean of −log σ(s⁺ − s⁻) (Rendle et al. 2009). All [N, d]: vectors of a user, a clicked and another item."""
    return F.softplus(((negatives - positives) * users).sum(dim=1)).mean()


def squared_length(*embeddings: Tensor) -> Tensor:
    """Half the squared embeddings per row, ½ Σ ‖x‖² / N; each [N, d]."""
    return 0.5 * torch.stack([rows.square().sum() for rows in embeddings]).sum() / len(embeddings[0])


def contrast_loss(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """InfoNCE: −1/N Σ_i log [ exp(cos(a_i, b_i)/τ) / Σ_j exp(cos(a_i, b_j)/τ) ].

    one, other: [N, d], two looks at the same N nodes of one kind; j runs over all of them, i included. Gradients reach
    both looks.
    """
    similarity = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / temperature
    return F.cross_entropy(similarity, torch.arange(len(one), device=one.device))


def reconstruction_loss(found: Tensor, target: Tensor, power: float) -> Tensor:
    """Mean of (1 − cos(x̂, x))^α; found, target: [N, d]. The target is detached: it is not drawn to what is found."""
    return (1.0 - F.cosine_similarity(found, target.detach(), dim=1)).clamp_min(0.0).pow(power).mean()


def translation_loss(head: Tensor, relation: Tensor, tail: Tensor, other: Tensor) -> Tensor:
    """TransE as a ranking: mean of −log σ(‖h + r − t′‖² − ‖h + r − t‖²); all [N, d], `other` the wrong tails t′."""
    moved = head + relation
    return F.softplus((moved - tail).square().sum(dim=1) - (moved - other).square().sum(dim=1)).mean()


def with_sign_noise(vectors: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Move every vector by ε in a random direction of its own orthant (SimGCL, Yu et al. 2022, eq. 7)."""
    noise = torch.rand(vectors.shape, generator=generator, device=vectors.device)
    return vectors + vectors.detach().sign() * F.normalize(noise, dim=1) * length
