"""The Novelty LLM: which categories a user of a group, who chose these lately, may want next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.category_trie import CategoryTrie
from serendipity.groups.decoding import CategoryDecoder
from serendipity.groups.prompt import NOVELTY_INSTRUCTIONS, answer
from serendipity.offline.coevolution.category_llm import CategoryLlm
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import Head


@dataclass(frozen=True)
class NoveltyLlm(CategoryLlm):
    """A causal language model that can answer catalogue categories alone."""

    head: ClassVar[Head] = "causal"
    instructions: ClassVar[str] = NOVELTY_INSTRUCTIONS

    @cached_property
    def trie(self) -> CategoryTrie:
        """What it can answer."""
        return CategoryTrie(self.answers, self.base.tokenizer.eos_token_id)

    @cached_property
    def answers(self) -> list[list[int]]:
        """Tokens of every category's answer, without the token that ends it."""
        texts = [answer(category, self.base.style) for category in self.categories]
        return [list(ids) for ids in self.base.tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []

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
