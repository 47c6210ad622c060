"""A causal language model that ranks a catalogue's categories: prompts in, the most probable categories out.

Stands alone: needs torch, transformers and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from category_trie import CategoryTrie  # type: ignore[import-not-found]  # placed beside this file
from decoding import CategoryDecoder  # type: ignore[import-not-found]  # placed beside this file
from prompts import Prompts  # type: ignore[import-not-found]  # placed beside this file
from transformers import AutoModelForCausalLM
from weights import check_room, in_memory  # type: ignore[import-not-found]  # placed beside this file

Proposals = list[tuple[str, float]]
"""(category, log-probability), most probable first."""


class Ranking:
    """Model and trie of what it can answer."""

    def __init__(
        self, directory: Path, prompts: Prompts, categories: Sequence[str], answers: Sequence[str], device: torch.device
    ) -> None:
        """Load what `save_pretrained` wrote to `directory`. answers: what the model writes for each category.

        Raises ValueError or OSError naming what is wrong.
        """
        if len(answers) != len(categories):
            raise ValueError(f"answers: found {len(answers)}, expected {len(categories)}, one for each category")
        tokenizer = prompts.tokenizer
        if tokenizer.eos_token_id is None:
            raise ValueError("eos_token: found none in the tokenizer, expected the token that ends an answer")
        # bfloat16 is slower than float32 on most CPUs.
        dtype = torch.float32 if device.type == "cpu" else "auto"
        model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=dtype)
        tokens = [list(ids) for ids in tokenizer(list(answers), add_special_tokens=False)["input_ids"]]
        longest = prompts.limits.max_prompt_tokens + max(map(len, tokens))
        check_room(model, longest, "max_prompt_tokens + tokens of the longest category")
        self._categories = list(categories)
        self._numbers = {name: number for number, name in enumerate(categories)}
        self._decoder: Any = CategoryDecoder(in_memory(model, device), CategoryTrie(tokens, tokenizer.eos_token_id))

    def rank(
        self, prompts: Sequence[list[int]], counts: Sequence[int], excluded: Sequence[Collection[str]]
    ) -> list[Proposals]:
        """Rank categories for each prompt. counts: wanted of each, at least 1; excluded: never proposed.

        Names that are no category of the model exclude nothing.
        """
        answers: list[Proposals] = [[] for _ in prompts]
        # How many are wanted decides what the search may leave out: prompts that want as many are searched together.
        for count in sorted(set(counts)):
            rows = [row for row, wanted in enumerate(counts) if wanted == count]
            barred = [[self._numbers[name] for name in excluded[row] if name in self._numbers] for row in rows]
            found = self._decoder.best([prompts[row] for row in rows], count, barred)
            for row, pairs in zip(rows, found, strict=True):
                answers[row] = [(self._categories[number], float(value)) for number, value in pairs]
        return answers
