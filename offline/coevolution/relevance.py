"""The Relevance LLM: how well a category suits a user of a group, who chose these lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serendipity.groups.decoding import TextScorer
from serendipity.groups.prompt import RELEVANCE_INSTRUCTIONS
from serendipity.offline.coevolution.category_llm import CategoryLlm
from serendipity.offline.towers.threads import limited_threads
from serendipity.offline.tuning.base_model import Head


@dataclass(frozen=True)
class RelevanceLlm(CategoryLlm):
    """A reward model: f of arXiv 2508.00450, eq. 12."""

    head: ClassVar[Head] = "reward"
    instructions: ClassVar[str] = RELEVANCE_INSTRUCTIONS

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Compute f for prompts that hold a candidate each: [n] float32, neither scaled nor offset."""
        with limited_threads(self.threads):
            return TextScorer(self.base.model.eval()).score(self.prompt_tokens(prompts))
