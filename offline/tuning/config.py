"""How models are made and tuned; every number that was chosen, with what it means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from serendipity.offline.configuration import Configuration


class TinyLmConfig(Configuration):
    """A Llama trained from scratch, with a tokenizer of its own."""

    hidden_size: int = Field(64, ge=8)
    """Width d."""
    num_layers: int = Field(2, ge=1)
    """Transformer layers."""
    num_heads: int = Field(4, ge=1)
    """Attention heads; they divide hidden_size."""
    intermediate_size: int = Field(168, ge=8)
    """Width of the feed-forward layers."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of the weights at first. That of large models; 1/√d lets a small one attend much sooner."""
    merges: int = Field(400, ge=0)
    """Tokens of the byte-level BPE beside the 256 bytes and the whole names."""
    max_positions: int = Field(2_048, ge=256)
    """Tokens of prompt and answer together at most."""

    @model_validator(mode="after")
    def _heads_divide(self) -> TinyLmConfig:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size: found {self.hidden_size}, expected a multiple of 2 × {self.num_heads} heads"
            )
        return self


class LoraConfig(Configuration):
    """Low-rank adaptation (Hu et al., arXiv 2106.09685) of all linear layers."""

    rank: int = Field(16, ge=1)
    """r."""
    alpha: float = Field(32.0, gt=0)
    """α: updates are scaled by α / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the way into the adapters."""


class TuningConfig(Configuration):
    """One training of a language model."""

    method: Literal["full", "lora"] | None = None
    """Tune all weights or adapters; none: full for the tiny model, adapters for any other base."""
    lora: LoraConfig = LoraConfig()
    """Adapters, where they are tuned."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training examples."""
    max_examples: int | None = Field(None, ge=1)
    """Training examples used at most; none: all."""
    batch_size: int = Field(8, ge=1)
    """Examples of one forward pass."""
    accumulation: int = Field(1, ge=1)
    """Forward passes of one optimiser step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Highest learning rate; it rises over the first steps and falls to zero as a cosine."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps that it rises over."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay."""
    max_tokens: int = Field(1_024, ge=64)
    """Prompt and answer together; longer examples are left out and counted."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time for a fraction of the memory."""
    checkpoint_steps: int = Field(200, ge=1)
    """Optimiser steps between two checkpoints that a killed run resumes from."""
    logging_steps: int = Field(10, ge=1)
    """Optimiser steps between two losses that are logged."""
    threads: int = Field(1, ge=1)
    """CPU threads. More help large bases; the tiny model's matrices are too small to share, and where cores are busy
    two threads were slower than one."""
    seed: int = 20_240_601
    """Seed of weights, order and dropout."""
