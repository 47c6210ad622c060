"""What the graph's vectors are made of and how they are learned; every number that was chosen, with what it means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serendipity.offline.configuration import Configuration


class ContrastConfig(Configuration):
    """Cross-domain contrast of views (serendipity.offline.graph.losses)."""

    weight: float = Field(0.0, ge=0)
    """w_cl (published: 0.01); 0 leaves the contrast out. On validation it leads the early epochs, not the
    best ones."""
    temperature: float = Field(0.2, gt=0)
    """τ."""
    noise: float = Field(0.1, ge=0)
    """ε: length of the noise on the collaborative view."""
    sample: int = Field(1024, ge=2)
    """Users and items of a step that are contrasted, each with all the others of them."""


class ReconstructionConfig(Configuration):
    """Reconstruction of masked interests, UIR (serendipity.offline.graph.masking)."""

    weight: float = Field(0.0, ge=0)
    """w_UIR (published: 0.03, which was behind on validation); 0 leaves the reconstruction out."""
    power: float = Field(2.0, gt=0)
    """α of mean[(1 − cos)^α]."""
    schedule: Literal["exponential", "linear"] = "exponential"
    """How the masked share grows."""
    first_share: float = Field(0.05, gt=0, le=1)
    """p₀: masked share of the first epoch."""
    last_share: float = Field(0.75, gt=0, le=1)
    """p_max: masked share from epoch `ramp_epochs` on."""
    ramp_epochs: int = Field(150, ge=1)
    """T."""
    replaced_share: float = Field(0.15, ge=0, le=1)
    """Share of the masked that get another interest's embedding instead of the token."""
    layers: int = Field(2, ge=1)
    """Of the encoder; the decoder has one."""


class TransEConfig(Configuration):
    """Translation between heads and tails of the knowledge, in steps of its own."""

    enabled: bool = False
    """Take such steps."""
    learning_rate: float = Field(2e-3, gt=0)
    """Adam's."""
    l2: float = Field(1e-3, ge=0)
    """Weight of the squared embeddings."""


class TrainerConfig(Configuration):
    """Optimisation (serendipity.offline.graph.trainer)."""

    learning_rate: float = Field(0.02, gt=0)
    """Adam's; with few large steps, where the paper takes many small ones (8e-4, 1,024 clicks)."""
    batch_clicks: int = Field(8192, ge=1)
    """Clicks of a step."""
    max_epochs: int = Field(300, ge=1)
    """Epochs at most."""
    check_every: int = Field(5, ge=1)
    """Epochs from one look at the validation clicks to the next."""
    patience: int = Field(6, ge=1)
    """Looks without a better score after which training ends."""
    threads: int = Field(1, ge=1)
    """Threads of PyTorch and BLAS on CPU."""


class GraphConfig(Configuration):
    """Everything about the graph's vectors."""

    dim: int = Field(64, ge=1)
    """d."""
    layers: int = Field(3, ge=0)
    """L of the encoder; 0 is matrix factorisation."""
    user_embeddings: bool = False
    """Give users embeddings of their own. Without, a user is what the neighbours make, also one met at request time."""
    knowledge_weight: float = Field(0.1, gt=0)
    """Weight of an edge of the knowledge, where a click and a held interest weigh 1. Chosen on validation among 0.1,
    0.3 and 1 (DBbook2014, where triples outnumber clicks)."""
    click_weight: float = Field(1.5, gt=0)
    """w_cf."""
    l2: float = Field(1e-3, ge=0)
    """λ₂: weight of the squared embeddings of a step's users and items. Users with embeddings of
    their own want more (5e-3 on DBbook2014)."""
    contrast: ContrastConfig = ContrastConfig()
    """Contrast of views."""
    reconstruction: ReconstructionConfig = ReconstructionConfig()
    """Reconstruction of masked interests."""
    transe: TransEConfig = TransEConfig()
    """Translation."""
    trainer: TrainerConfig = TrainerConfig()
    """Optimisation."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of everything random."""
