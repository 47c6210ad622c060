"""What groups are made of and how they are learned; every number that was chosen, with what it means."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serendipity.offline.language_models.config import LanguageModelConfig


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SequenceConfig(_Frozen):
    """Which clicks the long-term interest is read from (arXiv 2508.00450, eq. 3)."""

    threshold: Annotated[int, Field(ge=1)] = 2
    """A click is kept when the user's clicks so far on what is counted, itself included, reach this."""
    counted: Literal["auto", "item", "category"] = "auto"
    """What clicks are counted on; auto: items if `repeat_share` of all clicks repeat an item, else categories."""
    repeat_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of clicks on an item the same user clicked before, from which on auto counts items."""
    min_clicks: Annotated[int, Field(ge=1)] = 5
    """Kept clicks below which a user belongs to the default group."""


class InterestConfig(_Frozen):
    """The causal self-attention network and its training on next items (eq. 1, 4 and 5)."""

    dim: Annotated[int, Field(ge=4)] = 64
    """d: of item embeddings and of the long-term interest."""
    num_layers: Annotated[int, Field(ge=1)] = 2
    """Layers of attention."""
    num_heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads of a layer."""
    window: Annotated[int, Field(ge=2)] = 32
    """Clicks a layer attends to: the current one and those right before it. The network therefore reads the latest
    num_layers · window clicks, and one pass over a history gives the interest at every moment of it."""
    min_item_clicks: Annotated[int, Field(ge=1)] = 5
    """Kept clicks an item needs for an embedding of its own; rarer ones are known by their category."""
    epochs: Annotated[int, Field(ge=1)] = 2
    """Passes over the users; each shows one stretch of num_layers · window kept clicks of every user."""
    min_steps: Annotated[int, Field(ge=0)] = 350
    """Steps below which there are more passes, up to twice as many: where users are few."""
    batch_clicks: Annotated[int, Field(ge=1)] = 1024
    """Positions of a batch, padding included."""
    num_negatives: Annotated[int, Field(ge=1)] = 256
    """Items the next one is told from, drawn per batch from the popular; all of them where there are no more."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-3
    """AdamW's, at its height; it rises over the first tenth of the steps and falls to zero (cosine)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW's."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of embeddings and of what each layer adds; two passes do not overfit."""
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


class QuantizerConfig(_Frozen):
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
    batch_size: Annotated[int, Field(ge=1)] = 512
    """Interests of a batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 6e-3
    """AdamW's."""
    commitment_weight: Annotated[float, Field(ge=0)] = 0.25
    """Weight of the commitment loss against the reconstruction loss."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Of the moving averages that codes are moved to."""
    dead_below: Annotated[float, Field(ge=0)] = 0.1
    """A code whose moving share of a batch is below this fraction of an even share is dead, and is moved to a residual
    of the batch."""


class ProfileConfig(_Frozen):
    """Textual profiles of groups (eq. 7)."""

    language_model: LanguageModelConfig | None = None
    """The Profile LLM; none: profiles are written from what sets groups apart alone."""
    representatives: Annotated[int, Field(ge=1)] = 10
    """Users nearest to a group's centroid that its profile is written from."""
    titles: Annotated[int, Field(ge=0)] = 5
    """Titles of each representative user, the latest, that the Profile LLM is shown."""
    names: Annotated[int, Field(ge=1)] = 3
    """Categories of each kind (set apart, often, rarely) that a profile names at most."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 96
    """Tokens of the Profile LLM's sentence at most."""


class GroupsConfig(_Frozen):
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
    max_batch: Annotated[int, Field(ge=1)] = 256
    """Users in one call of the exported encoder at most."""
    seed: int = 0
    """Of everything random."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of PyTorch and BLAS."""
