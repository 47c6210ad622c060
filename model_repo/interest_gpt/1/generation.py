"""A causal language model that answers batches of prompts: how likely categories are, or texts, decoded greedily.

Stands alone: needs torch, transformers and the modules beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from category_trie import CategoryTrie  # type: ignore[import-not-found]  # placed beside this file
from decoding import (  # type: ignore[import-not-found]  # placed beside this file
    LEAST_LOG_PROBABILITY,
    CategoryDecoder,
)
from prompts import Answer, Prompts  # type: ignore[import-not-found]  # beside this file
from transformers import AutoModelForCausalLM, GenerationConfig
from weights import check_room, in_memory  # type: ignore[import-not-found]  # beside this file


class Generation:
    """The model, and the trie of its categories."""

    def __init__(self, directory: Path, prompts: Prompts, naming: dict[str, Any], device: torch.device) -> None:
        """Load what `save_pretrained` wrote to `directory`.

        naming: how an answer names its first category: opening, names of all categories as they are written, ending.
        Raises ValueError or OSError naming what is wrong.
        """
        self._tokenizer = prompts.tokenizer
        # bfloat16 is slower than float32 on most CPUs.
        dtype = torch.float32 if device.type == "cpu" else "auto"
        model = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True, dtype=dtype)
        self._model = in_memory(model, device)
        self._device = device
        limits = prompts.limits
        check_room(model, limits.max_prompt_tokens + limits.max_new_tokens, "max_prompt_tokens + max_new_tokens")
        self._ends = _end_tokens(model, self._tokenizer)
        pad = self._tokenizer.pad_token_id
        self._pad = self._ends[0] if pad is None else pad
        # Sampling options that a base model brings along must not reach greedy decoding.
        model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=prompts.limits.max_new_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._pad,
        )
        self._opening, ending = (self._tokens(naming[part]) for part in ("opening", "ending"))
        trie = CategoryTrie([self._tokens(name) for name in naming["names"]], ending[0])
        self._num_categories = len(naming["names"])
        self._decoder: Any = CategoryDecoder(self._model, trie)

    def log_likelihoods(self, prompts: Sequence[list[int]], candidates: Sequence[Sequence[int]]) -> list[list[float]]:
        """Say of each prompt how likely an answer is to begin with each of some categories, among all of them.

        candidates: numbers of categories, per prompt.
        """
        wanted = np.zeros((len(prompts), self._num_categories), np.bool_)
        for row, numbers in enumerate(candidates):
            wanted[row, list(numbers)] = True
        found = self._decoder.log_probabilities([[*prompt, *self._opening] for prompt in prompts], wanted)
        found = np.maximum(found, LEAST_LOG_PROBABILITY)
        return [found[row, list(numbers)].tolist() for row, numbers in enumerate(candidates)]

    @torch.inference_mode()
    def generate(self, prompts: Sequence[list[int]]) -> list[Answer]:
        """Answer prompts as one batch, padded on the left."""
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), self._pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        written = self._model.generate(input_ids=ids.to(self._device), attention_mask=mask.to(self._device))
        rows = written[:, width:].tolist()
        return [self._answer(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _answer(self, written: list[int], prompt: list[int]) -> Answer:
        end = next((at for at, token in enumerate(written) if token in self._ends), len(written))
        text = self._tokenizer.decode(written[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(text, len(prompt), end)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the model's own and the tokenizer's."""
    found = model.generation_config.eos_token_id
    ends = list(found) if isinstance(found, list | tuple) else [found]
    known = dict.fromkeys(token for token in [*ends, tokenizer.eos_token_id] if token is not None)
    if not known:
        raise ValueError("eos_token: found none in tokenizer and generation configuration, expected one")
    return list(known)
