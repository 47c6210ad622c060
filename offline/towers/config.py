"""What the towers are made of and how they are trained; every number that was chosen, with what it means."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from serendipity.offline.configuration import Configuration, UnixSeconds


class FactorBlock(Configuration):
    """One factorisation of the clicks before a moment; several stand side by side."""

    dim: int = Field(ge=1)
    """Factors per item."""
    user_power: float = Field(ge=0, le=1)
    """a: each click of a user with n items weighs n^(−a)."""
    item_power: float = Field(ge=0, le=1)
    """b: each click on an item with n users weighs n^(−b)."""


class FactorsConfig(Configuration):
    """Factorisations (serendipity.offline.towers.factors)."""

    blocks: tuple[FactorBlock, ...] = (
        FactorBlock(dim=32, user_power=0.25, item_power=0.25),
        FactorBlock(dim=16, user_power=0.0, item_power=0.0),
    )
    """Side by side; their scores add up."""
    trend_powers: tuple[float, float] = (0.15, 0.25)
    """Scores start out multiplied with the trends of the last 7 and 28 days, to these powers; learned from there."""

    @property
    def dim(self) -> int:
        """f: factors per item, all blocks."""
        return sum(block.dim for block in self.blocks)


CUT_STEP = 0.05
"""Distance of two cuts, as a share of all clicks."""


class RowsConfig(Configuration):
    """Point-in-time training rows (serendipity.offline.towers.rows)."""

    history_length: int = Field(200, ge=1, le=200)
    """L: latest clicks the user tower is fed."""
    max_interests: int = Field(16, ge=1)
    """K: latent interests it is fed."""
    num_cuts: int = Field(6, ge=1)
    """Moments t₀ that rows are made at, a twentieth of all clicks before `until` apart."""
    label_window: float = Field(0.1, gt=0, lt=1)
    """Clicks of [t₀, t₁) that are labels, as a share of all clicks; also the width of the validation period."""
    min_item_users: int = Field(3, ge=1)
    """Users an item needs before t₀ to take part in training; vectors are made for all items."""


class LossConfig(Configuration):
    """Losses and negatives (serendipity.offline.towers.losses)."""

    num_negatives: int = Field(4096, ge=1)
    """Items drawn per batch, shared by its users."""
    outside_weight: float = Field(0.1, ge=0)
    """Weight, in an interest row, of items the interest is not grounded in: most searches are inside what it is."""
    contrastive_weight: float = Field(0.1, ge=0)
    """λ of L = BCE + λ · contrastive."""


class TrainerConfig(Configuration):
    """Optimisation (serendipity.offline.towers.trainer)."""

    max_epochs: int = Field(3, ge=1)
    """Epochs at most; the learning rate decays to zero over them (cosine)."""
    patience: int = Field(1, ge=1)
    """Epochs without a better validation score before it stops."""
    batch_users: int = Field(256, ge=1)
    """Users per batch; all of one batch are of the same cut."""
    learning_rate: float = Field(3e-3, gt=0)
    """AdamW's, at its height."""
    threads: int = Field(1, ge=1)
    """Threads of PyTorch and BLAS. More help where their cores are idle, and cost much where they are not.
    Sums of another order change last digits."""


class OwnModelConfig(Configuration):
    """A host's own item vectors and user tower (serendipity.offline.towers.own_model)."""

    directory: Path
    """Where item_vectors.parquet and user_tower.onnx lie."""
    trained_until: UnixSeconds
    """Unix seconds or an ISO 8601 time: it has learned from no click at or after it (that in fit/, if there is one)."""


class TowersConfig(Configuration):
    """Everything about the towers."""

    vector_dim: int = Field(80, ge=8)
    """d: of user and item vectors: the factors, learned dimensions, and the one of the item's bias."""
    hidden_dim: int = Field(256, ge=1)
    """Width of the first fully connected layer."""
    content_dim: int = Field(32, ge=1)
    """Width of the embeddings of category path, brand and tags."""
    item_interest: bool = True
    """Feed the item tower the text embedding of the interest node the item is grounded in."""
    seed: int = 0
    """Of everything random."""
    factors: FactorsConfig = FactorsConfig()
    """What both towers start from."""
    own: OwnModelConfig | None = None
    """A model of the host's own in the towers' place; none: towers are trained."""
    rows: RowsConfig = RowsConfig()
    """What is trained on."""
    loss: LossConfig = LossConfig()
    """What is optimised."""
    trainer: TrainerConfig = TrainerConfig()
    """How it is optimised."""

    @model_validator(mode="after")
    def _check_width(self) -> TowersConfig:
        if self.vector_dim < self.factors.dim + 2:
            raise ValueError(
                f"vector_dim: found {self.vector_dim}, expected at least {self.factors.dim + 2}: "
                f"{self.factors.dim} factors, something learned, and the bias"
            )
        return self
