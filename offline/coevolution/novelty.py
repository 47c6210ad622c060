"""The Novelty LLM: which categories a shopper of a group, who chose these lately, may want next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.category_trie import CategoryTrie
from serendipity.groups.decoding import CategoryDecoder
from serendipity.groups.prompt import NOVELTY_INSTRUCTIONS, answer
from serendipity.interests.prompt import PromptStyle
from serendipity.offline.coevolution.config import CoevolutionConfig
from serendipity.offline.coevolution.llm_directory import read_llm, save_llm
from serendipity.offline.coevolution.whole_tokens import make_tokenizer
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import BaseModel, open_base
from serendipity.offline.tuning.tokens import prompt_tokens


@dataclass(frozen=True)
class NoveltyLlm:
    """A causal language model that can answer catalogue categories alone. threads: CPU threads it may use."""

    base: BaseModel
    categories: Sequence[str]
    threads: int = 1

    @classmethod
    def open(cls, config: CoevolutionConfig, categories: Sequence[str], profiles: Sequence[str]) -> NoveltyLlm:
        """Open the base that the configuration names, not tuned yet. Raises what `tuning.base_model.open_base` does."""
        base = open_base(
            config.base,
            config.style,
            config.tiny,
            config.seed,
            lambda: make_tokenizer(categories, profiles, config.tiny),
        )
        return cls(base, list(categories), config.threads)

    @classmethod
    def read(cls, directory: Path, style: PromptStyle = "compact", threads: int = 1) -> NoveltyLlm:
        """Read what `save` wrote. Raises BaseModelError."""
        base, categories = read_llm(directory, style, "causal")
        return cls(base, categories, threads)

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and categories."""
        save_llm(self.base, self.categories, directory)

    @cached_property
    def trie(self) -> CategoryTrie:
        """What it can answer."""
        return CategoryTrie(self.answers, self.base.tokenizer.eos_token_id)

    @cached_property
    def answers(self) -> list[list[int]]:
        """Tokens of every category's answer, without the token that ends it."""
        texts = [answer(category, self.base.style) for category in self.categories]
        return [list(ids) for ids in self.base.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []

    def prompt_tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """Turn user messages into the tokens that the model reads."""
        return prompt_tokens(self.base.tokenizer, prompts, self.base.style, NOVELTY_INSTRUCTIONS)

    def rank(
        self, prompts: Sequence[str], count: int, excluded: Sequence[Collection[str]] | None = None
    ) -> list[list[tuple[str, float]]]:
        """List for each prompt the most probable categories with their log-probabilities, best first.

        excluded: for each prompt, categories that must not come out. Log-probabilities are over the whole catalogue,
        whatever is excluded. Equal prompts are read once.
        """
        barred = None
        if excluded is not None:
            barred = [[self._numbers[name] for name in names if name in self._numbers] for names in excluded]
        with limited_threads(self.threads):
            found = self._decoder().best(self.prompt_tokens(prompts), count, barred)
        return [[(self.categories[category], value) for category, value in row] for row in found]

    def log_probabilities(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Compute the log-probability of every category, exactly: [n, C] float32."""
        with limited_threads(self.threads):
            return self._decoder().log_probabilities(self.prompt_tokens(prompts))

    def _decoder(self) -> CategoryDecoder:
        return CategoryDecoder(self.base.model.eval(), self.trie)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.categories)}
