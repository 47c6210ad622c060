"""What the Novelty and the Relevance LLM are made from, shown and tuned with; every number that was chosen."""

from __future__ import annotations

from pydantic import Field

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.coevolution.pco_config import PcoConfig
from serendipity.offline.configuration import Configuration
from serendipity.offline.tuning.base_model import TINY, style_for
from serendipity.offline.tuning.config import LoraConfig, TinyLmConfig, TuningConfig

PUBLISHED_TUNING = TuningConfig(
    method="lora",
    lora=LoraConfig(rank=8, alpha=16.0, dropout=0.0),
    batch_size=2,
    accumulation=2,
    learning_rate=1e-4,
    weight_decay=0.0,
)
"""Both LLMs' SFT settings of arXiv 2508.00450, A.2 and A.3, for Qwen2.5-7B-Instruct-1M. α is not published."""


class ExamplesConfig(Configuration):
    """Which moments of the histories the two LLMs learn from, and what they are told of them."""

    min_clicks: int = Field(5, ge=0)
    """Clicks before a moment below which it makes no example: at first every category is new."""
    max_novelty: int = Field(10_000, ge=1)
    """First occurrences learned from at most; drawn evenly over users."""
    max_relevance: int = Field(8_000, ge=1)
    """Clicks that the Relevance LLM learns from at most; drawn evenly over users."""
    unclicked: int = Field(16, ge=1)
    """Unclicked categories set against each of them at most: pairs of one moment, read in one pass."""
    unclicked_clicks: int = Field(5, ge=1)
    """Categories of so many next clicks never stand for what was not clicked."""
    group_dropout: float = Field(0.1, ge=0, le=1)
    """Share of the examples told the default group instead of the user's own, so that cold users are answered."""
    recent_dropout: float = Field(0.15, ge=0, le=1)
    """Share of the examples told fewer of the latest categories, 0 to 2 of them, so that the less specific lists are
    answered."""
    validation_share: float = Field(0.1, gt=0, lt=0.5)
    """Share of the users, by hash, that nothing is trained on: curves, the normalisation of scores and the threshold
    are theirs."""
    seed: int = 20_250_811
    """Seed of every draw."""


class CoevolutionConfig(Configuration):
    """The two LLMs: base, examples and trainings."""

    base: str = TINY
    """tiny: from scratch. Else the path of a `transformers` model."""
    prompt_style: PromptStyle | None = None
    """How prompts are written; none: compact for the tiny model, chat for any other base."""
    tiny: TinyLmConfig = TinyLmConfig(initializer_range=0.125, merges=1_500, max_positions=512)
    """The model that is trained from scratch. Its weights begin at 1/√d: far smaller ones learn little more than
    popularity in as few steps."""
    examples: ExamplesConfig = ExamplesConfig()
    """What is learned from."""
    novelty: TuningConfig | None = None
    """The Novelty LLM's SFT; none: what suits the base."""
    relevance: TuningConfig | None = None
    """The Relevance LLM's training; none: what suits the base."""
    num_candidates: int = Field(10, ge=1)
    """Categories the Novelty LLM is asked for."""
    pco: PcoConfig = PcoConfig()
    """How they then correct each other."""
    keep_clicked: float = Field(0.9, gt=0, le=1)
    """Share of the clicked validation categories that the threshold must let pass."""
    threads: int = Field(1, ge=1)
    """CPU threads."""
    seed: int = 20_250_811
    """Seed of weights and of trainings."""

    @property
    def style(self) -> PromptStyle:
        """How prompts are written."""
        return style_for(self.base, self.prompt_style)

    @property
    def novelty_tuning(self) -> TuningConfig:
        """The Novelty LLM's SFT."""
        return self._tuning(self.novelty, epochs=2.0, batch_size=32, learning_rate=2e-3)

    @property
    def relevance_tuning(self) -> TuningConfig:
        """The Relevance LLM's training."""
        return self._tuning(self.relevance, epochs=2.0, batch_size=64, learning_rate=4e-3)

    @property
    def relevance_update(self) -> TuningConfig:
        """The Relevance LLM's training on the records of one cycle, too few to warm up on.

        Other bases learn as they were tuned, the tiny model more slowly.
        """
        if self.pco.relevance is not None:
            return self.pco.relevance
        once = {"epochs": 1.0, "warmup_share": 0.0, "checkpoint_steps": 10_000, "logging_steps": 1}
        if self.base != TINY:
            return PUBLISHED_TUNING.model_copy(update=once)
        return TuningConfig(batch_size=64, learning_rate=3e-4, weight_decay=0.0, **once)

    def _tuning(
        self, wanted: TuningConfig | None, *, epochs: float, batch_size: int, learning_rate: float
    ) -> TuningConfig:
        if wanted is not None:
            return wanted
        update = {"threads": self.threads, "seed": self.seed}
        if self.base != TINY:
            return PUBLISHED_TUNING.model_copy(update=update)
        tiny = TuningConfig(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, max_tokens=self.tiny.max_positions
        )
        return tiny.model_copy(update=update)
