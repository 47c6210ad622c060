"""What InterestGPT is distilled from, into what, and how; every number that was chosen, with what it means."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.interests.user_facts import FactsConfig
from serendipity.offline.tuning.config import TinyLmConfig, TuningConfig

Selection = Literal["teacher", "confirmed", "corrected"]
"""teacher: interests as the teacher proposes them. confirmed: of a longer list of its proposals those that the user
then really entered come first (rejection sampling: Zelikman et al., "STaR", arXiv 2203.14465; Yuan et al., "RFT",
arXiv 2308.01825). corrected: a longer list, each weight times how much more often than the teacher says users entered
the category; the same idea pooled over users, which leaves far less to chance."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DatasetConfig(_Frozen):
    """The SFT data set D = {(prompt, reasoning + interests)}."""

    num_examples: int = Field(30_000, ge=1)
    """Examples wanted, all splits together; fewer where the logs do not hold as many contexts."""
    num_interests: int = Field(10, ge=1, le=16)
    """K: interests of one answer."""
    min_interests: int = Field(1, ge=1)
    """Answers with fewer interests that ground are rejected."""
    selection: Selection = "corrected"
    """Which of the teacher's proposals an answer is made of, and in which order."""
    depth: int = Field(60, ge=1)
    """M: proposals the teacher is asked for where they are confirmed or corrected by what users did."""
    correction_prior: float = Field(50.0, gt=0)
    """Entries' worth of the teacher being right mixed into every category's correction."""
    category_first: bool = True
    """Whether answers name the category before the path to it (`answer.CATEGORY_FIRST`) or after."""
    horizon_days: float = Field(28.0, gt=0)
    """H: what a user enters within so many days confirms a proposal, and is what rank weights are shares of."""
    cut_days: float = Field(7.0, gt=0)
    """Distance of the moments that users are described at."""
    max_cuts: int = Field(16, ge=1)
    """Moments at most, the latest that the logs allow."""
    min_clicks: int = Field(1, ge=1)
    """Users with fewer clicks before a moment are not described at it."""
    validation_share: float = Field(0.05, gt=0, lt=0.5)
    """Share of the users, by hash, that rank weights are measured on and nothing is trained on."""
    test_share: float = Field(0.05, gt=0, lt=0.5)
    """Share of the users, by hash, that base and tuned model are compared on."""
    facts: FactsConfig = FactsConfig(clicked_titles="never", signal_titles=False)
    """Which of a user's signals feed the prompt; near-line prompts follow it. Titles are left out: they triple the
    tokens of a prompt."""
    hints: int = Field(16, ge=0, le=16)
    """Categories the teacher proposes that a prompt lists, best first; near-line prompts list those of the snapshot's
    interests. The model learns to judge them: a debate with the teacher as the other agent. 0: none."""
    search_share: float = Field(0.3, ge=0, le=1)
    """Share of the contexts without searches that are given one, for a category among the teacher's proposals, as if
    typed a minute ago: where logs hold no searches a model would never learn that one leads anywhere."""
    hint_dropout: float = Field(0.1, ge=0, le=1)
    """Share of the prompts without hints, so that users whose interests the snapshot lacks are answered too."""
    prompt_style: PromptStyle | None = None
    """How prompts are written; none: compact for the tiny model, chat for any other base."""
    seed: int = 20_240_601
    """Seed of the draw of examples, and of the order of confirmed interests."""


class SftConfig(TuningConfig):
    """Supervised fine-tuning on completions."""

    hints_first: bool = True
    """Train once on prompts of hints alone before the whole ones, where prompts are compact and hint: a small model
    must learn to copy before anything else, and does so in a fraction of the tokens."""
    only_confirmed: bool = True
    """Where interests were confirmed: learn nothing from those that were not."""
    think: bool = False
    """Write the reasoning between <think> and </think> before the answer, for bases that reason aloud. The answer's
    own fields (seed, demand) are learned in any case."""


class DistillationConfig(_Frozen):
    """InterestGPT: base, data, training and what its Triton model is told."""

    base: str = "tiny"
    """tiny: from scratch. smollm2: SmolLM2-135M-Instruct from its package. Else the path of a `transformers` model."""
    dataset: DatasetConfig = DatasetConfig(num_examples=2_500, max_cuts=3)
    """The data set."""
    tiny: TinyLmConfig = TinyLmConfig()
    """The model that is trained from scratch."""
    sft: SftConfig = SftConfig()
    """The training."""
    rank_weight_users: int = Field(128, ge=1)
    """Validation users that the weight of each rank is measured on."""
    max_batch: int = Field(64, ge=1)
    """Users in one call of the Triton model at most."""
    max_new_tokens: int | None = Field(None, ge=16)
    """Tokens an answer may have; none: a quarter more than the longest answer of the data set."""
    max_prompt_tokens: int | None = Field(None, ge=16)
    """Tokens a prompt may have; none: what the model's positions leave, at most 1,024 (compact) or 2,048 (chat)."""
