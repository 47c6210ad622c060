"""Examples as tokens: prompts exactly as the server writes them, and what of an answer is learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serendipity.interests.answer import Proposal, write_answer
from serendipity.interests.prompt import INSTRUCTIONS, PromptStyle
from serendipity.offline.distillation.config import SftConfig
from serendipity.offline.distillation.examples import Example
from serendipity.offline.tuning import tokens
from serendipity.offline.tuning.tokens import IGNORED, TokenExample


def prompt_tokens(tokenizer: Any, prompt: str, style: PromptStyle) -> list[int]:
    """Turn a user message into tokens, with instructions and chat template where the style has them."""
    (ids,) = tokens.prompt_tokens(tokenizer, [prompt], style, INSTRUCTIONS)
    return ids


def tokenize(
    examples: Sequence[Example], tokenizer: Any, style: PromptStyle, config: SftConfig
) -> tuple[list[TokenExample], int]:
    """Turn examples into tokens; those of more than max_tokens are left out. Returns them and how many were."""
    made = [_tokenize(example, tokenizer, style, config) for example in examples]
    kept = [example for example in made if len(example.input_ids) <= config.max_tokens]
    return kept, len(made) - len(kept)


def _tokenize(example: Example, tokenizer: Any, style: PromptStyle, config: SftConfig) -> TokenExample:
    prompt = prompt_tokens(tokenizer, example.prompt, style)
    thoughts: list[int] = []
    if config.think:
        thoughts = tokenizer(f"<think>\n{example.reasoning}\n</think>\n", add_special_tokens=False)["input_ids"]
    encoded = tokenizer(example.answer, add_special_tokens=False, return_offsets_mapping=True)
    answer, labels = list(encoded["input_ids"]), list(encoded["input_ids"])
    if config.only_confirmed and 0 < example.num_confirmed < example.num_interests:
        start, end = _unconfirmed(example)
        for place, (first, last) in enumerate(encoded["offset_mapping"]):
            if start <= first and last <= end:
                labels[place] = IGNORED
    return TokenExample(
        [*prompt, *thoughts, *answer, tokenizer.eos_token_id],
        [*[IGNORED] * len(prompt), *thoughts, *labels, tokenizer.eos_token_id],
    )


def _unconfirmed(example: Example) -> tuple[int, int]:
    """Find the characters of the answer between its last confirmed interest and its end."""
    rows = json.loads(example.answer)["interests"]
    fields = list(rows[0])
    closing = len('"}]}')
    confirmed = len(write_answer([Proposal(**row) for row in rows[: example.num_confirmed]], fields)) - closing
    return confirmed, len(example.answer) - closing
