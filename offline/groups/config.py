"""What groups are made of and how they are learned; every number that was chosen, with what it means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from serendipity.offline.configuration import Configuration
from serendipity.offline.language_models.config import LanguageModelConfig


class SequenceConfig(Configuration):
    """Which clicks the long-term interest is read from (arXiv 2508.00450, eq. 3)."""

    threshold: Annotated[int, Field(ge=1)] = 2
    """A click is kept when the user's clicks so far on what is counted, itself included, reach this."""
    counted: Literal["auto", "item", "category"] = "auto"
    """What clicks are counted on; auto: items if 5 % of all clicks repeat an item of the same user, else categories."""
    min_clicks: Annotated[int, Field(ge=1)] = 5
    """Kept clicks below which a user belongs to the default group."""


class InterestConfig(Configuration):
    """The causal self-attention network and its training on next items (eq. 1, 4 and 5)."""

    dim: Annotated[int, Field(ge=4)] = 64
    """d: of item embeddings and of the long-term interest."""
    num_layers: Annotated[int, Field(ge=1)] = 2
    """Layers of attention."""
    num_heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads of a layer."""
    window: Annotated[int, Field(ge=2)] = 100
    """Clicks a layer attends to: the current one and those right before it. The network therefore reads the latest
    num_layers · window clicks, all 200 that a snapshot holds of a user, and one pass over a history gives the interest
    at every moment of it."""
    min_item_clicks: Annotated[int, Field(ge=1)] = 5
    """Kept clicks an item needs for an embedding of its own; rarer ones are known by their category."""
    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the users; each shows one stretch of num_layers · window kept clicks of every user."""
    min_steps: Annotated[int, Field(ge=0)] = 350
    """Steps below which there are more passes, up to twice as many: where users are few."""
    batch_clicks: Annotated[int, Field(ge=1)] = 1024
    """Positions of a batch, padding included."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-3
    """AdamW's, at its height; it rises over the first tenth of the steps and falls to zero (cosine)."""
    validation_users: Annotated[int, Field(ge=0)] = 1000
    """Users whose last kept click is not learned from but asked for, to tell what the interest is worth."""

    @property
    def sequence_length(self) -> int:
        """Latest kept clicks that can change the interest: what the exported encoder is fed."""
        return self.num_layers * self.window

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> InterestConfig:
        if self.dim % self.num_heads:
            raise ValueError(f"dim: found {self.dim}, expected a multiple of num_heads = {self.num_heads}")
        return self


class QuantizerConfig(Configuration):
    """RQ-VAE: long-term interest → CSID (eq. 2 and 6)."""

    codebook_size: Annotated[int, Field(ge=2)] = 16
    """Codes of a layer."""
    num_quantizers: Annotated[int, Field(ge=1)] = 4
    """Residual quantisation layers."""
    latent_dim: Annotated[int, Field(ge=1)] = 32
    """Width of what is quantised."""
    hidden_dim: Annotated[int, Field(ge=1)] = 128
    """Width of the hidden layer of encoder and decoder."""
    prefixes: Annotated[int, Field(ge=0)] = 2
    """Earlier moments of each user that are quantised beside the latest: groups are assigned as of the past too."""
    epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the interests."""


class ProfileConfig(Configuration):
    """Textual profiles of groups (eq. 7)."""

    language_model: LanguageModelConfig | None = None
    """The Profile LLM; none: profiles are written from what sets groups apart alone."""


class GroupsConfig(Configuration):
    """Everything about groups."""

    sequence: SequenceConfig = SequenceConfig()
    """Which clicks count."""
    interest: InterestConfig = InterestConfig()
    """How the long-term interest is read from them."""
    quantizer: QuantizerConfig = QuantizerConfig()
    """How it becomes a CSID."""
    num_groups: Annotated[int, Field(ge=1)] = 50
    """G: clusters of CSIDs, beside the default group; fewer where there are fewer distinct CSIDs."""
    profile: ProfileConfig = ProfileConfig()
    """How groups are described."""
    seed: int = 0
    """Of everything random."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of PyTorch and BLAS."""
