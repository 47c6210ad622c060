"""The Relevance LLM: how well a category suits a shopper of a group, who chose these lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.decoding import TextScorer
from serendipity.groups.prompt import RELEVANCE_INSTRUCTIONS
from serendipity.interests.prompt import PromptStyle
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.llm_directory import read_llm, save_llm
from serendipity.offline.coevolution.whole_tokens import make_tokenizer
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import BaseModel, open_base
from serendipity.offline.tuning.tokens import prompt_tokens


@dataclass(frozen=True)
class RelevanceLlm:
    """A reward model: f of arXiv 2508.00450, eq. 12. threads: CPU threads it may use."""

    base: BaseModel
    categories: Sequence[str]
    threads: int = 1

    @classmethod
    def open(cls, config: CoevolutionConfig, categories: Sequence[str], profiles: Sequence[str]) -> RelevanceLlm:
        """Open the base that the configuration names, with a new head. Raises as `tuning.base_model.open_base`."""
        base = open_base(
            config.base,
            config.style,
            config.tiny,
            config.seed,
            lambda: make_tokenizer(categories, profiles, config.tiny),
            "reward",
        )
        return cls(base, list(categories), config.threads)

    @classmethod
    def read(cls, directory: Path, style: PromptStyle = "compact", threads: int = 1) -> RelevanceLlm:
        """Read what `save` wrote. Raises BaseModelError."""
        base, categories = read_llm(directory, style, "reward")
        return cls(base, categories, threads)

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and categories."""
        save_llm(self.base, self.categories, directory)

    def prompt_tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Turn user messages into the tokens that the model reads."""
        return prompt_tokens(self.base.tokenizer, prompts, self.base.style, RELEVANCE_INSTRUCTIONS)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Compute f for prompts that hold a candidate each: [n] float32, neither scaled nor offset."""
        with limited_threads(self.threads):
            return TextScorer(self.base.model.eval()).score(self.prompt_tokens(prompts))
