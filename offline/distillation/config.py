"""What InterestGPT is distilled from, into what, and how; every number that was chosen, with what it means."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.configuration import Configuration
from serendipity.offline.interests.user_facts import FactsConfig
from serendipity.offline.tuning.base_model import style_for
from serendipity.offline.tuning.config import TinyLmConfig, TuningConfig

HORIZONS = 3
"""Logs of so many horizons are needed: one before the moments, one behind them, one to judge by."""


class DatasetConfig(Configuration):
    """The SFT data set D = {(prompt, reasoning + interests)}.

    The teacher proposes a longer list than is answered, and each weight is multiplied with how much more often than the
    teacher says users entered the category: rejection sampling (Zelikman et al., "STaR", arXiv 2203.14465; Yuan et al.,
    "RFT", arXiv 2308.01825) pooled over users, which leaves far less to chance.
    """

    num_examples: int = Field(30_000, ge=1)
    """Examples wanted, all splits together; fewer where the logs do not hold as many contexts."""
    num_interests: int = Field(10, ge=1, le=16)
    """K: interests of one answer."""
    depth: int = Field(60, ge=1)
    """M: proposals the teacher is asked for, which what users did corrects."""
    horizon_days: float = Field(28.0, gt=0)
    """H: what users enter within so many days corrects proposals, and is what the weight is chosen by."""
    max_cuts: int = Field(16, ge=1)
    """Weekly moments that users are described at, at most: the latest that the logs allow."""
    facts: FactsConfig = FactsConfig(clicked_titles="never", signal_titles=False)
    """Which of a user's signals feed the prompt; near-line prompts follow it. Titles are left out: they triple the
    tokens of a prompt."""
    search_share: float = Field(0.3, ge=0, le=1)
    """Share of the contexts without searches that are given one, for a category among the teacher's proposals, as if
    typed a minute ago: where logs hold no searches a model would never learn that one leads anywhere."""
    prompt_style: PromptStyle | None = None
    """How prompts are written; none: compact for the tiny model, chat for any other base."""
    seed: int = 20_240_601
    """Seed of the draw of examples."""


class SftConfig(TuningConfig):
    """Supervised fine-tuning on completions."""

    think: bool = False
    """Write the reasoning between <think> and </think> before the answer, for bases that reason aloud. The answer's
    own fields (seed, demand) are learned in any case."""


class DistillationConfig(Configuration):
    """InterestGPT: base, data, training and how it is asked."""

    base: str = "tiny"
    """tiny: from scratch. Else the path of a `transformers` model."""
    dataset: DatasetConfig = DatasetConfig(num_examples=2_500, max_cuts=3)
    """The data set."""
    tiny: TinyLmConfig = TinyLmConfig()
    """The model that is trained from scratch."""
    sft: SftConfig = SftConfig()
    """The training."""
    ask: Literal["score", "write"] = "score"
    """How it is asked near-line. score: how likely each category is that the taxonomy reasoner proposes. write: to
    write interests, for bases that can; they come in its order, weighed by the reasoner."""
    num_candidates: int = Field(256, ge=1)
    """Categories that it is asked about at most: the reasoner's likeliest."""
    judged_users: int = Field(2_000, ge=1)
    """Held-out users that the weight of its likelihoods is chosen on, and as many that it is judged on, at most."""

    @property
    def style(self) -> PromptStyle:
        """How prompts are written."""
        return style_for(self.base, self.dataset.prompt_style)
