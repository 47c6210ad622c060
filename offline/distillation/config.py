"""What InterestGPT is distilled from, into what, and how; every number that was chosen, with what it means."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serendipity.interests.prompt import PromptStyle
from serendipity.offline.interests.user_facts import FactsConfig

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


class TinyLmConfig(_Frozen):
    """A Llama trained from scratch, with a tokenizer of its own."""

    hidden_size: int = Field(64, ge=8)
    """Width d."""
    num_layers: int = Field(2, ge=1)
    """Transformer layers."""
    num_heads: int = Field(4, ge=1)
    """Attention heads; they divide hidden_size."""
    intermediate_size: int = Field(168, ge=8)
    """Width of the feed-forward layers."""
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


class LoraConfig(_Frozen):
    """Low-rank adaptation (Hu et al., arXiv 2106.09685) of all linear layers."""

    rank: int = Field(16, ge=1)
    """r."""
    alpha: float = Field(32.0, gt=0)
    """α: updates are scaled by α / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the way into the adapters."""


class SftConfig(_Frozen):
    """Supervised fine-tuning on completions."""

    method: Literal["full", "lora"] | None = None
    """Tune all weights or adapters; none: full for the tiny model, adapters for any other base."""
    lora: LoraConfig = LoraConfig()
    """Adapters, where they are tuned."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the training examples."""
    hints_first: bool = True
    """Train once on prompts of hints alone before the whole ones, where prompts are compact and hint: a small model
    must learn to copy before anything else, and does so in a fraction of the tokens."""
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
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """ε of label smoothing."""
    max_tokens: int = Field(1_024, ge=64)
    """Prompt and answer together; longer examples are left out and counted."""
    only_confirmed: bool = True
    """Where interests were confirmed: learn nothing from those that were not."""
    think: bool = False
    """Write the reasoning between <think> and </think> before the answer, for bases that reason aloud. The answer's
    own fields (seed, demand) are learned in any case."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time for a fraction of the memory."""
    checkpoint_steps: int = Field(200, ge=1)
    """Optimiser steps between two checkpoints that a killed run resumes from."""
    threads: int = Field(1, ge=1)
    """CPU threads. More help large bases; the tiny model's matrices are too small to share, and where cores are busy
    two threads were slower than one."""
    seed: int = 20_240_601
    """Seed of weights, order and dropout."""


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
