"""Examples as tokens: prompts exactly as the server writes them, and what is learned of what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serendipity.interests.prompt import PromptStyle

IGNORED = -100
"""Label of tokens that are read but not learned (PyTorch's cross entropy)."""


@dataclass(frozen=True)
class TokenExample:
    """input_ids: prompt and completion; labels: the same, IGNORED where nothing is learned."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class PreferredTokens:
    """Whole texts, of which the first is preferred to each of the others; at least one other."""

    chosen: list[int]
    rejected: list[list[int]]


def prompt_tokens(tokenizer: Any, prompts: Sequence[str], style: PromptStyle, instructions: str) -> list[list[int]]:
    """Turn user messages into tokens, with instructions and chat template where the style has them."""
    if not prompts:
        return []
    if style == "compact":
        return [list(ids) for ids in tokenizer(list(prompts))["input_ids"]]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "system", "content": instructions}, {"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for prompt in prompts
    ]
    return [list(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
