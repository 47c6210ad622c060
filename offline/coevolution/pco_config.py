"""How the two LLMs correct each other from cycle to cycle; every number that was chosen, with what it means."""

from __future__ import annotations

from pydantic import Field

from serendipity.offline.configuration import Configuration
from serendipity.offline.tuning.base_model import TINY
from serendipity.offline.tuning.config import LoraConfig, TuningConfig


class DpoConfig(Configuration):
    """Direct preference optimisation of the Novelty LLM (arXiv 2508.00450, eq. 16 and 17).

    Published for a base of 7 B weights (A.2): LoRA of rank 8 on all linear layers, learning rate 5e-6, batches of 2
    pairs, 16 pairs a step; so is every base tuned but the tiny model, which has settings of its own.
    """

    kl_weight: float = Field(0.3, ge=0)
    """λ: weight of the divergence from the previous cycle's model. Not published; 0: without."""
    lora: LoraConfig = LoraConfig(rank=8, alpha=16.0, dropout=0.0)
    """Adapters of any base but the tiny model, which is tuned whole; they are merged at the end of each cycle."""
    epochs: float = Field(1.0, gt=0)
    """Passes over a cycle's pairs."""
    batch_size: int | None = Field(None, ge=1)
    """Pairs of one forward pass; none: 32 for the tiny model, 2 for any other base."""
    accumulation: int | None = Field(None, ge=1)
    """Forward passes of one optimiser step; none: 1 for the tiny model, 8 for any other base."""
    learning_rate: float | None = Field(None, gt=0)
    """Learning rate, the same over all steps: a cycle has too few to rise and fall. None: 5e-4 for the tiny model, 5e-6
    for any other base."""

    def suited_to(self, base: str) -> DpoConfig:
        """Settle what is left to the base."""
        settled: dict[str, object]
        if base == TINY:
            settled = {"batch_size": 32, "accumulation": 1, "learning_rate": 5e-4}
        else:
            settled = {"batch_size": 2, "accumulation": 8, "learning_rate": 5e-6}
        return self.model_copy(update={name: value for name, value in settled.items() if getattr(self, name) is None})


class PcoConfig(Configuration):
    """Periodic collaborative optimisation (arXiv 2508.00450, section 4.3)."""

    cycles: int = Field(6, ge=0)
    """Cycles of a build; 0: the two LLMs as they were tuned. `serendip coevolve` goes on from there."""
    sample_share: float = Field(0.01, gt=0, le=1)
    """Share of the interaction records, the increment included, that a cycle draws uniformly (eq. 15)."""
    max_records: int = Field(256, ge=1)
    """Records of the draw that are used at most, again drawn uniformly: the paper's 5 batches of 1,024 would be
    5,120."""
    dpo: DpoConfig = DpoConfig()
    """How the Novelty LLM learns from the pairs."""
    relevance: TuningConfig | None = None
    """How the Relevance LLM learns from the clicks of the cycle's records; its seed gives way to each cycle's own.
    None: what suits the base, see `CoevolutionConfig.relevance_update`."""
    common_categories: int = Field(50, ge=0)
    """Most clicked categories for each of which every group gets a list; others near-line fills when asked for."""
