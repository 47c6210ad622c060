"""Supervised fine-tuning of InterestGPT: prompts exactly as the server writes them, answers learned with their end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from serendipity.interests.prompt import INSTRUCTIONS, PromptStyle
from serendipity.offline.distillation.config import SftConfig
from serendipity.offline.distillation.examples import Example
from serendipity.offline.tuning import sft
from serendipity.offline.tuning.base_model import BaseModel
from serendipity.offline.tuning.tokens import IGNORED, TokenExample, prompt_tokens


def tune(
    base: BaseModel,
    examples: Sequence[Example],
    checkpoints: Path,
    config: SftConfig,
    *,
    progress: Progress | None = None,
) -> BaseModel:
    """Tune the base on examples and return it with adapters merged: as serendipity.offline.tuning.sft.tune."""
    tokens = tokenize(examples[: config.max_examples], base.tokenizer, base.style, think=config.think)
    return sft.tune(base, tokens, checkpoints, config, progress=progress)


def tokenize(examples: Sequence[Example], tokenizer: Any, style: PromptStyle, *, think: bool) -> list[TokenExample]:
    """Turn examples into tokens. think: with the reasoning before the answer."""
    prompts = prompt_tokens(tokenizer, [example.prompt for example in examples], style, INSTRUCTIONS)
    tokens = []
    for example, prompt in zip(examples, prompts, strict=True):
        thoughts = f"<think>\n{example.reasoning}\n</think>\n" if think else ""
        written = tokenizer(thoughts + example.answer, add_special_tokens=False)["input_ids"]
        learned = [*written, tokenizer.eos_token_id]
        tokens.append(TokenExample([*prompt, *learned], [*[IGNORED] * len(prompt), *learned]))
    return tokens
